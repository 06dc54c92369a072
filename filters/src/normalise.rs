//! The request target, brought into the one form that policy, routes and the backend all see
//! (specs/istio-waypoint.md 4.8, path normalisation). Forwards the query as it is, and compares no host.
//!
//! Strict mode refuses what two parsers could read differently. Istio's own modes are kept for those
//! who configure them, with one difference: a malformed percent-escape is refused in every mode that
//! decodes, because decoding around it could make a new escape (`%%32e` would become `%2e`).

use std::borrow::Cow;
use std::sync::Arc;

use cairn_authz::jwt::without_params;
use cairn_config_schema::snapshot::PathNormalization;

use crate::authority::AuthorityError;

/// Why a target is refused with 400. `Display` is the reason for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Neither `/path`, nor `http://host/path`, nor `*` with OPTIONS.
    #[error("the request target is neither a path nor an http URL")]
    Form,
    /// `#`.
    #[error("the request target has a fragment")]
    Fragment,
    /// A control character or a space.
    #[error("the request target has a control character or a space")]
    Control,
    /// A byte beyond ASCII in the path.
    #[error("the path has a character beyond ASCII that is not percent-escaped")]
    NonAscii,
    /// `\`.
    #[error("the path has a backslash")]
    Backslash,
    /// `%` without two hexadecimal digits.
    #[error("the path has a malformed percent-escape")]
    Escape,
    /// `%2F`.
    #[error("the path has an escaped slash (%2F)")]
    EscapedSlash,
    /// `%5C`.
    #[error("the path has an escaped backslash (%5C)")]
    EscapedBackslash,
    /// `%00`.
    #[error("the path has an escaped NUL (%00)")]
    EscapedNul,
    /// `..;x`, which some servers take for `..`.
    #[error("the path hides a dot segment behind a parameter (such as ..;)")]
    HiddenDotSegment,
    /// The authority of the request or of its absolute target.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// A normalised target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Path without the query; `*` for OPTIONS of the server as a whole.
    pub path: Cow<'a, str>,
    /// Query without the question mark, as sent; empty for a bare question mark.
    pub query: Option<&'a str>,
    /// Authority of an absolute target. The caller compares it with Host.
    pub authority: Option<&'a str>,
    /// Path and query as they stand in the target, if the path did not change.
    sent: Option<&'a str>,
    /// The path without its parameters, when policy denied that reading and not the other.
    denied_reading: Option<String>,
    /// The query without tokens that are not for the application, if there were some.
    query_left: Option<Option<String>>,
}

impl Target<'_> {
    /// Path and query, to be forwarded. Allocates only if the path changed.
    pub fn path_and_query(&self) -> Cow<'_, str> {
        match (self.sent, self.query) {
            (Some(sent), _) => Cow::Borrowed(sent),
            (None, None) => Cow::Borrowed(&self.path),
            (None, Some(query)) => Cow::Owned(format!("{}?{query}", self.path)),
        }
    }

    /// The path as the deciding policy read it.
    pub fn judged_path(&self) -> &str {
        self.denied_reading.as_deref().unwrap_or(&self.path)
    }

    /// The query as policy reads it: as the application gets it, without tokens that are not for it.
    pub fn judged_query(&self) -> Option<&str> {
        match &self.query_left {
            Some(left) => left.as_deref(),
            None => self.query,
        }
    }

    /// Takes the query parameters with these names away from policy, as they will be from the request.
    pub(crate) fn hide_params(&mut self, names: &[Arc<str>]) {
        let Some(query) = self.query.filter(|_| !names.is_empty()) else {
            return;
        };
        let left = without_params(Cow::Owned(format!("?{query}")), names);
        self.query_left = Some(left.strip_prefix('?').map(str::to_owned));
    }

    /// The target as a server reads it that knows path parameters: `/admin;x=1` is `/admin` to a
    /// servlet. `None` when the path has none, which is almost always.
    pub(crate) fn without_parameters(&self) -> Option<Self> {
        self.path.contains(';').then(|| Self {
            denied_reading: Some(strip_parameters(&self.path)),
            ..self.clone()
        })
    }

    /// Whether path and query differ from what was sent.
    pub fn is_changed(&self) -> bool {
        self.sent.is_none()
    }
}

