//! Which addresses are public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A name resolves to a private address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name resolves to {0}, which is not a public address: if that is intended, set \
     allow_private = true for this destination"
)]
pub struct PrivateAddress(IpAddr);

/// The public ones of the addresses that a name resolves to.
///
/// # Errors
/// If there are addresses, and none of them is public.
pub fn public_only(
    found: impl Iterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, PrivateAddress> {
    let (public, inside): (Vec<_>, Vec<_>) = found.partition(|address| is_public(address.ip()));
    match (public.is_empty(), inside.first()) {
        (true, Some(address)) => Err(PrivateAddress(address.ip())),
        _ => Ok(public),
    }
}

/// Whether a host, as a URL has it, is this machine: `localhost`, or a loopback address. Any other
/// name is not, however it begins.
pub fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Whether an address is globally reachable, by the registries of RFC 6890.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = matches!(
        (a, b, c),
        // "This network", shared address space, IETF protocols, 6to4 relays, benchmarks.
        (0, _, _)
            | (100, 64..=127, _)
            | (192, 0, 0)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (240.., _, _)
    );
    !(reserved
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Of what is handed out, 2000::/3, without documentation and what tunnels elsewhere.
    first & 0xe000 == 0x2000
        && !(first == 0x2001 && second < 0x0200)
        && !(first == 0x2001 && second == 0x0db8)
        && first != 0x3fff
}

/// The IPv4 address inside of an IPv6 one: mapped, NAT64 or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match (a, b, c, d, e, f) {
        (0x64, 0xff9b, 0, 0, 0, 0) => Some(v4(g, h)),
        (0x2002, high, low, ..) => Some(v4(high, low)),
        _ => address.to_ipv4_mapped(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_and_localhost_are_this_machine() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["127.evil.example", "127.0.0.1.nip.io", "localhost.example", "10.0.0.1", ""] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn only_globally_reachable_addresses_are_public() {
        for address in ["1.1.1.1", "52.18.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.100.100.200",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "203.0.113.1",
            "::",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "::7f00:1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
}
