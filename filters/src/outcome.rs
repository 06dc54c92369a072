//! The one table from what happened to what everybody is told: status, gRPC status, response flag,
//! response code details, whose fault it is, and whether trying again is safe.
//!
//! Flags and details are Envoy's words, for they are what people search for and alert on. Does not
//! send anything.

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap};

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client's.
    Client,
    /// Ours.
    Us,
    /// The endpoint's, or the way to it.
    Upstream,
    /// The configuration's.
    ControlPlane,
}

/// Every answer that Cairn itself gives to an HTTP request, and every way an exchange may end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The path is refused by normalisation.
    BadPath,
    /// Host is missing, doubled or malformed.
    BadAuthority,
    /// The message could not be parsed or framed.
    BadRequest,
    /// HTTP/1.0 or older.
    LowVersion,
    /// CONNECT inside the tunnel.
    ConnectInside,
    /// An upgrade other than WebSocket.
    BadUpgrade,
    /// The header block is too large.
    HeadersTooLarge,
    /// The header block took too long.
    HeadersTooSlow,
    /// A token that is not valid. Details and body come from what is wrong with it.
    Unauthenticated,
    /// A valid token that is for somebody else.
    WrongAudience,
    /// Policy denied it. The details come from the verdict.
    Denied,
    /// Network policy denied it, in Cilium's words. The details come from the verdict.
    DeniedByNetwork,
    /// An authorization service denied it. Status, headers and body come from the service.
    ExternalDenied,
    /// An authorization service gave no answer that can be used. The status comes from its provider.
    ExternalError,
    /// The body is longer than an authorization service may get.
    BodyTooLarge,
    /// The body that an authorization service gets did not come.
    BodyTooSlow,
    /// A rate limit that is counted here has no token for it.
    RateLimited,
    /// A rate limit service says that it is over its limit. Headers and body come from the service.
    RateLimitedByService,
    /// A rate limit service gave no answer that can be used.
    RateLimitError,
    /// As many requests as may be are being answered.
    TooManyRequests,
    /// A TrafficPolicy for it could not be understood.
    BrokenLimit,
    /// Routes are attached and none matches.
    NoRoute,
    /// A CORS preflight, answered for the endpoint.
    Preflight,
    /// A route answers by itself. Status and body come from the route.
    DirectResponse,
    /// A route failed it on purpose. The status comes from the route.
    FaultInjected,
    /// A filter redirected it. The status comes from the filter.
    Redirected,
    /// The rule has something Cairn can not honour.
    BrokenRule,
    /// The rule has no backend.
    NoBackend,
    /// The chosen backend could not be resolved.
    InvalidBackend,
    /// The destination of a VirtualService could not be resolved.
    UnknownDestination,
    /// Configuration is unreadable, or the service is not served here.
    NotServed,
    /// No endpoint is known.
    NoEndpoint,
    /// No endpoint could be connected to.
    ConnectFailed,
    /// No endpoint could be connected to in time.
    ConnectTimeout,
    /// The connection ended before the answer.
    UpstreamClosed,
    /// The endpoint reset the stream before the answer.
    UpstreamReset,
    /// The answer was not HTTP.
    UpstreamProtocol,
    /// A limit on connections or streams to the endpoint is reached.
    UpstreamOverflow,
    /// The answer took longer than the route allows.
    UpstreamTimeout,
    /// The last attempt took longer than the route allows for one.
    AttemptTimeout,
    /// The answer took longer than the client's `grpc-timeout`.
    DeadlineExceeded,
    /// The client went away.
    ClientGone,
    /// Our own error.
    Internal,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// HTTP status. For [`Outcome::ClientGone`] nobody is there to see it.
    pub status: StatusCode,
    /// gRPC status.
    pub grpc_status: u8,
    /// Envoy's short response flag, empty for none.
    pub flag: &'static str,
    /// Envoy's response code details.
    pub details: &'static str,
    /// Body of the answer, `text/plain`; for gRPC its `grpc-message`.
    pub body: &'static str,
    /// Whose fault it is.
    pub fault: Fault,
    /// Whether nothing of the request can have reached an application, so that sending it again is safe.
    pub retry_safe: bool,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 43] = [
        Self::BadPath,
        Self::BadAuthority,
        Self::BadRequest,
        Self::LowVersion,
        Self::ConnectInside,
        Self::BadUpgrade,
        Self::HeadersTooLarge,
        Self::HeadersTooSlow,
        Self::Unauthenticated,
        Self::WrongAudience,
        Self::Denied,
        Self::DeniedByNetwork,
        Self::ExternalDenied,
        Self::ExternalError,
        Self::BodyTooLarge,
        Self::BodyTooSlow,
        Self::RateLimited,
        Self::RateLimitedByService,
        Self::RateLimitError,
        Self::TooManyRequests,
        Self::BrokenLimit,
        Self::NoRoute,
        Self::Preflight,
        Self::DirectResponse,
        Self::FaultInjected,
        Self::Redirected,
        Self::BrokenRule,
        Self::NoBackend,
        Self::InvalidBackend,
        Self::UnknownDestination,
        Self::NotServed,
        Self::NoEndpoint,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::UpstreamClosed,
        Self::UpstreamReset,
        Self::UpstreamProtocol,
        Self::UpstreamOverflow,
        Self::UpstreamTimeout,
        Self::AttemptTimeout,
        Self::DeadlineExceeded,
        Self::ClientGone,
        Self::Internal,
    ];

    /// The row of the table. gRPC statuses follow the official mapping from HTTP (400 is INTERNAL, 404
    /// UNIMPLEMENTED), but an invalid backend is UNAVAILABLE (specs/gateway-api.md 1.4, Weights).
    #[rustfmt::skip] // a table
    pub const fn row(self) -> Row {
        use Fault::{Client, ControlPlane, Upstream, Us};
        use StatusCode as S;
        match self {
            Self::BadPath          => Row::new(S::BAD_REQUEST, 13, "", "path_normalization_failed", "bad path", Client, true),
            Self::BadAuthority     => Row::new(S::BAD_REQUEST, 13, "", "http.invalid_authority", "bad host", Client, true),
            Self::BadRequest       => Row::new(S::BAD_REQUEST, 13, "DPE", "http.codec_error", "bad request", Client, true),
            Self::LowVersion       => Row::new(S::UPGRADE_REQUIRED, 2, "DPE", "low_version", "HTTP/1.1 or later is required", Client, true),
            Self::ConnectInside    => Row::new(S::METHOD_NOT_ALLOWED, 12, "", "connect_not_allowed", "CONNECT not allowed", Client, true),
            Self::BadUpgrade       => Row::new(S::FORBIDDEN, 7, "", "upgrade_failed", "upgrade not allowed", Client, true),
            Self::HeadersTooLarge  => Row::new(S::REQUEST_HEADER_FIELDS_TOO_LARGE, 8, "", "request_headers_too_large", "request headers too large", Client, true),
            Self::HeadersTooSlow   => Row::new(S::REQUEST_TIMEOUT, 4, "", "request_header_timeout", "request headers took too long", Client, true),
            Self::Unauthenticated  => Row::new(S::UNAUTHORIZED, 16, "", "jwt_authn_access_denied{Jwt_verification_fails}", "Jwt verification fails", Client, true),
            Self::WrongAudience    => Row::new(S::FORBIDDEN, 7, "", "jwt_authn_access_denied{Audiences_in_Jwt_are_not_allowed}", "Audiences in Jwt are not allowed", Client, true),
            Self::Denied           => Row::new(S::FORBIDDEN, 7, "", "rbac_access_denied_matched_policy[none]", "RBAC: access denied", Client, true),
            Self::DeniedByNetwork  => Row::new(S::FORBIDDEN, 7, "", "network_access_denied_matched_policy[none]", "Access denied\r\n", Client, true),
            Self::ExternalDenied   => Row::new(S::FORBIDDEN, 7, "UAEX", "ext_authz_denied", "", Client, false),
            Self::ExternalError    => Row::new(S::FORBIDDEN, 7, "UAEX", "ext_authz_error", "", Upstream, true),
            Self::BodyTooLarge     => Row::new(S::PAYLOAD_TOO_LARGE, 8, "", "request_payload_too_large", "Payload Too Large", Client, false),
            Self::BodyTooSlow      => Row::new(S::REQUEST_TIMEOUT, 4, "", "request_payload_timeout", "request body timeout", Client, false),
            Self::RateLimited      => Row::new(S::TOO_MANY_REQUESTS, 14, "RL", "local_rate_limited", "local_rate_limited", Client, true),
            Self::RateLimitedByService => Row::new(S::TOO_MANY_REQUESTS, 14, "RL", "request_rate_limited", "", Client, true),
            Self::RateLimitError   => Row::new(S::INTERNAL_SERVER_ERROR, 2, "RLSE", "rate_limiter_error", "", Upstream, true),
            Self::TooManyRequests  => Row::new(S::SERVICE_UNAVAILABLE, 14, "UO", "reached_concurrency_limit", "reached concurrency limit", Us, true),
            Self::BrokenLimit      => Row::new(S::INTERNAL_SERVER_ERROR, 14, "", "limits_not_in_force", "limits not in force", ControlPlane, true),
            Self::NoRoute          => Row::new(S::NOT_FOUND, 12, "NR", "route_not_found", "", Client, true),
            Self::DirectResponse   => Row::new(S::OK, 2, "", "direct_response", "", Client, true),
            Self::FaultInjected    => Row::new(S::SERVICE_UNAVAILABLE, 14, "FI", "fault_filter_abort", "fault filter abort", ControlPlane, true),
            Self::Preflight        => Row::new(S::OK, 2, "", "cors_response", "", Client, true),
            Self::Redirected       => Row::new(S::FOUND, 2, "", "direct_response", "", Client, true),
            Self::BrokenRule       => Row::new(S::INTERNAL_SERVER_ERROR, 14, "", "direct_response", "route not in force", ControlPlane, true),
            Self::NoBackend        => Row::new(S::INTERNAL_SERVER_ERROR, 14, "", "direct_response", "route without backend", ControlPlane, true),
            Self::InvalidBackend   => Row::new(S::INTERNAL_SERVER_ERROR, 14, "NC", "cluster_not_found", "backend not found", ControlPlane, true),
            Self::UnknownDestination => Row::new(S::SERVICE_UNAVAILABLE, 14, "NC", "cluster_not_found", "destination not found", ControlPlane, true),
            Self::NotServed        => Row::new(S::SERVICE_UNAVAILABLE, 14, "NC", "configuration_not_in_force", "not served", ControlPlane, true),
            Self::NoEndpoint       => Row::new(S::SERVICE_UNAVAILABLE, 14, "UH", "no_healthy_upstream", "no healthy upstream", Upstream, true),
            Self::ConnectFailed    => Row::new(S::SERVICE_UNAVAILABLE, 14, "UF", "upstream_reset_before_response_started{remote_connection_failure}", "upstream connect failure", Upstream, true),
            Self::ConnectTimeout   => Row::new(S::SERVICE_UNAVAILABLE, 14, "UF", "upstream_reset_before_response_started{connection_timeout}", "upstream connect timeout", Upstream, true),
            Self::UpstreamClosed   => Row::new(S::SERVICE_UNAVAILABLE, 14, "UC", "upstream_reset_before_response_started{connection_termination}", "upstream connection closed", Upstream, false),
            Self::UpstreamReset    => Row::new(S::SERVICE_UNAVAILABLE, 14, "UR", "upstream_reset_before_response_started{remote_reset}", "upstream reset", Upstream, false),
            Self::UpstreamProtocol => Row::new(S::BAD_GATEWAY, 14, "UPE", "upstream_reset_before_response_started{protocol_error}", "upstream protocol error", Upstream, false),
            Self::UpstreamOverflow => Row::new(S::SERVICE_UNAVAILABLE, 14, "UO", "upstream_reset_before_response_started{overflow}", "upstream overflow", Us, true),
            Self::UpstreamTimeout  => Row::new(S::GATEWAY_TIMEOUT, 14, "UT", "response_timeout", "upstream request timeout", Upstream, false),
            Self::AttemptTimeout   => Row::new(S::GATEWAY_TIMEOUT, 14, "UT", "upstream_per_try_timeout", "upstream request timeout", Upstream, false),
            Self::DeadlineExceeded => Row::new(S::GATEWAY_TIMEOUT, 4, "UT", "response_timeout", "deadline exceeded", Upstream, false),
            Self::ClientGone       => Row::new(S::BAD_REQUEST, 1, "DC", "downstream_remote_disconnect", "", Client, false),
            Self::Internal         => Row::new(S::INTERNAL_SERVER_ERROR, 13, "", "internal_error", "internal error", Us, false),
        }
    }

    /// The `reason` of a request that was refused for what it is, before policy was asked; `None` for
    /// every other outcome.
    pub const fn refusal(self) -> Option<&'static str> {
        Some(match self {
            Self::BadPath => "bad_path",
            Self::BadAuthority => "bad_authority",
            Self::BadRequest => "bad_request",
            Self::LowVersion => "low_version",
            Self::ConnectInside => "connect",
            Self::BadUpgrade => "bad_upgrade",
            Self::HeadersTooLarge => "header_too_large",
            Self::HeadersTooSlow => "header_too_slow",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTooSlow => "body_too_slow",
            _ => return None,
        })
    }

    const fn is_overload(self) -> bool {
        matches!(self, Self::UpstreamOverflow | Self::TooManyRequests)
    }

    /// The answer to send.
    pub fn reply(self, grpc: bool) -> LocalReply {
        let row = self.row();
        if grpc {
            LocalReply {
                status: StatusCode::OK,
                content_type: Some("application/grpc"),
                grpc_status: Some(row.grpc_status),
                body: "",
                grpc_message: row.body.trim_ascii_end(),
                overloaded: self.is_overload(),
            }
        } else {
            LocalReply {
                status: row.status,
                content_type: (!row.body.is_empty()).then_some("text/plain"),
                grpc_status: None,
                body: row.body,
                grpc_message: "",
                overloaded: self.is_overload(),
            }
        }
    }
}

