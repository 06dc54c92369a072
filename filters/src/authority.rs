//! Whether a Host or `:authority` is one a server could mean. Does not resolve it, and does not
//! choose a service by it: the tunnel does (specs/istio-waypoint.md 2.5).

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::HeaderMap;
use http::header::HOST;

/// Why an authority is refused with 400. `Display` is the reason for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Neither `:authority` nor Host, or an empty one.
    #[error("the request has no Host")]
    Missing,
    /// More than one Host.
    #[error("the request has more than one Host")]
    Several,
    /// `:authority` (or the authority of an absolute target) and Host differ: a backend might
    /// believe the other one than policy did.
    #[error("the authority of the request target and Host differ")]
    Contradiction,
    /// `user@host`.
    #[error("the authority has a user part")]
    UserInfo,
    /// A character that no host name has.
    #[error("the host has a character that is not allowed in a host")]
    Host,
    /// A port that is not a plain decimal number up to 65535. An empty port and leading zeros are
    /// refused too, for `hosts` of a policy compares text, port included (4.8).
    #[error("the port of the authority is not a plain number from 0 to 65535")]
    Port,
}

/// The one authority of a request: `uri_authority` is `:authority`, or that of an absolute target.
/// Both it and Host may be there if they agree. The dot at the end of a name is left out; if the
/// result is not what was sent, it has to be put into the request.
pub fn of_request<'a>(
    uri_authority: Option<&'a str>,
    headers: &'a HeaderMap,
) -> Result<Cow<'a, str>, AuthorityError> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match hosts.next() {
        Some(value) => Some(value.to_str().map_err(|_| AuthorityError::Host)?),
        None => None,
    };
    if hosts.next().is_some() {
        return Err(AuthorityError::Several);
    }
    let authority = match (uri_authority, host) {
        (Some(a), Some(h)) if !a.eq_ignore_ascii_case(h) => {
            return Err(AuthorityError::Contradiction);
        }
        (Some(authority), _) | (None, Some(authority)) => authority,
        (None, None) => return Err(AuthorityError::Missing),
    };
    let authority = without_trailing_dot(authority);
    validate(&authority)?;
    Ok(authority)
}

/// `foo.example.` is `foo.example` to DNS and to most servers, but not to a policy that compares
/// text: a DENY on the one must not miss the other.
pub fn without_trailing_dot(authority: &str) -> Cow<'_, str> {
    let (host, port) = split_port(authority);
    match (host.strip_suffix('.'), port) {
        (None | Some(""), _) => Cow::Borrowed(authority),
        (Some(host), _) if host.ends_with(']') => Cow::Borrowed(authority),
        (Some(host), None) => Cow::Borrowed(host),
        (Some(host), Some(port)) => Cow::Owned(format!("{host}:{port}")),
    }
}

/// Whether `authority` is `host`, `host:port`, `[ipv6]` or `[ipv6]:port`, the host without a dot at
/// its end.
pub fn validate(authority: &str) -> Result<(), AuthorityError> {
    if authority.is_empty() {
        return Err(AuthorityError::Missing);
    }
    if authority.contains('@') {
        return Err(AuthorityError::UserInfo);
    }
    let (host, port) = split_port(authority);
    match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(ip) => ip
            .parse::<Ipv6Addr>()
            .map(drop)
            .map_err(|_| AuthorityError::Host)?,
        None if host.is_empty() || host.ends_with('.') || !host.bytes().all(legal_in_host) => {
            return Err(AuthorityError::Host);
        }
        None => {}
    }
    match port {
        None => Ok(()),
        Some(port) if plain_port(port) => Ok(()),
        Some(_) => Err(AuthorityError::Port),
    }
}

/// The host of a valid authority; an IPv6 address keeps its brackets.
pub fn host_without_port(authority: &str) -> &str {
    split_port(authority).0
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after_address = authority.rfind(']').unwrap_or(0);
    match authority.rfind(':') {
        Some(colon) if colon >= after_address => {
            let (host, port) = authority.split_at(colon);
            (host, port.strip_prefix(':'))
        }
        _ => (authority, None),
    }
}

/// RFC 3986 reg-name without percent-escapes, which no DNS name needs, and without the comma, which
/// is what two Host headers joined by a careless hop would have.
fn legal_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte)
}

fn plain_port(port: &str) -> bool {
    let plain = port.bytes().all(|b| b.is_ascii_digit()) && (port == "0" || !port.starts_with('0'));
    plain && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn hosts_addresses_and_ports_are_legal() {
        for ok in [
            "a",
            "Foo.example",
            "foo_bar:8080",
            "10.0.0.1:80",
            "[fd00::1]",
            "[::1]:65535",
        ] {
            assert_eq!(validate(ok), Ok(()), "{ok}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        use AuthorityError::*;
        for (authority, error) in [
            ("", Missing),
            ("admin@foo", UserInfo),
            (":80", Host),
            (".", Host),
            ("foo.example.", Host),
            ("foo.example.:80", Host),
            ("foo bar", Host),
            ("foo/bar", Host),
            ("foo,bar", Host),
            ("foo\\bar", Host),
            ("foo%2ebar", Host),
            ("fd00::1", Host),
            ("[fd00::1", Host),
            ("[fd00::1]x", Host),
            ("[foo]", Host),
            ("[fe80::1%25eth0]", Host),
            ("f\u{f6}\u{f6}", Host),
            ("foo:", Port),
            ("foo:080", Port),
            ("foo:+80", Port),
            ("foo:65536", Port),
            ("foo:http", Port),
        ] {
            assert_eq!(validate(authority), Err(error), "{authority}");
        }
    }

    #[test]
    fn the_request_has_exactly_one() {
        let mut headers = HeaderMap::new();
        assert_eq!(of_request(None, &headers), Err(AuthorityError::Missing));
        assert_eq!(of_request(Some("foo"), &headers), Ok("foo".into()));
        headers.insert(HOST, HeaderValue::from_static("foo"));
        assert_eq!(of_request(None, &headers), Ok("foo".into()));
        assert_eq!(of_request(Some("FOO"), &headers), Ok("FOO".into()));
        assert_eq!(
            of_request(Some("bar"), &headers),
            Err(AuthorityError::Contradiction)
        );
        headers.append(HOST, HeaderValue::from_static("foo"));
        assert_eq!(of_request(None, &headers), Err(AuthorityError::Several));
    }

    #[test]
    fn a_dot_at_the_end_of_a_name_is_left_out() {
        let none = HeaderMap::new();
        for (sent, read) in [
            ("foo.example.", Ok("foo.example")),
            ("foo.example.:80", Ok("foo.example:80")),
            ("foo.example:80", Ok("foo.example:80")),
            ("10.0.0.1.", Ok("10.0.0.1")),
            (".", Err(AuthorityError::Host)),
            ("foo..", Err(AuthorityError::Host)),
            ("[::1].", Err(AuthorityError::Host)),
            ("foo.:", Err(AuthorityError::Port)),
        ] {
            let found = of_request(Some(sent), &none);
            assert_eq!(found, read.map(Cow::Borrowed), "{sent}");
        }
    }

    #[test]
    fn the_port_is_cut_off() {
        for (authority, host) in [
            ("foo", "foo"),
            ("foo:80", "foo"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
        ] {
            assert_eq!(host_without_port(authority), host);
        }
    }
}
