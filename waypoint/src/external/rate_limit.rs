//! Asks a rate limit service by Envoy's protocol, `envoy.service.ratelimit.v3` (issue 3, item 7). Unlike
//! Envoy takes no answer for a yes that says nothing.

use std::time::Duration;

use bytes::Bytes;
use cairn_config_schema::snapshot::{ClusterKey, GlobalRateLimit};
use cairn_filters::external::{Changes, HeaderMutation, WhenThere, is_of_connection};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::call::Call;
use super::connection::Lease;
use super::limit_messages::{Code, METHOD, RateLimitRequest, RateLimitResponse};
use super::{Answer, Ask, AskError, Clients, Denial, messages};
use crate::runtime::Runtime;
use crate::telemetry::counters::RATE_LIMIT_SERVICE_WAITING;
use crate::upstream::Dialer;

/// What a client over a limit is told, whoever counts.
pub const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

impl Clients {
    /// Asks a rate limit service.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask_limit(
        &self,
        dialer: &Dialer,
        runtime: &Runtime,
        limit: &GlobalRateLimit,
        request: RateLimitRequest,
    ) -> Result<Answer, AskError> {
        let _place = self.place(&limit.cluster, &RATE_LIMIT_SERVICE_WAITING)?;
        let timeout = Duration::from_millis(limit.timeout_ms);
        let asking = Asking { limit, request };
        let said = tokio::time::timeout(timeout, self.said(dialer, runtime, &asking));
        said.await.map_err(|_| AskError::Timeout(timeout))?
    }
}

struct Asking<'a> {
    limit: &'a GlobalRateLimit,
    request: RateLimitRequest,
}

impl Ask for Asking<'_> {
    type Said = Answer;

    fn cluster(&self) -> &ClusterKey {
        &self.limit.cluster
    }

    fn is_grpc(&self) -> bool {
        true
    }

    async fn speak(&self, lease: Lease) -> Result<Answer, AskError> {
        let call = Call {
            service: &self.limit.cluster.service,
            method: METHOD,
            timeout: Duration::from_millis(self.limit.timeout_ms),
        };
        answer(&call.unary(lease, self.request.clone()).await?)
    }
}

fn answer(response: &RateLimitResponse) -> Result<Answer, AskError> {
    let mut to_client = added(&response.response_headers_to_add)?;
    match response.overall_code() {
        Code::Ok => Answer::Allow(Changes {
            request: added(&response.request_headers_to_add)?,
            response: to_client,
            ..Changes::default()
        })
        .permitted(),
        Code::OverLimit => {
            to_client.retain(|m| !is_of_connection(&m.name));
            to_client.push(HeaderMutation {
                name: RATE_LIMITED,
                value: HeaderValue::from_static("true"),
                when_there: WhenThere::Replace,
            });
            Ok(Answer::Deny(Denial {
                status: StatusCode::TOO_MANY_REQUESTS,
                headers: to_client,
                body: Bytes::copy_from_slice(&response.raw_body),
            }))
        }
        // Envoy reads it as a yes, and prost an unknown code as this one.
        Code::Unknown => Err(AskError::Contradiction),
    }
}

fn added(headers: &[messages::HeaderValue]) -> Result<Vec<HeaderMutation>, AskError> {
    let headers = headers.iter();
    headers
        .map(|header| header.mutation(WhenThere::Append))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(key: &str, value: &str) -> messages::HeaderValue {
        messages::HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }
    }

    fn response(code: i32) -> RateLimitResponse {
        RateLimitResponse {
            overall_code: code,
            ..RateLimitResponse::default()
        }
    }

    #[test]
    fn what_says_neither_yes_nor_no_is_no_answer() {
        for code in [0, 3, -1] {
            let error = answer(&response(code)).unwrap_err();
            assert!(matches!(error, AskError::Contradiction), "{code}: {error}");
            assert!(!error.fails_open());
        }
    }

    #[test]
    fn who_is_over_a_limit_gets_status_headers_and_body() {
        let over = RateLimitResponse {
            response_headers_to_add: vec![header("x-why", "a"), header("content-length", "99")],
            request_headers_to_add: vec![header("x-unused", "b")],
            raw_body: b"later".to_vec(),
            ..response(2)
        };
        let Answer::Deny(denial) = answer(&over).unwrap() else {
            panic!("let through");
        };
        assert_eq!(
            (denial.status.as_u16(), &*denial.body),
            (429, &b"later"[..])
        );
        let names: Vec<&str> = denial.headers.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["x-why", "x-envoy-ratelimited"]);
    }

    #[test]
    fn a_request_within_its_limits_is_not_changed_in_what_is_the_waypoints() {
        for name in ["x-forwarded-client-cert", "x-envoy-attempt-count", "host"] {
            let within = RateLimitResponse {
                request_headers_to_add: vec![header(name, "a")],
                ..response(1)
            };
            let error = answer(&within).unwrap_err();
            assert!(matches!(error, AskError::Forbidden(_)), "{name}: {error}");
        }
        let pseudo = RateLimitResponse {
            request_headers_to_add: vec![header(":path", "/admin")],
            ..response(1)
        };
        assert!(matches!(answer(&pseudo), Err(AskError::Header(_))));
    }
}
