//! What can be wrong with a part of an object, in words, before it is known which object and file
//! it belongs to; and the serde error that carries it.

use std::fmt;
use std::sync::Arc;

use serde::de;

use super::de::{De, address};
use super::node::{Mark, Style, Value};
use super::scalar::{Plain, resolve};
use crate::diagnostics::{Code, Severity};

/// One thing wrong inside an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    pub severity: Severity,
    pub code: Code,
    pub message: String,
    pub effect: Option<String>,
    pub hint: Option<String>,
    /// Path inside the object.
    pub path: String,
    /// Line counted from the start of the document's text.
    pub at: Mark,
}

/// The first of these that is an error, in words.
pub(crate) fn first_error(faults: &[Fault]) -> Option<Arc<str>> {
    let mut errors = faults.iter().filter(|f| f.severity == Severity::Error);
    errors.next().map(|fault| fault.message.as_str().into())
}

impl Fault {
    /// An error.
    pub fn error(
        code: Code,
        message: impl Into<String>,
        path: impl Into<String>,
        at: Mark,
    ) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            effect: None,
            hint: None,
            path: path.into(),
            at,
        }
    }

    /// Says what to do.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what it means for traffic.
    pub fn with_effect(mut self, effect: impl Into<String>) -> Self {
        self.effect = Some(effect.into());
        self
    }

    /// Makes it a warning or an information.
    pub fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// A field that the type does not have.
    pub fn unknown_field(name: &str, fields: &[&str], path: String, at: Mark) -> Self {
        let message = format!("there is no field `{name}` here");
        Self::error(Code::UnknownField, message, path, at).with_hint(suggest(name, fields))
    }
}

/// "did you mean", or the list of what there is.
pub(crate) fn suggest(name: &str, known: &[&str]) -> String {
    if let Some(meant) = meant(name, known) {
        return format!("did you mean `{meant}`?");
    }
    let mut known: Vec<&str> = known.to_vec();
    known.sort_unstable();
    match known.as_slice() {
        [] => "remove it".to_owned(),
        known => format!("known here: {}", known.join(", ")),
    }
}

/// The known name that is near to this one, or the only one that has it in it (`PathPrefix` for
/// `Prefix`).
fn meant<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    closest(name, known.iter().copied()).or_else(|| {
        let mut longer = known.iter().filter(|k| name.len() > 3 && k.contains(name));
        longer.next().filter(|_| longer.next().is_none()).copied()
    })
}

/// The known name that a misspelt one probably stands for.
pub(crate) fn closest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let lower = name.to_ascii_lowercase();
    let similarity =
        |k: &str| strsim::normalized_damerau_levenshtein(&lower, &k.to_ascii_lowercase());
    known
        .map(|k| (similarity(k), k))
        .filter(|(similarity, _)| *similarity >= 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// The error of one deserialization.
#[derive(Debug)]
pub(super) struct ReadError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    fault: Fault,
    /// The struct's field that is missing; the path gets it once it is known.
    missing: Option<&'static str>,
    /// Address of the node at fault; `None` until the node's deserializer has seen the error.
    node: Option<usize>,
    /// Only follows from another error, which is already reported.
    is_consequence: bool,
}

impl ReadError {
    fn new(code: Code, message: String) -> Self {
        Self(Box::new(Inner {
            fault: Fault::error(code, message, "", Mark::default()),
            missing: None,
            node: None,
            is_consequence: false,
        }))
    }

    /// A plain scalar that YAML reads as something else where a string is needed.
    pub fn unquoted(text: &str, plain: Plain) -> Self {
        let what = match plain {
            Plain::Bool(_) => "the truth value",
            _ => "the number",
        };
        let message = format!("expected a string, found {what} {text}");
        let mut error = Self::new(Code::WrongType, message);
        error.0.fault.hint = Some(format!("quote it: \"{text}\""));
        error
    }

