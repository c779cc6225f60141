//! Where a registry may send sealift to, and where not.
//!
//! Redirects, upload locations and realms are addresses that a registry chose. They must not lead to what only this
//! machine can reach: its own services on loopback, and the services of its cloud on link-local addresses. Private
//! networks are not in this list: registries inside of a company redirect to object stores there.
//!
//! The `urls` of layers were chosen by whoever made an image, anywhere. They lead to public addresses only, unless the
//! operator opened their host.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// How far the addresses of one host may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// The operator named the host: it may be anything.
    Anywhere,
    /// A registry on loopback named it: it may be on loopback too.
    Here,
    /// A registry elsewhere named it.
    Outside,
    /// An image named it, and the operator named it too: it is a public one.
    Public,
    /// The same, and the operator said that it may be a private one.
    Opened,
}

/// An address that is not one of a machine elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Loopback,
    LinkLocal,
    Unspecified,
    Multicast,
    Broadcast,
    /// A network of a company or a home (RFC 1918, RFC 4193), or of a provider behind its address translation (RFC 6598).
    Private,
    /// For documents, measurements, protocols, or nothing yet (RFC 6890 and its registries).
    Reserved,
    /// At which clouds answer their machines.
    Cloud,
}

/// A host whose addresses are all out of reach.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forbidden {
    pub host: String,
    pub special: Special,
}

impl Reach {
    /// What is against connecting to `address`.
    fn objection(self, address: IpAddr) -> Option<Special> {
        let mut specials = specials(address).into_iter().flatten();
        let elsewhere = |special: &Special| matches!(special, Special::Private | Special::Reserved | Special::Cloud);
        match self {
            Reach::Anywhere | Reach::Opened => None,
            Reach::Public => specials.next(),
            Reach::Here => specials.find(|one| !elsewhere(one)).filter(|one| *one != Special::Loopback),
            Reach::Outside => specials.find(|one| !elsewhere(one)),
        }
    }

    /// Whether whoever named the host may be shown who we are.
    pub fn shows_identity(self) -> bool {
        !matches!(self, Reach::Public | Reach::Opened)
    }

    /// What is against the host of `url` before anybody was asked for its addresses.
    pub fn check(self, url: &Url) -> Result<(), Forbidden> {
        let objection = match url.host() {
            Some(Host::Ipv4(address)) => self.objection(address.into()),
            Some(Host::Ipv6(address)) => self.objection(address.into()),
            // These names are loopback wherever they are resolved (RFC 6761, section 6.3).
            Some(Host::Domain(name)) if is_localhost(name) => self.objection(Ipv4Addr::LOCALHOST.into()),
            Some(Host::Domain(_)) | None => None,
        };
        match objection {
            Some(special) => Err(Forbidden { host: super::host_of(url), special }),
            None => Ok(()),
        }
    }

    /// A resolver that gives only addresses that may be connected to: the connection goes to what was checked.
    pub fn guard(self, resolver: Arc<dyn Resolve>) -> Arc<dyn Resolve> {
        match self {
            Reach::Anywhere | Reach::Opened => resolver,
            Reach::Here | Reach::Outside | Reach::Public => Arc::new(Guarded { resolver, reach: self }),
        }
    }
}

/// The resolver of this system.
pub(super) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // Port 0 stands for that of the address which is connected to.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect::<Vec<_>>();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

