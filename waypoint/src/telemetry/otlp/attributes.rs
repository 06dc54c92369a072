//! Attributes of resources, records and points, in the form of OTLP. Which ones there are is said where they are made;
//! those of spans are in `pairs`.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};

/// Attributes under way. Texts without a letter are left out: they say nothing.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<KeyValue>);

impl Attributes {
    pub(super) fn text(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.push(key, Value::StringValue(value));
        }
    }

    /// Of what is compared in tests: only spans have numbers.
    #[cfg(test)]
    pub(super) fn number(&mut self, key: impl Into<String>, value: impl TryInto<i64>) {
        self.push(key, Value::IntValue(value.try_into().unwrap_or(i64::MAX)));
    }

    /// A label of a metric: an empty one is a value, too.
    pub(super) fn label(&mut self, key: &str, value: &str) {
        self.push(key, Value::StringValue(value.to_owned()));
    }

    fn push(&mut self, key: impl Into<String>, value: Value) {
        self.0.push(pair(key.into(), Some(value)));
    }

    /// What there is.
    pub(super) fn take(self) -> Vec<KeyValue> {
        self.0
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

/// A value of JSON; `None` for null.
pub(super) fn any(value: serde_json::Value) -> Option<Value> {
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
