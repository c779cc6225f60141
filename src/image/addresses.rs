//! [`Addresses`]: the `urls` of everything that is carried, and what is to be had there. Clients such as containerd and podman ask
//! these before they ask a registry.

use std::collections::{BTreeMap, BTreeSet};

use super::{Address, Image, Part};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Manifest};

/// The most addresses that are looked at, in one store or bundle. A Windows image has two.
pub const ADDRESSES_MAX: usize = 100_000;

/// The most bytes that all of them may have together: real ones have some 80 each.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// How many contents of one address are kept: from the second on nothing is answered there, and more say nothing new.
const CONTENTS_MAX: usize = 2;

/// The most `urls` that no server can answer for of which the texts are kept, and how much of each.
const UNUSABLE_MAX: usize = 1_000;
const UNUSABLE_SHOWN_MAX: usize = 200;

/// The addresses of what is carried.
#[derive(Default)]
pub struct Addresses {
    found: BTreeMap<Address, Vec<Content>>,
    /// How many bytes the addresses have.
    bytes: usize,
    unusable: BTreeMap<String, &'static str>,
    unreadable: Vec<Error>,
    /// How many more there were than are kept.
    beyond: u64,
}

/// What is to be had at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Which bytes.
    pub digest: Digest,
    /// How many.
    pub size: u64,
    /// Whether they are carried along.
    pub carried: bool,
    /// The repositories, with their source hosts, that have it.
    pub repositories: BTreeSet<String>,
}

impl Addresses {
    /// Takes in the addresses of everything that the kept manifests of `image` consist of. `read` gives the manifests, `carried`
    /// says what is there. A manifest that cannot be read is told by [`Addresses::unreadable`].
    pub fn add_image(
        &mut self,
        image: &Image,
        read: impl Fn(&Descriptor) -> Result<Manifest>,
        carried: impl Fn(&Descriptor) -> bool,
    ) {
        for (descriptor, _) in image.manifests().into_iter().filter(|(_, part)| *part != Part::Stub) {
            match read(descriptor) {
                Ok(manifest) => self.add_manifest(&image.repository, &manifest, &carried),
                Err(error) => self.unreadable.push(error.while_(format!("look for urls in {}", image.repository))),
            }
        }
    }

    /// Takes in the addresses of everything that `manifest`, which is in `repository`, consists of.
    pub fn add_manifest(&mut self, repository: &str, manifest: &Manifest, carried: impl Fn(&Descriptor) -> bool) {
        for content in manifest.successors().filter(|content| !content.urls.is_empty()) {
            let is_carried = carried(content);
            for url in &content.urls {
                self.add(repository, url, content, is_carried);
            }
        }
    }

    /// Says that a manifest could not be read.
    pub fn add_unreadable(&mut self, error: Error) {
        self.unreadable.push(error);
    }

    fn add(&mut self, repository: &str, url: &str, content: &Descriptor, carried: bool) {
        let address = match Address::parse(url) {
            Ok(address) => address,
            Err(why) => return self.add_unusable(url, why),
        };
        let repositories = BTreeSet::from([repository.to_owned()]);
        self.take(address, Content { digest: content.digest, size: content.size, carried, repositories });
    }

    fn add_unusable(&mut self, url: &str, why: &'static str) {
        let shown: String = url.chars().take(UNUSABLE_SHOWN_MAX).collect();
        match self.unusable.len() < UNUSABLE_MAX || self.unusable.contains_key(&shown) {
            true => _ = self.unusable.insert(shown, why),
            false => self.beyond += 1,
        }
    }

    fn take(&mut self, address: Address, content: Content) {
        if !self.found.contains_key(&address) {
            let length = address.host().len() + address.target().len();
            if self.found.len() >= ADDRESSES_MAX || self.bytes + length > BYTES_MAX {
                self.beyond += 1;
                return;
            }
            self.bytes += length;
        }
        let there = self.found.entry(address).or_default();
        let has_room = there.len() < CONTENTS_MAX;
        match there.iter_mut().find(|known| known.digest == content.digest) {
            Some(known) => {
                known.carried |= content.carried;
                known.repositories.extend(content.repositories);
            }
            None if has_room => there.push(content),
            None => {}
        }
    }

    /// Takes in those of `other` too.
    pub fn merge(&mut self, other: Addresses) {
        for (address, contents) in other.found {
            contents.into_iter().for_each(|content| self.take(address.clone(), content));
        }
        other.unusable.iter().for_each(|(url, why)| self.add_unusable(url, why));
        self.unreadable.extend(other.unreadable);
        self.beyond += other.beyond;
    }

