//! What a VirtualService's rule does with a request: redirect, rewrite, changes of headers
//! (specs/policies.md 2.6). Destinations are read in `virtual_rules`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::route_filters::redirect_status;
use super::virtual_rules::Reading;
use crate::diagnostics::Code;
use crate::limits::DIRECT_RESPONSE_BYTES_MAX;
use crate::resources::virtual_service::{
    DirectResponse as WrittenDirect, HeaderOperations, Headers, HttpRoute,
    Redirect as WrittenRedirect, RegexRewrite, Rewrite as WrittenRewrite,
};
use crate::snapshot::{
    DirectResponse, FRAMING_HEADERS, Filter, HeaderChange, PathRewrite, Pattern, Redirect,
    RedirectScheme, Rewrite,
};

/// The filters of a rule: its headers, then where it sends the request.
pub(super) fn read(written: &HttpRoute, reading: &mut Reading<'_>) -> Vec<Filter> {
    let base = reading.path.clone();
    let mut filters = headers(
        written.headers.as_ref(),
        &format!("{base}.headers"),
        reading,
    );
    if let Some(rewrite) = &written.rewrite {
        let at = format!("{base}.rewrite");
        if written.redirect.is_some() {
            let message = "redirect and rewrite are incompatible";
            reading.fail(Code::Conflict, &at, message);
        }
        filters.push(Filter::Rewrite(read_rewrite(rewrite, &at, reading)));
    }
    if let Some(direct) = &written.direct_response {
        let at = format!("{base}.directResponse");
        filters.extend(direct_response(direct, &at, reading));
    }
    if let Some(redirect) = &written.redirect {
        let at = format!("{base}.redirect");
        filters.push(Filter::Redirect(read_redirect(redirect, &at, reading)));
    }
    filters
}

fn direct_response(written: &WrittenDirect, at: &str, reading: &mut Reading<'_>) -> Option<Filter> {
    let status = match StatusCode::from_u16(written.status) {
        Ok(status) if (200..600).contains(&written.status) => status,
        _ => {
            let message = format!("{} is not a status from 200 to 599", written.status);
            reading.fail(Code::BadValue, &format!("{at}.status"), message);
            return None;
        }
    };
    let body = written.body.as_ref();
    let (body, field) = match body.map(|body| (&body.string, &body.bytes)) {
        None | Some((None, None)) => (Vec::new(), "string"),
        Some((Some(text), None)) => (text.clone().into_bytes(), "string"),
        Some((None, Some(text))) => match from_base64(text) {
            Some(bytes) => (bytes, "bytes"),
            None => {
                let message = "bytes of a body are written in base64";
                reading.fail(Code::BadValue, &format!("{at}.body.bytes"), message);
                return None;
            }
        },
        Some((Some(_), Some(_))) => {
            let message = "a body has either string or bytes";
            reading.fail(Code::Conflict, &format!("{at}.body"), message);
            return None;
        }
    };
    if body.len() > DIRECT_RESPONSE_BYTES_MAX {
        let message = format!("a body of {} bytes is too long", body.len());
        reading.fail(Code::LimitExceeded, &format!("{at}.body.{field}"), message);
        return None;
    }
    let body = body.into();
    Some(Filter::Respond(Arc::new(DirectResponse { status, body })))
}

/// As protobuf's JSON takes it: of either alphabet, with padding or without.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.replace('-', "+").replace('_', "/");
    STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

/// `headers` of a rule or a destination.
pub(super) fn headers(
    written: Option<&Headers>,
    at: &str,
    reading: &mut Reading<'_>,
) -> Vec<Filter> {
    let Some(written) = written else {
        return Vec::new();
    };
    let mut filters = Vec::new();
    if let Some(request) = &written.request {
        let change = operations(request, &format!("{at}.request"), reading);
        filters.push(Filter::RequestHeaders(change));
    }
    if let Some(response) = &written.response {
        let change = operations(response, &format!("{at}.response"), reading);
        filters.push(Filter::ResponseHeaders(change));
    }
    filters
}

fn operations(written: &HeaderOperations, at: &str, reading: &mut Reading<'_>) -> HeaderChange {
    let mut remove = Vec::new();
    for (index, name) in written.remove.iter().flatten().enumerate() {
        remove.extend(header_name(name, &format!("{at}.remove[{index}]"), reading));
    }
    HeaderChange {
        set: values(written.set.as_ref(), &format!("{at}.set"), reading),
        add: values(written.add.as_ref(), &format!("{at}.add"), reading),
        remove,
    }
}

