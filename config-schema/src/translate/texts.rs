//! Texts as Istio writes them (a star at an end, templates) and as Cilium does (RE2 over the whole value,
//! of a path with its query: specs/policies.md 2.1.5), each from the other. Knows no object.

use regex_syntax::hir::{Hir, HirKind, Look};

use crate::resolve::canonical_path;
use crate::snapshot::{PathNormalization, PathPattern, PathTemplate, StringMatch, TemplateSegment};

/// What a path may be followed by where the query does not count.
const ANY_QUERY: &str = r"(\?.*)?";

/// A pattern of Istio's, and how it differs from the expression it was read from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// As Istio writes it.
    pub pattern: String,
    /// What it matches that the expression does not, in words.
    pub wider: Option<&'static str>,
}

/// The expression that matches what a string form does. `None`: everything.
pub(super) fn of_text(text: &StringMatch) -> Option<String> {
    match text {
        StringMatch::Any => None,
        StringMatch::Exact(text) | StringMatch::Glob(text) => Some(regex::escape(text)),
        StringMatch::Prefix(text) => Some(format!("{}.*", regex::escape(text))),
        StringMatch::Suffix(text) => Some(format!(".*{}", regex::escape(text))),
    }
}

/// The expression that matches what a pattern of a path does, whatever the query. `None`: none does.
pub(super) fn of_path(pattern: &PathPattern) -> Option<String> {
    // Istio's paths have no query, Cilium's have: a question mark would find its place there.
    let escaped = |text: &str| (!text.contains('?')).then(|| regex::escape(text));
    Some(match pattern {
        PathPattern::Text(StringMatch::Any) => "[^?].*".to_owned(),
        PathPattern::Text(StringMatch::Exact(path) | StringMatch::Glob(path)) => {
            format!("{}{ANY_QUERY}", escaped(path)?)
        }
        PathPattern::Text(StringMatch::Prefix(path)) => format!("{}.*", escaped(path)?),
        PathPattern::Text(StringMatch::Suffix(path)) => {
            format!("[^?]*{}{ANY_QUERY}", escaped(path)?)
        }
        PathPattern::Template(template) => {
            let segments = template.segments().iter();
            let segments: Option<String> = segments.map(segment).collect();
            segments? + ANY_QUERY
        }
    })
}

fn segment(segment: &TemplateSegment) -> Option<String> {
    Some(match segment {
        TemplateSegment::Literal(text) if text.contains('?') => return None,
        TemplateSegment::Literal(text) => format!("/{}", regex::escape(text)),
        TemplateSegment::One => "/[^/?]+".to_owned(),
        TemplateSegment::Rest => "/[^?]*".to_owned(),
    })
}

/// The path of Istio's that matches at least what an expression does. `None`: Istio can not say it.
pub(super) fn path(expression: &str, mode: PathNormalization) -> Option<Read> {
    let hir = parse(expression)?;
    let mut parts = unanchored(&hir)?;
    let is = |part: &Hir, expression: &str| parse(expression).is_some_and(|hir| *part == hir);
    if let [first, rest] = parts.as_slice()
        && is(first, "[^?]")
        && is(rest, ".*")
    {
        return Some(Read {
            pattern: "*".to_owned(),
            wider: None,
        });
    }
    let query = parse(ANY_QUERY);
    let takes_query = parts
        .pop_if(|part| Some(&*part) == query.as_ref())
        .is_some();
    let (mut pattern, mut template, mut open, mut greedy) = (String::new(), false, false, false);
    for part in &parts {
        // A star that matches everything is understood at the end alone.
        if open {
            return None;
        }
        match part.kind() {
            HirKind::Literal(literal) => {
                let text = std::str::from_utf8(&literal.0).ok()?;
                // In a path of Istio's these mean something else, or nothing.
                if text.contains(['*', '{', '}', '?', '#']) || canonical_path(text, mode) != text {
                    return None;
                }
                pattern.push_str(text);
            }
            _ if is(part, ".*") => {
                pattern.push('*');
                open = true;
            }
            _ if is(part, "[^/?]+") => {
                pattern.push_str("{*}");
                template = true;
            }
            // It reaches into the query, where Istio does not look.
            _ if is(part, "[^/]+") => {
                pattern.push_str("{*}");
                (template, greedy) = (true, true);
            }
            _ if is(part, "[^?]*") && pattern.is_empty() => pattern.push('*'),
            _ if is(part, "[^?]*") => {
                pattern.push_str("{**}");
                template = true;
            }
            _ => return None,
        }
    }
    let wider = match (takes_query || open, greedy) {
        // What follows a part that may hold a query must not be allowed without it.
        (_, true) => return None,
        (true, false) => None,
        (false, false) => {
            Some("it matches the path whatever the query, and the expression only without one")
        }
    };
    understood(&pattern, template, open).then_some(Read { pattern, wider })
}

