//! Who sent a callback: whoever connected, or whom a trusted proxy says it got it from.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The proxies' list of whom they got it from.
const FORWARDED: &str = "x-forwarded-for";

/// The nearest address that is no trusted proxy's. What stands further away in the list, anyone
/// may have written.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let lines = headers.get_all(FORWARDED).iter().filter_map(|line| line.to_str().ok());
    let told: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
    let mut nearest = peer.to_canonical();
    for text in told.iter().rev() {
        if !is_trusted(nearest) {
            break;
        }
        let Ok(address) = text.trim().parse::<IpAddr>() else { break };
        nearest = address.to_canonical();
    }
    nearest
}

#[cfg(test)]
mod tests {
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
        let cases: [(&str, &[&str], &str); 9] = [
            ("10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.7,10.0.0.2"], "203.0.113.7"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("::1", &["2001:db8::1"], "2001:db8::1"),
        ];
        for (peer, lines, client) in cases {
            assert_eq!(of(peer, lines).as_deref(), Some(client), "{peer} {lines:?}");
        }
    }
}
