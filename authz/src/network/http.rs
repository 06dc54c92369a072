//! HTTP rules of Cilium on a request (specs/policies.md 2.1.5), and the changes to its headers that
//! they ask for. A change is seen by the rules after it, as in Cilium's proxy.

use std::borrow::Cow;

use cairn_config_schema::snapshot::{CiliumHttpRule, HeaderExpectation, Mismatch};
use http::HeaderMap;
use http::header::{HOST, HeaderName, HeaderValue};

use super::verdict::{BackendEdit, HeaderEdit};
use crate::facts::HttpFacts;

/// Path with the query. Allocates only if there is a query.
pub(super) fn target<'a>(http: &HttpFacts<'a>) -> Cow<'a, str> {
    match http.query {
        None => Cow::Borrowed(http.path),
        Some(query) => Cow::Owned(format!("{}?{query}", http.path)),
    }
}

/// A request as Cilium's proxy sees it.
pub(super) struct Request<'a> {
    method: &'a str,
    host: &'a str,
    /// Path with the query.
    target: Cow<'a, str>,
    headers: Cow<'a, HeaderMap>,
    edits: Vec<HeaderEdit>,
}

impl<'a> Request<'a> {
    /// Allocates only if there is a query.
    pub(super) fn new(http: &HttpFacts<'a>) -> Self {
        Self::of_target(http, target(http))
    }

    /// With the path and query that were put together before.
    pub(super) fn of_target(http: &HttpFacts<'a>, target: Cow<'a, str>) -> Self {
        Self {
            method: http.method,
            host: http.host,
            target,
            headers: Cow::Borrowed(http.headers),
            edits: Vec::new(),
        }
    }

    /// The changes, of which it is not said yet to which backend's requests.
    pub(super) fn into_edits(self) -> Vec<BackendEdit> {
        let edits = self.edits.into_iter();
        let everywhere = |edit| BackendEdit {
            backend: None,
            edit,
        };
        edits.map(everywhere).collect()
    }

    /// Path with the query.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Whether one of the rules matches. All are asked once one of them changes headers.
    pub(super) fn matches(&mut self, rules: &[CiliumHttpRule]) -> bool {
        let thorough = rules.iter().any(|rule| !rule.header_matches.is_empty());
        let mut matched = false;
        for rule in rules {
            matched |= self.matches_one(rule);
            if matched && !thorough {
                break;
            }
        }
        matched
    }

    fn matches_one(&mut self, rule: &CiliumHttpRule) -> bool {
        if !self.matches_plainly(rule) {
            return false;
        }
        // All of them, even after one has failed, for the sake of what they change.
        let mut all = true;
        for expected in &rule.header_matches {
            all &= self.meets(expected);
        }
        all
    }

    fn matches_plainly(&self, rule: &CiliumHttpRule) -> bool {
        let matches = |pattern: &Option<cairn_config_schema::snapshot::Pattern>, value: &str| {
            pattern
                .as_ref()
                .is_none_or(|pattern| pattern.matches(value))
        };
        rule.never.is_none()
            && matches(&rule.method, self.method)
            && matches(&rule.path, &self.target)
            && matches(&rule.host, self.host)
            && rule
                .headers
                .iter()
                .all(|(name, value)| self.has(name, value.as_ref()))
    }

    /// Whether the header is there; with a value, whether its lines, joined by commas, are the value.
    pub(super) fn has(&self, name: &HeaderName, value: Option<&HeaderValue>) -> bool {
        if *name == HOST {
            return value.is_none_or(|value| value.as_bytes() == self.host.as_bytes());
        }
        let Some(value) = value else {
            return self.headers.contains_key(name);
        };
        let mut rest = Some(value.as_bytes());
        let mut lines = 0;
        for line in self.headers.get_all(name) {
            let expected = match lines {
                0 => rest,
                _ => rest.and_then(|rest| rest.strip_prefix(b",")),
            };
            rest = expected.and_then(|rest| rest.strip_prefix(line.as_bytes()));
            lines += 1;
        }
        lines > 0 && rest == Some(&[])
    }

