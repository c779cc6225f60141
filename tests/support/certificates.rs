//! [`Authority`]: a private CA, and certificates that it signs, made with openssl.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A CA with a folder of its own.
pub struct Authority {
    folder: TempDir,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// How a private key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    Pkcs8,
    /// RSA's own.
    Pkcs1,
    /// That of elliptic curves, with its parameters before it.
    Sec1,
}

impl Authority {
    /// Makes one; `None` when the test is to be skipped.
    pub fn new() -> Option<Self> {
        if !super::have(&["openssl"]) {
            return None;
        }
        let authority = Authority { folder: tempfile::tempdir().unwrap() };
        authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=test-ca");
        Some(authority)
    }

    /// The folder of `ca.pem` and `ca.key`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// One for a server with these names: `IP:127.0.0.1,DNS:registry.test`.
    pub fn server(&self, names: &str) -> Certificate {
        self.issue("server", KeyForm::Pkcs8, &format!("subjectAltName={names}"), "30")
    }

    /// One for a server, which has expired.
    pub fn expired_server(&self, names: &str) -> Certificate {
        self.issue("expired", KeyForm::Pkcs8, &format!("subjectAltName={names}"), "-1")
    }

    /// One for a client.
    pub fn client(&self, form: KeyForm) -> Certificate {
        self.issue(&format!("client-{form:?}"), form, "extendedKeyUsage=clientAuth", "30")
    }

    fn issue(&self, name: &str, form: KeyForm, extension: &str, days: &str) -> Certificate {
        match form {
            KeyForm::Pkcs8 => {
                self.openssl(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"))
            }
            KeyForm::Pkcs1 => self.openssl(&format!("genrsa -traditional -out {name}.key 2048")),
            KeyForm::Sec1 => self.openssl(&format!("ecparam -name prime256v1 -genkey -out {name}.key")),
        }
        std::fs::write(self.path(&format!("{name}.ext")), format!("{extension}\n")).unwrap();
        self.openssl(&format!("req -new -key {name}.key -out {name}.csr -subj /CN={name}"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile {name}.ext -out {name}.pem"
        ));
        Certificate { certificate: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        openssl(self.folder.path(), arguments);
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(folder).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "openssl {arguments}\n{}", String::from_utf8_lossy(&output.stderr));
}
