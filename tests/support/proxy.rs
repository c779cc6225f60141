//! [`Proxy`]: stands before a registry, counts what comes from it, remembers what was asked, and can hold blobs back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A request, as its head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
}

impl Asked {
    fn of(head: &str) -> Self {
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("range").then(|| value.trim().to_owned())
        };
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Asked { method, path, range: lines.find_map(header) }
    }

    fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
}

/// A running proxy for requests without bodies; stops when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: String,
    asked: Mutex<Vec<Asked>>,
    /// Bytes that came from the registry, heads included.
    passed: AtomicU64,
    /// Bytes of answers about blobs.
    of_blobs: AtomicU64,
    /// After how many of them the next one waits.
    limit: watch::Sender<u64>,
}

impl Proxy {
    /// Stands before `upstream`, `127.0.0.1:<port>`, and holds nothing back.
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            asked: Mutex::default(),
            passed: AtomicU64::new(0),
            of_blobs: AtomicU64::new(0),
            limit: watch::Sender::new(u64::MAX),
        });
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Proxy { address, shared, task }
    }

    /// `127.0.0.1:<port>`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Holds answers about blobs back once `bytes` more of them have passed.
    pub fn hold_after(&self, bytes: u64) {
        self.shared.limit.send_replace(self.shared.of_blobs.load(Ordering::SeqCst) + bytes);
    }

    /// Holds nothing back any more.
    pub fn release(&self) {
        self.shared.limit.send_replace(u64::MAX);
    }

    /// Waits until something is held back.
    pub async fn holding(&self) {
        while self.shared.of_blobs.load(Ordering::SeqCst) < *self.shared.limit.borrow() || self.blobs_asked() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    fn blobs_asked(&self) -> usize {
        self.asked().iter().filter(|asked| asked.is_blob()).count()
    }

    /// Bytes that came from the registry.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }

    /// What was asked, in the order in which it was.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        self.shared.asked.lock().unwrap().clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(&shared.upstream).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let about_blob = watch::Sender::new(false);
            // The first side that closes ends both: a killed client must not leave a request behind.
            tokio::select! {
                () = up(from_client, to_server, &shared, &about_blob) => {}
                () = down(from_server, to_client, &shared, &about_blob) => {}
            }
        });
    }
}

async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, about_blob: &watch::Sender<bool>) {
    let (mut buffer, mut head) = (vec![0; 16 * 1024], Vec::new());
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        head.extend_from_slice(&buffer[..read]);
        while let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            let asked = Asked::of(&String::from_utf8_lossy(&head[..end]));
            head.drain(..end + 4);
            about_blob.send_replace(asked.is_blob());
            shared.asked.lock().unwrap().push(asked);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn down(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, about_blob: &watch::Sender<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if *about_blob.borrow() {
            let passed = shared.of_blobs.load(Ordering::SeqCst);
            let mut limit = shared.limit.subscribe();
            // The sender lives as long as this borrows it.
            let _ = limit.wait_for(|limit| passed < *limit).await;
            shared.of_blobs.fetch_add(read as u64, Ordering::SeqCst);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        shared.passed.fetch_add(read as u64, Ordering::SeqCst);
    }
}