fn values(
    written: Option<&BTreeMap<String, String>>,
    at: &str,
    reading: &mut Reading<'_>,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (key, value) in written.into_iter().flatten() {
        let at = format!("{at}.{key}");
        let Some(name) = header_name(key, &at, reading) else {
            continue;
        };
        if value.matches('%').count() > 1 {
            let message = "variables of Envoy (%NAME%) in a header are not supported";
            reading.fail(Code::Unsupported, &at, message);
            continue;
        }
        match HeaderValue::from_str(value) {
            Ok(value) => headers.push((name, value)),
            Err(_) => {
                let message = format!("header {name} can not have the value '{value}'");
                reading.fail(Code::BadValue, &at, message);
            }
        }
    }
    headers
}

/// A header that a route may change.
fn header_name(written: &str, at: &str, reading: &mut Reading<'_>) -> Option<HeaderName> {
    match HeaderName::from_bytes(written.as_bytes()) {
        Ok(name) if !FRAMING_HEADERS.contains(&name.as_str()) => Some(name),
        Ok(name) => {
            let message = format!("header {name} belongs to the connection and stays as it is");
            reading.fail(Code::Unsupported, at, message);
            None
        }
        Err(_) => {
            let message = format!("'{written}' is not the name of a header");
            reading.fail(Code::BadValue, at, message);
            None
        }
    }
}

fn read_rewrite(written: &WrittenRewrite, at: &str, reading: &mut Reading<'_>) -> Rewrite {
    let path = match (&written.uri, &written.uri_regex_rewrite) {
        (Some(_), Some(_)) => {
            let message = "a rewrite has either uri or uriRegexRewrite";
            reading.fail(Code::Conflict, at, message);
            None
        }
        (Some(uri), None) => {
            path(uri, &format!("{at}.uri"), reading).map(|uri| PathRewrite::Matched(uri.into()))
        }
        (None, Some(regex)) => regex_rewrite(regex, &format!("{at}.uriRegexRewrite"), reading),
        (None, None) => None,
    };
    let authority = written.authority.as_deref().filter(|a| !a.is_empty());
    Rewrite {
        hostname: authority
            .and_then(|a| read_authority(a, &format!("{at}.authority"), reading))
            .and_then(|authority| HeaderValue::from_str(authority).ok()),
        path,
    }
}

