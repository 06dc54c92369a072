//! Formats of access logs with Envoy's command operators (specs/istio-waypoint.md 5.5): reads them, and
//! writes a line by them. What an operator gives is in `operator`.

use std::borrow::Cow;
use std::fmt::Write as _;

use cairn_config_schema::snapshot::{LogFormat, WrittenFormat};
use serde_json::Value;

use super::member::{self, Members};
use super::operator::{Given, Operator};
use super::time::TimeText;
use crate::telemetry::exchange::Seen;
use crate::telemetry::expression::Doubt;

/// A format that is ready to be written by.
#[derive(Debug)]
pub enum Format {
    /// Cairn's JSON.
    Cairn,
    /// A line of text; whether values that are not there leave nothing instead of `-`.
    Text(Vec<Part>, bool),
    /// A JSON object; whether keys without a value are left out.
    Json(Node, bool),
}

/// A piece of text.
#[derive(Debug)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// What is known of the exchange.
    Operator(Operator),
}

/// A piece of JSON.
#[derive(Debug)]
pub enum Node {
    /// One operator alone: numbers stay numbers.
    Operator(Operator),
    /// Text with operators in it.
    Text(Vec<Part>),
    /// As it stands: a number, a truth value, null.
    Fixed(Value),
    /// A list.
    List(Vec<Node>),
    /// An object.
    Object(Vec<(String, Node)>),
}

/// What is wrong with a format.
#[derive(Debug)]
pub enum Wrong {
    /// A value that can not be given, in a sentence.
    Missing(String),
    /// A part of an expression, which is evaluated all the same.
    Doubted(Doubt),
}

impl Wrong {
    /// What it is, in a sentence.
    pub fn words(self) -> String {
        match self {
            Self::Missing(words) => words,
            Self::Doubted(doubt) => doubt.words,
        }
    }
}

impl Format {
    /// Makes a format ready. What is wrong with it goes to `wrong`; an operator that can not be given is written as a value that is not there.
    pub fn read(format: &LogFormat, wrong: &mut Vec<Wrong>) -> Self {
        let (written, is_text): (&WrittenFormat, bool) = match format {
            LogFormat::Cairn => return Self::Cairn,
            LogFormat::Text(written) => (written, true),
            LogFormat::Json(written) => (written, false),
        };
        match &written.template {
            Value::String(text) if is_text => Self::Text(parts(text, wrong), written.omits_empty),
            template => Self::Json(node(template, wrong), written.omits_empty),
        }
    }

    /// Whether it can name headers of requests and responses.
    pub fn is_cairn(&self) -> bool {
        matches!(self, Self::Cairn)
    }

    /// Writes the line of an exchange, without Cairn's own, which `line` writes. Ends it.
    pub fn write(&self, seen: &Seen<'_>, time: &mut TimeText, to: &mut Vec<u8>) {
        match self {
            Self::Cairn => {}
            Self::Text(parts, omits_empty) => {
                let missing = if *omits_empty { "" } else { "-" };
                text(parts, seen, time, missing, to);
            }
            Self::Json(node, omits_empty) => {
                let begin = to.len();
                // Texts and numbers do not fail to be written.
                let written = json(node, seen, time, *omits_empty, to);
                if !written.is_ok_and(|written| written) {
                    to.truncate(begin);
                    to.extend_from_slice(b"{}");
                }
            }
        }
        if to.last() != Some(&b'\n') {
            to.push(b'\n');
        }
    }
}

impl Format {
    /// Tells of the members of a JSON object that are there, one by one.
    pub fn tell(&self, seen: &Seen<'_>, time: &mut TimeText, to: &mut impl Members) {
        let Self::Json(Node::Object(fields), omits_empty) = self else {
            return;
        };
        for (key, node) in fields {
            match node {
                Node::Operator(operator) => match operator.give(seen, time) {
                    Some(Given::Text(text)) => to.text(key, &text),
                    Some(Given::Number(number)) => to.number(key, number),
                    None => {}
                },
                Node::Fixed(value) => to.json(key, value.clone()),
                // A text among others or more than one value: hardly anybody writes it.
                Node::Text(_) | Node::List(_) | Node::Object(_) => {
                    let mut written = Vec::new();
                    // Texts and numbers do not fail to be written, nor what was written to be read.
                    let _ = json(node, seen, time, *omits_empty, &mut written);
                    to.json(key, serde_json::from_slice(&written).unwrap_or_default());
                }
            }
        }
    }
}

fn node(template: &Value, wrong: &mut Vec<Wrong>) -> Node {
    match template {
        Value::String(text) => {
            let mut parts = parts(text, wrong);
            match (parts.pop(), parts.is_empty()) {
                (Some(Part::Operator(operator)), true) => Node::Operator(operator),
                (last, _) => Node::Text(parts.into_iter().chain(last).collect()),
            }
        }
        Value::Array(items) => Node::List(items.iter().map(|item| node(item, wrong)).collect()),
        Value::Object(fields) => {
            let fields = fields.iter();
            Node::Object(
                fields
                    .map(|(key, value)| (key.clone(), node(value, wrong)))
                    .collect(),
            )
        }
        fixed => Node::Fixed(fixed.clone()),
    }
}

