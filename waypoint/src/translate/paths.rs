//! Paths as Istio writes them (a star at an end, templates) and as Cilium does (RE2 over the path with its
//! query, specs/policies.md 2.1.5), each from the other. Knows no object.

use cairn_config_schema::snapshot::{PathPattern, PathTemplate, StringMatch, TemplateSegment};
use regex_syntax::hir::{Hir, HirKind};

/// What a path may be followed by where the query does not count.
const ANY_QUERY: &str = r"(\?.*)?";

/// The expression that matches what a pattern does, whatever the query. `None`: everything.
pub(super) fn expression(pattern: &PathPattern) -> Option<String> {
    let text = match pattern {
        PathPattern::Text(StringMatch::Any) => return None,
        PathPattern::Text(StringMatch::Exact(path) | StringMatch::Glob(path)) => {
            format!("{}{ANY_QUERY}", regex::escape(path))
        }
        PathPattern::Text(StringMatch::Prefix(path)) => format!("{}.*", regex::escape(path)),
        PathPattern::Text(StringMatch::Suffix(path)) => {
            format!("[^?]*{}{ANY_QUERY}", regex::escape(path))
        }
        PathPattern::Template(template) => of_template(template),
    };
    Some(text)
}

fn of_template(template: &PathTemplate) -> String {
    let segments = template.segments().iter().map(|segment| match segment {
        TemplateSegment::Literal(text) => format!("/{}", regex::escape(text)),
        TemplateSegment::One => "/[^/?]+".to_owned(),
        TemplateSegment::Rest => "/[^?]*".to_owned(),
    });
    segments.collect::<String>() + ANY_QUERY
}

/// A path of Istio's that says what an expression says of paths.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IstioPath {
    /// As in `paths`.
    pub pattern: String,
    /// It matches requests with a query that the expression does not.
    pub also_with_query: bool,
}

/// Reads an expression back. `None`: Istio can not say it.
pub(super) fn istio_path(expression: &str) -> Option<IstioPath> {
    let hir = regex_syntax::parse(expression).ok()?;
    let mut parts = flat(&hir);
    // Anchors of one's own are allowed and change nothing.
    parts.retain(|part| !matches!(part.kind(), HirKind::Look(_)));
    let takes_query = parts.pop_if(|part| **part == hir_of(ANY_QUERY)).is_some();
    let mut pattern = String::new();
    let (mut template, mut open) = (false, false);
    for part in &parts {
        // A star that matches everything is understood at the end alone.
        if open {
            return None;
        }
        match part.kind() {
            HirKind::Literal(literal) => {
                let text = std::str::from_utf8(&literal.0).ok()?;
                // In a path of Istio's these mean something else.
                if text.contains(['*', '{', '}']) {
                    return None;
                }
                pattern.push_str(text);
            }
            _ if **part == hir_of(".*") => {
                pattern.push('*');
                open = true;
            }
            _ if **part == hir_of("[^/?]+") || **part == hir_of("[^/]+") => {
                pattern.push_str("{*}");
                template = true;
            }
            _ if **part == hir_of("[^?]*") && pattern.is_empty() => pattern.push('*'),
            _ if **part == hir_of("[^?]*") => {
                pattern.push_str("{**}");
                template = true;
            }
            _ => return None,
        }
    }
    understood(&pattern, template).then_some(IstioPath {
        also_with_query: !takes_query && !open,
        pattern,
    })
}

/// Whether Istio reads the text as it was meant.
fn understood(pattern: &str, template: bool) -> bool {
    let stars = pattern.matches('*').count();
    match template {
        true => !pattern.ends_with('*') && PathTemplate::parse(pattern).is_ok(),
        false => !pattern.is_empty() && stars <= 1 && !PathTemplate::is_template(pattern),
    }
}

fn hir_of(expression: &str) -> Hir {
    regex_syntax::parse(expression).unwrap_or_else(|_| Hir::fail())
}

/// The parts of an expression one after the other.
fn flat(hir: &Hir) -> Vec<&Hir> {
    match hir.kind() {
        HirKind::Concat(parts) => parts.iter().collect(),
        HirKind::Empty => Vec::new(),
        _ => vec![hir],
    }
}

/// The words of an expression that is a choice of literals: `GET|POST`.
pub(super) fn literals(expression: &str) -> Option<Vec<String>> {
    let hir = regex_syntax::parse(expression).ok()?;
    let mut words = Vec::new();
    collect(&hir, &mut String::new(), &mut words)?;
    Some(words)
}

/// Adds the words a literal or a choice stands for, each after `before`.
fn collect(hir: &Hir, before: &mut String, words: &mut Vec<String>) -> Option<()> {
    match hir.kind() {
        HirKind::Literal(literal) => {
            words.push(format!("{before}{}", std::str::from_utf8(&literal.0).ok()?));
            Some(())
        }
        HirKind::Alternation(choices) => choices
            .iter()
            .try_for_each(|choice| collect(choice, before, words)),
        // What begins alike is read as one literal and a choice of rests: `P(?:UT|ATCH)`.
        HirKind::Concat(parts) => {
            let [first, rest] = parts.as_slice() else {
                return None;
            };
            let HirKind::Literal(literal) = first.kind() else {
                return None;
            };
            let mut before = format!("{before}{}", std::str::from_utf8(&literal.0).ok()?);
            collect(rest, &mut before, words)
        }
        HirKind::Capture(capture) => collect(&capture.sub, before, words),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "/orders",
            "/api/v1/*",
            "*/health",
            "/a.b/(c)",
            "/users/{*}/orders",
            "/files/{**}",
            "/files/{**}/raw",
        ] {
            let there = expression(&read(pattern)).unwrap();
            let back = istio_path(&there).unwrap_or_else(|| panic!("{pattern}: {there}"));
            assert_eq!((&*back.pattern, back.also_with_query), (pattern, false));
        }
        assert_eq!(expression(&read("*")), None);
    }

    #[test]
    fn an_expression_becomes_a_path_only_where_istio_can_say_it() {
        for (written, wanted) in [
            ("/api/v1/orders", Some(("/api/v1/orders", true))),
            ("^/users$", Some(("/users", true))),
            ("/api/v1/orders/.*", Some(("/api/v1/orders/*", false))),
            ("/public.*", Some(("/public*", false))),
            ("/users/[^/]+/x", Some(("/users/{*}/x", true))),
            ("/users(/|$)(.*)", None),
            ("/a|/b", None),
            ("/v[0-9]/x", None),
            ("/a.b", None),
            ("/a/.*/b", None),
            ("(?i)/a", None),
            (r"/a\*", None),
        ] {
            let found = istio_path(written);
            let found = found.as_ref().map(|f| (&*f.pattern, f.also_with_query));
            assert_eq!(found, wanted, "{written}");
        }
    }

    #[test]
    fn a_choice_of_words_is_read_as_its_words() {
        assert_eq!(literals("GET").unwrap(), ["GET"]);
        assert_eq!(literals("GET|POST").unwrap(), ["GET", "POST"]);
        assert_eq!(literals("(?:PUT|PATCH)").unwrap(), ["PUT", "PATCH"]);
        assert_eq!(literals("G.T"), None);
        assert_eq!(literals("(?i)get"), None);
    }
}
