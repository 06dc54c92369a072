//! What an Envoy route does with a request, but for where it leads: redirects, answers, rewrites, changes
//! of headers, timeouts and retries (specs/policies.md 2.2).

use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::matches;
use super::message::Message;
use crate::diagnostics::Code;
use crate::limits::{DIRECT_RESPONSE_BYTES_MAX, RETRIES_PER_REQUEST_MAX};
use crate::resolve::virtual_actions::replacement;
use crate::resolve::virtual_traffic::{retry_condition, retry_words};
use crate::snapshot::{
    BackOff, DirectResponse, FRAMING_HEADERS, Filter, HeaderChange, PathRewrite, Redirect,
    RedirectScheme, RetryConditions, RetryPolicy, Rewrite, RuleTraffic, Timeouts,
};

/// Time out of a request when its route has none, as at Envoy, in milliseconds.
const TIMEOUT_DEFAULT_MS: u64 = 15_000;

/// Changes of headers, of a request and of its response, as four fields have them on every level.
#[derive(Clone, Default)]
pub(super) struct HeaderChanges {
    request: HeaderChange,
    response: HeaderChange,
}

impl HeaderChanges {
    /// Reads the four fields of a message.
    pub fn read(written: &mut Message<'_, '_>) -> Self {
        Self {
            request: change(
                written,
                "request_headers_to_add",
                "request_headers_to_remove",
            ),
            response: change(
                written,
                "response_headers_to_add",
                "response_headers_to_remove",
            ),
        }
    }

    /// As filters.
    pub fn filters(&self) -> Vec<Filter> {
        let mut filters = Vec::new();
        let is_empty =
            |c: &HeaderChange| c.set.is_empty() && c.add.is_empty() && c.remove.is_empty();
        if !is_empty(&self.request) {
            filters.push(Filter::RequestHeaders(self.request.clone()));
        }
        if !is_empty(&self.response) {
            filters.push(Filter::ResponseHeaders(self.response.clone()));
        }
        filters
    }

    /// The name of a header that two levels change: which of them goes last is another matter at Envoy
    /// than here.
    pub fn both_change<'h>(levels: &[&'h Self]) -> Option<&'h HeaderName> {
        let of = |pick: fn(&Self) -> &HeaderChange| {
            let mut seen: Vec<&HeaderName> = Vec::new();
            for level in levels.iter().copied() {
                let own = names(pick(level));
                if let Some(twice) = own.iter().find(|name| seen.contains(name)) {
                    return Some(*twice);
                }
                seen.extend(own);
            }
            None
        };
        of(|level| &level.request).or_else(|| of(|level| &level.response))
    }
}

fn names(change: &HeaderChange) -> Vec<&HeaderName> {
    let pairs = change.set.iter().chain(&change.add);
    pairs.map(|(name, _)| name).chain(&change.remove).collect()
}

fn change(written: &mut Message<'_, '_>, add: &str, remove: &str) -> HeaderChange {
    let mut change = HeaderChange::default();
    for mut option in written.messages(add) {
        let action = option
            .text("append_action")
            .unwrap_or("APPEND_IF_EXISTS_OR_ADD");
        let replaces = match (option.flag("append"), action) {
            (None, "APPEND_IF_EXISTS_OR_ADD") | (Some(true), _) => false,
            (None, "OVERWRITE_IF_EXISTS_OR_ADD") | (Some(false), _) => true,
            (None, other) => {
                let message = format!("appendAction {other} is not supported");
                option.wrong(Code::Unsupported, "appendAction", message);
                continue;
            }
        };
        let Some(mut header) = option.message("header") else {
            option.wrong(Code::MissingField, "header", "a header is missing");
            continue;
        };
        let key = header.text("key").unwrap_or_default();
        let value = header.text("value").unwrap_or_default();
        let Some(name) = header_name(key, &header) else {
            continue;
        };
        // Envoy's variables are %NAME%.
        match HeaderValue::from_str(value) {
            Ok(value) if !value.as_bytes().contains(&b'%') => match replaces {
                true => change.set.push((name, value)),
                false => change.add.push((name, value)),
            },
            Ok(_) => header.wrong(
                Code::Unsupported,
                "value",
                "variables of Envoy (%NAME%) in a header are not supported",
            ),
            Err(_) => header.wrong(Code::BadValue, "value", "no header has this value"),
        }
    }
    for (name, path) in written.texts(remove) {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) if !FRAMING_HEADERS.contains(&name.as_str()) => change.remove.push(name),
            _ => written.wrong(
                Code::Unsupported,
                remove,
                format!("'{name}' ({path}) is no header that a route may remove"),
            ),
        }
    }
    change
}

