//! Which requests an Envoy route is for: `RouteMatch`, and the domains of its virtual host
//! (specs/policies.md 2.2).

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST, HeaderName};

use super::message::Message;
use crate::diagnostics::Code;
use crate::resolve::paths::{canonical, never_seen};
use crate::snapshot::{
    HeaderMatch, HttpMatch, MoreConditions, PathMatch, PathNormalization, Pattern, QueryMatch,
    TextMatch,
};

/// Reads `match` of a route.
pub(super) fn read(mut written: Message<'_, '_>, mode: PathNormalization) -> HttpMatch {
    let path = path(&mut written, mode);
    let mut matched = HttpMatch {
        path,
        ..HttpMatch::default()
    };
    let mut more = MoreConditions::default();
    for header in written.messages("headers") {
        read_header(header, &mut matched.headers, &mut more.without_headers);
    }
    for parameter in written.messages("query_parameters") {
        matched.query.extend(query(parameter));
    }
    if written.message("grpc").is_some() {
        // The whole of it, or what stands before a `+`: not gRPC-Web.
        if let Ok(pattern) = Pattern::compile(r"application/grpc(\+.*)?") {
            matched.headers.push(HeaderMatch {
                name: CONTENT_TYPE,
                value: TextMatch::Regex(pattern),
            });
        }
    }
    if more != MoreConditions::default() {
        matched.more = Some(Box::new(more));
    }
    matched
}

fn path(written: &mut Message<'_, '_>, mode: PathNormalization) -> PathMatch {
    let ignore_case = written.flag("case_sensitive") == Some(false);
    let begins = |text: &str| PathMatch::Begins {
        text: text.into(),
        ignore_case,
    };
    let prefix = written.text("prefix");
    let exact = written.text("path");
    let separated = written.text("path_separated_prefix");
    let regex = written.message("safe_regex").map(regex);
    match (prefix, exact, separated, regex) {
        (Some(text), None, None, None) => begins(&literal(text, "prefix", mode, written)),
        (None, Some(text), None, None) => {
            let text = literal(text, "path", mode, written);
            match ignore_case {
                false => PathMatch::Exact(text),
                true => Pattern::of_any_case(&text).map_or_else(|_| begins("/"), PathMatch::Regex),
            }
        }
        (None, None, Some(text), None) => {
            let text = literal(text, "pathSeparatedPrefix", mode, written);
            PathMatch::Prefix(text.trim_end_matches('/').into())
        }
        (None, None, None, Some(pattern)) => pattern.map_or_else(|| begins("/"), PathMatch::Regex),
        _ => {
            let message = "a match has one of prefix, path, pathSeparatedPrefix and safeRegex";
            written.wrong(Code::MissingField, "", message);
            begins("/")
        }
    }
}

/// A path as normalised requests have it.
fn literal(
    text: &str,
    field: &str,
    mode: PathNormalization,
    written: &Message<'_, '_>,
) -> Arc<str> {
    let path = canonical(text, mode);
    let wrong = match never_seen(&path, mode) {
        None if !path.starts_with('/') => Some("it does not begin with '/'"),
        wrong => wrong,
    };
    if let Some(wrong) = wrong {
        let message = format!("'{text}' is the path of no request: {wrong}");
        written.wrong(Code::BadValue, field, message);
    }
    path.into()
}

/// A `RegexMatcher`.
pub(super) fn regex(written: Message<'_, '_>) -> Option<Pattern> {
    matcher(written, Pattern::compile)
}

/// A `RegexMatcher` that may match within a text.
pub(super) fn regex_within(written: Message<'_, '_>) -> Option<Pattern> {
    matcher(written, Pattern::compile_within)
}

fn matcher(
    mut written: Message<'_, '_>,
    compile: fn(&str) -> Result<Pattern, String>,
) -> Option<Pattern> {
    // The engine it names is the one there is: linear in time, in RE2's syntax.
    written.skip(&["google_re2"]);
    let Some(source) = written.text("regex") else {
        written.wrong(Code::MissingField, "regex", "an expression is missing");
        return None;
    };
    match compile(source) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let message = format!("the regular expression '{source}' is not valid: {error}");
            written.wrong(Code::BadValue, "regex", message);
            None
        }
    }
}

/// A `HeaderMatcher`. One that is inverted holds for a header that is there and has another value, as at
/// Envoy; one that the header is absent, for requests without it.
fn read_header(
    mut written: Message<'_, '_>,
    headers: &mut Vec<HeaderMatch>,
    without: &mut Vec<HeaderMatch>,
) {
    let name = written.text("name").unwrap_or_default();
    let name = match name {
        ":authority" => Some(HOST),
        name => HeaderName::from_bytes(name.as_bytes()).ok(),
    };
    let Some(name) = name else {
        written.wrong(Code::BadValue, "name", "this is not the name of a header");
        return;
    };
    let inverted = written.flag("invert_match") == Some(true);
    let present = written.flag("present_match");
    let value = match present {
        Some(_) => Some(TextMatch::Present),
        None => header_value(&mut written),
    };
    let Some(value) = value else {
        return;
    };
    let is_there = present.unwrap_or(true) != inverted;
    if present.is_some() {
        let list = if is_there { headers } else { without };
        list.push(HeaderMatch { name, value });
        return;
    }
    if inverted {
        headers.push(HeaderMatch {
            name: name.clone(),
            value: TextMatch::Present,
        });
        without.push(HeaderMatch { name, value });
    } else {
        headers.push(HeaderMatch { name, value });
    }
}

