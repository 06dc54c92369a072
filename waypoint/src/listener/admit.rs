//! Which CONNECT requests this waypoint takes: only what the configuration declares, so that no
//! other address can ever be dialled through it (specs/istio-waypoint.md 2.3 to 2.5).

use std::net::SocketAddr;

use http::{Method, Request, StatusCode};

use crate::log::Seldom;

/// Why a CONNECT is refused. `as_str` is the `reason` label of `cairn_tunnel_refused_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A method other than CONNECT, or an extended CONNECT.
    NotConnect,
    /// The authority is not `ip:port` or `hostname:port`.
    BadAuthority,
    /// No Gateway is in force, or the configuration is unreadable.
    NoGateway,
    /// The address or hostname belongs to nothing this waypoint serves.
    NotServed,
    /// The service is served, but has no such port.
    UndeclaredPort,
    /// Policy of a TCP service denies the peer.
    PolicyDenied,
    /// A TCP service has no endpoint that can be reached.
    NoEndpoint,
    /// A steered connection that stands for no service port.
    NoSlot,
    /// Too many steered connections of one pod.
    ConnectionLimit,
}

impl Refusal {
    /// Every reason, for registering counters.
    pub const ALL: [Refusal; 9] = [
        Self::NotConnect,
        Self::BadAuthority,
        Self::NoGateway,
        Self::NotServed,
        Self::UndeclaredPort,
        Self::PolicyDenied,
        Self::NoEndpoint,
        Self::NoSlot,
        Self::ConnectionLimit,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotConnect => "not_connect",
            Self::BadAuthority => "bad_authority",
            Self::NoGateway => "no_gateway",
            Self::NotServed => "not_served",
            Self::UndeclaredPort => "undeclared_port",
            Self::PolicyDenied => "policy_denied",
            Self::NoEndpoint => "no_endpoint",
            Self::NoSlot => "no_slot",
            Self::ConnectionLimit => "connection_limit",
        }
    }

    /// The line in the log that tells of it.
    pub fn line(self) -> &'static Seldom {
        static LINES: [Seldom; Refusal::ALL.len()] = [const { Seldom::new() }; Refusal::ALL.len()];
        // As long as `ALL` is complete, which a test sees to, none is left for the others.
        static OTHERS: Seldom = Seldom::new();
        LINES.get(self as usize).unwrap_or(&OTHERS)
    }

    /// The status of the answer (specs/istio-waypoint.md 2.4). A steered connection is reset instead.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotConnect
            | Self::BadAuthority
            | Self::NotServed
            | Self::UndeclaredPort
            | Self::NoSlot => StatusCode::BAD_REQUEST,
            Self::PolicyDenied => StatusCode::UNAUTHORIZED,
            Self::NoGateway | Self::NoEndpoint | Self::ConnectionLimit => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

/// What a CONNECT asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A virtual IP or pod IP, IPv4-mapped addresses as IPv4.
    Address(SocketAddr),
    /// A hostname in lower case, and a port.
    Hostname(String, u16),
}

/// Reads a CONNECT request.
///
/// # Errors
/// [`Refusal::NotConnect`] or [`Refusal::BadAuthority`].
pub fn asked<B>(request: &Request<B>) -> Result<Asked, Refusal> {
    if request.method() != Method::CONNECT
        || request.extensions().get::<h2::ext::Protocol>().is_some()
    {
        return Err(Refusal::NotConnect);
    }
    let authority = request.uri().authority().ok_or(Refusal::BadAuthority)?;
    parse_authority(authority.as_str()).ok_or(Refusal::BadAuthority)
}

fn parse_authority(authority: &str) -> Option<Asked> {
    let (host, port) = authority.rsplit_once(':')?;
    // As in Host: one way to write a port. The parser of the standard library takes 080.
    if port.starts_with('0') {
        return None;
    }
    if let Ok(address) = authority.parse::<SocketAddr>() {
        let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
        return Some(Asked::Address(canonical));
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
    valid.then(|| Asked::Hostname(host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_addresses_or_hostnames_with_a_port() {
        let address = |s: &str| Some(Asked::Address(s.parse().unwrap()));
        assert_eq!(parse_authority("10.96.1.2:80"), address("10.96.1.2:80"));
        assert_eq!(parse_authority("[fd00::1]:80"), address("[fd00::1]:80"));
        assert_eq!(
            parse_authority("[::ffff:10.0.0.1]:80"),
            address("10.0.0.1:80")
        );
        assert_eq!(
            parse_authority("web.shop.svc.cluster.local.:80"),
            Some(Asked::Hostname("web.shop.svc.cluster.local".into(), 80))
        );
        assert_eq!(
            parse_authority("Web.shop.svc.cluster.local:8080"),
            Some(Asked::Hostname("web.shop.svc.cluster.local".into(), 8080))
        );
    }

    #[test]
    fn each_reason_has_a_line_of_its_own() {
        for (at, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, at, "{refusal:?}");
        }
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
            assert_eq!(parse_authority(text), None, "{text}");
        }
    }

    #[test]
    fn only_plain_connect_is_taken() {
        let request = |method: Method| {
            Request::builder()
                .method(method)
                .uri("10.0.0.1:80")
                .body(())
                .unwrap()
        };
        assert!(asked(&request(Method::CONNECT)).is_ok());
        assert_eq!(asked(&request(Method::GET)), Err(Refusal::NotConnect));
    }
}
