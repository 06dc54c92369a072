//! Asks by Envoy's gRPC protocol, `envoy.service.auth.v3` (specs/istio-waypoint.md 4.8). Unlike Envoy
//! takes no answer for a yes that says nothing, or yes and no.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use cairn_config_schema::snapshot::{ExternalProvider, GrpcCheck};
use cairn_filters::external::{Changes, HeaderMutation, WhenThere, is_of_connection};
use cairn_filters::hygiene::{X_FORWARDED_PROTO, X_REQUEST_ID};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};

use super::call::Call;
use super::check::{Check, RequestInCheck};
use super::connection::Lease;
use super::messages::{
    Address, AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption,
    HttpRequest, HttpResponse, METHOD, OkHttpResponse, Peer, Request, SocketAddress, Timestamp,
};
use super::{Answer, AskError, Denial, messages};

const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// Sends the check and reads the answer.
pub(super) async fn ask(
    lease: Lease,
    provider: &ExternalProvider,
    settings: &GrpcCheck,
    check: &Check<'_>,
) -> Result<Answer, AskError> {
    let call = Call {
        service: &provider.cluster.service,
        method: METHOD,
        timeout: Duration::from_millis(provider.timeout_ms),
    };
    let message = message(provider, settings, check);
    answer(call.unary(lease, message).await?)
}

fn message(provider: &ExternalProvider, settings: &GrpcCheck, check: &Check<'_>) -> CheckRequest {
    let since = check.started_at.duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default();
    let http = check.request.as_ref();
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                address: Some(address(check.source.address)),
                service: String::new(),
                principal: check.source.identity.uri().to_string(),
            }),
            destination: Some(Peer {
                address: Some(address(check.destination)),
                service: check.destination_service.to_owned(),
                principal: check.destination_identity.uri().to_string(),
            }),
            request: Some(Request {
                time: Some(Timestamp {
                    seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                    nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
                }),
                http: http.map(|about| request(provider, settings, about)),
            }),
        }),
    }
}

fn address(address: SocketAddr) -> Address {
    Address {
        socket_address: Some(SocketAddress {
            address: address.ip().to_string(),
            port_value: u32::from(address.port()),
        }),
    }
}

fn request(
    provider: &ExternalProvider,
    settings: &GrpcCheck,
    about: &RequestInCheck<'_>,
) -> HttpRequest {
    let text = |name: &HeaderName| {
        let value = about.headers.get(name);
        value.map_or_else(String::new, |v| lossy(v.as_bytes()))
    };
    let scheme = text(&X_FORWARDED_PROTO);
    let size = text(&CONTENT_LENGTH).parse().unwrap_or(-1);
    let mut headers: HashMap<String, String> = HashMap::new();
    for (name, value) in [
        (":method", about.method.as_str()),
        (":path", about.target),
        (":authority", about.authority),
        (":scheme", &scheme),
    ] {
        headers.insert(name.to_owned(), value.to_owned());
    }
    for name in about.headers.keys() {
        let listed = (settings.request_headers.as_ref()).is_none_or(|l| l.contains(name));
        if !listed || name == http::header::HOST {
            continue;
        }
        // All values of a name, for a service that saw the last one only could be fooled
        // (specs/policies.md 5, CVE-2021-32777).
        let values = about.headers.get_all(name).iter();
        let values: Vec<String> = values.map(|v| lossy(v.as_bytes())).collect();
        headers.insert(name.as_str().to_owned(), values.join(","));
    }
    let mut http = HttpRequest {
        id: text(&X_REQUEST_ID),
        method: about.method.to_string(),
        path: about.target.to_owned(),
        host: about.authority.to_owned(),
        scheme,
        size,
        protocol: about.protocol.to_owned(),
        ..HttpRequest::default()
    };
    if let (Some(body), Some(limit)) = (about.body, provider.body) {
        let (bytes, partial) = body.first(limit.max_bytes);
        headers.insert(PARTIAL_BODY.to_owned(), partial.to_string());
        match limit.pack_as_bytes {
            true => http.raw_body = bytes.to_vec(),
            false => http.body = lossy(&bytes),
        }
    }
    http.headers = headers;
    http
}