fn header_value(written: &mut Message<'_, '_>) -> Option<TextMatch> {
    if let Some(string) = written.message("string_match") {
        return text(string);
    }
    let escaped = |text: &str| regex::escape(text);
    if let Some(exact) = written.text("exact_match") {
        return Some(TextMatch::Exact(exact.into()));
    }
    if let Some(prefix) = written.text("prefix_match") {
        return Some(TextMatch::Prefix(prefix.into()));
    }
    if let Some(pattern) = written.message("safe_regex_match") {
        return regex(pattern).map(TextMatch::Regex);
    }
    let source = match (written.text("suffix_match"), written.text("contains_match")) {
        (Some(end), None) => format!("(?s:.*){}", escaped(end)),
        (None, Some(part)) => format!("(?s:.*){}(?s:.*)", escaped(part)),
        // Without a word about the value, that it is there.
        (None, None) => return Some(TextMatch::Present),
        (Some(_), Some(_)) => {
            let message = "suffixMatch and containsMatch exclude each other";
            written.wrong(Code::Conflict, "suffixMatch", message);
            return None;
        }
    };
    match Pattern::compile(&source) {
        Ok(pattern) => Some(TextMatch::Regex(pattern)),
        Err(reason) => {
            written.wrong(Code::BadValue, "", reason);
            None
        }
    }
}

/// A `StringMatcher`.
fn text(mut written: Message<'_, '_>) -> Option<TextMatch> {
    let ignore_case = written.flag("ignore_case") == Some(true);
    let case = if ignore_case { "i" } else { "" };
    let exact = written.text("exact");
    let prefix = written.text("prefix");
    let suffix = written.text("suffix");
    let contains = written.text("contains");
    let pattern = written.message("safe_regex").map(regex);
    let any = "(?s:.)*";
    let source = match (exact, prefix, suffix, contains, pattern) {
        (Some(text), None, None, None, None) if !ignore_case => {
            return Some(TextMatch::Exact(text.into()));
        }
        (None, Some(text), None, None, None) if !ignore_case => {
            return Some(TextMatch::Prefix(text.into()));
        }
        (None, None, None, None, Some(pattern)) => return pattern.map(TextMatch::Regex),
        (Some(text), None, None, None, None) => regex::escape(text),
        (None, Some(text), None, None, None) => format!("{}{any}", regex::escape(text)),
        (None, None, Some(text), None, None) => format!("{any}{}", regex::escape(text)),
        (None, None, None, Some(text), None) => format!("{any}{}{any}", regex::escape(text)),
        _ => {
            let message = "a text has one of exact, prefix, suffix, contains and safeRegex";
            written.wrong(Code::MissingField, "", message);
            return None;
        }
    };
    match Pattern::compile(&format!("(?{case}:{source})")) {
        Ok(pattern) => Some(TextMatch::Regex(pattern)),
        Err(error) => {
            written.wrong(Code::BadValue, "", error);
            None
        }
    }
}

/// A `QueryParameterMatcher`.
fn query(mut written: Message<'_, '_>) -> Option<QueryMatch> {
    let name: Arc<str> = match written.text("name") {
        Some(name) => name.into(),
        None => {
            written.wrong(Code::MissingField, "name", "a parameter needs a name");
            return None;
        }
    };
    let value = match written.message("string_match") {
        Some(string) => text(string)?,
        None => match written.flag("present_match") {
            Some(false) => {
                let message = "a parameter that must be absent is not supported";
                written.wrong(Code::Unsupported, "presentMatch", message);
                return None;
            }
            _ => TextMatch::Present,
        },
    };
    Some(QueryMatch { name, value })
}

/// A domain of a virtual host.
#[derive(Clone, Debug)]
pub(super) struct Domain {
    /// Of two domains that a request has, Envoy takes the one that is less: exact ones first, then
    /// `*.end`, then `begin.*`, the longer first, and `*` last.
    pub rank: (u8, usize),
    /// As it is compared, in lower case.
    pub text: String,
    /// `None`: every host.
    pub condition: Option<HeaderMatch>,
}

impl Domain {
    /// `None`: it is no domain.
    pub fn read(written: &str) -> Option<Self> {
        let text = written.to_ascii_lowercase();
        let longer_first = usize::MAX - text.len();
        let escaped = |part: &str| regex::escape(part);
        let (rank, source) = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => ((3, 0), None),
            (Some(end), _) => ((1, longer_first), Some(format!(".+{}", escaped(end)))),
            (None, Some(begin)) => ((2, longer_first), Some(format!("{}.+", escaped(begin)))),
            (None, None) => ((0, 0), Some(escaped(&text))),
        };
        let inner = text.trim_start_matches('*').trim_end_matches('*');
        if text.is_empty() || inner.contains('*') || text.matches('*').count() > 1 {
            return None;
        }
        let condition = match source {
            None => None,
            Some(source) => {
                let pattern = Pattern::compile(&format!("(?i:{source})")).ok()?;
                let value = TextMatch::Regex(pattern);
                Some(HeaderMatch { name: HOST, value })
            }
        };
        Some(Self {
            rank,
            text,
            condition,
        })
    }
}
