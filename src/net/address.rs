//! What an address says about where a request goes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// A part of the network that requests must not be lured into from outside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    /// This machine.
    Loopback,
    /// This link; also where clouds tell their machines about themselves, credentials included.
    LinkLocal,
    /// Networks that are reached from inside only.
    Private,
    /// Anything else.
    Public,
}

/// Addresses of metadata services outside the link-local range: Alibaba Cloud, Azure, Oracle Cloud, and AWS and
/// Google Cloud by IPv6.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

impl Zone {
    pub(super) fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        if METADATA.contains(&address) {
            return Self::LinkLocal;
        }
        match address {
            // What is not specified leads to this machine.
            _ if address.is_loopback() || address.is_unspecified() => Self::Loopback,
            _ if address.is_multicast() => Self::Private,
            IpAddr::V4(v4) => match v4.octets() {
                _ if v4.is_link_local() => Self::LinkLocal,
                _ if v4.is_private() => Self::Private,
                // This network, providers' own networks, protocols, tests of networks, and what is reserved.
                [0 | 240..=255, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] => Self::Private,
                _ => Self::Public,
            },
            IpAddr::V6(v6) => match v6.segments() {
                _ if v6.is_unicast_link_local() => Self::LinkLocal,
                // Formerly site-local, too.
                [0xfec0..=0xfeff, ..] => Self::Private,
                _ if v6.is_unique_local() => Self::Private,
                // IPv4 behind a translator or at the end of a tunnel, and in the notation of old.
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] | [0, 0, 0, 0, 0, 0, high, low] => {
                    Self::of_halves(high, low)
                }
                // A translator's own networks; and tunnels that somebody behind a router has.
                [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..] => Self::Private,
                _ => Self::Public,
            },
        }
    }

    /// Of an IPv4 address in the two halves that an IPv6 address has of it.
    fn of_halves(high: u16, low: u16) -> Self {
        Self::of(IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))))
    }

    /// Whether a server in `self` may send a client to `other`. One on this machine may name its own network,
    /// but whoever is forwarded to this machine is not trusted with credentials of its cloud.
    pub(super) fn may_lead_to(self, other: Self) -> bool {
        other == Self::Public || self == other || (self == Self::Loopback && other == Self::Private)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Loopback => "this machine",
            Self::LinkLocal => "a link-local address",
            Self::Private => "a private network",
            Self::Public => "the Internet",
        })
    }
}

/// The zone of a URL, as far as it can be known without asking anyone. Of names, only `localhost` has one:
/// the others below it are asked of resolvers.
pub(super) fn zone(url: &Url) -> Option<Zone> {
    match url.host()? {
        Host::Ipv4(address) => Some(Zone::of(address.into())),
        Host::Ipv6(address) => Some(Zone::of(address.into())),
        Host::Domain(name) => (name == "localhost").then_some(Zone::Loopback),
    }
}

/// Returns true if the URL points to this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    zone(url) == Some(Zone::Loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart_in_every_notation() {
        for (zone, urls) in [
            (
                Zone::Loopback,
                &[
                    "127.0.0.1",
                    "127.9.9.9",
                    "2130706433",
                    "0x7f.1",
                    "0.0.0.0",
                    "[::1]",
                    "[::]",
                    "[::ffff:127.0.0.1]",
                    "0177.0.0.1",
                    "017700000001",
                    "0x7f000001",
                    "127.1",
                    "[::127.0.0.1]",
                    "[2002:7f00:1::1]",
                ][..],
            ),
            (
                Zone::LinkLocal,
                &[
                    "169.254.169.254",
                    "[fe80::1]",
                    "100.100.100.200",
                    "168.63.129.16",
                    "[fd00:ec2::254]",
                    "[::ffff:a9fe:a9fe]",
                    "[64:ff9b::a9fe:a9fe]",
                    "[2002:a9fe:a9fe::]",
                    "[::169.254.169.254]",
                    "192.0.0.192",
                    "[fd20:ce::254]",
                    "0xa9fea9fe",
                    "2852039166",
                ],
            ),
            (
                Zone::Private,
                &[
                    "10.0.0.1",
                    "172.16.0.1",
                    "192.168.1.1",
                    "100.64.0.1",
                    "0.1.2.3",
                    "240.0.0.1",
                    "224.0.0.1",
                    "[fc00::1]",
                    "[fec0::1]",
                    "[ff02::1]",
                    "[64:ff9b::a00:1]",
                    "[64:ff9b:1::1]",
                    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
                    "[2002:a00:1::]",
                    "198.18.0.1",
                    "192.0.0.1",
                ],
            ),
            (
                Zone::Public,
                &[
                    "1.1.1.1",
                    "172.32.0.1",
                    "100.128.0.1",
                    "192.0.1.1",
                    "[2606:4700::1]",
                    "[64:ff9b::101:101]",
                    "[2002:101:101::1]",
                ],
            ),
        ] {
            for host in urls {
                let url = Url::parse(&format!("http://{host}/")).unwrap();
                assert_eq!(super::zone(&url), Some(zone), "{host}");
            }
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (url, expected) in [
            ("http://localhost:8000", true),
            ("http://LOCALHOST", true),
            ("http://[::1]", true),
            ("http://posthog.localhost", false),
            ("http://localhost.", false),
            ("http://0.0.0.0", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn servers_lead_outwards_or_to_their_own_network() {
        use Zone::{LinkLocal, Loopback, Private, Public};
        for (from, allowed) in [
            (Public, &[Public][..]),
            (Private, &[Public, Private]),
            (LinkLocal, &[Public, LinkLocal]),
            (Loopback, &[Public, Loopback, Private]),
        ] {
            for to in [Public, Private, LinkLocal, Loopback] {
                assert_eq!(from.may_lead_to(to), allowed.contains(&to), "{from:?} to {to:?}");
            }
        }
    }
}
