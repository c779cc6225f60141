//! What an operator does with the files, step by step.

use std::fmt::Write;

use super::{ClientConfig, ForeignHost, Part, Wanted};

/// The steps for what is wanted, in their order.
pub(super) fn steps(hosts: &[ForeignHost], wanted: &Wanted) -> Vec<String> {
    if hosts.is_empty() {
        return vec!["No url is to be answered for: nothing has to be done.".to_owned()];
    }
    let with_tls: Vec<&str> = hosts.iter().filter(|h| !h.tls_ports.is_empty()).map(|h| h.name.as_str()).collect();
    let mut steps = Vec::new();
    if !with_tls.is_empty() {
        steps.push(certificate(&with_tls));
    }
    for part in &wanted.parts {
        steps.push(of_part(*part, wanted));
    }
    if !with_tls.is_empty() {
        steps.push(trust(wanted));
    }
    steps
}

/// The commands that make what the server shows. Clients look at `subjectAltName` alone.
fn certificate(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
    format!(
        "Make a certificate for these hosts, signed by the enclave's CA (ca.pem, ca.key):\n  \
         openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout foreign.key -out foreign.csr \
         -subj /CN=sealift-foreign -addext \"subjectAltName={}\"\n  \
         openssl x509 -req -in foreign.csr -copy_extensions copyall -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 \
         -out foreign.pem",
        names.join(",")
    )
}

fn of_part(part: Part, wanted: &Wanted) -> String {
    let registry = wanted.registry.as_ref().map(ToString::to_string).unwrap_or_default();
    let with_ca = |folder: &str, client: &str| {
        format!("On every host with {client}: copy {folder}/certs.d/{registry} to /etc/{folder}/certs.d/{registry}.")
    };
    match part {
        Part::Hosts => "On every host that pulls images: append the lines of `hosts` to /etc/hosts (on Windows: \
                        C:\\Windows\\System32\\drivers\\etc\\hosts), or give the names these addresses in the DNS of the enclave."
            .to_owned(),
        Part::Nginx => "On the machine that answers: put nginx.conf into the section http of nginx (on Debian: \
                        /etc/nginx/conf.d/sealift-foreign.conf), then `nginx -t` and reload."
            .to_owned(),
        Part::Containerd => {
            with_ca("containerd", "containerd")
                + " Its config.toml has to name /etc/containerd/certs.d as config_path; `ctr` takes --hosts-dir."
        }
        Part::Podman => with_ca("containers", "podman, skopeo or CRI-O"),
        Part::Docker => {
            with_ca("docker", "docker")
                + " Without its containerd image store, docker on Linux asks no urls, and on Windows it asks the registry \
                   first: the registry is enough for it."
        }
    }
}

/// The registry's CA in `certs.d` is for the registry alone.
fn trust(wanted: &Wanted) -> String {
    let file = if wanted.ca.is_some() { "ca-certificates/sealift-enclave.crt" } else { "the CA's certificate" };
    format!(
        "On every host that pulls images: believe the CA for the foreign hosts too. On Debian: copy {file} to \
         /usr/local/share/ca-certificates/sealift-enclave.crt, run update-ca-certificates, and start containerd, CRI-O and \
         docker anew (on Windows: certutil -addstore Root). containerd looks for the CA of a url nowhere else."
    )
}

/// The same as a text beside the files.
pub(super) fn readme(config: &ClientConfig) -> String {
    let mut text =
        String::from("What clients in this network need for layers with urls; made by sealift client-config\n");
    for (at, step) in config.steps.iter().enumerate() {
        let _ = writeln!(text, "\n{}. {step}", at + 1);
    }
    if !config.not_answered.is_empty() {
        text += "\nNobody answers for these urls:\n";
        for url in &config.not_answered {
            // One line each, whatever a url holds.
            let _ = writeln!(text, "  {}: {}", url.url.escape_debug(), url.why);
        }
    }
    text
}