/// Whether Istio reads a text as it was meant.
fn understood(pattern: &str, template: bool, open: bool) -> bool {
    match template {
        true => !open && PathTemplate::parse(pattern).is_ok(),
        false => !pattern.is_empty() && pattern.matches('*').count() <= 1,
    }
}

/// The host of Istio's that matches at least what an expression does. `None`: Istio can not say it.
pub(super) fn host(expression: &str) -> Option<Read> {
    let (expression, any_case) = match expression.strip_prefix("(?i)") {
        Some(rest) => (rest, true),
        None => (expression, false),
    };
    // Flags inside could take back those before them.
    if expression.contains("(?") {
        return None;
    }
    let hir = parse(expression)?;
    let parts = unanchored(&hir)?;
    let is_open = |part: &Hir| parse(".*").is_some_and(|hir| *part == hir);
    let literal = |part: &Hir| match part.kind() {
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).ok()?;
            (text.is_ascii() && !text.contains('*')).then(|| text.to_owned())
        }
        _ => None,
    };
    let pattern = match parts.as_slice() {
        [only] => literal(only)?,
        [first, last] if is_open(last) => format!("{}*", literal(first)?),
        [first, last] if is_open(first) => format!("*{}", literal(last)?),
        _ => return None,
    };
    let wider = (!any_case && pattern.bytes().any(|b| b.is_ascii_alphabetic())).then_some(
        "it matches the host in upper case and in lower case, and the expression in one of them",
    );
    Some(Read { pattern, wider })
}

/// The words that an expression matches, if it is a choice of words without a star.
pub(super) fn words(expression: &str) -> Option<Vec<String>> {
    let hir = parse(expression)?;
    let parts = unanchored(&hir)?;
    let mut words = Vec::new();
    match parts.as_slice() {
        [only] => collect(only, "", &mut words)?,
        several => collect(&Hir::concat(several.to_vec()), "", &mut words)?,
    }
    let plain = |word: &String| !word.is_empty() && !word.contains('*');
    (!words.is_empty() && words.iter().all(plain)).then_some(words)
}

/// Adds the words that a literal or a choice stands for, each after `before`.
fn collect(hir: &Hir, before: &str, words: &mut Vec<String>) -> Option<()> {
    match hir.kind() {
        HirKind::Literal(literal) => {
            words.push(format!("{before}{}", std::str::from_utf8(&literal.0).ok()?));
            Some(())
        }
        HirKind::Alternation(choices) => {
            let mut choices = choices.iter();
            choices.try_for_each(|choice| collect(choice, before, words))
        }
        // What begins alike is read as one literal and a choice of rests: `P(?:UT|ATCH)`.
        HirKind::Concat(parts) => {
            let [first, rest] = parts.as_slice() else {
                return None;
            };
            let HirKind::Literal(literal) = first.kind() else {
                return None;
            };
            let before = format!("{before}{}", std::str::from_utf8(&literal.0).ok()?);
            collect(rest, &before, words)
        }
        _ => None,
    }
}

/// The parts of an expression one after the other, without anchors at its ends, which say nothing.
/// `None`: there are others.
fn unanchored(hir: &Hir) -> Option<Vec<Hir>> {
    let mut parts = match hir.kind() {
        HirKind::Concat(parts) => parts.clone(),
        HirKind::Empty => Vec::new(),
        _ => vec![hir.clone()],
    };
    let is = |part: &Hir, look: Look| *part.kind() == HirKind::Look(look);
    if parts.first().is_some_and(|part| is(part, Look::Start)) {
        parts.remove(0);
    }
    parts.pop_if(|part| is(part, Look::End));
    let mut within = parts.iter();
    within
        .all(|part| part.properties().look_set().is_empty())
        .then_some(parts)
}

/// An expression without its groups, which do not matter to what it matches.
fn parse(expression: &str) -> Option<Hir> {
    regex_syntax::parse(expression)
        .ok()
        .map(|hir| ungrouped(&hir))
}

