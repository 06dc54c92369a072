//! Attributes of spans, records and resources, in the form of OTLP. Which ones there are is said where they
//! are made.

use std::fmt::{self, Write as _};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};

/// What a text keeps of the room that it had: one that a client made long is not held for ever.
const KEPT_BYTES: usize = 1_024;

/// Attributes under way. Texts without a letter are left out: they say nothing.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    all: Vec<KeyValue>,
    used: usize,
}

impl Attributes {
    /// Written over others, which are not needed any more: spans have about fifty, and to allocate each key and value
    /// anew would be most of what a span costs.
    pub(super) fn over(others: Vec<KeyValue>) -> Self {
        Self {
            all: others,
            used: 0,
        }
    }

    pub(super) fn text(&mut self, key: impl AsRef<str>, value: impl AsRef<str>) {
        let value = value.as_ref();
        if !value.is_empty() {
            self.label(key.as_ref(), value);
        }
    }

    /// What it displays.
    pub(super) fn display(&mut self, key: &str, value: impl fmt::Display) {
        if let Some(text) = self.string(key) {
            // Writing to a String can not fail.
            let _ = write!(text, "{value}");
        }
    }

    /// One of those that may be unknown.
    pub(super) fn known(&mut self, key: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    pub(super) fn number(&mut self, key: impl AsRef<str>, value: impl TryInto<i64>) {
        let value = value.try_into().unwrap_or(i64::MAX);
        if let Some(slot) = self.slot(key.as_ref()) {
            *slot = Some(Value::IntValue(value));
        }
    }

    /// A label of a metric: an empty one is a value, too.
    pub(super) fn label(&mut self, key: &str, value: &str) {
        if let Some(text) = self.string(key) {
            text.push_str(value);
        }
    }

    pub(super) fn extend(&mut self, more: &[KeyValue]) {
        for KeyValue { key, value, .. } in more {
            match value.as_ref().and_then(|value| value.value.as_ref()) {
                Some(Value::StringValue(text)) => self.label(key, text),
                other => {
                    if let Some(slot) = self.slot(key) {
                        *slot = other.cloned();
                    }
                }
            }
        }
    }

    /// What there is.
    pub(super) fn take(mut self) -> Vec<KeyValue> {
        self.all.truncate(self.used);
        self.all
    }

    /// The next one's value, whatever it was.
    fn slot(&mut self, key: &str) -> Option<&mut Option<Value>> {
        if self.used >= self.all.len() {
            self.all.push(KeyValue::default());
        }
        let slot = self.all.get_mut(self.used)?;
        self.used += 1;
        slot.key.clear();
        slot.key.push_str(key);
        Some(&mut slot.value.get_or_insert_default().value)
    }

    /// The same of a text, which is empty.
    fn string(&mut self, key: &str) -> Option<&mut String> {
        let slot = self.slot(key)?;
        let room = match slot.take() {
            Some(Value::StringValue(text)) if text.capacity() <= KEPT_BYTES => text,
            _ => String::new(),
        };
        match slot.insert(Value::StringValue(room)) {
            Value::StringValue(text) => {
                text.clear();
                Some(text)
            }
            _ => None,
        }
    }
}

fn pair(key: String, value: Option<Value>) -> KeyValue {
    KeyValue {
        key,
        value: Some(AnyValue { value }),
        ..KeyValue::default()
    }
}

/// Members of a JSON object, those that are null left out.
pub(super) fn of_json(members: serde_json::Map<String, serde_json::Value>) -> Vec<KeyValue> {
    let members = members.into_iter().filter(|(_, value)| !value.is_null());
    members.map(|(key, value)| pair(key, any(value))).collect()
}

fn any(value: serde_json::Value) -> Option<Value> {
    Some(match value {
        serde_json::Value::Null => return None,
        serde_json::Value::Bool(value) => Value::BoolValue(value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(integer) => Value::IntValue(integer),
            None => Value::DoubleValue(number.as_f64().unwrap_or(f64::MAX)),
        },
        serde_json::Value::String(text) => Value::StringValue(text),
        serde_json::Value::Array(items) => {
            let values = items.into_iter().map(|item| AnyValue { value: any(item) });
            Value::ArrayValue(ArrayValue {
                values: values.collect(),
            })
        }
        serde_json::Value::Object(members) => Value::KvlistValue(KeyValueList {
            values: of_json(members),
        }),
    })
}

/// The text of an attribute, for tests.
#[cfg(test)]
pub(super) fn find(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(value) => value.to_string(),
        other => format!("{other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(attributes: &mut Attributes) {
        attributes.text("a", "long before");
        attributes.number("b", 1);
        attributes.text("c", "x".repeat(2 * KEPT_BYTES));
        attributes.text("d", "more than the second has");
    }

    fn second(attributes: &mut Attributes) {
        attributes.text("nothing", "");
        attributes.number("e", 2_u8);
        attributes.text("f", "short");
        attributes.display("g", 1.5);
    }

    /// Nothing of the others is seen, whatever kind they were of.
    #[test]
    fn written_over_others_they_are_the_same_as_new() {
        let mut fresh = Attributes::default();
        second(&mut fresh);
        let mut others = Attributes::default();
        first(&mut others);
        let mut over = Attributes::over(others.take());
        second(&mut over);
        let over = over.take();
        assert_eq!(over, fresh.take());
        let kept = over
            .iter()
            .filter_map(|a| match a.value.as_ref()?.value.as_ref()? {
                Value::StringValue(text) => Some(text.capacity()),
                _ => None,
            });
        assert!(kept.max() <= Some(KEPT_BYTES));
    }
}
