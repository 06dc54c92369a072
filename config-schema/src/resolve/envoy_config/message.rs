//! One message of Envoy's configuration: its fields by name, in either spelling, and a word about every
//! field that nobody asked for. What fields mean is not known here.

use std::cell::RefCell;

use serde_json::{Map, Value};

use crate::diagnostics::Code;
use crate::duration;

/// What is wrong with an object, in the order it was found. Anything rejects the whole of it.
#[derive(Default)]
pub(super) struct Wrongs(RefCell<Vec<Wrong>>);

/// One thing that is.
#[derive(Clone, PartialEq)]
pub(super) struct Wrong {
    pub code: Code,
    pub path: String,
    pub message: String,
}

impl Wrongs {
    /// Adds one.
    pub fn say(&self, code: Code, path: impl Into<String>, message: impl Into<String>) {
        self.0.borrow_mut().push(Wrong {
            code,
            path: path.into(),
            message: message.into(),
        });
    }

    /// All of them.
    pub fn all(self) -> Vec<Wrong> {
        self.0.into_inner()
    }
}

/// A message. When it is dropped, fields that nobody took are reported: none is ignored in silence.
pub(super) struct Message<'v, 'w> {
    /// Where it stands.
    pub path: String,
    wrongs: &'w Wrongs,
    /// Names as written, names in Envoy's own spelling, values.
    left: Vec<(&'v str, String, &'v Value)>,
}

impl<'v, 'w> Message<'v, 'w> {
    /// `None`: it is no message, which is reported.
    pub fn of(value: &'v Value, path: String, wrongs: &'w Wrongs) -> Option<Self> {
        let Value::Object(fields) = value else {
            wrongs.say(Code::WrongType, path, "a map is expected here");
            return None;
        };
        Some(Self::with(fields, path, wrongs))
    }

    fn with(fields: &'v Map<String, Value>, path: String, wrongs: &'w Wrongs) -> Self {
        let fields = fields.iter();
        Self {
            path,
            wrongs,
            left: fields
                .map(|(name, value)| (name.as_str(), snake(name), value))
                .collect(),
        }
    }

    /// Reports something wrong with a field.
    pub fn wrong(&self, code: Code, field: &str, message: impl Into<String>) {
        let path = match field {
            "" => self.path.clone(),
            field => format!("{}.{field}", self.path),
        };
        self.wrongs.say(code, path, message);
    }

    fn take(&mut self, name: &str) -> Option<(&'v Value, String)> {
        let at = self.left.iter().position(|(_, snake, _)| snake == name)?;
        let (written, _, value) = self.left.remove(at);
        let path = format!("{}.{written}", self.path);
        (!value.is_null()).then_some((value, path))
    }

    fn typed<T>(
        &mut self,
        name: &str,
        what: &str,
        read: impl FnOnce(&'v Value) -> Option<T>,
    ) -> Option<T> {
        let (value, path) = self.take(name)?;
        let read = read(value);
        if read.is_none() {
            let message = format!("{what} is expected here");
            self.wrongs.say(Code::WrongType, path, message);
        }
        read
    }

    /// A field as it is written, with its place.
    pub fn raw(&mut self, name: &str) -> Option<(&'v Value, String)> {
        self.take(name)
    }

    /// Nothing is said of the fields that are left: somebody else reads them, or the whole is refused.
    pub fn forget(mut self) {
        self.left.clear();
    }

    /// Fields that make no difference here, whatever they say.
    pub fn skip(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// A text; an empty one is as good as none.
    pub fn text(&mut self, name: &str) -> Option<&'v str> {
        let text = self.typed(name, "a text", Value::as_str);
        text.filter(|text| !text.is_empty())
    }

    /// Yes or no.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// A number.
    pub fn number(&mut self, name: &str) -> Option<u32> {
        self.typed(name, "a number", |value| {
            let number = match value {
                Value::String(text) => text.parse().ok(),
                value => value.as_u64(),
            };
            u32::try_from(number?).ok()
        })
    }

    /// A duration in milliseconds.
    pub fn duration_ms(&mut self, name: &str) -> Option<u64> {
        self.typed(name, "a duration such as 1.5s", |value| {
            duration::go_ms(value.as_str()?)
        })
    }

    /// A message in it.
    pub fn message(&mut self, name: &str) -> Option<Self> {
        let (value, path) = self.take(name)?;
        Self::of(value, path, self.wrongs)
    }

    /// A list of messages.
    pub fn messages(&mut self, name: &str) -> Vec<Self> {
        let (wrongs, items) = (self.wrongs, self.items(name));
        let read = |(value, path)| Self::of(value, path, wrongs);
        items.into_iter().filter_map(read).collect()
    }

    /// A list of texts, each with its place.
    pub fn texts(&mut self, name: &str) -> Vec<(&'v str, String)> {
        let (wrongs, items) = (self.wrongs, self.items(name));
        let read = |(value, path): (&'v Value, String)| match value {
            Value::String(text) => Some((text.as_str(), path)),
            _ => {
                wrongs.say(Code::WrongType, path, "a text is expected here");
                None
            }
        };
        items.into_iter().filter_map(read).collect()
    }

    /// A list of numbers.
    pub fn numbers(&mut self, name: &str) -> Vec<u16> {
        let (wrongs, items) = (self.wrongs, self.items(name));
        let read = |(value, path): (&'v Value, String)| {
            let number = value.as_u64().and_then(|n| u16::try_from(n).ok());
            if number.is_none() {
                wrongs.say(Code::WrongType, path, "a number is expected here");
            }
            number
        };
        items.into_iter().filter_map(read).collect()
    }

    fn items(&mut self, name: &str) -> Vec<(&'v Value, String)> {
        let Some((value, path)) = self.take(name) else {
            return Vec::new();
        };
        let Value::Array(items) = value else {
            self.wrongs
                .say(Code::WrongType, path, "a list is expected here");
            return Vec::new();
        };
        let items = items.iter().enumerate();
        items
            .map(|(at, value)| (value, format!("{path}[{at}]")))
            .collect()
    }
}

impl Drop for Message<'_, '_> {
    fn drop(&mut self) {
        for (written, _, value) in &self.left {
            if !value.is_null() {
                let path = format!("{}.{written}", self.path);
                let message = format!("{written} is not supported");
                self.wrongs.say(Code::Unsupported, path, message);
            }
        }
    }
}

/// `weightedClusters` as `weighted_clusters`.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_found_in_either_spelling_and_none_is_forgotten() {
        let value = json!({
            "weightedClusters": {"clusters": []}, "prefix_rewrite": "/a", "hash_policy": [], "timeout": "1.5s",
            "regex_rewrite": null, "numRetries": "three",
        });
        let wrongs = Wrongs::default();
        {
            let mut message = Message::of(&value, "route".to_owned(), &wrongs).unwrap();
            assert_eq!(message.text("prefix_rewrite"), Some("/a"));
            assert_eq!(message.duration_ms("timeout"), Some(1_500));
            assert_eq!(message.number("num_retries"), None);
            assert!(message.message("weighted_clusters").is_some());
        }
        let said: Vec<String> = (wrongs.all().into_iter())
            .map(|wrong| format!("{}: {}", wrong.path, wrong.message))
            .collect();
        assert_eq!(
            said,
            [
                "route.numRetries: a number is expected here",
                "route.weightedClusters.clusters: clusters is not supported",
                "route.hash_policy: hash_policy is not supported",
            ]
        );
    }
}
