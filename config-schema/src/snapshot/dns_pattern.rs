//! Names and patterns of names as `toFQDNs` has them (specs/policies.md 2.1.7).

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Longest name that `matchName` and `matchPattern` may have.
const NAME_BYTES_MAX: usize = 255;

/// A name, or a pattern of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DnsPattern {
    /// In lower case, without the dot at its end.
    text: Arc<str>,
    is_name: bool,
    /// Stars alone: every name.
    is_any: bool,
}

impl DnsPattern {
    /// `matchName`. `None`: it is no name.
    pub fn name(text: &str) -> Option<Self> {
        Self::read(text, true)
    }

    /// `matchPattern`. `None`: it is no pattern.
    pub fn pattern(text: &str) -> Option<Self> {
        Self::read(text, false)
    }

    fn read(text: &str, is_name: bool) -> Option<Self> {
        let legal =
            |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c) || (c == b'*' && !is_name);
        let fits = text.len() <= NAME_BYTES_MAX && text.bytes().all(legal);
        let text = text.to_ascii_lowercase();
        // With a dot at its end it is one label, and a dot alone is nothing.
        let is_any = text.bytes().all(|c| c == b'*');
        let text = text.strip_suffix('.').unwrap_or(&text);
        (fits && !text.is_empty()).then(|| Self {
            text: text.into(),
            is_name,
            is_any,
        })
    }

    /// Whether a name, with or without the dot at its end, is one of these.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if self.is_name {
            return *self.text == *name;
        }
        if self.is_any {
            return true;
        }
        match self.text.strip_prefix("**.") {
            // One label or more before the rest.
            Some(rest) => name
                .match_indices('.')
                .filter_map(|(at, _)| Some((name.get(..at)?, name.get(at + 1..)?)))
                .any(|(labels, tail)| {
                    labels.split('.').all(|label| !label.is_empty()) && within(rest, tail)
                }),
            None => within(&self.text, &name),
        }
    }

    /// Whether every name is one of these that ends in `suffix`, which begins with a dot.
    pub fn matches_all_inside(&self, suffix: &str) -> bool {
        let Some(of_pattern) = self.text.strip_prefix("**").filter(|_| !self.is_name) else {
            return self.is_any;
        };
        // What is before the suffix is any labels, one at least; a star that is left would be looked for.
        let suffix = suffix.to_ascii_lowercase();
        let is_end = suffix.ends_with(of_pattern) && of_pattern.starts_with('.');
        self.is_any || (is_end && !of_pattern.contains('*'))
    }
}

/// Whether a text is of a pattern in which a run of `*` is any number of characters but dots.
fn within(pattern: &str, text: &str) -> bool {
    let labels = |text: &str| text.split('.').count();
    labels(pattern) == labels(text)
        && pattern
            .split('.')
            .zip(text.split('.'))
            .all(|(pattern, label)| label_matches(pattern, label))
}

/// The same for one label.
fn label_matches(pattern: &str, label: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = label.strip_prefix(first) else {
        return false;
    };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    let open = pattern.ends_with('*');
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len();
        if is_last && !open {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

impl fmt::Display for DnsPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_compared_whole_and_in_any_case() {
        let name = DnsPattern::name("API.example.com").unwrap();
        for (text, expected) in [
            ("api.example.com", true),
            ("Api.Example.com.", true),
            ("api.example.com.evil", false),
            ("xapi.example.com", false),
        ] {
            assert_eq!(name.matches(text), expected, "{text}");
        }
        for text in ["", ".", "a b", "*.example.com", "a/b", &"a".repeat(256)] {
            assert_eq!(DnsPattern::name(text), None, "{text}");
        }
    }

    /// The examples of specs/policies.md 2.1.7.
    #[test]
    fn a_star_stays_in_its_label() {
        for (pattern, name, expected) in [
            ("*.cilium.io", "www.cilium.io", true),
            ("*.cilium.io", "cilium.io", false),
            ("*.cilium.io", "a.b.cilium.io", false),
            ("*cilium.io", "subcilium.io", true),
            ("*cilium.io", "cilium.io", true),
            ("*cilium.io", "www.cilium.io", false),
            ("**.cilium.io", "a.b.cilium.io", true),
            ("**.cilium.io", "a.cilium.io", true),
            ("**.cilium.io", "cilium.io", false),
            ("*", "anything.at.all", true),
            ("**", "", true),
            ("a*b*c.io", "aXbYc.io", true),
            ("a*bc*c.io", "abc.io", false),
            ("a.cilium.io", "axcilium.io", false),
        ] {
            let read = DnsPattern::pattern(pattern).unwrap();
            assert_eq!(read.matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_takes_in_a_whole_wildcard_or_not() {
        for (pattern, suffix, expected) in [
            ("**.example.com", ".example.com", true),
            ("**.example.com", ".API.example.com", true),
            ("**.api.example.com", ".example.com", false),
            ("**example.com", ".example.com", false),
            ("**.*.com", ".example.com", false),
            ("*.example.com", ".example.com", false),
            ("*", ".example.com", true),
            ("api.example.com", ".example.com", false),
        ] {
            let read = DnsPattern::pattern(pattern).unwrap();
            assert_eq!(
                read.matches_all_inside(suffix),
                expected,
                "{pattern} {suffix}"
            );
        }
        let name = DnsPattern::name("api.example.com").unwrap();
        assert!(!name.matches_all_inside(".example.com"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        /// What is said of all names holds of each.
        #[test]
        fn all_inside_match_if_so_it_is_said(
            pattern in "(\\*\\*\\.?)?[ab*.]{1,4}",
            suffix in "(\\.[ab]{1,2}){1,3}",
            labels in "[ab]{1,2}(\\.[ab]{1,2}){0,2}",
        ) {
            if let Some(read) = DnsPattern::pattern(&pattern)
                && read.matches_all_inside(&suffix)
            {
                let name = format!("{labels}{suffix}");
                prop_assert!(read.matches(&name), "{}", name);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        /// The expression that Cilium makes of a pattern.
        #[test]
        fn it_matches_as_the_expression_would(
            pattern in "(\\*\\*\\.)?[ab*.]{1,6}",
            name in "[ab]{0,2}(\\.[ab]{1,2}){0,3}",
        ) {
            let Some(read) = DnsPattern::pattern(&pattern) else {
                prop_assert_eq!(pattern, ".");
                return Ok(());
            };
            let expected = if pattern.bytes().all(|c| c == b'*') {
                true
            } else {
                let whole = pattern.strip_suffix('.').unwrap_or(&pattern);
                let (labels, rest) = match whole.strip_prefix("**.") {
                    Some(rest) => ("([-a-zA-Z0-9_]+[.])+", rest),
                    None => ("", whole),
                };
                let rest = regex::Regex::new("[*]+").unwrap().replace_all(rest, "*");
                let rest = rest.replace('.', "[.]").replace('*', "[-a-zA-Z0-9_]*");
                regex::Regex::new(&format!("^{labels}{rest}$")).unwrap().is_match(&name)
            };
            prop_assert_eq!(read.matches(&name), expected);
        }
    }
}
