//! Matches of an HTTPRoute rule (specs/gateway-api.md 1.4): paths, methods, headers, query parameters.
//!
//! A match that can not be understood breaks its rule, and then matches as widely as could have
//! been meant: an unreadable value matches every value of its header or parameter, an unreadable
//! path or name every request that the rest of the match matches. So what the user wanted this
//! rule to take is answered 500 and not sent where another rule says.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use http::header::{HOST, HeaderName};

use super::paths::canonical;
use super::policy_values::without_last_dot;
use super::route_rules::Reading;
use crate::diagnostics::Code;
use crate::resources::gateway_api::{
    HttpRouteRulesMatches, HttpRouteRulesMatchesHeadersType as HeaderType,
    HttpRouteRulesMatchesMethod as WrittenMethod, HttpRouteRulesMatchesPath,
    HttpRouteRulesMatchesPathType as PathType, HttpRouteRulesMatchesQueryParamsType as QueryType,
};
use crate::snapshot::{
    HeaderMatch, HttpMatch, PathMatch, PathNormalization, Pattern, QueryMatch, TextMatch,
};

/// Matches anything, line breaks included.
const ANYTHING: &str = "(?s:.*)";

/// The matches of a rule; an absent or empty list is the prefix `/`.
pub(super) fn read(
    written: Option<&[HttpRouteRulesMatches]>,
    mode: PathNormalization,
    reading: &mut Reading<'_>,
) -> Vec<HttpMatch> {
    let written = written.unwrap_or_default();
    if written.is_empty() {
        return vec![HttpMatch {
            path: PathMatch::Prefix("".into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            more: None,
        }];
    }
    written
        .iter()
        .enumerate()
        .map(|(index, written)| {
            let path = format!("{}.matches[{index}]", reading.path);
            HttpMatch {
                path: read_path(
                    written.path.as_ref(),
                    mode,
                    &format!("{path}.path"),
                    reading,
                ),
                method: written.method.as_ref().map(method),
                headers: read_headers(written, &path, reading),
                query: read_query(written, &path, reading),
                more: None,
            }
        })
        .collect()
}

fn read_path(
    written: Option<&HttpRouteRulesMatchesPath>,
    mode: PathNormalization,
    at: &str,
    reading: &mut Reading<'_>,
) -> PathMatch {
    let value = written.and_then(|w| w.value.as_deref()).unwrap_or("/");
    let kind = written.and_then(|w| w.r#type.as_ref());
    let at = format!("{at}.value");
    match kind {
        Some(PathType::RegularExpression) => match pattern(value, &at, reading) {
            Some(pattern) => PathMatch::Regex(pattern),
            None => PathMatch::Prefix("".into()),
        },
        Some(PathType::Exact) => match read_literal(value, mode, &at, reading) {
            Some(path) => PathMatch::Exact(path.into()),
            None => PathMatch::Prefix("".into()),
        },
        Some(PathType::PathPrefix) | None => match read_literal(value, mode, &at, reading) {
            Some(path) => PathMatch::Prefix(path.trim_end_matches('/').into()),
            None => PathMatch::Prefix("".into()),
        },
    }
}

/// A path as normalised requests have it. One that no request can have breaks the rule; what those
/// are is the API's rule, for a normalised path.
fn read_literal<'a>(
    value: &'a str,
    mode: PathNormalization,
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<Cow<'a, str>> {
    let path = canonical(value, mode);
    let forbidden = ["//", "/./", "/../", "%2F", "%2f", "#", "?"];
    let wrong = if !path.starts_with('/') {
        "it does not begin with '/'".to_owned()
    } else if let Some(part) = forbidden.into_iter().find(|part| path.contains(part)) {
        format!("it contains '{part}'")
    } else if path.ends_with("/.") || path.ends_with("/..") {
        "it ends with a dot segment".to_owned()
    } else if !value.bytes().all(|c| c.is_ascii_graphic()) {
        "it has characters other than visible ASCII ones".to_owned()
    } else {
        return Some(path);
    };
    let message = format!("the path '{value}' can match no request: {wrong}");
    reading.fail(Code::BadValue, at, message);
    None
}

/// Compiles an expression; one that does not compile breaks the rule and matches anything.
fn pattern(source: &str, at: &str, reading: &mut Reading<'_>) -> Option<Pattern> {
    match Pattern::compile(source) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let message = format!("the regular expression '{source}' is not valid: {error}");
            reading.fail(Code::BadValue, at, message);
            Pattern::compile(ANYTHING).ok()
        }
    }
}

