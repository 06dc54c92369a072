//! Filters of HTTPRoute rules and of their backends (specs/gateway-api.md 1.4). A filter that can
//! not be honoured fails its rule; none is ever skipped.

use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::route_backends::Backends;
use super::route_rules::Reading;
use super::{route_cors, route_external_auth, route_mirrors};
use crate::diagnostics::Code;
use crate::resources::gateway_api::{
    HttpRouteRules, HttpRouteRulesBackendRefsFilters as BackendFilter,
    HttpRouteRulesBackendRefsFiltersType as BackendKind, HttpRouteRulesFilters as RuleFilter,
    HttpRouteRulesFiltersRequestRedirect as WrittenRedirect,
    HttpRouteRulesFiltersRequestRedirectPathType as RedirectPathType,
    HttpRouteRulesFiltersRequestRedirectScheme as WrittenScheme, HttpRouteRulesFiltersType as Kind,
    HttpRouteRulesFiltersUrlRewrite as WrittenRewrite,
    HttpRouteRulesFiltersUrlRewritePathType as RewritePathType,
};
use crate::snapshot::{
    FRAMING_HEADERS, Filter, HeaderChange, HttpMatch, PathMatch, PathRewrite, Redirect,
    RedirectScheme, Rewrite,
};

/// Header changes as written, whichever of the generated types they come from.
struct WrittenHeaders<'a> {
    set: Vec<(&'a str, &'a str)>,
    add: Vec<(&'a str, &'a str)>,
    remove: Vec<&'a str>,
}

/// The generated types of both modifiers are equal but not the same.
macro_rules! written_headers {
    ($written:expr) => {
        WrittenHeaders {
            set: ($written.set.iter().flatten())
                .map(|h| (h.name.as_str(), h.value.as_str()))
                .collect(),
            add: ($written.add.iter().flatten())
                .map(|h| (h.name.as_str(), h.value.as_str()))
                .collect(),
            remove: $written
                .remove
                .iter()
                .flatten()
                .map(String::as_str)
                .collect(),
        }
    };
}

/// What filters are read with.
pub(super) struct Context<'a> {
    /// The matches of the rule.
    pub matches: &'a [HttpMatch],
    /// For mirrors.
    pub backends: &'a Backends<'a>,
    /// That of the route.
    pub own_namespace: &'a str,
    /// The rule has sessions, which stay at backends that take no new ones.
    pub sessions: bool,
}

/// The filters of a rule, in the order written.
pub(super) fn read(
    written: &HttpRouteRules,
    context: &Context<'_>,
    reading: &mut Reading<'_>,
) -> Vec<Filter> {
    let base = format!("{}.filters", reading.path);
    let mut filters: Vec<Filter> = Vec::new();
    for (index, filter) in written.filters.iter().flatten().enumerate() {
        let at = format!("{base}[{index}]");
        if let Some(filter) = rule_filter(filter, context, &at, reading) {
            add(filter, &mut filters, &at, reading);
        }
    }
    refuse_redirected_rewrite(&filters, &base, reading);
    filters
}

/// The filters of one backend: those that say something of the requests it gets.
pub(super) fn read_backend(
    written: &[BackendFilter],
    context: &Context<'_>,
    at: &str,
    reading: &mut Reading<'_>,
) -> Vec<Filter> {
    let mut filters = Vec::new();
    for (index, filter) in written.iter().enumerate() {
        let at = format!("{at}.filters[{index}]");
        let kind = &filter.r#type;
        if !matches!(
            kind,
            BackendKind::RequestHeaderModifier
                | BackendKind::ResponseHeaderModifier
                | BackendKind::RequestRedirect
                | BackendKind::UrlRewrite
                | BackendKind::RequestMirror
                | BackendKind::ExternalAuth
        ) {
            let message = format!("filter {kind:?} is not supported on a backend");
            reading.fail(Code::Unsupported, &at, message);
            continue;
        }
        // The generated types of rule and backend filters have the same fields.
        let same = serde_json::to_value(filter).and_then(serde_json::from_value::<RuleFilter>);
        match same {
            Ok(filter) => {
                if let Some(filter) = rule_filter(&filter, context, &at, reading) {
                    add(filter, &mut filters, &at, reading);
                }
            }
            Err(error) => reading.fail(Code::Unsupported, &at, error.to_string()),
        }
    }
    refuse_redirected_rewrite(&filters, &format!("{at}.filters"), reading);
    filters
}

fn refuse_redirected_rewrite(filters: &[Filter], at: &str, reading: &mut Reading<'_>) {
    let redirects = filters.iter().any(|f| matches!(f, Filter::Redirect(_)));
    let rewrites = filters.iter().any(|f| matches!(f, Filter::Rewrite(_)));
    if redirects && rewrites {
        let message = "RequestRedirect and URLRewrite are incompatible on one rule";
        reading.fail(Code::Conflict, at, message);
    }
}