/// Normalises a request target in origin form, absolute form or `*`. Allocates only if the path
/// changes.
pub fn normalise(target: &str, mode: PathNormalization) -> Result<Target<'_>, Rejection> {
    for byte in target.bytes() {
        match byte {
            b'#' => return Err(Rejection::Fragment),
            0..=b' ' | 0x7f => return Err(Rejection::Control),
            _ => {}
        }
    }
    let (authority, sent) = split_authority(target)?;
    let (path, query) = match sent.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (sent, None),
    };
    // Only an absolute target may leave the path out.
    let (path, sent) = match path {
        "" => ("/", None),
        path => (path, Some(sent)),
    };
    let path = if path == "*" {
        Cow::Borrowed(path)
    } else {
        normalise_path(path, mode)?
    };
    Ok(Target {
        sent: sent.filter(|_| matches!(path, Cow::Borrowed(_))),
        denied_reading: None,
        query_left: None,
        path,
        query,
        authority,
    })
}

/// Cuts every segment at its first `;`, and leaves out those of which nothing remains, as servers do
/// that merge slashes afterwards. Dot segments can not appear: strict mode refuses `..;`.
fn strip_parameters(path: &str) -> String {
    let mut stripped = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let name = segment.split(';').next().unwrap_or_default();
        if !name.is_empty() || segments.peek().is_none() {
            stripped.push('/');
            stripped.push_str(name);
        }
    }
    stripped
}

/// The authority of an absolute target, and path and query.
fn split_authority(target: &str) -> Result<(Option<&str>, &str), Rejection> {
    if target.starts_with('/') || target == "*" {
        return Ok((None, target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(Rejection::Form)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Rejection::Form);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(end);
    Ok((Some(authority), path_and_query))
}

/// What a mode does. Resolving dot segments, decoding unreserved characters and putting escapes in
/// upper case are part of all that do anything.
#[derive(Clone, Copy)]
struct Steps {
    /// Refuse what is ambiguous rather than choose a reading.
    refuse: bool,
    /// `%2F` and `%5C` become slashes.
    decode_slashes: bool,
    /// Repeated slashes become one.
    merge: Merge,
}

#[derive(Clone, Copy, PartialEq)]
enum Merge {
    No,
    /// Before dot segments are resolved, as most servers do: `/a//../b` is `/b`.
    First,
    /// After, as Envoy does: `/a//../b` is `/a/b`.
    Last,
}

fn normalise_path(path: &str, mode: PathNormalization) -> Result<Cow<'_, str>, Rejection> {
    let (refuse, decode_slashes, merge) = match mode {
        PathNormalization::None => return Ok(Cow::Borrowed(path)),
        PathNormalization::Strict => (true, false, Merge::First),
        PathNormalization::Base => (false, false, Merge::No),
        PathNormalization::MergeSlashes => (false, false, Merge::Last),
        PathNormalization::DecodeAndMergeSlashes => (false, true, Merge::Last),
    };
    let steps = Steps {
        refuse,
        decode_slashes,
        merge,
    };
    if !needs_change(path, steps)? {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path, steps)?;
    let mut resolved = resolve(&decoded, steps)?;
    if merge == Merge::Last {
        resolved.dedup_slashes();
    }
    Ok(Cow::Owned(resolved.0))
}

/// Looks for anything that would change or be refused, so that the usual path costs one scan.
fn needs_change(path: &str, steps: Steps) -> Result<bool, Rejection> {
    let mut changes = false;
    let mut dots = false;
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let escape = read_escape(tail, steps)?;
                changes |= !matches!(escape.meaning, Meaning::Keep) || escape.lower_case;
                rest = escape.rest;
            }
            b'\\' if steps.refuse => return Err(Rejection::Backslash),
            0x80.. if steps.refuse => return Err(Rejection::NonAscii),
            b'\\' | 0x80.. => changes = true,
            b'/' => {
                changes |= steps.merge != Merge::No && tail.first() == Some(&b'/');
                dots |= tail.first() == Some(&b'.');
            }
            _ => {}
        }
    }
    if dots {
        for segment in path.split('/') {
            changes |= segment_kind(segment, steps)? != SegmentKind::Plain;
        }
    }
    Ok(changes)
}

struct Escape<'a> {
    meaning: Meaning,
    /// The two digits, in upper case.
    digits: [u8; 2],
    lower_case: bool,
    rest: &'a [u8],
}

enum Meaning {
    /// Stays an escape.
    Keep,
    /// Becomes this character.
    Decode(u8),
}