fn read_headers(
    written: &HttpRouteRulesMatches,
    at: &str,
    reading: &mut Reading<'_>,
) -> Vec<HeaderMatch> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for (index, header) in written.headers.iter().flatten().enumerate() {
        let at = format!("{at}.headers[{index}]");
        let Ok(name) = HeaderName::from_bytes(header.name.as_bytes()) else {
            let message = format!("'{}' is not the name of a header", header.name);
            reading.fail(Code::BadValue, &format!("{at}.name"), message);
            continue;
        };
        if headers.iter().any(|earlier| earlier.name == name) {
            let message = format!("header {name} is matched a second time");
            reading.warn(Code::Conflict, &at, message, "only the first one counts");
            continue;
        }
        let value = match header.r#type {
            Some(HeaderType::RegularExpression) => {
                if name == HOST && header.value.ends_with("\\.") {
                    let message = "requests are matched without the dot at the end of their host";
                    let effect = "it matches nothing";
                    reading.warn(
                        Code::BadValue,
                        &format!("{at}.value"),
                        message.to_owned(),
                        effect,
                    );
                }
                match pattern(&header.value, &format!("{at}.value"), reading) {
                    Some(pattern) => TextMatch::Regex(pattern),
                    None => continue,
                }
            }
            Some(HeaderType::Exact) | None if name == HOST => {
                TextMatch::Exact(without_last_dot(&header.value).into())
            }
            Some(HeaderType::Exact) | None => TextMatch::Exact(header.value.as_str().into()),
        };
        headers.push(HeaderMatch { name, value });
    }
    headers
}

fn read_query(
    written: &HttpRouteRulesMatches,
    at: &str,
    reading: &mut Reading<'_>,
) -> Vec<QueryMatch> {
    let mut query: Vec<QueryMatch> = Vec::new();
    for (index, parameter) in written.query_params.iter().flatten().enumerate() {
        let at = format!("{at}.queryParams[{index}]");
        let name: Arc<str> = parameter.name.as_str().into();
        if name.is_empty() {
            let message = "a query parameter has no name";
            reading.fail(Code::BadValue, &format!("{at}.name"), message);
            continue;
        }
        if query.iter().any(|earlier| earlier.name == name) {
            let message = format!("query parameter {name} is matched a second time");
            reading.warn(Code::Conflict, &at, message, "only the first one counts");
            continue;
        }
        let value = match parameter.r#type {
            Some(QueryType::RegularExpression) => {
                match pattern(&parameter.value, &format!("{at}.value"), reading) {
                    Some(pattern) => TextMatch::Regex(pattern),
                    None => continue,
                }
            }
            Some(QueryType::Exact) | None => TextMatch::Exact(parameter.value.as_str().into()),
        };
        query.push(QueryMatch { name, value });
    }
    query
}

fn method(written: &WrittenMethod) -> Method {
    match written {
        WrittenMethod::Get => Method::GET,
        WrittenMethod::Head => Method::HEAD,
        WrittenMethod::Post => Method::POST,
        WrittenMethod::Put => Method::PUT,
        WrittenMethod::Delete => Method::DELETE,
        WrittenMethod::Connect => Method::CONNECT,
        WrittenMethod::Options => Method::OPTIONS,
        WrittenMethod::Trace => Method::TRACE,
        WrittenMethod::Patch => Method::PATCH,
    }
}
