//! The certificate that the server shows.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio_rustls::TlsAcceptor;

use crate::error::{Context, Error, Result};

/// The largest file of certificates or of a key that is read.
const PEM_MAX: u64 = 1024 * 1024;

/// The most certificates of a chain.
const CHAIN_MAX: usize = 16;

/// How to make what is missing.
const AS_PEM: &str = "it has to be PEM, as openssl writes it; `sealift client-config` shows the commands";

/// A certificate with its chain and its key.
#[derive(Clone)]
pub struct Certificate {
    config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
}

impl Certificate {
    /// Reads the chain, the server's own certificate first, and the key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let chain = read(certificate)
            .and_then(|pem| chain(&pem))
            .while_(|| format!("read the certificate {}", certificate.display()))?;
        let private =
            read(key).and_then(|pem| private_key(&pem)).while_(|| format!("read the key {}", key.display()))?;
        Self::new(chain, private).while_(|| format!("use {} with {}", certificate.display(), key.display()))
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self> {
        let leaf = chain.first().cloned().ok_or_else(|| Error::usage("it holds no certificate").help(AS_PEM))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| Error::usage(error.to_string()).help("is it the key of that certificate?"))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Certificate { config: Arc::new(config), leaf })
    }

    /// Whether clients that ask for `host` take it, as far as its names go.
    pub fn names(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let Ok(name) = ServerName::try_from(host) else { return false };
        let parsed = ParsedCertificate::try_from(&self.leaf);
        parsed.is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|error| Error::usage(error.to_string()))?;
    let mut pem = Vec::new();
    file.take(PEM_MAX + 1).read_to_end(&mut pem).map_err(|error| Error::usage(error.to_string()))?;
    if pem.len() as u64 > PEM_MAX {
        return Err(Error::usage("it is larger than any certificate").help(AS_PEM));
    }
    Ok(pem)
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(pem).take(CHAIN_MAX + 1).collect::<Result<Vec<_>, PemError>>();
    let chain = chain.map_err(|_| Error::usage("it is damaged").help(AS_PEM))?;
    match chain.len() {
        0 => Err(Error::usage("it holds no certificate").help(AS_PEM)),
        1..=CHAIN_MAX => Ok(chain),
        _ => Err(Error::usage(format!("it holds more than {CHAIN_MAX} certificates"))
            .help("name the server's certificate with its chain, not a collection of CAs")),
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>> {
    // What is wrong with it is not repeated: it is a key.
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| Error::usage("it holds no private key, or one with a password").help(AS_PEM))
}

#[cfg(test)]
impl Certificate {
    /// Signed by itself, until 2126, for `a.example`, `*.b.example` and 127.0.0.1.
    pub(super) fn of_tests() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
        Self::load(&folder.join("server.pem"), &folder.join("server.key")).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = include_str!("../../tests/fixtures/tls/server.pem");
    const KEY: &str = include_str!("../../tests/fixtures/tls/server.key");

    #[test]
    fn a_certificate_is_for_its_names() {
        let certificate = Certificate::of_tests();
        for (host, named) in [
            ("a.example", true),
            ("A.example", true),
            ("x.b.example", true),
            ("127.0.0.1", true),
            ("b.example", false),
            ("x.a.example", false),
            ("[::1]", false),
            ("a example", false),
        ] {
            assert_eq!(certificate.names(host), named, "{host}");
        }
    }

    #[test]
    fn what_is_no_certificate_or_key_is_said() {
        let said = |result: Result<()>| result.unwrap_err().to_string();
        assert!(said(chain(b"").map(drop)).contains("holds no certificate"));
        assert!(said(chain(KEY.as_bytes()).map(drop)).contains("holds no certificate"));
        assert!(said(chain(CERTIFICATE.repeat(17).as_bytes()).map(drop)).contains("more than 16"));
        assert!(said(private_key(CERTIFICATE.as_bytes()).map(drop)).contains("no private key"));
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let error = Certificate::load(&gone, &gone).map(drop).unwrap_err();
        assert!(error.to_string().contains("gone: No such file"), "{error}");
    }
}