struct Guarded {
    resolver: Arc<dyn Resolve>,
    reach: Reach,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (host, reach) = (name.as_str().to_owned(), self.reach);
        let resolving = self.resolver.resolve(name);
        Box::pin(async move {
            let all: Vec<SocketAddr> = resolving.await?.collect();
            let objection = all.iter().find_map(|address| reach.objection(address.ip()));
            // Names of a local network often have a link-local address beside the one that is meant.
            let good: Vec<SocketAddr> =
                all.into_iter().filter(|address| reach.objection(address.ip()).is_none()).collect();
            match objection {
                Some(special) if good.is_empty() => Err(Forbidden { host, special }.into()),
                _ => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether `url` names this machine, in whichever form.
pub(super) fn names_this_machine(url: &Url) -> bool {
    Reach::Outside.check(url).is_err_and(|forbidden| forbidden.special == Special::Loopback)
}

/// What an address is, and those that it may stand for.
fn specials(address: IpAddr) -> [Option<Special>; 2] {
    match address {
        IpAddr::V4(address) => [special_v4(address), None],
        IpAddr::V6(address) => match (special_v6(address), embedded(address)) {
            (Some(special), _) => [Some(special), None],
            (None, [None, None]) => [not_global(address), None],
            (None, within) => within.map(|within| within.and_then(special_v4)),
        },
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Special> {
    match address.octets() {
        // The whole of 0.0.0.0/8: Linux takes 0.0.0.0 for itself.
        [0, ..] => Some(Special::Unspecified),
        [127, ..] => Some(Special::Loopback),
        [169, 254, ..] => Some(Special::LinkLocal),
        [224..=239, ..] => Some(Special::Multicast),
        [255, 255, 255, 255] => Some(Special::Broadcast),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Some(Special::Private),
        // What Azure has beside 169.254.169.254.
        [168, 63, 129, 16] => Some(Special::Cloud),
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
            Some(Special::Reserved)
        }
        [240..=255, ..] => Some(Special::Reserved),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    match address {
        Ipv6Addr::LOCALHOST => Some(Special::Loopback),
        Ipv6Addr::UNSPECIFIED => Some(Special::Unspecified),
        _ if address.is_multicast() => Some(Special::Multicast),
        _ if address.is_unicast_link_local() => Some(Special::LinkLocal),
        _ => None,
    }
}

/// What an IPv6 address is that stands for no IPv4 address: all that is global is in 2000::/3.
fn not_global(address: Ipv6Addr) -> Option<Special> {
    match address.segments() {
        // Unique local, and the site-local ones that came before.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Some(Special::Private),
        // Protocols (Teredo among them), documents.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(Special::Reserved),
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Special::Reserved),
    }
}

/// The IPv4 addresses that an IPv6 address may stand for.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match address.segments() {
        // Mapped and compatible (RFC 4291, section 2.5.5), translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => [v4(high, low), None],
        // NAT64 of a site (RFC 8215): as a prefix of 96 bits, or of 48.
        [0x64, 0xff9b, 1, first, middle, last, high, low] => {
            let short = v4(first, ((middle & 0xff) << 8) | (last >> 8));
            // A prefix of 48 bits leaves the end empty.
            [v4(high, low).filter(|address| !address.is_unspecified()), short]
        }
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => [v4(high, low), None],
        _ => [None, None],
    }
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Special::Loopback => "a loopback address",
            Special::LinkLocal => "a link-local address",
            Special::Unspecified => "an unspecified address",
            Special::Multicast => "a multicast address",
            Special::Broadcast => "a broadcast address",
            Special::Private => "an address of a private network",
            Special::Reserved => "a reserved address",
            Special::Cloud => "an address at which a cloud answers its machines",
        })
    }
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.host, self.special)
    }
}

impl StdError for Forbidden {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_a_registry_may_not_name() {
        use Special::{Broadcast, LinkLocal, Loopback, Multicast, Unspecified};
        let rows = [
            ("127.0.0.1", Some(Loopback)),
            ("127.255.255.254", Some(Loopback)),
            ("2130706433", Some(Loopback)),
            ("0x7f.1", Some(Loopback)),
            ("0", Some(Unspecified)),
            ("0.1.2.3", Some(Unspecified)),
            ("169.254.169.254", Some(LinkLocal)),
            ("169.253.255.255", None),
            ("224.0.0.1", Some(Multicast)),
            ("239.255.255.255", Some(Multicast)),
            ("255.255.255.255", Some(Broadcast)),
            ("10.0.0.1", None),
            ("172.16.0.1", None),
            ("192.168.1.1", None),
            ("100.64.0.1", None),
            ("8.8.8.8", None),
            ("[::1]", Some(Loopback)),
            ("[::]", Some(Unspecified)),
            ("[fe80::1]", Some(LinkLocal)),
            ("[febf::1]", Some(LinkLocal)),
            ("[fec0::1]", None),
            ("[fd00::1]", None),
            ("[ff02::1]", Some(Multicast)),
            ("[2001:db8::1]", None),
            ("[::ffff:127.0.0.1]", Some(Loopback)),
            ("[::ffff:a9fe:a9fe]", Some(LinkLocal)),
            ("[::ffff:10.0.0.1]", None),
            ("[::127.0.0.1]", Some(Loopback)),
            ("[::ffff:0:127.0.0.1]", Some(Loopback)),
            ("[64:ff9b::169.254.169.254]", Some(LinkLocal)),
            ("[64:ff9b::8.8.8.8]", None),
            ("[64:ff9b:1::127.0.0.1]", Some(Loopback)),
            ("[64:ff9b:1:a9fe:a9:fe00::]", Some(LinkLocal)),
            ("[64:ff9b:1:808:8:800::]", None),
            ("[2002:7f00:1::]", Some(Loopback)),
            ("[2002:a9fe:a9fe::1]", Some(LinkLocal)),
            ("[2002:808:808::1]", None),
            ("localhost", Some(Loopback)),
            ("LOCALHOST.", Some(Loopback)),
            ("a.localhost", Some(Loopback)),
            ("localhost.example", None),
        ];
        for (host, expected) in rows {
            let url: Url = format!("https://{host}:9/x?secret").parse().unwrap();
            let found = Reach::Outside.check(&url);
            assert_eq!(found.as_ref().err().map(|forbidden| forbidden.special), expected, "{host}");
            assert_eq!(Reach::Here.check(&url).is_ok(), matches!(expected, None | Some(Loopback)), "{host}");
            assert_eq!(Reach::Anywhere.check(&url), Ok(()), "{host}");
            assert!(!format!("{found:?}").contains("secret"));
        }
    }