/// As text. What is not UTF-8 is shown as such and not left out, for a service must see that there is
/// something (specs/policies.md 5, CVE-2023-27488).
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn answer(response: CheckResponse) -> Result<Answer, AskError> {
    let allowed = match (&response.status, &response.http_response) {
        (Some(status), _) => status.code == 0,
        (None, Some(HttpResponse::Ok(_))) => true,
        // Envoy reads both as a yes.
        (None, _) => return Err(AskError::Contradiction),
    };
    match (allowed, response.http_response) {
        (true, Some(HttpResponse::Ok(ok))) => Ok(Answer::Allow(changes(&ok)?)),
        (true, None) => Ok(Answer::Allow(Changes::default())),
        (true, Some(_)) => Err(AskError::Contradiction),
        (false, Some(HttpResponse::Error(error))) => {
            let named = status_of(&error).is_some();
            let reply = named.then(|| denial(error)).transpose()?;
            Err(AskError::Undecided(reply.map(Box::new)))
        }
        (false, Some(HttpResponse::Denied(denied))) => Ok(Answer::Deny(denial(denied)?)),
        (false, Some(HttpResponse::Ok(_)) | None) => {
            Ok(Answer::Deny(denial(DeniedHttpResponse::default())?))
        }
    }
}

fn status_of(denied: &DeniedHttpResponse) -> Option<StatusCode> {
    let code = u16::try_from(denied.status?.code).ok()?;
    StatusCode::from_u16(code)
        .ok()
        .filter(|s| !s.is_informational())
}

fn denial(denied: DeniedHttpResponse) -> Result<Denial, AskError> {
    let mut headers = mutations(&denied.headers, WhenThere::Replace)?;
    headers.retain(|m| !is_of_connection(&m.name));
    Ok(Denial {
        status: status_of(&denied).unwrap_or(StatusCode::FORBIDDEN),
        headers,
        body: Bytes::from(denied.body),
    })
}

fn changes(ok: &OkHttpResponse) -> Result<Changes, AskError> {
    let name = |name: &String| {
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| AskError::Header(shown(name)))
    };
    let removed: Result<_, _> = ok.headers_to_remove.iter().map(name).collect();
    let set = ok.query_parameters_to_set.iter();
    Ok(Changes {
        request: mutations(&ok.headers, WhenThere::Replace)?,
        removed: removed?,
        query_set: set.map(|p| (p.key.clone(), p.value.clone())).collect(),
        query_removed: ok.query_parameters_to_remove.clone(),
        response: mutations(&ok.response_headers_to_add, WhenThere::Append)?,
    })
}

/// `unsaid`: what is meant where nothing is said of a header that is there. In a CheckResponse `append`
/// is false by default: a client's own `x-user` must not stand before the one that was checked.
fn mutations(
    written: &[HeaderValueOption],
    unsaid: WhenThere,
) -> Result<Vec<HeaderMutation>, AskError> {
    let mutations = written.iter().map(|written| mutation(written, unsaid));
    mutations.collect()
}

fn mutation(written: &HeaderValueOption, unsaid: WhenThere) -> Result<HeaderMutation, AskError> {
    let header = written.header.clone().unwrap_or_default();
    let when_there = match (written.append, written.append_action) {
        (Some(append), _) if append.value => WhenThere::Append,
        (Some(_), _) | (None, 2) => WhenThere::Replace,
        (None, 0) => unsaid,
        (None, 1) => WhenThere::Keep,
        (None, 3) => WhenThere::ReplaceOnly,
        (None, _) => return Err(AskError::Header(shown(&header.key))),
    };
    header.mutation(when_there)
}

impl messages::HeaderValue {
    /// The header, if it is one.
    pub(super) fn mutation(&self, when_there: WhenThere) -> Result<HeaderMutation, AskError> {
        let wrong = || AskError::Header(shown(&self.key));
        let value = match self.raw_value.is_empty() {
            true => self.value.as_bytes(),
            false => &self.raw_value,
        };
        Ok(HeaderMutation {
            // A pseudo-header is no name: a service that sets `:path` ends here.
            name: HeaderName::from_bytes(self.key.as_bytes()).map_err(|_| wrong())?,
            value: HeaderValue::from_bytes(value).map_err(|_| wrong())?,
            when_there,
        })
    }
}

/// A name for a log.
fn shown(name: &str) -> String {
    name.chars()
        .take(100)
        .flat_map(char::escape_debug)
        .collect()
}