/// Splits a text at its operators: `%NAME%`, `%NAME(arguments)%`, `%NAME(arguments):length%`, and `%%`
/// for a percent sign.
pub(super) fn parts(text: &str, wrong: &mut Vec<Wrong>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let Some((name, arguments, length, after)) = operator(after) else {
            wrong.push(Wrong::Missing(format!(
                "`%{}` is no operator; write %% for a percent sign",
                shown(after)
            )));
            literal.push('%');
            rest = after;
            continue;
        };
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut literal)));
        }
        let read = Operator::read(name, arguments, length).unwrap_or_else(|reason| {
            wrong.push(Wrong::Missing(reason));
            Operator::missing()
        });
        wrong.extend(read.doubts().map(Wrong::Doubted));
        parts.push(Part::Operator(read));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    parts
}

/// The first words of a text, for a message.
fn shown(text: &str) -> String {
    text.chars().take(20).collect()
}

/// Name, arguments, length, and what follows.
type Split<'t> = (&'t str, Option<&'t str>, Option<usize>, &'t str);

/// What stands after the first percent sign of an operator.
fn operator(text: &str) -> Option<Split<'_>> {
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let end = text.find(|c| !is_name(c))?;
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    let Some(inner) = rest.strip_prefix('(') else {
        let (length, rest) = tail(rest)?;
        return Some((name, None, length, rest));
    };
    // Arguments may hold parentheses and percent signs of their own: the first end that is one counts.
    inner.match_indices(')').find_map(|(at, _)| {
        let (arguments, rest) = inner.split_at(at);
        let (length, rest) = tail(rest.get(1..)?)?;
        Some((name, Some(arguments), length, rest))
    })
}

/// `:length%` or `%`, and what follows.
fn tail(text: &str) -> Option<(Option<usize>, &str)> {
    if let Some(rest) = text.strip_prefix('%') {
        return Some((None, rest));
    }
    let (digits, rest) = text.strip_prefix(':')?.split_once('%')?;
    Some((Some(digits.parse().ok()?), rest))
}

fn text(parts: &[Part], seen: &Seen<'_>, time: &mut TimeText, missing: &str, to: &mut Vec<u8>) {
    for part in parts {
        match part {
            Part::Text(text) => to.extend_from_slice(text.as_bytes()),
            Part::Operator(operator) => match operator.give(seen, time) {
                Some(Given::Text(text)) => to.extend_from_slice(escaped(&text).as_bytes()),
                // Writing to a Vec can not fail.
                Some(Given::Number(n)) => drop(member::number(n, to)),
                None => to.extend_from_slice(missing.as_bytes()),
            },
        }
    }
}

/// Nobody may begin a new line, or move the cursor of who reads it, by what is logged of him.
pub fn escaped(text: &str) -> Cow<'_, str> {
    // What can be a control character, or the first byte of one: hardly any text has it.
    let odd = |found, byte: &u8| found | (*byte < 0x20) | (*byte == 0x7f) | (*byte == 0xc2);
    if !text.as_bytes().iter().fold(false, odd) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            // Writing to a String can not fail.
            true => drop(write!(shown, "\\x{:02x}", u32::from(c))),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// `false`: it has no value, and such are left out. Nothing was written then.
fn json(
    node: &Node,
    seen: &Seen<'_>,
    time: &mut TimeText,
    omits_empty: bool,
    to: &mut Vec<u8>,
) -> serde_json::Result<bool> {
    match node {
        Node::Operator(operator) => match operator.give(seen, time) {
            Some(Given::Text(text)) => member::text(&text, to)?,
            Some(Given::Number(n)) => member::number(n, to)?,
            None if omits_empty => return Ok(false),
            None => to.extend_from_slice(b"null"),
        },
        Node::Text(parts) => {
            let mut line = Vec::new();
            let missing = if omits_empty { "" } else { "-" };
            text(parts, seen, time, missing, &mut line);
            member::text(&String::from_utf8_lossy(&line), to)?;
        }
        Node::Fixed(value) => serde_json::to_writer(to, value)?,
        Node::List(items) => {
            to.push(b'[');
            let begin = to.len();
            for item in items {
                let end = comma(begin, to);
                if !json(item, seen, time, omits_empty, to)? {
                    to.truncate(end);
                }
            }
            to.push(b']');
        }
        Node::Object(fields) => {
            to.push(b'{');
            let begin = to.len();
            for (key, node) in fields {
                let end = comma(begin, to);
                member::text(key, to)?;
                to.push(b':');
                if !json(node, seen, time, omits_empty, to)? {
                    to.truncate(end);
                }
            }
            to.push(b'}');
        }
    }
    Ok(true)
}

/// Separates what follows from what stands after `begin`; gives the end before.
fn comma(begin: usize, to: &mut Vec<u8>) -> usize {
    let end = to.len();
    if end > begin {
        to.push(b',');
    }
    end
}

#[cfg(test)]
mod tests;