    #[test]
    fn addresses_that_an_image_may_not_name() {
        use Special::{Broadcast, Cloud, LinkLocal, Loopback, Multicast, Private, Reserved, Unspecified};
        let rows = [
            ("8.8.8.8", None),
            ("93.184.216.34", None),
            ("127.0.0.1", Some(Loopback)),
            ("0", Some(Unspecified)),
            ("169.254.169.254", Some(LinkLocal)),
            ("10.0.0.1", Some(Private)),
            ("172.15.255.255", None),
            ("172.16.0.1", Some(Private)),
            ("172.31.255.255", Some(Private)),
            ("172.32.0.0", None),
            ("192.168.255.255", Some(Private)),
            ("100.63.255.255", None),
            ("100.64.0.1", Some(Private)),
            ("100.127.255.255", Some(Private)),
            ("100.128.0.0", None),
            ("168.63.129.16", Some(Cloud)),
            ("192.0.0.192", Some(Reserved)),
            ("192.0.1.1", None),
            ("192.0.2.1", Some(Reserved)),
            ("192.88.99.1", Some(Reserved)),
            ("198.17.255.255", None),
            ("198.18.0.1", Some(Reserved)),
            ("198.19.255.255", Some(Reserved)),
            ("198.51.100.1", Some(Reserved)),
            ("203.0.113.1", Some(Reserved)),
            ("224.0.0.1", Some(Multicast)),
            ("240.0.0.1", Some(Reserved)),
            ("255.255.255.254", Some(Reserved)),
            ("255.255.255.255", Some(Broadcast)),
            ("[2606:4700::1111]", None),
            ("[2001:4860:4860::8888]", None),
            ("[::1]", Some(Loopback)),
            ("[::2]", Some(Unspecified)),
            ("[fe80::1]", Some(LinkLocal)),
            ("[fec0::1]", Some(Private)),
            ("[fc00::1]", Some(Private)),
            ("[fd00:ec2::254]", Some(Private)),
            ("[ff0e::1]", Some(Multicast)),
            ("[2001:db8::1]", Some(Reserved)),
            ("[2001::1]", Some(Reserved)),
            ("[3fff::1]", Some(Reserved)),
            ("[100::1]", Some(Reserved)),
            ("[4000::1]", Some(Reserved)),
            ("[::ffff:10.0.0.1]", Some(Private)),
            ("[::ffff:8.8.8.8]", None),
            ("[::ffff:0:192.168.0.1]", Some(Private)),
            ("[64:ff9b::8.8.8.8]", None),
            ("[64:ff9b::10.0.0.1]", Some(Private)),
            ("[64:ff9b:1::8.8.8.8]", Some(Unspecified)),
            ("[64:ff9b:1:808:8:800::]", None),
            ("[64:ff9b:1:a00:0:100::]", Some(Private)),
            ("[2002:808:808::1]", None),
            ("[2002:a00:1::]", Some(Private)),
            ("localhost", Some(Loopback)),
        ];
        for (host, expected) in rows {
            let url: Url = format!("https://{host}/x").parse().unwrap();
            let found = Reach::Public.check(&url).err().map(|forbidden| forbidden.special);
            assert_eq!(found, expected, "{host}");
            assert_eq!(Reach::Opened.check(&url), Ok(()), "{host}");
        }
    }

    /// Every name leads to these addresses.
    struct Fixed(&'static str);

    impl Resolve for Fixed {
        fn resolve(&self, _: Name) -> Resolving {
            let all: Vec<SocketAddr> =
                self.0.split_whitespace().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
            Box::pin(async { Ok(Box::new(all.into_iter()) as Addrs) })
        }
    }

    #[tokio::test]
    async fn only_addresses_that_were_checked_are_connected_to() {
        let rows = [
            (Reach::Anywhere, "127.0.0.1", Some("127.0.0.1")),
            (Reach::Here, "127.0.0.1 169.254.1.1", Some("127.0.0.1")),
            (Reach::Outside, "127.0.0.1 ::ffff:169.254.169.254", None),
            (Reach::Outside, "fe80::1 10.0.0.1", Some("10.0.0.1")),
            (Reach::Outside, "93.184.216.34", Some("93.184.216.34")),
            (Reach::Outside, "", Some("")),
            (Reach::Public, "10.0.0.1", None),
            (Reach::Public, "fd00::1 100.64.0.1 ::ffff:192.168.0.1", None),
            (Reach::Public, "10.0.0.1 93.184.216.34", Some("93.184.216.34")),
            (Reach::Opened, "10.0.0.1 127.0.0.1", Some("10.0.0.1 127.0.0.1")),
        ];
        for (reach, addresses, expected) in rows {
            let found = reach.guard(Arc::new(Fixed(addresses))).resolve("x.example".parse().unwrap()).await;
            let found = found.map(|found| found.map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" "));
            let found = found.map_err(|error| assert!(error.is::<Forbidden>())).ok();
            assert_eq!(found.as_deref(), expected, "{reach:?} {addresses:?}");
        }
    }
}
