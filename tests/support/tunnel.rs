//! [`Tunnel`]: a proxy for `CONNECT` that wants a password, and knows names which nobody else knows.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running proxy; stops when dropped.
pub struct Tunnel {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    login: String,
    /// `127.0.0.1:<port>` by `name:port`.
    names: BTreeMap<String, String>,
    asked: Mutex<Vec<String>>,
}

impl Tunnel {
    /// Takes `login` (`user:password`), and connects `name:port` to `127.0.0.1:port` for each of `names`.
    pub async fn start(login: &str, names: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let names = names.iter().map(|(name, to)| ((*name).to_owned(), (*to).to_owned())).collect();
        let login = format!("Basic {}", STANDARD.encode(login));
        let shared = Arc::new(Shared { login, names, asked: Mutex::default() });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Tunnel { address, shared, task }
    }

    /// `127.0.0.1:<port>`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// What it was asked to connect to, with a good login or not.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(connection, shared.clone()));
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let name = head.split(' ').nth(1).unwrap_or_default().to_owned();
    shared.asked.lock().unwrap().push(name.clone());
    let logged_in = head.lines().any(|line| {
        let header = line.split_once(": ").filter(|(header, _)| header.eq_ignore_ascii_case("proxy-authorization"));
        header.is_some_and(|(_, value)| value == shared.login)
    });
    let status = match (logged_in, shared.names.get(&name)) {
        (false, _) => "407 Proxy Authentication Required",
        (true, None) => "502 Bad Gateway",
        (true, Some(to)) => {
            let mut server = TcpStream::connect(to).await?;
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            copy_bidirectional(&mut client, &mut server).await?;
            return Ok(());
        }
    };
    client.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await
}