impl Row {
    const fn new(
        status: StatusCode,
        grpc_status: u8,
        flag: &'static str,
        details: &'static str,
        body: &'static str,
        fault: Fault,
        retry_safe: bool,
    ) -> Self {
        Self {
            status,
            grpc_status,
            flag,
            details,
            body,
            fault,
            retry_safe,
        }
    }
}

/// An answer that Cairn gives by itself. To gRPC it is a trailers-only response: status 200, the
/// gRPC status in a header, no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status.
    pub status: StatusCode,
    /// `content-type`, when there is a body or for gRPC.
    pub content_type: Option<&'static str>,
    /// `grpc-status`.
    pub grpc_status: Option<u8>,
    /// `grpc-message`, empty for none; has no character that would need escaping.
    pub grpc_message: &'static str,
    /// Body.
    pub body: &'static str,
    /// Says `x-envoy-overloaded: true`: a limit was reached, and trying again at once makes it worse.
    pub overloaded: bool,
}

impl LocalReply {
    /// The same with another body, or gRPC message.
    pub fn with_body(self, body: &'static str) -> Self {
        if self.grpc_status.is_some() {
            Self {
                grpc_message: body,
                ..self
            }
        } else {
            Self { body, ..self }
        }
    }
}

/// Whether a request is gRPC: `content-type` is `application/grpc` or begins with `application/grpc+`
/// or `application/grpc;`. gRPC-Web is plain HTTP to us.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let (kind, rest) = value.as_bytes().split_at(value.len().min(GRPC.len()));
        kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_denial_is_istios() {
        let reply = Outcome::Denied.reply(false);
        assert_eq!(reply.status, 403);
        assert_eq!(reply.body, "RBAC: access denied");
        assert_eq!(reply.content_type, Some("text/plain"));
        let reply = Outcome::Denied.reply(true);
        assert_eq!((reply.status.as_u16(), reply.grpc_status), (200, Some(7)));
        assert_eq!(reply.body, "");
    }

    #[test]
    fn network_policy_denies_in_ciliums_words() {
        let reply = Outcome::DeniedByNetwork.reply(false);
        assert_eq!(
            (reply.status.as_u16(), reply.body),
            (403, "Access denied\r\n")
        );
        let reply = Outcome::DeniedByNetwork.reply(true);
        assert_eq!(
            (reply.grpc_status, reply.grpc_message),
            (Some(7), "Access denied")
        );
    }

    #[test]
    fn no_route_is_an_empty_404_and_unimplemented() {
        let reply = Outcome::NoRoute.reply(false);
        assert_eq!((reply.status.as_u16(), reply.body), (404, ""));
        assert_eq!(reply.content_type, None);
        assert_eq!(Outcome::NoRoute.reply(true).grpc_status, Some(12));
    }

    #[test]
    fn every_outcome_is_listed_once() {
        let distinct: std::collections::HashSet<_> = Outcome::ALL.into_iter().collect();
        assert_eq!(distinct.len(), Outcome::ALL.len());
    }

    #[test]
    fn what_an_application_may_have_seen_is_never_called_safe() {
        for outcome in [
            Outcome::UpstreamClosed,
            Outcome::UpstreamReset,
            Outcome::UpstreamProtocol,
            Outcome::UpstreamTimeout,
            Outcome::AttemptTimeout,
            Outcome::DeadlineExceeded,
        ] {
            assert!(!outcome.row().retry_safe, "{outcome:?}");
        }
    }

    #[test]
    fn grpc_is_told_by_content_type() {
        let headers =
            |value| HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
        for yes in [
            "application/grpc",
            "Application/GRPC+proto",
            "application/grpc; x=y",
        ] {
            assert!(is_grpc(&headers(yes)), "{yes}");
        }
        for no in ["application/grpc-web", "application/json", ""] {
            assert!(!is_grpc(&headers(no)), "{no}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