    /// Each address with what manifests say is to be had there. Usually that is one thing. Where a vendor put other bytes at an
    /// old address, it is several, of which two are kept, and no server can know which of them a client means.
    pub fn iter(&self) -> impl Iterator<Item = (&Address, &[Content])> {
        self.found.iter().map(|(address, contents)| (address, contents.as_slice()))
    }

    /// The `urls` that no server can answer for, and why.
    pub fn unusable(&self) -> &BTreeMap<String, &'static str> {
        &self.unusable
    }

    /// The manifests that could not be read.
    pub fn unreadable(&self) -> &[Error] {
        &self.unreadable
    }

    /// How many `urls` were passed over, because there were more than anybody needs.
    pub fn beyond(&self) -> u64 {
        self.beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::MediaType;

    fn manifest(layers: &[(&str, &[u8])]) -> Manifest {
        let layer = |(url, bytes): &(&str, &[u8])| {
            let mut layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, bytes);
            layer.urls = vec![(*url).to_owned()];
            layer
        };
        let config = Descriptor::of(MediaType::OCI_CONFIG, b"{}");
        let layers: Vec<Descriptor> = layers.iter().map(layer).collect();
        let document = serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST,
            "config": config, "layers": layers});
        Manifest::parse(&MediaType::OCI_MANIFEST, document.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn every_layer_is_at_its_address_once() {
        let mut addresses = Addresses::default();
        let (here, gone) = (("https://a.example/here", &b"here"[..]), ("https://a.example/gone", &b"gone"[..]));
        let carried = |layer: &Descriptor| layer.digest == Digest::of(b"here");
        addresses.add_manifest("x/one", &manifest(&[here, gone]), carried);
        let mut others = Addresses::default();
        others.add_manifest("x/two", &manifest(&[here, ("ftp://a.example/x", b"x")]), carried);
        addresses.merge(others);
        let rows = addresses.iter().map(|(address, contents)| {
            let [Content { size, carried, repositories, .. }] = contents else { panic!("{contents:?}") };
            format!("{address} {size} {carried} {}", repositories.len())
        });
        let expected = ["https://a.example/gone 4 false 1", "https://a.example/here 4 true 2"];
        assert_eq!(rows.collect::<Vec<_>>(), expected);
        assert_eq!(addresses.unusable().keys().collect::<Vec<_>>(), ["ftp://a.example/x"]);
    }

    #[test]
    fn one_address_for_two_layers_is_told() {
        let mut addresses = Addresses::default();
        let url = "https://a.example/current";
        addresses.add_manifest("x/old", &manifest(&[(url, b"old")]), |_| true);
        addresses.add_manifest("x/new", &manifest(&[(url, b"new")]), |_| true);
        let (_, contents) = addresses.iter().next().unwrap();
        assert_eq!(contents.len(), 2);
    }

    /// A manifest may have ten thousand layers at one address: each is compared with those that are kept.
    #[test]
    fn one_address_for_very_many_layers_costs_no_more_than_for_two() {
        let mut addresses = Addresses::default();
        for at in 0..1000 {
            let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, &u32::to_be_bytes(at));
            addresses.add("x/y", "https://a.example/current", &layer, true);
        }
        let kept: Vec<usize> = addresses.iter().map(|(_, contents)| contents.len()).collect();
        assert_eq!((kept, addresses.beyond()), (vec![CONTENTS_MAX], 0));
    }

    #[test]
    fn more_addresses_than_anybody_needs_are_counted_and_not_kept() {
        let mut addresses = Addresses::default();
        let urls: Vec<String> = (0..9_000).map(|at| format!("https://a.example/{at}")).collect();
        let mut layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, b"x");
        layer.urls = urls;
        for repository in 0..12 {
            layer.urls.iter_mut().for_each(|url| *url = format!("{url}{repository}x"));
            layer.urls.clone().iter().for_each(|url| addresses.add("x/y", url, &layer, true));
        }
        assert_eq!(addresses.iter().count(), ADDRESSES_MAX);
        assert_eq!(addresses.beyond(), 8_000);
        for repository in 0..20 {
            let long = format!("https://b.example/{}", "x".repeat(4000));
            layer.urls = (0..1000).map(|at| format!("{long}{repository}-{at}")).collect();
            layer.urls.clone().iter().for_each(|url| addresses.add("x/y", url, &layer, true));
            addresses.add("x/y", &format!("ftp://{repository}{}", "y".repeat(1 << 20)), &layer, true);
        }
        assert_eq!(addresses.beyond(), 28_000);
        let mut long = Addresses::default();
        (0..9000).for_each(|at| long.add("x/y", &format!("https://a.example/{}{at}", "x".repeat(4000)), &layer, true));
        assert!(long.bytes <= BYTES_MAX && long.beyond() > 0);
        assert!(addresses.unusable().keys().all(|url| url.len() <= UNUSABLE_SHOWN_MAX));
    }
}