fn header_name(key: &str, written: &Message<'_, '_>) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(key.as_bytes());
    let name = name.ok().filter(|n| !FRAMING_HEADERS.contains(&n.as_str()));
    if name.is_none() {
        let message = format!("'{key}' is no header that a route may set");
        written.wrong(Code::Unsupported, "key", message);
    }
    name
}

/// `redirect`.
pub(super) fn redirect(mut written: Message<'_, '_>) -> Redirect {
    let path = match (
        written.text("path_redirect"),
        written.text("prefix_rewrite"),
    ) {
        (Some(path), None) => Some(PathRewrite::Full(path.into())),
        (None, Some(prefix)) => Some(PathRewrite::Matched(prefix.into())),
        (None, None) => None,
        (Some(_), Some(_)) => {
            let message = "a redirect has one of pathRedirect and prefixRewrite";
            written.wrong(Code::Conflict, "", message);
            None
        }
    };
    if path.as_ref().is_some_and(|path| !is_path(path)) {
        let message = "a path begins with '/' and has no query";
        written.wrong(Code::BadValue, "pathRedirect", message);
    }
    let https = written.flag("https_redirect") == Some(true);
    let scheme = match (https, written.text("scheme_redirect")) {
        (true, None) | (false, Some("https")) => Some(RedirectScheme::Https),
        (false, Some("http")) => Some(RedirectScheme::Http),
        (false, None) => None,
        (_, Some(_)) => {
            let message = "the scheme of a redirect is http or https, said once";
            written.wrong(Code::BadValue, "schemeRedirect", message);
            None
        }
    };
    let hostname: Option<Arc<str>> = written.text("host_redirect").map(Into::into);
    if hostname
        .as_deref()
        .is_some_and(|h| !is_authority(h) || h.contains(':'))
    {
        let message = "a host without a port is expected here";
        written.wrong(Code::BadValue, "hostRedirect", message);
    }
    let port = written.number("port_redirect");
    let port = port.and_then(|port| match u16::try_from(port) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            let message = format!("{port} is no port");
            written.wrong(Code::BadValue, "portRedirect", message);
            None
        }
    });
    if written.flag("strip_query") == Some(true) {
        let message = "a redirect keeps the query";
        written.wrong(Code::Unsupported, "stripQuery", message);
    }
    let well_known = match scheme {
        Some(RedirectScheme::Https) => 443,
        _ => 80,
    };
    Redirect {
        scheme,
        // Without a word, that of the scheme beside another host; else that of the request.
        port: port.or(hostname.is_some().then_some(well_known)),
        hostname,
        path,
        status: redirect_status(&mut written),
    }
}

fn redirect_status(written: &mut Message<'_, '_>) -> StatusCode {
    match written.text("response_code") {
        None | Some("MOVED_PERMANENTLY") => StatusCode::MOVED_PERMANENTLY,
        Some("FOUND") => StatusCode::FOUND,
        Some("SEE_OTHER") => StatusCode::SEE_OTHER,
        Some("TEMPORARY_REDIRECT") => StatusCode::TEMPORARY_REDIRECT,
        Some("PERMANENT_REDIRECT") => StatusCode::PERMANENT_REDIRECT,
        Some(other) => {
            let message = format!("there is no response code '{other}'");
            written.wrong(Code::BadValue, "responseCode", message);
            StatusCode::MOVED_PERMANENTLY
        }
    }
}

