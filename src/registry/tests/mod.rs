//! The client against a registry that misbehaves in one way at a time.

mod auth;
mod blobs;
mod down;
mod elsewhere;
mod limits;
mod lists;
mod logins;
mod manifests;
mod mirrors;
mod network;
mod server;
mod uploads;

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{Client, Credentials, Remote, Retry};
use crate::config::Config;
use crate::content::Body;
use crate::error::{Result, Side};
use server::Server;

/// A client that does not wait between attempts.
fn client(config: &Config, credentials: Credentials) -> Client {
    Client::new(config, credentials, Side::Source).unwrap().with_retry(Retry::default().with_base(Duration::ZERO))
}

/// The repository `team/app` on `server`, for nobody in particular.
fn remote(server: &Server) -> Remote {
    remote_as(server, Credentials::anonymous())
}

fn remote_as(server: &Server, credentials: Credentials) -> Remote {
    client(&Config::default(), credentials).repository(&server.repository("team/app"))
}

async fn read(mut body: Body) -> Result<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.next().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole.freeze())
}

/// Bytes in which no two places look alike.
fn bytes(length: usize) -> Bytes {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect::<Vec<u8>>().into()
}

/// The stages run in tasks, so everything must be able to move between threads.
#[tokio::test]
async fn futures_are_send() {
    fn send<T: Send>(future: T) {
        drop(future);
    }
    let server = Server::start(|_| server::reply(500, &[], "")).await;
    let (remote, digest) = (remote(&server), crate::oci::Digest::of(b""));
    let name = crate::oci::Name::Digest(digest);
    let descriptor = crate::oci::Descriptor::of(crate::oci::MediaType::OCI_EMPTY, b"");
    send(remote.head_manifest(&name));
    send(remote.get_manifest(&name, Some(&descriptor)));
    send(remote.put_manifest(&name, &descriptor.media_type, Bytes::new()));
    send(remote.delete_manifest(&name));
    send(remote.tags());
    send(remote.referrers(&digest));
    send(remote.supports_referrers());
    send(remote.blob_exists(&digest));
    send(remote.open_blob(&descriptor, 0));
    send(remote.mount(&digest, remote.repository()));
    send(remote.push_blob(&descriptor, |_| async { Ok(Body::full("")) }));
}
