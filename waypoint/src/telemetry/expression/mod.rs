//! CEL over what is known of an exchange at its end: filters of access logs, labels of metrics
//! (specs/istio-waypoint.md 5.1, 5.5). Compiled once for each configuration; runs only where one is
//! configured. What the attributes are is in `attributes`.

mod attributes;
pub mod bounds;
pub mod check;
mod looks;
pub mod types;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cairn_config_schema::limits::{DIAGNOSTICS_PER_OBJECT_MAX, TELEMETRY_EXPRESSION_BYTES_MAX};
use cel::{Context, Env, ParseErrors, Program, Value};

use super::exchange::Seen;
use attributes::attribute;
pub use check::Outcome;
use check::{Fault, doubted};
use looks::Looks;
use types::Type;

/// The language's standard functions and no others.
static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// What of an expression can not be right.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// In a sentence with its place.
    pub words: String,
    /// What comes of it.
    pub outcome: Outcome,
}

/// An expression that can be evaluated.
pub struct Compiled {
    program: Program,
    looks: Looks,
    doubts: Vec<Doubt>,
    text: Arc<str>,
}

impl Compiled {
    /// Reads an expression that is true of an exchange, or not.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence with its place: its grammar, that it gives no truth, or that it may take too
    /// long.
    pub fn filter(text: &str) -> Result<Self, String> {
        Self::parse(text, |given| match given {
            Type::Any | Type::Bool => Ok(()),
            other => Err(format!(
                "a filter says true or false, and this gives {other}"
            )),
        })
    }

    /// Reads an expression whose value is written: of a label, or in a log.
    ///
    /// # Errors
    /// As of [`Self::filter`], of what has no text.
    pub fn value(text: &str) -> Result<Self, String> {
        Self::parse(text, |given| match given {
            Type::List(_)
            | Type::Map(_)
            | Type::Message(_)
            | Type::Null
            | Type::Bytes
            | Type::Type => Err(format!(
                "a value is a text, a number, or true or false, and this gives {given}"
            )),
            _ => Ok(()),
        })
    }

    fn parse(text: &str, fits: impl FnOnce(&Type) -> Result<(), String>) -> Result<Self, String> {
        if text.len() > TELEMETRY_EXPRESSION_BYTES_MAX {
            return Err(format!(
                "an expression has at most {TELEMETRY_EXPRESSION_BYTES_MAX} bytes, this one {}",
                text.len()
            ));
        }
        let program = LANGUAGE.compile(text).map_err(|errors| first(&errors))?;
        bounds::bounded(program.expression())?;
        let mut looks = Looks::default();
        let told = |fault: Fault| fault.told(program.source_info());
        let (given, doubts) = doubted(program.expression(), &mut looks).map_err(told)?;
        fits(&given)?;
        Ok(Self {
            doubts: doubts
                .into_iter()
                .take(DIAGNOSTICS_PER_OBJECT_MAX)
                .map(|(fault, outcome)| Doubt {
                    words: told(fault),
                    outcome,
                })
                .collect(),
            program,
            looks,
            text: text.into(),
        })
    }

    /// What of it is an error or always the same whatever it is asked of: a text compared with a number, an attribute that
    /// there is not. It is evaluated all the same, as Envoy does, which finds that only then.
    pub fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }

    /// As it is written.
    pub fn source(&self) -> &str {
        &self.text
    }

    /// Whether it is true of the exchange. What can not be evaluated, for want of a header say, is not
    /// true, as at Envoy.
    pub fn is_true(&self, seen: &Seen<'_>) -> bool {
        matches!(self.evaluate(seen), Some(Value::Bool(true)))
    }

    /// Its value as text. `None`: it can not be evaluated, or has no text.
    pub fn text(&self, seen: &Seen<'_>) -> Option<String> {
        match self.evaluate(seen)? {
            Value::String(text) => Some(text.as_str().to_owned()),
            Value::Int(n) => Some(n.to_string()),
            Value::UInt(n) => Some(n.to_string()),
            Value::Float(n) => Some(n.to_string()),
            Value::Bool(b) => Some(b.to_string()),
            _ => None,
        }
    }

    fn evaluate(&self, seen: &Seen<'_>) -> Option<Value> {
        let mut context = Context::with_env(LANGUAGE.clone());
        for (root, fields) in self.looks.roots() {
            let known = fields.filter_map(|field| Some((field, attribute(seen, root, field)?)));
            let known: HashMap<String, Value> = known
                .map(|(field, value)| (field.to_owned(), value))
                .collect();
            context.add_variable_from_value(root, known);
        }
        self.program.execute(&context).ok()
    }
}

/// The first of the errors of a grammar, with its place.
pub fn first(errors: &ParseErrors) -> String {
    errors.errors.first().map_or_else(
        || "it can not be read".to_owned(),
        |error| format!("{} (column {})", error.msg.trim_end(), error.pos.1),
    )
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compiled({})", self.text)
    }
}

#[cfg(test)]
mod tests;
