//! The addresses of layers.

use url::Url;

use crate::oci::Registry;

/// The longest address. Registries and clients take more, and no honest one has it.
const LENGTH_MAX: usize = 2_048;

/// Checks an address that a layer is to be had from. It is kept as it is written.
///
/// Clients fetch it without credentials and without a word of warning: so TLS, unless it is on this machine; no name and
/// password; and no fragment, which registries refuse (distribution, "Foreign layers").
pub fn parse_url(text: &str) -> Result<String, String> {
    if text.len() > LENGTH_MAX {
        return Err(format!("it is longer than {LENGTH_MAX} bytes"));
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err("it has a space or another character that no URL has: write it percent-encoded".to_owned());
    }
    let url: Url = text.parse().map_err(|error| format!("it is no URL: {error}"))?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or("it names no host")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has a name or a password, which every reader of the manifest would see".to_owned());
    }
    if url.fragment().is_some() {
        return Err("it has a fragment (#…), which registries refuse".to_owned());
    }
    let on_this_machine = host.parse::<Registry>().is_ok_and(|host| host.is_loopback());
    match url.scheme() {
        "https" => Ok(text.to_owned()),
        "http" if on_this_machine => Ok(text.to_owned()),
        "http" => Err("it is not https, and not on this machine".to_owned()),
        other => Err(format!("{other} is neither https nor http: no client fetches it")),
    }
}

/// An address as it is shown: what it asks of its server may be a secret, and documents from outside hold anything.
pub(super) fn shown(text: &str) -> String {
    let (address, query) = text.split_once('?').map_or((text, ""), |(address, _)| (address, "?…"));
    let shown: String = address.chars().take(LENGTH_MAX).collect();
    shown + query
}

/// The host of an address, with its port where it names one; `None` where it has none.
pub(super) fn host(text: &str) -> Option<String> {
    let url: Url = text.parse().ok()?;
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_a_layer_may_have() {
        for good in [
            "https://layers.example/a",
            "https://layers.example:8443/a?b=c",
            "http://127.0.0.1:80/a",
            "http://localhost/a",
        ] {
            assert_eq!(parse_url(good).as_deref(), Ok(good));
        }
        let long = format!("https://a.example/{}", "x".repeat(LENGTH_MAX));
        for bad in [
            "",
            "layers.example/a",
            "https:///a b",
            "http://layers.example/a",
            "ftp://layers.example/a",
            "file:///etc/passwd",
            "https://user:word@layers.example/a",
            "https://layers.example/a#b",
            "https://layers.example/ä",
            &long,
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
        assert_eq!(host("https://Layers.example:8443/a").as_deref(), Some("layers.example:8443"));
        assert_eq!(host("nonsense"), None);
        assert_eq!(shown("https://a.example/b?sig=secret"), "https://a.example/b?…");
    }
}