    /// A number that is read differently by different programs.
    pub fn ambiguous(text: &str) -> Self {
        let message = format!("`{text}` is a different number to different readers of YAML");
        let mut error = Self::new(Code::BadValue, message);
        error.0.fault.hint = Some("write it without leading zeros and underscores".to_owned());
        error
    }

    /// Says which node is at fault, unless a deeper one has said so.
    pub fn locate(mut self, de: &De<'_, '_>) -> Self {
        if self.0.node.is_some() {
            return self;
        }
        self.0.node = Some(address(de.node));
        self.0.fault.at = de.at;
        self.0.fault.path = match self.0.missing {
            Some(field) => de.path.key(field).to_string(),
            None => de.path.to_string(),
        };
        if let Some(field) = self.0.missing {
            let entry = de.node.entry(field);
            let is_reported =
                |e: &super::node::Entry<'_>| de.pass.poisoned.contains(&address(&e.value));
            self.0.is_consequence |= entry.is_some_and(is_reported);
        }
        if self.0.fault.code == Code::WrongType
            && let Value::Scalar(text, Style::Quoted) = &de.node.value
            && !matches!(resolve(text), Plain::Text | Plain::Null | Plain::Ambiguous)
        {
            self.0.fault.hint = Some(format!("remove the quotes: {text}"));
        }
        self
    }

    /// The fault unless it is a consequence, and the node to read no more.
    pub fn into_parts(self) -> (Option<Fault>, Option<usize>) {
        let inner = *self.0;
        ((!inner.is_consequence).then_some(inner.fault), inner.node)
    }
}

/// What serde calls the found value, in plain words.
fn found(unexpected: &de::Unexpected<'_>) -> String {
    match unexpected {
        de::Unexpected::Bool(b) => format!("the truth value {b}"),
        de::Unexpected::Unsigned(n) => format!("the number {n}"),
        de::Unexpected::Signed(n) => format!("the number {n}"),
        de::Unexpected::Float(n) => format!("the number {n}"),
        de::Unexpected::Str(text) if text.chars().count() > 60 => "a long string".to_owned(),
        de::Unexpected::Str(text) => format!("the string {text:?}"),
        de::Unexpected::Unit | de::Unexpected::Option => "nothing".to_owned(),
        de::Unexpected::Seq => "a list".to_owned(),
        de::Unexpected::Map => "a map".to_owned(),
        other => other.to_string(),
    }
}

/// What serde calls the expected value, in plain words.
fn expected(expected: &dyn de::Expected) -> String {
    let name = expected.to_string();
    match name.as_str() {
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "usize" | "isize" => {
            "a whole number".to_owned()
        }
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "IntOrString" => "a number or a string".to_owned(),
        "Quantity" => "a quantity such as 500m".to_owned(),
        _ => name,
    }
}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Code::BadValue, message.to_string())
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, exp: &dyn de::Expected) -> Self {
        let message = format!("expected {}, found {}", expected(exp), found(&unexpected));
        Self::new(Code::WrongType, message)
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, exp: &dyn de::Expected) -> Self {
        let message = format!("{} is not {} in range", found(&unexpected), expected(exp));
        Self::new(Code::BadValue, message)
    }

    fn invalid_length(length: usize, exp: &dyn de::Expected) -> Self {
        let message = format!("expected {}, found {length} items", expected(exp));
        Self::new(Code::BadValue, message)
    }

    fn unknown_variant(variant: &str, variants: &'static [&'static str]) -> Self {
        let message = format!("`{variant}` is not a value of this field");
        let mut error = Self::new(Code::BadValue, message);
        error.0.fault.hint = Some(match meant(variant, variants) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("one of: {}", variants.join(", ")),
        });
        error
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Self::new(Code::MissingField, format!("`{field}` is missing"));
        error.0.missing = Some(field);
        error
    }

    /// Duplicate keys are found, with both places, before an object is read.
    fn duplicate_field(field: &'static str) -> Self {
        let mut error = Self::new(Code::SyntaxError, format!("`{field}` comes twice"));
        error.0.is_consequence = true;
        error
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.fault.message)
    }
}

impl std::error::Error for ReadError {}
