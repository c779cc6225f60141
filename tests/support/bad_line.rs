//! [`BadLine`]: uploads whose connections are cut.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sealift::Side;
use sealift::content::Body;
use sealift::oci::{Descriptor, MediaType, Repository};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::journey::quick_client;

/// A line on which every connection is cut that has carried so many bytes towards the registry.
pub struct BadLine {
    host: String,
    /// Bytes that got through, by connection.
    carried: Arc<Mutex<Vec<u64>>>,
}

impl BadLine {
    /// Where blobs are pushed to.
    pub const REPOSITORY: &str = "app";

    /// One that leads to `registry`.
    pub async fn before(registry: &str, cuts_at: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let carried: Arc<Mutex<Vec<u64>>> = Arc::default();
        let (registry, log) = (registry.to_owned(), Arc::clone(&carried));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&registry).await.unwrap();
                tokio::spawn(carry(client, server, cuts_at, Arc::clone(&log)));
            }
        });
        BadLine { host, carried }
    }

    /// Pushes `content` as a blob of [`BadLine::REPOSITORY`] over it.
    pub async fn push(&self, content: &Bytes) -> sealift::Result<()> {
        let repository: Repository = format!("{}/{}", self.host, Self::REPOSITORY).parse().unwrap();
        let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, content);
        let open = |offset: u64| async move { Ok(Body::full(content.slice(offset as usize..))) };
        quick_client(Side::Target).repository(&repository).push_blob(&layer, open).await
    }

    /// All bytes that got through.
    pub fn carried(&self) -> u64 {
        self.carried.lock().unwrap().iter().sum()
    }
}

async fn carry(client: TcpStream, server: TcpStream, cuts_at: u64, log: Arc<Mutex<Vec<u64>>>) {
    let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
    let answering = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
    let (mut carried, mut buffer) = (0, vec![0; 16 * 1024]);
    while carried < cuts_at {
        let room = buffer.len().min((cuts_at - carried) as usize);
        match from.read(&mut buffer[..room]).await {
            Ok(read) if read > 0 && to.write_all(&buffer[..read]).await.is_ok() => carried += read as u64,
            _ => break,
        }
    }
    log.lock().unwrap().push(carried);
    // What arrived is to be read before the connection is gone.
    tokio::time::sleep(Duration::from_millis(50)).await;
    answering.abort();
}

/// Bytes in which no two places look alike.
pub fn patterned(length: u32) -> Bytes {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<u8>>().into()
}
