//! [`Pull`]: registries as a [`Source`].

use super::Client;
use crate::content::{Body, Source, Work};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, LayerUrl, Name, Repository, UrlHost};

/// Where content comes from, when it comes from registries: the repositories that a piece of work names, in
/// their order.
#[derive(Clone)]
pub struct Pull {
    client: Client,
}

impl Pull {
    /// A source of everything that `client` can reach.
    pub fn new(client: Client) -> Self {
        Pull { client }
    }

    async fn open_in(&self, repository: &Repository, work: &Work, offset: u64) -> Result<Option<Body>> {
        let remote = self.client.repository(repository);
        let descriptor = &work.descriptor;
        // A manifest may travel as a blob (the bytes of a left-out child); its source has it as a manifest.
        if descriptor.media_type.is_manifest() {
            let name = Name::Digest(descriptor.digest);
            if let Some((_, bytes)) = remote.get_manifest(&name, Some(descriptor)).await? {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                return Ok(Some(Body::full(bytes.slice(from..))));
            }
        }
        remote.try_open_blob(descriptor, offset).await
    }

    async fn open_at(&self, address: &LayerUrl, work: &Work, offset: u64) -> Result<Body> {
        let Descriptor { digest, .. } = &work.descriptor;
        self.client.open_elsewhere(address, &work.descriptor, offset).await?.ok_or_else(|| {
            let host = UrlHost::of(&address.url).map_or_else(|| "(no host)".to_owned(), |host| host.to_string());
            Error::failed("404: it is not there")
                .while_(format_args!("fetch layer {digest} from {host}"))
                .on(self.client.side())
                .help("its vendor has moved or removed it: ask there, or set `policy: skip` for this image")
        })
    }
}

impl Source for Pull {
    /// Opens it at the address that the work names, or else in the first repository that has it. An error of one is told only when no other has it.
    async fn open(&self, work: &Work, offset: u64) -> Result<Body> {
        if let Some(address) = &work.address {
            return self.open_at(address, work, offset).await;
        }
        let mut first_error = None;
        for repository in &work.from {
            match self.open_in(repository, work, offset).await {
                Ok(Some(body)) => return Ok(body),
                Ok(None) => tracing::debug!(%repository, digest = %work.descriptor.digest, "it is not there"),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| {
            let places: Vec<String> = work.from.iter().map(Repository::to_string).collect();
            let what = format!("{} is in none of its repositories ({})", work.descriptor.digest, places.join(", "));
            Error::failed(what)
                .on(self.client.side())
                .help("the source has removed it or never had all of the image: plan again, or report it to the image's publisher")
        }))
    }
}
