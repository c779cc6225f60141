//! A server on loopback that answers as a test says, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::oci::{Registry, Repository};

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// How many came before it.
    pub nth: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// `METHOD target`, to match on.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub async fn start(answer: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static) -> Server {
        Self::start_at("127.0.0.1:0", answer).await
    }

    pub async fn start_at(address: &str, answer: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static) -> Server {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = seen.clone();
        let handler = move |request: Request| async move {
            let (parts, body) = request.into_parts();
            // An upload that the client breaks off has no whole body.
            let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
            let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let mut log = log.lock().unwrap();
            let nth = log.len();
            let one = Seen { method: parts.method, target, headers: parts.headers, body, nth };
            log.push(one.clone());
            drop(log);
            answer(&one)
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
        Server { address, seen }
    }

    pub fn registry(&self) -> Registry {
        self.address.to_string().parse().unwrap()
    }

    pub fn repository(&self, path: &str) -> Repository {
        Repository::new(self.registry(), path).unwrap()
    }

    pub fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

pub fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

pub fn error(status: u16, code: &str) -> Response {
    reply(status, &[], format!(r#"{{"errors":[{{"code":"UNKNOWN"}},{{"code":"{code}","message":"no"}}]}}"#))
}

/// These bytes, and then the connection breaks.
pub fn cut(bytes: Bytes) -> Body {
    let end = async {
        // The bytes have to be on their way before.
        tokio::time::sleep(Duration::from_millis(30)).await;
        Err(std::io::Error::other("cut"))
    };
    Body::from_stream(stream::iter([Ok(bytes)]).chain(stream::once(end)))
}

/// These bytes, and then nothing more, though the connection stays.
pub fn stuck(bytes: Bytes) -> Body {
    Body::from_stream(stream::iter([Ok::<_, std::io::Error>(bytes)]).chain(stream::pending()))
}

/// These bytes, without their number.
pub fn unannounced(bytes: Bytes) -> Body {
    Body::from_stream(stream::iter([Ok::<_, std::io::Error>(bytes)]))
}