    /// Whether the rule still matches after this header match.
    fn meets(&mut self, expected: &HeaderExpectation) -> bool {
        let (name, value) = (&expected.name, &expected.value);
        if self.has(name, value.as_ref()) {
            return true;
        }
        match (expected.mismatch, value) {
            (Mismatch::Fail, _) => return false,
            (Mismatch::Add, Some(value)) => {
                self.edit(HeaderEdit::Append(name.clone(), value.clone()));
            }
            (Mismatch::Replace, Some(value)) => {
                self.edit(HeaderEdit::Set(name.clone(), value.clone()));
            }
            (Mismatch::Delete, Some(_)) if self.has(name, None) => {
                self.edit(HeaderEdit::Remove(name.clone()));
            }
            // To remove what is not there changes nothing, and without a value there is nothing to set.
            (Mismatch::Log | Mismatch::Delete | Mismatch::Add | Mismatch::Replace, _) => {}
        }
        true
    }

    fn edit(&mut self, edit: HeaderEdit) {
        let headers = self.headers.to_mut();
        match &edit {
            HeaderEdit::Append(name, value) => {
                headers.append(name, value.clone());
            }
            HeaderEdit::Set(name, value) => {
                headers.insert(name, value.clone());
            }
            HeaderEdit::Remove(name) => {
                headers.remove(name);
            }
        }
        self.edits.push(edit);
    }

    /// The rules of a list, clause by clause: the field, whether it matched, and in words.
    pub(super) fn clauses(&self, rule: &CiliumHttpRule) -> Vec<(String, bool, String)> {
        let mut clauses = Vec::new();
        if let Some(reason) = &rule.never {
            clauses.push((String::new(), false, format!("can not match: {reason}")));
        }
        for (field, pattern, value) in [
            ("method", &rule.method, self.method),
            ("path", &rule.path, self.target()),
            ("host", &rule.host, self.host),
        ] {
            if let Some(pattern) = pattern {
                let matched = pattern.matches(value);
                let words = match matched {
                    true => format!("{field} {} matches `{}`", shown(value), pattern.source()),
                    false => format!(
                        "{field} did not match `{}`, got `{}`",
                        pattern.source(),
                        shown(value)
                    ),
                };
                clauses.push((field.to_owned(), matched, words));
            }
        }
        for (index, (name, value)) in rule.headers.iter().enumerate() {
            let matched = self.has(name, value.as_ref());
            let path = format!("headers[{index}]");
            clauses.push((
                path,
                matched,
                self.header_words(name, value.as_ref(), matched),
            ));
        }
        for (index, expected) in rule.header_matches.iter().enumerate() {
            let value = expected.value.as_ref();
            let matched = self.has(&expected.name, value);
            let mut words = self.header_words(&expected.name, value, matched);
            let fails = expected.mismatch == Mismatch::Fail;
            if !matched && !fails {
                words.push_str(", which the rule tolerates");
            }
            clauses.push((format!("headerMatches[{index}]"), matched || !fails, words));
        }
        clauses
    }

    /// Values of headers are not written: they may be credentials.
    fn header_words(
        &self,
        name: &HeaderName,
        value: Option<&HeaderValue>,
        matched: bool,
    ) -> String {
        match (matched, value.is_some(), self.has(name, None)) {
            (true, true, _) => format!("header {name} has the value"),
            (true, false, _) => format!("header {name} is there"),
            (false, _, true) => format!("header {name} has another value"),
            (false, _, false) => format!("header {name} is absent"),
        }
    }
}

/// A value from outside: bounded, and no control character reaches a terminal.
pub(super) fn shown(value: &str) -> String {
    const CHARS_MAX: usize = 120;
    let mut words = String::new();
    for c in value.chars().take(CHARS_MAX) {
        match c.is_control() {
            true => words.extend(c.escape_default()),
            false => words.push(c),
        }
    }
    if value.chars().nth(CHARS_MAX).is_some() {
        words.push_str("...");
    }
    words
}
