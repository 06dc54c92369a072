//! What a CONNECT asks for, by its authority (specs/istio-waypoint.md 2.3). Whether that is served is the
//! waypoint's to say.

use std::net::SocketAddr;

/// What a CONNECT asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A virtual IP or pod IP, IPv4-mapped addresses as IPv4.
    Address(SocketAddr),
    /// A hostname in lower case, and a port.
    Hostname(String, u16),
}

impl Asked {
    /// Reads `ip:port` or `hostname:port`; `None`: it is neither.
    pub fn parse(authority: &str) -> Option<Self> {
        let (host, port) = authority.rsplit_once(':')?;
        // As in Host: one way to write a port. The parser of the standard library takes 080.
        if port.starts_with('0') {
            return None;
        }
        if let Ok(address) = authority.parse::<SocketAddr>() {
            let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
            return Some(Self::Address(canonical));
        }
        // The dot that ends an absolute name in DNS.
        let host = host.strip_suffix('.').unwrap_or(host);
        let port: u16 = port
            .bytes()
            .all(|c| c.is_ascii_digit())
            .then(|| port.parse().ok())??;
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && l.bytes()
                    .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        };
        // Something like 10.1.2 or 0x7f.1 is neither an address nor a name of ours.
        let numeric = host
            .rsplit('.')
            .next()
            .is_some_and(|l| l.starts_with(|c: char| c.is_ascii_digit()));
        let valid = host.len() <= 253 && !numeric && host.split('.').all(label);
        valid.then(|| Self::Hostname(host.to_ascii_lowercase(), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_addresses_or_hostnames_with_a_port() {
        let address = |s: &str| Some(Asked::Address(s.parse().unwrap()));
        assert_eq!(Asked::parse("10.96.1.2:80"), address("10.96.1.2:80"));
        assert_eq!(Asked::parse("[fd00::1]:80"), address("[fd00::1]:80"));
        assert_eq!(Asked::parse("[::ffff:10.0.0.1]:80"), address("10.0.0.1:80"));
        assert_eq!(
            Asked::parse("web.shop.svc.cluster.local.:80"),
            Some(Asked::Hostname("web.shop.svc.cluster.local".into(), 80))
        );
        assert_eq!(
            Asked::parse("Web.shop.svc.cluster.local:8080"),
            Some(Asked::Hostname("web.shop.svc.cluster.local".into(), 8080))
        );
    }

    #[test]
    fn malformed_authorities_are_refused() {
        for text in [
            "",
            "10.96.1.2",
            "10.96.1.2:",
            "10.96.1.2:0",
            "10.96.1.2:080",
            "[fd00::1]:080",
            "web.shop:080",
            "10.96.1.2:70000",
            "10.96.1.2:+80",
            "fd00::1:80",
            "web",
            "web:",
            "user@web:80",
            "web:80/path",
            "we b:80",
            "10.1.2:80",
            "0x7f.1:80",
            ".:80",
            "a..b:80",
            "a..:80",
            "127.0.0.1.:80",
        ] {
            assert_eq!(Asked::parse(text), None, "{text}");
        }
    }
}
