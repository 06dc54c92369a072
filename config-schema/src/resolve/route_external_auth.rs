//! The ExternalAuth filter of a route's rule (specs/gateway-api.md 3): an authorization service for the
//! rule alone. One that can not be asked as written breaks the rule.

use std::sync::Arc;

use http::header::HeaderName;

use super::route_backends::Reference;
use super::route_filters::Context;
use super::route_rules::Reading;
use crate::diagnostics::Code;
use crate::limits::{EXT_AUTHZ_BODY_BYTES_MAX, EXT_AUTHZ_FILTER_TIMEOUT_MS};
use crate::resources::gateway_api::{
    HttpRouteRulesFiltersExternalAuth as Written,
    HttpRouteRulesFiltersExternalAuthProtocol as Protocol,
};
use crate::snapshot::{
    BodyInCheck, CheckProtocol, ExternalProvider, GrpcCheck, HeaderNames, HttpCheck, StringMatch,
};

/// Status of requests for which there was no answer: the filter has no field for it.
const STATUS_ON_ERROR: u16 = 403;

/// Reads the filter. `None`: the rule is broken.
pub(super) fn read(
    written: &Written,
    context: &Context<'_>,
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<Arc<ExternalProvider>> {
    let backend = &written.backend_ref;
    let cluster = context.backends.target(&Reference {
        group: backend.group.as_deref(),
        kind: backend.kind.as_deref(),
        namespace: backend
            .namespace
            .as_deref()
            .unwrap_or(context.own_namespace),
        name: &backend.name,
        port: backend.port,
    });
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(unresolved) => {
            let path = format!("{at}.backendRef.{}", unresolved.field);
            reading.fail(Code::BackendNotFound, &path, unresolved.reason);
            return None;
        }
    };
    let protocol = match written.protocol {
        Protocol::Http => {
            refuse_other(written.grpc.is_some(), "grpc", "GRPC", at, reading);
            CheckProtocol::Http(http(written, at, reading))
        }
        Protocol::Grpc => {
            refuse_other(written.http.is_some(), "http", "HTTP", at, reading);
            CheckProtocol::Grpc(grpc(written, at, reading))
        }
    };
    Some(Arc::new(ExternalProvider {
        name: format!("ExternalAuth {cluster}").into(),
        cluster,
        timeout_ms: EXT_AUTHZ_FILTER_TIMEOUT_MS,
        fail_open: false,
        status_on_error: STATUS_ON_ERROR,
        clear_route_cache: false,
        body: body(written, at, reading),
        protocol,
    }))
}

/// Settings of the protocol that is not spoken.
fn refuse_other(is_there: bool, field: &str, protocol: &str, at: &str, reading: &mut Reading<'_>) {
    if is_there {
        let message = format!("`{field}` is for protocol {protocol}");
        reading.fail(Code::Conflict, &format!("{at}.{field}"), message);
    }
}

fn http(written: &Written, at: &str, reading: &mut Reading<'_>) -> HttpCheck {
    let settings = written.http.clone().unwrap_or_default();
    let prefix = settings.path.unwrap_or_default();
    let is_path = prefix.starts_with('/')
        && prefix
            .bytes()
            .all(|c| c.is_ascii_graphic() && !b"?#".contains(&c));
    if !prefix.is_empty() && !is_path {
        let message = format!("'{prefix}' is no path");
        reading.fail(Code::BadValue, &format!("{at}.http.path"), message);
    }
    let at_allowed = format!("{at}.http.allowedHeaders");
    let at_response = format!("{at}.http.allowedResponseHeaders");
    let copied = listed(&settings.allowed_response_headers, &at_response, reading);
    HttpCheck {
        path_prefix: prefix.trim_end_matches('/').into(),
        request_headers: listed(&settings.allowed_headers, &at_allowed, reading)
            .unwrap_or_default(),
        // No list: all that a service may set.
        to_upstream_on_allow: copied.unwrap_or_else(|| HeaderNames(vec![StringMatch::Any])),
        ..HttpCheck::default()
    }
}

fn grpc(written: &Written, at: &str, reading: &mut Reading<'_>) -> GrpcCheck {
    let settings = written.grpc.clone().unwrap_or_default();
    let at = format!("{at}.grpc.allowedHeaders");
    GrpcCheck {
        request_headers: listed(&settings.allowed_headers, &at, reading),
    }
}

/// The names of a list, which are no patterns here. `None`: there is no list, or an empty one, which
/// the API takes for the same.
fn listed(
    written: &Option<Vec<String>>,
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<HeaderNames> {
    let written = written.as_ref().filter(|list| !list.is_empty())?;
    let mut names = Vec::with_capacity(written.len());
    for (index, name) in written.iter().enumerate() {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) if !name.as_str().contains('*') => {
                names.push(StringMatch::Exact(name.as_str().into()));
            }
            _ => {
                let message = format!("'{name}' is not the name of a header");
                reading.fail(Code::BadValue, &format!("{at}[{index}]"), message);
            }
        }
    }
    Some(HeaderNames(names))
}

/// The API says of larger bodies both that they are refused and that they are cut. Refusing lets no
/// body pass that the service has not seen.
fn body(written: &Written, at: &str, reading: &mut Reading<'_>) -> Option<BodyInCheck> {
    let wanted = written.forward_body.as_ref()?.max_size.unwrap_or(0);
    let path = format!("{at}.forwardBody.maxSize");
    let Ok(max_bytes) = usize::try_from(wanted) else {
        let message = format!("{wanted} is not a size");
        reading.fail(Code::BadValue, &path, message);
        return None;
    };
    if max_bytes > EXT_AUTHZ_BODY_BYTES_MAX {
        let message = format!("maxSize is at most {EXT_AUTHZ_BODY_BYTES_MAX} here");
        let effect = "a request with a larger body is answered 413";
        reading.warn(Code::LimitExceeded, &path, &message, effect);
    }
    (max_bytes > 0).then_some(BodyInCheck {
        max_bytes: max_bytes.min(EXT_AUTHZ_BODY_BYTES_MAX),
        allow_partial: false,
        pack_as_bytes: true,
    })
}
