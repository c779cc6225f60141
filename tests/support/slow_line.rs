//! [`SlowLine`]: a line to a registry that carries few bytes a second, and breaks now and then.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How many pieces a second's bytes travel in.
const PIECES: u32 = 20;

/// A running line; breaks for good when dropped.
pub struct SlowLine {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl SlowLine {
    /// To `upstream`, `127.0.0.1:<port>`: so many bytes a second in each direction of a connection, which breaks after
    /// `breaks_after` bytes from the registry.
    pub async fn start(upstream: &str, per_second: usize, breaks_after: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = upstream.to_owned();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = upstream.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(&upstream).await else { return };
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::select! {
                        () = carry(from_client, to_server, per_second, usize::MAX) => {}
                        () = carry(from_server, to_client, per_second, breaks_after) => {}
                    }
                });
            }
        });
        SlowLine { address, task }
    }

    /// `127.0.0.1:<port>`
    pub fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for SlowLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, per_second: usize, mut left: usize) {
    let mut buffer = vec![0; per_second / PIECES as usize];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let read = read.min(left);
        left -= read;
        if to.write_all(&buffer[..read]).await.is_err() || left == 0 {
            return;
        }
        // Small ones, such as the heads of requests, are no burden.
        if read == buffer.len() {
            tokio::time::sleep(Duration::from_secs(1) / PIECES).await;
        }
    }
}