fn regex_rewrite(
    written: &RegexRewrite,
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<PathRewrite> {
    let pattern = match Pattern::compile_within(&written.r#match) {
        Ok(pattern) => pattern,
        Err(error) => {
            let message = format!("'{}' is not valid: {error}", written.r#match);
            reading.fail(Code::BadValue, &format!("{at}.match"), message);
            return None;
        }
    };
    let Some(replacement) = replacement(&written.rewrite, pattern.groups()) else {
        let message = format!(
            "'{}' names a group that '{}' does not have, or ends with a backslash",
            written.rewrite, written.r#match
        );
        reading.fail(Code::BadValue, &format!("{at}.rewrite"), message);
        return None;
    };
    let legal = |c: u8| c.is_ascii_graphic() && c != b'?' && c != b'#';
    if !written.rewrite.bytes().all(legal) {
        let message = format!("'{}' has characters that no path has", written.rewrite);
        reading.fail(Code::BadValue, &format!("{at}.rewrite"), message);
        return None;
    }
    Some(PathRewrite::Regex(pattern, replacement.into()))
}

/// `\1` as `${1}`, `\\` as a backslash, and a dollar sign as itself. `None`: a group that is not there.
pub(super) fn replacement(written: &str, groups: usize) -> Option<String> {
    let mut text = String::with_capacity(written.len() + 4);
    let mut characters = written.chars();
    while let Some(character) = characters.next() {
        match character {
            '$' => text.push_str("$$"),
            '\\' => match characters.next()? {
                '\\' => text.push('\\'),
                digit => {
                    let group = digit.to_digit(10)?;
                    if group as usize > groups {
                        return None;
                    }
                    text.push_str(&format!("${{{group}}}"));
                }
            },
            other => text.push(other),
        }
    }
    Some(text)
}

/// A path without a query, for the request keeps its own.
fn path<'a>(written: &'a str, at: &str, reading: &mut Reading<'_>) -> Option<&'a str> {
    let legal = |c: u8| c.is_ascii_graphic() && c != b'?' && c != b'#';
    if written.starts_with('/') && written.bytes().all(legal) {
        return Some(written);
    }
    let message = format!("'{written}' is not a path: it begins with '/' and has no query");
    reading.fail(Code::BadValue, at, message);
    None
}

/// A host, perhaps with a port.
fn read_authority<'a>(written: &'a str, at: &str, reading: &mut Reading<'_>) -> Option<&'a str> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-._:[]".contains(&c);
    if written.bytes().all(legal) && written.parse::<http::uri::Authority>().is_ok() {
        return Some(written);
    }
    let message = format!("'{written}' is not a host with an optional port");
    reading.fail(Code::BadValue, at, message);
    None
}

fn read_redirect(written: &WrittenRedirect, at: &str, reading: &mut Reading<'_>) -> Redirect {
    let code = written.redirect_code.unwrap_or(301);
    let status = redirect_status(code).unwrap_or_else(|message| {
        reading.fail(Code::BadValue, &format!("{at}.redirectCode"), message);
        StatusCode::MOVED_PERMANENTLY
    });
    let scheme = match written.scheme.as_deref() {
        None | Some("") => None,
        Some("http") => Some(RedirectScheme::Http),
        Some("https") => Some(RedirectScheme::Https),
        Some(other) => {
            let message = format!("'{other}' is no scheme of a redirect: http, https");
            reading.fail(Code::BadValue, &format!("{at}.scheme"), message);
            None
        }
    };
    let filled = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if filled(&written.uri) && filled(&written.prefix_rewrite) {
        let message = "a redirect has either uri or prefixRewrite";
        reading.fail(Code::Conflict, at, message);
    }
    let mut read = |text: &Option<String>, field: &str| -> Option<Arc<str>> {
        let text = text.as_deref().filter(|text| !text.is_empty())?;
        path(text, &format!("{at}.{field}"), reading).map(Into::into)
    };
    let uri = read(&written.uri, "uri").map(PathRewrite::Full);
    let uri =
        uri.or_else(|| read(&written.prefix_rewrite, "prefixRewrite").map(PathRewrite::Matched));
    let authority = written.authority.as_deref().filter(|a| !a.is_empty());
    let authority = authority.and_then(|a| read_authority(a, &format!("{at}.authority"), reading));
    let (hostname, own_port) = match authority.and_then(|a| a.rsplit_once(':')) {
        Some((host, port)) if !port.ends_with(']') => (Some(host), port.parse().ok()),
        _ => (authority, None),
    };
    Redirect {
        scheme,
        hostname: hostname.map(Into::into),
        port: redirect_port(written, scheme, own_port, hostname.is_some(), at, reading),
        path: uri,
        status,
    }
}

/// The port of the location: the one written, that of a written authority (which has the scheme's
/// where it names none), else as `derivePort` says. `None`: that of the request, or of a written scheme.
fn redirect_port(
    written: &WrittenRedirect,
    scheme: Option<RedirectScheme>,
    own_port: Option<u16>,
    other_host: bool,
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<u16> {
    let well_known = match scheme {
        Some(RedirectScheme::Https) => 443,
        _ => 80,
    };
    match (written.port, written.derive_port.as_deref()) {
        (Some(_), Some(_)) => {
            let message = "a redirect has either port or derivePort";
            reading.fail(Code::Conflict, at, message);
            None
        }
        (Some(port), None) => Some(port),
        (None, Some("FROM_PROTOCOL_DEFAULT")) => Some(well_known),
        (None, Some("FROM_REQUEST_PORT")) if scheme.is_none() => None,
        (None, Some("FROM_REQUEST_PORT")) => {
            let message = "derivePort FROM_REQUEST_PORT beside a scheme is not supported";
            reading.fail(Code::Unsupported, &format!("{at}.derivePort"), message);
            None
        }
        (None, Some(other)) => {
            let message = format!("there is no derivePort '{other}'");
            reading.fail(Code::BadValue, &format!("{at}.derivePort"), message);
            None
        }
        (None, None) => own_port.or(other_host.then_some(well_known)),
    }
}