/// Each kind of filter at most once, as the API demands, but for mirrors.
fn add(filter: Filter, filters: &mut Vec<Filter>, at: &str, reading: &mut Reading<'_>) {
    let kind = std::mem::discriminant(&filter);
    let repeatable = matches!(filter, Filter::Mirror(_));
    if !repeatable && filters.iter().any(|f| std::mem::discriminant(f) == kind) {
        let message = "a filter of this type is already there";
        reading.fail(Code::Conflict, at, message);
        return;
    }
    filters.push(filter);
}

fn rule_filter(
    filter: &RuleFilter,
    context: &Context<'_>,
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<Filter> {
    let read = match filter.r#type {
        Kind::RequestHeaderModifier => filter.request_header_modifier.as_ref().map(|written| {
            let at = format!("{at}.requestHeaderModifier");
            Filter::RequestHeaders(headers(&written_headers!(written), &at, reading))
        }),
        Kind::ResponseHeaderModifier => filter.response_header_modifier.as_ref().map(|written| {
            let at = format!("{at}.responseHeaderModifier");
            Filter::ResponseHeaders(headers(&written_headers!(written), &at, reading))
        }),
        Kind::RequestRedirect => filter.request_redirect.as_ref().map(|written| {
            let at = format!("{at}.requestRedirect");
            Filter::Redirect(redirect(written, context.matches, &at, reading))
        }),
        Kind::UrlRewrite => filter.url_rewrite.as_ref().map(|written| {
            let at = format!("{at}.urlRewrite");
            Filter::Rewrite(rewrite(written, context.matches, &at, reading))
        }),
        Kind::RequestMirror => match &filter.request_mirror {
            Some(written) => {
                let at = format!("{at}.requestMirror");
                let Context {
                    backends,
                    own_namespace,
                    ..
                } = context;
                let mirror = route_mirrors::read(written, backends, own_namespace, &at, reading);
                return mirror.map(Filter::Mirror);
            }
            None => None,
        },
        Kind::Cors => filter.cors.as_ref().map(|written| {
            let cors = route_cors::read(written, &format!("{at}.cors"), reading);
            Filter::Cors(Arc::new(cors))
        }),
        Kind::ExternalAuth => match &filter.external_auth {
            Some(written) => {
                let at = format!("{at}.externalAuth");
                let provider = route_external_auth::read(written, context, &at, reading);
                return provider.map(Filter::ExternalAuth);
            }
            None => None,
        },
        Kind::ExtensionRef => return left_out("ExtensionRef", at, reading),
    };
    if read.is_none() {
        missing(&format!("{:?}", filter.r#type), at, reading);
    }
    read
}

fn left_out(name: &str, at: &str, reading: &mut Reading<'_>) -> Option<Filter> {
    let message = format!("filter {name} is not supported yet");
    reading.fail(Code::Unsupported, at, message);
    None
}

fn missing(kind: &str, at: &str, reading: &mut Reading<'_>) {
    let message = format!("the filter is of type {kind} but does not say what it does");
    reading.fail(Code::MissingField, at, message);
}

fn headers(written: &WrittenHeaders<'_>, at: &str, reading: &mut Reading<'_>) -> HeaderChange {
    HeaderChange {
        set: header_values(&written.set, &format!("{at}.set"), reading),
        add: header_values(&written.add, &format!("{at}.add"), reading),
        remove: {
            let mut names = Vec::with_capacity(written.remove.len());
            for (index, name) in written.remove.iter().enumerate() {
                let at = format!("{at}.remove[{index}]");
                if let Some(name) = header_name(name, &names, &at, reading) {
                    names.push(name);
                }
            }
            names
        },
    }
}

fn header_values(
    written: &[(&str, &str)],
    at: &str,
    reading: &mut Reading<'_>,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut names = Vec::with_capacity(written.len());
    let mut headers = Vec::with_capacity(written.len());
    for (index, (name, value)) in written.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let Some(name) = header_name(name, &names, &format!("{at}.name"), reading) else {
            continue;
        };
        names.push(name.clone());
        match HeaderValue::from_str(value) {
            Ok(value) => headers.push((name, value)),
            Err(_) => {
                let message =
                    format!("the value of header {name} has characters that none may have");
                reading.fail(Code::BadValue, &format!("{at}.value"), message);
            }
        }
    }
    headers
}

/// A header's name that may be changed and is not yet in its list.
fn header_name(
    written: &str,
    earlier: &[HeaderName],
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(written.as_bytes()) else {
        let message = format!("'{written}' is not the name of a header");
        reading.fail(Code::BadValue, at, message);
        return None;
    };
    if FRAMING_HEADERS.contains(&name.as_str()) {
        let message = format!("header {name} belongs to the connection and can not be changed");
        reading.fail(Code::Unsupported, at, message);
        return None;
    }
    if earlier.contains(&name) {
        let message = format!("header {name} is listed twice; names differ in more than case");
        reading.fail(Code::Conflict, at, message);
        return None;
    }
    Some(name)
}

fn redirect(
    written: &WrittenRedirect,
    matches: &[HttpMatch],
    at: &str,
    reading: &mut Reading<'_>,
) -> Redirect {
    let port = written.port.and_then(|port| match u16::try_from(port) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            let message = format!("{port} is not a port");
            reading.fail(Code::BadValue, &format!("{at}.port"), message);
            None
        }
    });
    let status = redirect_status(written.status_code.unwrap_or(302)).unwrap_or_else(|message| {
        reading.fail(Code::BadValue, &format!("{at}.statusCode"), message);
        StatusCode::FOUND
    });
    let path = written.path.as_ref().and_then(|path| {
        let value = match path.r#type {
            RedirectPathType::ReplaceFullPath => {
                Replacement::Full(path.replace_full_path.as_deref())
            }
            RedirectPathType::ReplacePrefixMatch => {
                Replacement::Prefix(path.replace_prefix_match.as_deref())
            }
        };
        path_rewrite(value, matches, &format!("{at}.path"), reading)
    });
    Redirect {
        scheme: written.scheme.as_ref().map(|scheme| match scheme {
            WrittenScheme::Http => RedirectScheme::Http,
            WrittenScheme::Https => RedirectScheme::Https,
        }),
        hostname: hostname(written.hostname.as_deref(), at, reading).map(Into::into),
        port,
        path,
        status,
    }
}

