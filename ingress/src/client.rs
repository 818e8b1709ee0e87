//! The client of a callback: the peer, or the address that a trusted proxy reports.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// The proxies' list of whom they got it from.
const FORWARDED: &str = "x-forwarded-for";

/// The nearest address that isn't a trusted proxy. Anyone can write the addresses before it.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let lines = headers.get_all(FORWARDED).iter().filter_map(|line| line.to_str().ok());
    let addresses: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
    let mut nearest = peer.to_canonical();
    for text in addresses.iter().rev() {
        if !is_trusted(nearest) {
            break;
        }
        let Some(address) = address(text.trim()) else { break };
        nearest = address.to_canonical();
    }
    nearest
}

/// Some proxies add the port.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_a_trusted_proxy_says_is_believed() {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap_or_default()).into();
        let of = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED, line.parse().ok()?);
            }
            Some(client(peer.parse().ok()?, &headers, &trusted).to_string())
        };
        let cases: [(&str, &[&str], &str); 11] = [
            ("10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.7,10.0.0.2"], "203.0.113.7"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("::1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.7:4711"], "203.0.113.7"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
        ];
        for (peer, lines, client) in cases {
            assert_eq!(of(peer, lines).as_deref(), Some(client), "{peer} {lines:?}");
        }
    }

    proptest! {
        /// Who connects from elsewhere is believed nothing, and nothing that is written there is
        /// more than an address.
        #[test]
        fn no_list_makes_a_stranger_someone_else(lines in prop::collection::vec("[0-9a-f:., \\[\\]]{0,40}", 0..4)) {
            let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap_or_default()];
            let mut headers = HeaderMap::new();
            for line in &lines {
                if let Ok(value) = line.parse() {
                    headers.append(FORWARDED, value);
                }
            }
            let stranger = IpAddr::from([203, 0, 113, 9]);
            prop_assert_eq!(client(stranger, &headers, &trusted), stranger);
            let proxy = IpAddr::from([10, 0, 0, 1]);
            let addresses = client(proxy, &headers, &trusted);
            let last = lines.iter().flat_map(|line| line.split(',')).next_back();
            let nearest = last.and_then(|text| address(text.trim()));
            match nearest {
                Some(near) if !trusted[0].contains(&near.to_canonical()) => {
                    prop_assert_eq!(addresses, near.to_canonical());
                }
                Some(_) => {}
                None => prop_assert_eq!(addresses, proxy),
            }
        }
    }
}
