//! What clients need: names that lead to the enclave's machine, and CAs that they believe.

use std::fmt::Write;

use super::{ConfigFile, ForeignHost, Wanted};
use crate::error::{Error, Result};
use crate::oci::Registry;

/// Lines for `/etc/hosts`.
pub(super) fn hosts(hosts: &[ForeignHost], wanted: &Wanted) -> Result<ConfigFile> {
    let address = wanted.address.ok_or_else(|| {
        Error::usage("--for hosts needs to know where the foreign hosts are answered for")
            .help("--address 10.0.0.5: the machine on which `sealift serve --foreign` or nginx runs")
    })?;
    let mut content =
        String::from("# Foreign hosts that are answered for in this network; made by sealift client-config\n");
    for host in hosts {
        let _ = writeln!(content, "{address} {}", host.name);
    }
    Ok(ConfigFile { path: "hosts".to_owned(), content })
}

/// Where containerd finds the registry, and which CA it believes there.
pub(super) fn containerd(wanted: &Wanted) -> Result<Vec<ConfigFile>> {
    let registry = registry("containerd", wanted)?;
    let folder = format!("containerd/certs.d/{registry}");
    let plain = registry.is_loopback() && wanted.ca.is_none();
    let url = format!("{}://{registry}", if plain { "http" } else { "https" });
    let mut content = format!(
        "# For /etc/containerd/certs.d/{registry}/hosts.toml; made by sealift client-config\n\
         server = \"{url}\"\n\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    if wanted.ca.is_some() {
        let _ = writeln!(content, "  ca = \"/etc/containerd/certs.d/{registry}/ca.crt\"");
    }
    let mut files = vec![ConfigFile { path: format!("{folder}/hosts.toml"), content }];
    files.extend(wanted.ca.as_ref().map(|ca| ConfigFile { path: format!("{folder}/ca.crt"), content: ca.clone() }));
    Ok(files)
}

/// The CA of the registry where podman or docker look for it: `certs.d/<host>/ca.crt`.
pub(super) fn certificates(client: &str, folder: &str, wanted: &Wanted) -> Result<ConfigFile> {
    let registry = registry(client, wanted)?;
    let ca = wanted.ca.clone().ok_or_else(|| {
        Error::usage(format!("--for {client} needs the CA that signed the certificates of the enclave"))
            .help("--ca ca.pem: its certificate, never its key")
    })?;
    Ok(ConfigFile { path: format!("{folder}/certs.d/{registry}/ca.crt"), content: ca })
}

/// The CA for the machine's own list of CAs.
pub(super) fn trust(wanted: &Wanted) -> Option<ConfigFile> {
    let content = wanted.ca.clone()?;
    Some(ConfigFile { path: "ca-certificates/sealift-enclave.crt".to_owned(), content })
}

fn registry<'a>(client: &str, wanted: &'a Wanted) -> Result<&'a Registry> {
    wanted.registry.as_ref().ok_or_else(|| {
        Error::usage(format!("--for {client} needs to know from which registry images are pulled"))
            .help("--registry registry.corp:5000")
    })
}