/// Reads what follows a `%`.
fn read_escape<'a>(after: &'a [u8], steps: Steps) -> Result<Escape<'a>, Rejection> {
    let [high, low, rest @ ..] = after else {
        return Err(Rejection::Escape);
    };
    let digits = [high.to_ascii_uppercase(), low.to_ascii_uppercase()];
    let value = std::str::from_utf8(&digits)
        .ok()
        .filter(|_| high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
        .and_then(|d| u8::from_str_radix(d, 16).ok())
        .ok_or(Rejection::Escape)?;
    let meaning = match value {
        0 => return Err(Rejection::EscapedNul),
        b'/' if steps.refuse => return Err(Rejection::EscapedSlash),
        b'\\' if steps.refuse => return Err(Rejection::EscapedBackslash),
        b'/' | b'\\' if steps.decode_slashes => Meaning::Decode(b'/'),
        c if c.is_ascii_alphanumeric() || b"-._~".contains(&c) => Meaning::Decode(c),
        _ => Meaning::Keep,
    };
    Ok(Escape {
        meaning,
        digits,
        lower_case: digits != [*high, *low],
        rest,
    })
}

/// Everything that concerns single characters: escapes, backslashes, bytes beyond ASCII.
fn decode(path: &str, steps: Steps) -> Result<String, Rejection> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let escape = read_escape(tail, steps)?;
                match escape.meaning {
                    Meaning::Decode(c) => decoded.push(char::from(c)),
                    Meaning::Keep => {
                        let [high, low] = escape.digits.map(char::from);
                        decoded.extend(['%', high, low]);
                    }
                }
                rest = escape.rest;
            }
            b'\\' => decoded.push('/'),
            0x80.. => {
                let digit = |d: u8| char::from_digit(d.into(), 16).unwrap_or('0');
                let [high, low] = [byte >> 4, byte & 15].map(|d| digit(d).to_ascii_uppercase());
                decoded.extend(['%', high, low]);
            }
            c => decoded.push(char::from(*c)),
        }
    }
    Ok(decoded)
}

#[derive(Clone, Copy, PartialEq)]
enum SegmentKind {
    Plain,
    /// `.`
    Here,
    /// `..`
    Up,
}

fn segment_kind(segment: &str, steps: Steps) -> Result<SegmentKind, Rejection> {
    let parameter = |rest: &str| {
        let escaped = |e: &str| rest.get(..3).is_some_and(|r| r.eq_ignore_ascii_case(e));
        rest.starts_with(';') || escaped("%3B")
    };
    let dots = segment.strip_prefix('.').map(|rest| {
        let up = rest.strip_prefix('.');
        (up.is_some(), up.unwrap_or(rest))
    });
    match dots {
        Some((false, "")) => Ok(SegmentKind::Here),
        Some((true, "")) => Ok(SegmentKind::Up),
        Some((_, rest)) if steps.refuse && parameter(rest) => Err(Rejection::HiddenDotSegment),
        _ => Ok(SegmentKind::Plain),
    }
}

/// A path under construction; empty or beginning with a slash.
struct Resolved(String);

/// Resolves dot segments (RFC 3986 5.2.4), never above the root.
fn resolve(path: &str, steps: Steps) -> Result<Resolved, Rejection> {
    let mut resolved = Resolved(String::with_capacity(path.len()));
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment_kind(segment, steps)? {
            SegmentKind::Plain if segment.is_empty() && steps.merge == Merge::First => {
                resolved.end(last);
            }
            SegmentKind::Plain => resolved.push(segment),
            SegmentKind::Here => resolved.end(last),
            SegmentKind::Up => {
                let parent = resolved.0.rfind('/').unwrap_or(0);
                resolved.0.truncate(parent);
                resolved.end(last);
            }
        }
    }
    Ok(resolved)
}

impl Resolved {
    fn push(&mut self, segment: &str) {
        self.0.push('/');
        self.0.push_str(segment);
    }

    /// A segment that vanishes leaves its slash behind only at the end of the path.
    fn end(&mut self, last: bool) {
        if last {
            self.0.push('/');
        }
    }

    fn dedup_slashes(&mut self) {
        let mut previous = ' ';
        self.0.retain(|c| {
            let kept = c != '/' || previous != '/';
            previous = c;
            kept
        });
    }
}

#[cfg(test)]
mod tests;
