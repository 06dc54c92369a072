//! CEL over what is known of an exchange at its end: filters of access logs, labels of metrics
//! (specs/istio-waypoint.md 5.1, 5.5). Compiled once for each configuration; runs only where one is
//! configured. What the attributes are is in `attributes`.

mod attributes;
mod looks;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, Program, Value};

use super::exchange::Seen;
use attributes::attribute;
use looks::Looks;

/// The language's standard functions and no others.
static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// An expression that can be evaluated.
pub struct Compiled {
    program: Program,
    looks: Looks,
    text: Arc<str>,
}

impl Compiled {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence: its grammar, or an attribute that is not known here.
    pub fn parse(text: &str) -> Result<Self, String> {
        let program = LANGUAGE.compile(text).map_err(|errors| {
            let first = errors.errors.first();
            first.map_or_else(
                || "it can not be read".to_owned(),
                |error| format!("{} (column {})", error.msg.trim_end(), error.pos.1),
            )
        })?;
        let looks = Looks::of(program.expression())?;
        Ok(Self {
            program,
            looks,
            text: text.into(),
        })
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

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compiled({})", self.text)
    }
}

#[cfg(test)]
mod tests;
