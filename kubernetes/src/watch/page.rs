//! Reads one page of a list: hands over each object as it is read, so that there is never more than one of them
//! beside the text. Asks nobody.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::api::{Page, Take};
use super::refusal::Refusal;
use crate::json::{Kept, ObjectOf};

/// A page of this text, of each object as much as is said. Where its objects stand before or after its version does not matter.
pub(super) fn page(text: &str, kept: &'static Kept, take: Take<'_>) -> Result<Page, Refusal> {
    let mut refused = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    let list = List {
        kept,
        take,
        refused: &mut refused,
    };
    let read = list.deserialize(&mut reader);
    let read = read.and_then(|metadata| reader.end().map(|()| metadata));
    if let Some(refusal) = refused {
        return Err(refusal);
    }
    let metadata = read.map_err(|e| Refusal::malformed(e.to_string()))?;
    if metadata.resource_version.is_empty() {
        return Err(Refusal::malformed("a list without a resourceVersion"));
    }
    Ok(Page {
        version: metadata.resource_version,
        next: metadata.next.filter(|token| !token.is_empty()),
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: Option<String>,
}

struct List<'l, 't> {
    kept: &'static Kept,
    take: Take<'t>,
    /// What `take` said last; after that nothing is read.
    refused: &'l mut Option<Refusal>,
}

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ListMeta;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ListMeta, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ListMeta;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<ListMeta, A::Error> {
        let mut metadata = ListMeta::default();
        while let Some(key) = entries.next_key::<String>()? {
            match &*key {
                "metadata" => metadata = entries.next_value()?,
                "items" => entries.next_value_seed(Items {
                    kept: self.kept,
                    take: &mut *self.take,
                    refused: &mut *self.refused,
                })?,
                _ => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(metadata)
    }
}

struct Items<'l, 't> {
    kept: &'static Kept,
    take: Take<'t>,
    refused: &'l mut Option<Refusal>,
}

impl<'de> DeserializeSeed<'de> for Items<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("objects, or null")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(object) = items.next_element_seed(ObjectOf(self.kept))? {
            if let Err(refusal) = (self.take)(object.0) {
                let error = A::Error::custom(&refusal.message);
                *self.refused = Some(refusal);
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::refusal::Reason;

    fn read(text: &str, refuses: Option<&str>) -> (Vec<String>, Result<Page, Refusal>) {
        let mut names = Vec::new();
        let page = page(text, &Kept::Whole, &mut |object| {
            let name = object["n"].as_str().unwrap().to_owned();
            if refuses == Some(&name) {
                return Err(Refusal::malformed("no such object"));
            }
            names.push(name);
            Ok(())
        });
        (names, page)
    }

    #[test]
    fn objects_come_in_order_wherever_the_version_stands() {
        for text in [
            r#"{"kind":"L","metadata":{"resourceVersion":"7","continue":"t"},"items":[{"n":"a"},{"n":"b"}]}"#,
            r#"{"items":[{"n":"a"},{"n":"b"}],"metadata":{"continue":"t","resourceVersion":"7"}}"#,
        ] {
            let (names, page) = read(text, None);
            let page = page.unwrap();
            assert_eq!(names, ["a", "b"]);
            assert_eq!((&*page.version, page.next.as_deref()), ("7", Some("t")));
        }
    }

    /// Go writes an empty list as null.
    #[test]
    fn a_list_may_be_empty_or_null_and_an_empty_token_is_none() {
        for items in ["[]", "null"] {
            let text = format!(
                r#"{{"metadata":{{"resourceVersion":"7","continue":""}},"items":{items}}}"#
            );
            let (names, page) = read(&text, None);
            assert_eq!((names.len(), page.unwrap().next), (0, None));
        }
    }

    #[test]
    fn what_is_refused_refuses_the_list_with_its_own_words() {
        let text =
            r#"{"metadata":{"resourceVersion":"7"},"items":[{"n":"a"},{"n":"b"},{"n":"c"}]}"#;
        let (names, page) = read(text, Some("b"));
        assert_eq!(names, ["a"]);
        assert_eq!(page.unwrap_err().message, "no such object");
    }

    #[test]
    fn what_is_no_list_is_malformed() {
        for text in [
            "",
            "[]",
            r#"{"metadata":{},"items":[]}"#,
            r#"{"metadata":{"resourceVersion":"7"},"items":[{"n":"a"}"#,
            r#"{"metadata":{"resourceVersion":"7"},"items":7}"#,
            r#"{"metadata":{"resourceVersion":"7"}} {}"#,
        ] {
            let refusal = read(text, None).1.unwrap_err();
            assert_eq!(refusal.reason, Reason::Malformed, "{text}");
        }
    }
}
