//! [`Fault`]: a request that is not served, in the envelope of the distribution specification ("Error Codes").

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::path::PathFault;
use crate::error::Error;
use crate::oci::Digest;

/// The codes of the specification that this registry uses. It allows no others in answers of the 400s; `UNKNOWN`, which
/// clients know, stands in those of the 500s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    TooManyRequests,
    Unknown,
    Unsupported,
}

impl Code {
    fn as_str(self) -> &'static str {
        match self {
            Code::BlobUnknown => "BLOB_UNKNOWN",
            Code::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Code::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Code::DigestInvalid => "DIGEST_INVALID",
            Code::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Code::ManifestInvalid => "MANIFEST_INVALID",
            Code::ManifestUnknown => "MANIFEST_UNKNOWN",
            Code::NameInvalid => "NAME_INVALID",
            Code::NameUnknown => "NAME_UNKNOWN",
            Code::SizeInvalid => "SIZE_INVALID",
            Code::TooManyRequests => "TOOMANYREQUESTS",
            Code::Unknown => "UNKNOWN",
            Code::Unsupported => "UNSUPPORTED",
        }
    }

    /// The status that goes with the code unless the specification asks for another one.
    fn status(self) -> StatusCode {
        match self {
            Code::BlobUnknown | Code::BlobUploadUnknown | Code::ManifestUnknown | Code::NameUnknown => {
                StatusCode::NOT_FOUND
            }
            Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
            Code::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// What goes wrong with a request: a status, one entry or more, and headers that the answer needs.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    entries: Vec<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Fault {
    /// A fault of one entry.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let entry = json!({ "code": code.as_str(), "message": message.into() });
        Fault { status: code.status(), entries: vec![entry], headers: Vec::new() }
    }

    /// A manifest refers to blobs that are not there: one entry for each, its `detail` being the bare digest as
    /// other registries have it.
    pub fn blobs_missing(missing: &[Digest]) -> Self {
        let entry = |digest: &Digest| {
            json!({
                "code": Code::ManifestBlobUnknown.as_str(),
                "message": "the manifest refers to a blob that is not in this repository",
                "detail": digest.to_string(),
            })
        };
        let entries = missing.iter().map(entry).collect();
        Fault { status: Code::ManifestBlobUnknown.status(), entries, headers: Vec::new() }
    }

    /// The same fault under another status.
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same fault with a header more.
    pub fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((name, value));
        }
        self
    }
}

impl From<Error> for Fault {
    /// The shelf failed. What it says may name paths of this machine, so it goes to the log alone.
    fn from(error: Error) -> Self {
        tracing::error!(%error, "a request failed");
        Fault::new(Code::Unknown, "the registry could not read or write its content; its log says why")
    }
}

impl From<PathFault> for Fault {
    fn from(fault: PathFault) -> Self {
        match fault {
            PathFault::Unknown => Fault::new(Code::Unsupported, "no such endpoint").status(StatusCode::NOT_FOUND),
            PathFault::Name => Fault::new(Code::NameInvalid, "the repository name is illegal"),
            PathFault::Digest => Fault::new(Code::DigestInvalid, "the digest is illegal"),
            PathFault::Reference => Fault::new(Code::ManifestInvalid, "the reference is neither a tag nor a digest"),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = json!({ "errors": self.entries }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
