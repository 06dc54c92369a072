//! Asks over HTTP: the request's method, path and listed headers; 200 allows, 5xx is no answer, anything
//! else denies (specs/istio-waypoint.md 4.8).

use bytes::Bytes;
use cairn_config_schema::snapshot::{BodyInCheck, HttpCheck};
use cairn_filters::external::{Changes, HeaderMutation, is_of_connection, to_client, to_upstream};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Incoming};
use tonic::body::Body;

use super::check::{Check, RequestInCheck};
use super::connection::{Lease, Sender};
use super::{Answer, AskError, Denial, Said};
use crate::limits::{EXT_AUTHZ_DENIAL_BYTES_MAX, EXT_AUTHZ_DENIAL_TIMEOUT};

/// Says, as at Envoy, whether the body in the check is all there is.
const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// A denial whose body is still to be read.
pub(super) struct Denied {
    status: StatusCode,
    headers: Vec<HeaderMutation>,
    body: Incoming,
    lease: Lease,
}

impl Denied {
    /// With its body; without, if that is too long, or too long in coming.
    pub async fn read(self) -> Denial {
        let body = read(self.body, self.lease).await.unwrap_or_default();
        Denial {
            status: self.status,
            headers: self.headers,
            body,
        }
    }
}

async fn read(body: Incoming, lease: Lease) -> Option<Bytes> {
    let whole = Limited::new(body, EXT_AUTHZ_DENIAL_BYTES_MAX).collect();
    let read = tokio::time::timeout(EXT_AUTHZ_DENIAL_TIMEOUT, whole).await;
    let body = read.ok()?.ok()?.to_bytes();
    lease.give_back();
    Some(body)
}

/// Sends the check and reads the header of the answer.
pub(super) async fn ask(
    mut lease: Lease,
    body_limit: Option<BodyInCheck>,
    settings: &HttpCheck,
    check: &Check<'_>,
) -> Result<Said, AskError> {
    let http1 = matches!(lease.sender, Sender::Http1(_));
    let Some(about) = &check.request else {
        return Err(AskError::NoEndpoint);
    };
    let request = request(settings, body_limit, about, http1)?;
    let response: Response<Incoming> = match &mut lease.sender {
        Sender::Http1(sender) => {
            sender.ready().await?;
            sender.send_request(request).await?
        }
        Sender::Http2(sender, _) => {
            sender.ready().await?;
            sender.send_request(request).await?
        }
    };
    let (head, body) = response.into_parts();
    if head.status.is_server_error() {
        return Err(AskError::Status(head.status));
    }
    if head.status.is_informational() {
        return Err(AskError::Unreadable(head.status.to_string()));
    }
    if head.status != StatusCode::OK {
        let listed = |name: &HeaderName| match &settings.to_client_on_deny {
            None => true,
            Some(listed) => listed.contains(name) || always_to_client(name),
        };
        return Ok(Said::Denied(Box::new(Denied {
            status: head.status,
            headers: to_client(head.headers.iter(), listed),
            body,
            lease,
        })));
    }
    // The answer is known: its body is read by and by, so that the connection can be kept.
    match body.is_end_stream() {
        true => lease.give_back(),
        false => drop(tokio::spawn(read(body, lease))),
    }
    let on_allow = &settings.to_client_on_allow;
    Ok(Said::Answer(Answer::Allow(Changes {
        request: to_upstream(head.headers.iter(), &settings.to_upstream_on_allow),
        response: to_client(head.headers.iter(), |name| on_allow.contains(name)),
        ..Changes::default()
    })))
}

/// What a client gets of a denial whatever is listed, as at Envoy.
fn always_to_client(name: &HeaderName) -> bool {
    matches!(name.as_str(), "www-authenticate" | "location")
}

fn request(
    settings: &HttpCheck,
    body_limit: Option<BodyInCheck>,
    about: &RequestInCheck<'_>,
    http1: bool,
) -> Result<Request<Body>, AskError> {
    let target = format!("{}{}", settings.path_prefix, about.target);
    let uri: Uri = match http1 {
        true => target.parse().map_err(http::Error::from)?,
        false => Uri::builder()
            .scheme("http")
            .authority(about.authority)
            .path_and_query(target)
            .build()?,
    };
    let mut request = Request::builder()
        .method(about.method)
        .uri(uri)
        .body(Body::empty())?;
    let headers = request.headers_mut();
    for (name, value) in about.headers {
        let sent = *name == AUTHORIZATION || settings.request_headers.contains(name);
        if sent && !is_of_connection(name) {
            headers.append(name, value.clone());
        }
    }
    let mut body = Bytes::new();
    if let (Some(checked), Some(limit)) = (about.body, body_limit) {
        let (bytes, partial) = checked.first(limit.max_bytes);
        let partial = HeaderValue::from_static(if partial { "true" } else { "false" });
        headers.insert(PARTIAL_BODY, partial);
        body = bytes;
    }
    for (name, value) in &settings.additional_headers {
        headers.insert(name, value.clone());
    }
    if http1 {
        let host = HeaderValue::from_str(about.authority).map_err(http::Error::from)?;
        headers.insert(HOST, host);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *request.body_mut() = Body::new(Full::new(body));
    Ok(request)
}
