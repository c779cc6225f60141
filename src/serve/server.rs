//! What all requests share, and the way from a path and a method to the function that answers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, EXPECT, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::fault::{Code, Fault};
use super::foreign::Foreign;
use super::path::{self, Endpoint, PathFault};
use super::query::Query;
use super::sessions::{IDLE_MAX, Sessions};
use super::shelf::{Shelf, ShelfWriter};
use super::{blobs, foreign, lists, manifests, stream, uploads};
use crate::error::{Error, Result};

/// Says that this is a registry; old Docker clients look for it (Docker Registry HTTP API V2, "API Version Check").
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// How many blobs may be on their way to clients. Each holds a thread that may block while its client takes nothing. The
/// runtime has 512 of these; the other half answers everything else.
const BODIES_MAX: usize = 256;

/// What all requests share.
pub(super) struct Server {
    /// What is served.
    pub shelf: Arc<dyn Shelf>,
    /// The uploads in flight.
    pub sessions: Arc<Sessions>,
    /// A permit for each blob that may be on its way to a client.
    pub bodies: Arc<Semaphore>,
    /// What is answered under other addresses than those of a registry.
    pub foreign: Foreign,
}

impl Server {
    /// Serves `shelf`; nothing is in flight.
    pub fn new(shelf: Arc<dyn Shelf>) -> Self {
        let sessions = Arc::new(Sessions::new(IDLE_MAX));
        Server { shelf, sessions, bodies: Arc::new(Semaphore::new(BODIES_MAX)), foreign: Foreign::default() }
    }

    /// Asks the shelf, on a thread that may block.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Shelf) -> Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let shelf = Arc::clone(&self.shelf);
        blocking(move || Ok(question(shelf.as_ref())?)).await
    }

    /// Changes the shelf, on a thread that may block; a fault when it is read-only.
    pub async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&dyn ShelfWriter) -> Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let shelf = Arc::clone(&self.shelf);
        blocking(move || Ok(change(shelf.writer().ok_or_else(read_only)?)?)).await
    }

    /// A fault when the shelf is read-only.
    pub fn writable(&self) -> Result<(), Fault> {
        self.shelf.writer().map(|_| ()).ok_or_else(read_only)
    }
}

fn read_only() -> Fault {
    Fault::new(Code::Unsupported, "this registry is read-only")
}

/// Runs `work` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(Error::failed(panic.to_string()).into()))
}

/// Answers one request.
pub(super) async fn dispatch(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    if let Some(response) = foreign::answer(&server, &parts).await {
        return response;
    }
    let answer = match endpoint(&parts) {
        Ok(endpoint) => answer(&server, endpoint, &parts, &mut body).await,
        Err(fault) => Err(fault),
    };
    if answer.is_err() && !parts.headers.contains_key(EXPECT) {
        stream::drain(&mut body).await;
    }
    let mut response = answer.unwrap_or_else(Fault::into_response);
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

fn endpoint(parts: &Parts) -> Result<Endpoint, Fault> {
    path::parse(parts.uri.path()).map_err(|fault| match fault {
        // Nobody can have put a manifest under such a name, so it is simply not there.
        PathFault::Reference if is_read(&parts.method) => manifests::unknown(),
        fault => fault.into(),
    })
}

fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

async fn answer(server: &Server, endpoint: Endpoint, parts: &Parts, body: &mut Body) -> Result<Response, Fault> {
    let query = Query::parse(parts.uri.query());
    let headers = &parts.headers;
    match (endpoint, &parts.method) {
        (Endpoint::Base, method) if is_read(method) => Ok(json(&serde_json::json!({}))),
        (Endpoint::Catalog, method) if is_read(method) => lists::catalog(server, &query).await,
        (Endpoint::Tags(repository), method) if is_read(method) => lists::tags(server, repository, &query).await,
        (Endpoint::Referrers(repository, subject), method) if is_read(method) => {
            lists::referrers(server, repository, subject, &query).await
        }
        (Endpoint::Manifest(repository, name), method) if is_read(method) => {
            manifests::get(server, repository, name, method, headers).await
        }
        (Endpoint::Manifest(repository, name), &Method::PUT) => {
            manifests::put(server, repository, name, headers, body).await
        }
        (Endpoint::Manifest(repository, name), &Method::DELETE) => manifests::delete(server, repository, name).await,
        (Endpoint::Blob(repository, digest), method) if is_read(method) => {
            blobs::get(server, repository, digest, method, headers).await
        }
        (Endpoint::Blob(repository, digest), &Method::DELETE) => blobs::delete(server, repository, digest).await,
        (Endpoint::Uploads(repository), &Method::POST) => {
            uploads::post(server, repository, &query, headers, body).await
        }
        (Endpoint::Upload(repository, id), method) => {
            server.writable()?;
            match *method {
                Method::GET | Method::HEAD => uploads::status(server, &repository, &id).await,
                Method::PATCH => uploads::patch(server, &repository, &id, headers, body).await,
                Method::PUT => uploads::put(server, &repository, &id, &query, headers, body).await,
                Method::DELETE => uploads::cancel(server, &repository, &id).await,
                _ => Err(no_such_method()),
            }
        }
        _ => Err(no_such_method()),
    }
}

fn no_such_method() -> Fault {
    Fault::new(Code::Unsupported, "this method is not supported here")
}

/// Status 200 with a JSON document.
pub(super) fn json(document: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(document.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The value of a header, where it is text.
pub(super) fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Adds a header to a response. Values are made of digests, legal names and numbers; one that were no legal value
/// would be left out.
pub(super) fn with(mut response: Response, name: HeaderName, value: impl AsRef<str>) -> Response {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        response.headers_mut().insert(name, value);
    }
    response
}
