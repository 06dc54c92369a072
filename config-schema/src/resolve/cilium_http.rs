//! HTTP rules of Cilium (specs/policies.md 2.1.5): regular expressions, headers, header matches.

use http::header::{HOST, HeaderName, HeaderValue};

use super::network_cilium::Reading;
use super::route_filters::FRAMING;
use crate::diagnostics::Code;
use crate::resources::cilium::{HeaderMatch, HttpRule};
use crate::snapshot::{CiliumHttpRule, HeaderExpectation, Mismatch, Pattern};

const NEVER: &str = "the rule allows nothing";

pub(super) fn rule(rule: &HttpRule, path: &str, reading: &mut Reading<'_>) -> CiliumHttpRule {
    let mut read = CiliumHttpRule {
        method: pattern(&rule.method, &format!("{path}.method"), reading),
        path: pattern(&rule.path, &format!("{path}.path"), reading),
        host: pattern(&rule.host, &format!("{path}.host"), reading),
        ..CiliumHttpRule::default()
    };
    tell_of_slips(rule, path, reading);
    for (index, text) in rule.headers.iter().flatten().enumerate() {
        match header(text) {
            Some(header) => read.headers.push(header),
            None => {
                let message = format!("'{text}': no request has a header of this name or value");
                let path = format!("{path}.headers[{index}]");
                reading.warn(Code::BadValue, &path, message.clone(), NEVER);
                read.never.get_or_insert(message.into());
            }
        }
    }
    for (index, expected) in rule.header_matches.iter().flatten().enumerate() {
        let path = format!("{path}.headerMatches[{index}]");
        expectation(expected, &path, &mut read, reading);
    }
    read
}

fn pattern(text: &Option<String>, path: &str, reading: &mut Reading<'_>) -> Option<Pattern> {
    let text = text.as_deref().filter(|text| !text.is_empty())?;
    match Pattern::compile(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let error = error.lines().last().unwrap_or_default().to_owned();
            let message = format!("'{text}' is no regular expression: {error}");
            reading.refuse(path, message, "RE2 syntax, which matches the whole value");
            None
        }
    }
}

/// What is legal and yet seldom meant.
fn tell_of_slips(rule: &HttpRule, path: &str, reading: &mut Reading<'_>) {
    if let Some(host) = rule.host.as_deref().filter(|host| has_bare_dot(host)) {
        let message = format!("the dots in '{host}' match any character");
        let effect = "hosts with other characters in their place match, too";
        reading.warn(Code::UnescapedDot, &format!("{path}.host"), message, effect);
    }
    let lower = |m: &&str| m.bytes().all(|c| c.is_ascii_lowercase()) && !m.is_empty();
    if let Some(method) = rule.method.as_deref().filter(lower) {
        let message = format!("no request has the method '{method}': methods are in upper case");
        reading.warn(
            Code::LowerCaseMethod,
            &format!("{path}.method"),
            message,
            NEVER,
        );
    }
}

/// Whether a dot stands between letters or digits, neither escaped nor repeated.
fn has_bare_dot(pattern: &str) -> bool {
    let bytes = pattern.as_bytes();
    let at = |index: usize| bytes.get(index).copied().unwrap_or_default();
    (1..bytes.len()).any(|index| {
        at(index) == b'.'
            && (at(index - 1).is_ascii_alphanumeric() || at(index - 1) == b'-')
            && at(index + 1).is_ascii_alphanumeric()
    })
}

/// `Name: value` for a value, `Name` for presence: parted at the first space.
fn header(text: &str) -> Option<(HeaderName, Option<HeaderValue>)> {
    let (name, value) = match text.split_once(' ') {
        Some((name, value)) => (name.strip_suffix(':').unwrap_or(name), Some(value)),
        None => (text, None),
    };
    let name = name.parse().ok()?;
    let value = value.map(HeaderValue::from_str).transpose().ok()?;
    Some((name, value))
}

fn expectation(
    expected: &HeaderMatch,
    path: &str,
    read: &mut CiliumHttpRule,
    reading: &mut Reading<'_>,
) {
    let mismatch = match expected.mismatch.as_deref().unwrap_or_default() {
        "" => Mismatch::Fail,
        "LOG" => Mismatch::Log,
        "ADD" => Mismatch::Add,
        "DELETE" => Mismatch::Delete,
        "REPLACE" => Mismatch::Replace,
        unknown => {
            let message = format!("unknown mismatch action '{unknown}'");
            let hint = "LOG, ADD, DELETE or REPLACE, or none";
            return reading.refuse(&format!("{path}.mismatch"), message, hint);
        }
    };
    if expected.name.is_empty() {
        return reading.refuse(path, "`name` is missing", "the name of a header");
    }
    let Ok(name) = expected.name.parse::<HeaderName>() else {
        let message = format!("'{}' is no name of a header", expected.name);
        return reading.refuse(
            &format!("{path}.name"),
            message,
            "letters, digits and dashes",
        );
    };
    let changes = !matches!(mismatch, Mismatch::Fail | Mismatch::Log);
    if changes && (name == HOST || FRAMING.contains(&name.as_str())) {
        let message = format!("header {name} belongs to the proxy and can not be changed");
        let hint = "leave `mismatch` out, or LOG";
        return reading.refuse(&format!("{path}.mismatch"), message, hint);
    }
    if let Some(secret) = &expected.secret {
        if secret.name.is_empty() {
            let path = format!("{path}.secret");
            return reading.refuse(&path, "`name` is missing", "the name of a Secret");
        }
        // What it holds would only be logged.
        if mismatch == Mismatch::Log {
            return;
        }
        let message = "a waypoint does not read Secrets";
        reading.warn(Code::Unsupported, &format!("{path}.secret"), message, NEVER);
        read.never.get_or_insert(message.into());
        return;
    }
    let value = expected.value.as_deref().filter(|value| !value.is_empty());
    let Ok(value) = value.map(HeaderValue::from_str).transpose() else {
        let message = "the value is none that a header can have";
        return reading.refuse(&format!("{path}.value"), message, "visible characters");
    };
    if value.is_none() && matches!(mismatch, Mismatch::Add | Mismatch::Replace) {
        let message = "there is no value to set";
        return reading.refuse(path, message, "give the header a value");
    }
    read.header_matches.push(HeaderExpectation {
        name,
        value,
        mismatch,
    });
}
