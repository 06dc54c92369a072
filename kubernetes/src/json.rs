//! JSON of the API server, read and written so that one odd object is one odd object: what the YAML parser can
//! not have is escaped, and what is nested too deep is left for it to refuse. Knows nothing of kinds.

use std::fmt;
use std::io;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::ser::Formatter;
use serde_json::{Map, Value};

use crate::limits::{OBJECT_LEVELS_MAX, TOO_DEEP_LEVELS};

/// How much is read of a value. The rest is skipped, and nothing made of it.
#[derive(Debug)]
pub(crate) enum Kept {
    /// All of it.
    Whole,
    /// Of a map these keys, and of each as much as is said.
    Keys(&'static [(&'static str, Kept)]),
    /// Of a map everything, but of these keys as much as is said.
    AllBut(&'static [(&'static str, Kept)]),
    /// Of each item of a list as much.
    Items(&'static Kept),
}

impl Kept {
    /// Of what is under a key of a map. `None`: nothing.
    fn under(&'static self, key: &str) -> Option<&'static Self> {
        let (keys, others) = match self {
            Self::Keys(keys) => (*keys, None),
            Self::AllBut(keys) => (*keys, Some(&Self::Whole)),
            Self::Whole | Self::Items(_) => (&[][..], Some(&Self::Whole)),
        };
        let named = keys.iter().find(|(named, _)| *named == key);
        named.map(|(_, kept)| kept).or(others)
    }

    /// Of an item of a list.
    fn item(&'static self) -> &'static Self {
        match self {
            Self::Items(each) => each,
            Self::Whole | Self::Keys(_) | Self::AllBut(_) => &Self::Whole,
        }
    }
}

/// An object of whatever depth, without the history of its fields. serde_json reads 128 levels and no more, and
/// fails with all that it reads: a page, a watch. What is deeper is cut here, and lists so deep are put there that the parser refuses the object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object(pub Value);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ObjectOf(&Kept::Whole).deserialize(deserializer)
    }
}

/// Reads as much of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObjectOf(pub &'static Kept);

impl<'de> DeserializeSeed<'de> for ObjectOf {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Object, D::Error> {
        let object = Levels {
            left: OBJECT_LEVELS_MAX,
            part: Part::Object,
            kept: self.0,
        };
        object.deserialize(deserializer).map(Object)
    }
}

/// Reads a value of so many levels.
#[derive(Clone, Copy)]
struct Levels {
    left: usize,
    part: Part,
    kept: &'static Kept,
}

/// Of an object.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Object,
    Metadata,
    Other,
}

impl Levels {
    /// What is inside. `None`: it is nested too deep.
    fn below(self) -> Option<Self> {
        Some(Self {
            left: self.left.checked_sub(1)?,
            part: Part::Other,
            kept: self.kept.item(),
        })
    }

    /// What is under a key. `None`: it is skipped.
    fn under(self, below: Self, key: &str) -> Option<Self> {
        if self.is_history(key) {
            return None;
        }
        let is_metadata = self.part == Part::Object && key == "metadata";
        Some(Self {
            part: if is_metadata {
                Part::Metadata
            } else {
                Part::Other
            },
            kept: self.kept.under(key)?,
            ..below
        })
    }

    /// Who wrote which field when: half of an object, of hundreds of small maps, and never kept.
    fn is_history(self, key: &str) -> bool {
        self.part == Part::Metadata && key == "managedFields"
    }
}

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let Some(below) = self.below() else {
            // What is ignored is read without recursion, however deep.
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(too_deep());
        };
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let Some(below) = self.below() else {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(too_deep());
        };
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            match self.under(below, &key) {
                Some(levels) => drop(map.insert(key, entries.next_value_seed(levels)?)),
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(map.into())
    }
}

fn too_deep() -> Value {
    (0..TOO_DEEP_LEVELS).fold(Value::Null, |inner, _| vec![inner].into())
}

/// A value as one line that is YAML as well.
pub(crate) fn text(value: &Value) -> serde_json::Result<String> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Escaping);
    value.serialize(&mut serializer)?;
    String::from_utf8(bytes).map_err(serde_json::Error::custom)
}

/// Escapes what JSON may have in a string and YAML may not (YAML 1.2.2, 5.1), and what breaks a line or begins a
/// text for some.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for part in fragment.split_inclusive(is_foreign) {
            let mut before = part.chars();
            match before.next_back().filter(|c| is_foreign(*c)) {
                // None is beyond U+FFFF, so that one escape is enough.
                Some(foreign) => {
                    writer.write_all(before.as_str().as_bytes())?;
                    write!(writer, "\\u{:04x}", u32::from(foreign))?;
                }
                None => writer.write_all(part.as_bytes())?,
            }
        }
        Ok(())
    }
}

fn is_foreign(c: char) -> bool {
    matches!(
        c,
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
    )
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use cairn_config_schema::store::{SourceFile, Store};
    use serde_json::json;

    use super::*;

    /// What the parser says of a policy. Whatever it is, nothing else suffers by it.
    fn findings(text: String) -> Vec<String> {
        let path = "kubernetes:AuthorizationPolicy/shop/p".into();
        let content = Ok(Cow::Owned(text.into_bytes()));
        let update = Store::default().update(&[SourceFile { path, content }]);
        assert_eq!(update.resources.unreadable, []);
        assert_eq!(update.resources.authorization_policies.len(), 1);
        let findings = update.diagnostics.iter();
        findings.map(|finding| finding.message.clone()).collect()
    }

    #[test]
    fn a_character_that_yaml_has_not_is_escaped() {
        for odd in (0..=0xffff).filter_map(char::from_u32) {
            let value = json!({ format!("k{odd}"): format!("<{odd}>x") });
            let text = text(&value).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
        let odd: String = (0..=0xffff).filter_map(char::from_u32).collect();
        let policy = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "namespace": "shop", "annotations": {"note": odd, "<<": "x"}},
            "spec": {"action": "DENY", "rules": [{}]},
        });
        assert_eq!(findings(text(&policy).unwrap()), [""; 0]);
    }

    #[test]
    fn the_history_of_fields_is_left_out_and_nothing_else_of_that_name() {
        let object = json!({
            "metadata": {"name": "p", "managedFields": [{"fieldsV1": {"f:spec": {}}}], "labels": {"managedFields": "x"}},
            "spec": {"managedFields": [1], "metadata": {"managedFields": 2}}, "managedFields": 3,
        });
        let read: Object = serde_json::from_str(&object.to_string()).unwrap();
        let mut expected = object;
        expected["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("managedFields");
        assert_eq!(read.0, expected);
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_by_itself() {
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!(
                r#"{{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy",
                "metadata":{{"name":"p","namespace":"shop"}},"spec":{open}{close}}}"#
            )
        };
        let read = |text: &str| serde_json::from_str::<Object>(text).unwrap().0;
        let shallow = nested(OBJECT_LEVELS_MAX - 1);
        let value: Value = serde_json::from_str(&shallow).unwrap();
        assert_eq!(read(&shallow), value);
        for levels in [OBJECT_LEVELS_MAX, 127, 128, 100_000] {
            let found = findings(text(&read(&nested(levels))).unwrap());
            assert!(
                found.iter().any(|f| f.contains("nested deeper")),
                "{found:?}"
            );
        }
    }
}