/// The status of a redirect, or what is wrong with it.
pub(super) fn redirect_status(code: impl Into<i64>) -> Result<StatusCode, String> {
    match code.into() {
        301 => Ok(StatusCode::MOVED_PERMANENTLY),
        302 => Ok(StatusCode::FOUND),
        303 => Ok(StatusCode::SEE_OTHER),
        307 => Ok(StatusCode::TEMPORARY_REDIRECT),
        308 => Ok(StatusCode::PERMANENT_REDIRECT),
        other => Err(format!(
            "{other} is not a status of a redirect: 301, 302, 303, 307, 308"
        )),
    }
}

fn rewrite(
    written: &WrittenRewrite,
    matches: &[HttpMatch],
    at: &str,
    reading: &mut Reading<'_>,
) -> Rewrite {
    let path = written.path.as_ref().and_then(|path| {
        let value = match path.r#type {
            RewritePathType::ReplaceFullPath => {
                Replacement::Full(path.replace_full_path.as_deref())
            }
            RewritePathType::ReplacePrefixMatch => {
                Replacement::Prefix(path.replace_prefix_match.as_deref())
            }
        };
        path_rewrite(value, matches, &format!("{at}.path"), reading)
    });
    Rewrite {
        hostname: hostname(written.hostname.as_deref(), at, reading)
            .and_then(|hostname| HeaderValue::from_str(hostname).ok()),
        path,
    }
}

/// A hostname without port and wildcard, as DNS has it.
fn hostname<'a>(written: Option<&'a str>, at: &str, reading: &mut Reading<'_>) -> Option<&'a str> {
    let hostname = written?;
    let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let label =
        |l: &str| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(legal);
    if hostname.len() <= 253 && hostname.split('.').all(label) {
        return Some(hostname);
    }
    let message = format!("'{hostname}' is not a hostname in lower case without port");
    reading.fail(Code::BadValue, &format!("{at}.hostname"), message);
    None
}

/// `path` of a redirect or rewrite, whichever generated type it comes from.
enum Replacement<'a> {
    Full(Option<&'a str>),
    Prefix(Option<&'a str>),
}

fn path_rewrite(
    written: Replacement<'_>,
    matches: &[HttpMatch],
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<PathRewrite> {
    let (value, field) = match written {
        Replacement::Full(value) => (value, "replaceFullPath"),
        Replacement::Prefix(value) => (value, "replacePrefixMatch"),
    };
    let at = format!("{at}.{field}");
    let Some(value) = value else {
        reading.fail(Code::MissingField, &at, format!("{field} is missing"));
        return None;
    };
    // An empty prefix is the root (1.4); anything else is a path of its own.
    let rooted = value.starts_with('/') || value.is_empty();
    // The request's own query is kept, so that a second one would be ambiguous.
    let legal = |c: u8| c.is_ascii_graphic() && c != b'?' && c != b'#';
    if !rooted || !value.bytes().all(legal) {
        let message = format!("'{value}' is not a path: it begins with '/' and has no query");
        reading.fail(Code::BadValue, &at, message);
        return None;
    }
    match written {
        Replacement::Full(_) => Some(PathRewrite::Full(match value {
            "" => "/".into(),
            value => value.into(),
        })),
        Replacement::Prefix(_) => {
            let all_prefixes = matches
                .iter()
                .all(|m| matches!(m.path, PathMatch::Prefix(_)));
            if !all_prefixes {
                let message = "ReplacePrefixMatch needs every match of the rule to be a PathPrefix";
                reading.fail(Code::Conflict, &at, message);
                return None;
            }
            Some(PathRewrite::Prefix(value.into()))
        }
    }
}
