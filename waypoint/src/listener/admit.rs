//! Which CONNECT requests this waypoint takes: only what the configuration declares, so that no
//! other address can ever be dialled through it (specs/istio-waypoint.md 2.3 to 2.5).

pub use cairn_filters::connect::Asked;
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
    /// A TCP stream that no route takes, or whose route leads nowhere.
    NoRoute,
    /// A steered connection that stands for no service port.
    NoSlot,
    /// Too many steered connections of one pod.
    ConnectionLimit,
}

impl Refusal {
    /// Every reason, for registering counters.
    pub const ALL: [Refusal; 10] = [
        Self::NotConnect,
        Self::BadAuthority,
        Self::NoGateway,
        Self::NotServed,
        Self::UndeclaredPort,
        Self::PolicyDenied,
        Self::NoEndpoint,
        Self::NoRoute,
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
            Self::NoRoute => "no_route",
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
            Self::NoGateway | Self::NoEndpoint | Self::NoRoute | Self::ConnectionLimit => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
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
    Asked::parse(authority.as_str()).ok_or(Refusal::BadAuthority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_line_of_its_own() {
        for (at, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, at, "{refusal:?}");
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