fn ungrouped(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Capture(capture) => ungrouped(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(ungrouped).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(ungrouped).collect()),
        HirKind::Repetition(repetition) => {
            let mut repetition = repetition.clone();
            repetition.sub = Box::new(ungrouped(&repetition.sub));
            Hir::repetition(repetition)
        }
        _ => hir.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: PathNormalization = PathNormalization::Strict;

    fn read(pattern: &str) -> PathPattern {
        match PathTemplate::is_template(pattern) {
            true => PathPattern::Template(PathTemplate::parse(pattern).unwrap()),
            false => PathPattern::Text(StringMatch::parse(pattern)),
        }
    }

    /// There and back is where it began, and a request's query makes no difference on the way.
    #[test]
    fn a_path_of_istio_survives_the_way_to_cilium_and_back() {
        for pattern in [
            "*",
            "/orders",
            "/api/v1/*",
            "*/health",
            "/a.b/(c)",
            "/users/{*}/orders",
            "/files/{**}",
            "/files/{**}/raw",
        ] {
            let there = of_path(&read(pattern)).unwrap();
            let back = path(&there, MODE).unwrap_or_else(|| panic!("{pattern}: {there}"));
            assert_eq!((&*back.pattern, back.wider), (pattern, None));
        }
        assert_eq!(of_path(&read("/a?b*")), None);
    }

    #[test]
    fn an_expression_becomes_a_path_only_where_istio_can_say_it() {
        for (written, wanted) in [
            ("/api/v1/orders", Some(("/api/v1/orders", true))),
            ("^/users$", Some(("/users", true))),
            ("^(/users)$", Some(("/users", true))),
            ("/api/v1/orders/.*", Some(("/api/v1/orders/*", false))),
            ("/public.*", Some(("/public*", false))),
            ("/public(.*)", Some(("/public*", false))),
            ("/users/[^/?]+/x", Some(("/users/{*}/x", true))),
            // It would match a query with a slash in it.
            ("/users/[^/]+/x", None),
            ("/users(/|$)(.*)", None),
            // Anchors elsewhere than at the ends mean something.
            ("/a$b", None),
            ("/a^", None),
            ("/a|/b", None),
            ("/v[0-9]/x", None),
            ("/a.b", None),
            ("/a/.*/b", None),
            (".*/b", None),
            ("(?i)/a", None),
            // Letters that another language reads as more than themselves.
            (r"/a\*", None),
            (r"/a\{b\}", None),
            (r"/a\?b=1", None),
            // No request has it, and Istio would read it as `/~a`.
            ("/%7ea", None),
            ("", None),
        ] {
            let found = path(written, MODE);
            let found = found.as_ref().map(|f| (&*f.pattern, f.wider.is_some()));
            assert_eq!(found, wanted, "{written}");
        }
    }

    #[test]
    fn hosts_are_compared_without_their_case_by_istio() {
        for (written, wanted) in [
            (r"(?i)api\.shop", Some(("api.shop", false))),
            (r"(?i)api\.shop.*", Some(("api.shop*", false))),
            (r"(?i).*\.shop", Some(("*.shop", false))),
            (r"api\.shop", Some(("api.shop", true))),
            ("api.shop", None),
            (r"(?i)(?-i:api)", None),
            (r"(?-i:api)", None),
            (r"api\*", None),
            ("a|b", None),
            ("(?i)", None),
        ] {
            let found = host(written);
            let found = found.as_ref().map(|f| (&*f.pattern, f.wider.is_some()));
            assert_eq!(found, wanted, "{written}");
        }
    }

    #[test]
    fn a_choice_of_words_is_read_as_its_words() {
        assert_eq!(words("GET").unwrap(), ["GET"]);
        assert_eq!(words("^GET$").unwrap(), ["GET"]);
        assert_eq!(words("GET|POST").unwrap(), ["GET", "POST"]);
        assert_eq!(words("(GET|POST)").unwrap(), ["GET", "POST"]);
        assert_eq!(words("(?:PUT|PATCH)").unwrap(), ["PUT", "PATCH"]);
        for other in [
            "G.T",
            "(?i)get",
            r"GET\*",
            "^GET|POST$",
            "",
            "GET|",
            "(A|B)(C|D)",
        ] {
            assert_eq!(words(other), None, "{other}");
        }
    }
}