/// `directResponse`.
pub(super) fn direct_response(mut written: Message<'_, '_>) -> Filter {
    let status = written.number("status");
    let status = status.and_then(|status| u16::try_from(status).ok());
    let status = status.filter(|status| (200..600).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    if status.is_none() {
        let message = "a status between 200 and 599 is expected here";
        written.wrong(Code::BadValue, "status", message);
    }
    let body = written.message("body");
    let body = body.and_then(|mut body| body.text("inline_string"));
    let body = body.unwrap_or_default();
    if body.len() > DIRECT_RESPONSE_BYTES_MAX {
        let message = format!("a body has {DIRECT_RESPONSE_BYTES_MAX} bytes at most");
        written.wrong(Code::LimitExceeded, "body", message);
    }
    answer(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body)
}

/// An answer of the route itself.
pub(super) fn answer(status: StatusCode, body: &str) -> Filter {
    Filter::Respond(Arc::new(DirectResponse {
        status,
        body: body.as_bytes().into(),
    }))
}

/// The rewrites of a `route` action, or of a cluster of it.
pub(super) fn rewrite(written: &mut Message<'_, '_>) -> Option<Filter> {
    let prefix = written.text("prefix_rewrite");
    let regex = written.message("regex_rewrite");
    let path = match (prefix, regex) {
        (Some(prefix), None) => Some(PathRewrite::Matched(prefix.into())),
        (None, Some(regex)) => regex_rewrite(regex),
        (None, None) => None,
        (Some(_), Some(_)) => {
            let message = "a route has one of prefixRewrite and regexRewrite";
            written.wrong(Code::Conflict, "", message);
            None
        }
    };
    if path.as_ref().is_some_and(|path| !is_path(path)) {
        let message = "a path begins with '/' and has no query";
        written.wrong(Code::BadValue, "prefixRewrite", message);
    }
    let host = written.text("host_rewrite_literal");
    if host.is_some_and(|host| !is_authority(host)) {
        let message = "a host with an optional port is expected here";
        written.wrong(Code::BadValue, "hostRewriteLiteral", message);
    }
    let hostname = host.and_then(|host| HeaderValue::from_str(host).ok());
    let changes = path.is_some() || hostname.is_some();
    changes.then_some(Filter::Rewrite(Rewrite { hostname, path }))
}

fn regex_rewrite(mut written: Message<'_, '_>) -> Option<PathRewrite> {
    let pattern = written.message("pattern").and_then(matches::regex_within);
    let substitution = written.text("substitution").unwrap_or_default();
    let Some(pattern) = pattern else {
        written.wrong(Code::MissingField, "pattern", "an expression is missing");
        return None;
    };
    let legal = |c: u8| c.is_ascii_graphic() && c != b'?' && c != b'#';
    let replacement = replacement(substitution, pattern.groups());
    let Some(replacement) = replacement.filter(|_| substitution.bytes().all(legal)) else {
        let message = "a group that the expression has not, or a character that no path has";
        written.wrong(Code::BadValue, "substitution", message);
        return None;
    };
    Some(PathRewrite::Regex(pattern, replacement.into()))
}

fn is_path(path: &PathRewrite) -> bool {
    let legal = |c: u8| c.is_ascii_graphic() && c != b'?' && c != b'#';
    match path {
        PathRewrite::Full(text) | PathRewrite::Prefix(text) | PathRewrite::Matched(text) => {
            text.starts_with('/') && text.bytes().all(legal)
        }
        PathRewrite::Regex(..) => true,
    }
}

fn is_authority(host: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-._:[]".contains(&c);
    host.bytes().all(legal) && host.parse::<http::uri::Authority>().is_ok()
}

/// Timeouts and retries of a `route` action.
pub(super) fn traffic(
    written: &mut Message<'_, '_>,
    retry_of_host: Option<&(RetryPolicy, Option<u64>)>,
) -> RuleTraffic {
    let timeout_ms = written.duration_ms("timeout").unwrap_or(TIMEOUT_DEFAULT_MS);
    let own = written.message("retry_policy").map(retry);
    let retry = own.or_else(|| retry_of_host.cloned());
    RuleTraffic {
        timeouts: Timeouts {
            request_ms: (timeout_ms > 0).then_some(timeout_ms),
            attempt_ms: retry.as_ref().and_then(|(_, attempt_ms)| *attempt_ms),
        },
        retry: retry.map(|(policy, _)| policy),
        ..RuleTraffic::default()
    }
}

/// A `RetryPolicy`, with the timeout of an attempt in milliseconds.
pub(super) fn retry(mut written: Message<'_, '_>) -> (RetryPolicy, Option<u64>) {
    let words = written.text("retry_on").unwrap_or_default();
    let mut on = RetryConditions::default();
    for word in retry_words(words) {
        if !retry_condition(word, &mut on) {
            let message = format!("the condition '{word}' is not supported");
            written.wrong(Code::Unsupported, "retryOn", message);
        }
    }
    let statuses = written.numbers("retriable_status_codes");
    if words.contains("retriable-status-codes") {
        on.statuses
            .extend(statuses.into_iter().map(|status| status..=status));
    }
    let retries = written.number("num_retries").unwrap_or(1);
    if retries > RETRIES_PER_REQUEST_MAX {
        let message = format!("a request is retried {RETRIES_PER_REQUEST_MAX} times at most");
        written.wrong(Code::LimitExceeded, "numRetries", message);
    }
    let attempt_ms = written.duration_ms("per_try_timeout").filter(|ms| *ms > 0);
    let back_off = written.message("retry_back_off").map(|mut written| {
        let base_ms = written.duration_ms("base_interval").unwrap_or(25).max(1);
        let most_ms = written.duration_ms("max_interval");
        BackOff {
            at_least_ms: 0,
            spread_ms: base_ms,
            at_most_ms: most_ms.unwrap_or(base_ms.saturating_mul(10)).max(base_ms),
        }
    });
    let policy = RetryPolicy {
        retries_max: retries.min(RETRIES_PER_REQUEST_MAX),
        on,
        back_off: back_off.unwrap_or_default(),
    };
    (policy, attempt_ms)
}
