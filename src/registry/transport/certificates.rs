//! Certificates for single hosts: those that the configuration names, and those in the `certs.d` folders of docker,
//! podman and containerd.
//!
//! The layout is docker's: `certs.d/HOST[:PORT]/`, in it `*.crt` with CAs, and pairs of `NAME.cert` and `NAME.key` to show.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Identity};

use crate::config::Tls;
use crate::error::{Context, Error, Result};
use crate::oci::Registry;

/// The largest file that is read. All CAs of a Debian system together have 220 KB.
const FILE_SIZE_MAX: u64 = 1024 * 1024;

/// How many files one folder may have: a handful is usual.
const FILES_MAX: usize = 100;

/// What helps against a file of certificates that is none.
const PEM: &str = "certificates are read in PEM: -----BEGIN CERTIFICATE-----";

/// What helps against a key that is none.
const KEY: &str = "keys are read in PEM, without a passphrase: PKCS#8, PKCS#1 or SEC1";

/// What else one host is believed by, and what it is shown.
#[derive(Clone, Default)]
pub(super) struct Certificates {
    pub authorities: Vec<Certificate>,
    pub identity: Option<Identity>,
}

impl Certificates {
    /// Those that the configuration names.
    pub fn configured(tls: &Tls) -> Result<Self> {
        Ok(Certificates {
            authorities: tls.ca.as_deref().map(authorities).transpose()?.unwrap_or_default(),
            identity: tls.identity.as_ref().map(|pair| identity(&pair.certificate, &pair.key)).transpose()?,
        })
    }

    /// The same, and what `folders` (each a `certs.d`) have below one of `names`. The first certificate to show wins.
    pub fn and_found(mut self, folders: &[PathBuf], names: &[Registry]) -> Result<Self> {
        for folder in folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name.to_string()))) {
            let found = in_folder(&folder)?;
            self.authorities.extend(found.authorities);
            self.identity = self.identity.or(found.identity);
        }
        Ok(self)
    }

    pub fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.identity.is_none()
    }
}

/// The `certs.d` folders of this system: the user's before those of all.
pub(super) fn folders_of_system() -> Vec<PathBuf> {
    let set = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let own = set.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    let own = own.map(|folder| folder.join("containers/certs.d"));
    let all = ["/etc/containers/certs.d", "/etc/docker/certs.d", "/etc/containerd/certs.d"].map(PathBuf::from);
    own.into_iter().chain(all).collect()
}

fn in_folder(folder: &Path) -> Result<Certificates> {
    let mut found = Certificates::default();
    for file in files_in(folder).while_(|| format!("read certificates in {}", folder.display()))? {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => found.authorities.extend(authorities(&file)?),
            Some("cert") => {
                let key = file.with_extension("key");
                if !key.exists() {
                    let what = format!("{} has no key beside it, {}", file.display(), key.display());
                    return Err(
                        Error::usage(what).help("put the key there, or take the certificate away; a CA is named *.crt")
                    );
                }
                let pair = identity(&file, &key)?;
                found.identity.get_or_insert(pair);
            }
            _ if file.ends_with("hosts.toml") => tracing::warn!(
                file = %file.display(),
                "this file of containerd is not read: name its `ca` and `client` under `registries` in the configuration"
            ),
            _ => {}
        }
    }
    Ok(found)
}

/// The files in a folder, in the order of their names; none where there is no such folder, or where others alone may look.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        // What lies in a closed folder is not known to be there.
        Err(_) if !folder.exists() => return Ok(Vec::new()),
        Err(error) => return Err(Error::usage(error.to_string()).help("let this user read it")),
    };
    let mut files = Vec::new();
    for entry in entries.take(FILES_MAX + 1) {
        files.push(entry.map_err(|error| Error::usage(error.to_string()))?.path());
    }
    if files.len() > FILES_MAX {
        return Err(Error::usage(format!("it has more than {FILES_MAX} files")));
    }
    files.sort();
    Ok(files)
}

/// The CAs in a file of PEM.
fn authorities(file: &Path) -> Result<Vec<Certificate>> {
    let attempt = || format!("read CA certificates in {}", file.display());
    let found = certificates_in(&read(file).while_(attempt)?).while_(attempt)?;
    // A client alone looks into them.
    let tried = reqwest::Client::builder().tls_certs_only(found.clone()).build();
    tried.map_err(|_| Error::usage("one of them is no certificate of a CA").help(PEM)).while_(attempt)?;
    Ok(found)
}

/// A certificate to show, with its key.
fn identity(certificate: &Path, key: &Path) -> Result<Identity> {
    let of_certificate = || format!("read the client certificate in {}", certificate.display());
    let of_key = || format!("read the key in {}", key.display());
    let mut pem = read(certificate).while_(of_certificate)?;
    certificates_in(&pem).while_(of_certificate)?;
    pem.push(b'\n');
    pem.extend(read(key).while_(of_key)?);
    let identity = Identity::from_pem(&pem);
    let identity = identity.map_err(|_| Error::usage("it holds no private key").help(KEY)).while_(of_key)?;
    // Nothing is connected to, so nobody has to be believed.
    let tried = reqwest::Client::builder().tls_certs_only([]).identity(identity.clone()).build();
    tried
        .map_err(|_| Error::usage(format!("it is not the key of {}", certificate.display())).help(KEY))
        .while_(of_key)?;
    Ok(identity)
}

fn certificates_in(pem: &[u8]) -> Result<Vec<Certificate>> {
    let found = Certificate::from_pem_bundle(pem).map_err(|_| Error::usage("it is damaged").help(PEM))?;
    match found.is_empty() {
        true => Err(Error::usage("it holds no certificate").help(PEM)),
        false => Ok(found),
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let fail =
        |error: std::io::Error| Error::usage(error.to_string()).help("let this user read it, or name another file");
    // Opening a pipe would wait.
    if !std::fs::metadata(file).map_err(fail)?.is_file() {
        return Err(Error::usage("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(file).map_err(fail)?.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    match bytes.len() as u64 > FILE_SIZE_MAX {
        true => Err(Error::usage(format!("it has more than {FILE_SIZE_MAX} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn found(folder: &Path, host: &str) -> Result<Certificates> {
        Certificates::default().and_found(&[folder.to_owned()], &[host.parse().unwrap()])
    }

    #[test]
    fn folders_are_looked_into_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("r.example:5000");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(folder.path().join("file.example"), "").unwrap();
        for host in ["r.example", "r.example:5000", "file.example"] {
            assert!(found(folder.path(), host).unwrap().is_empty(), "{host}");
        }
        let says = |text: &str| {
            let error = found(folder.path(), "r.example:5000").err().unwrap();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains("r.example:5000") && error.to_string().contains(text), "{error}");
        };
        for name in ["notes", "hosts.toml", "alone.key"] {
            std::fs::write(own.join(name), "nothing").unwrap();
        }
        assert!(found(folder.path(), "r.example:5000").unwrap().is_empty());
        std::fs::create_dir(own.join("a.crt")).unwrap();
        says("a.crt: it is no file");
        std::fs::remove_dir(own.join("a.crt")).unwrap();
        let large = File::create(own.join("b.crt")).unwrap();
        large.set_len(FILE_SIZE_MAX + 1).unwrap();
        says("b.crt: it has more than");
        large.set_len(0).unwrap();
        says("b.crt: it holds no certificate");
        for name in 0..FILES_MAX {
            std::fs::write(own.join(name.to_string()), "").unwrap();
        }
        says("it has more than 100 files");
    }
}
