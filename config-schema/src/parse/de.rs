//! A serde deserializer over a document's tree. It sees which fields a type has, so every unknown
//! field is found for any type, Kubernetes' and our own alike. Strict: no conversion between
//! strings, numbers and truth values. Collecting more than the first error is `read.rs`'s work.

use std::cell::RefCell;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::fault::{Fault, ReadError};
use super::node::{Entry, Mark, Node, Style, Value};
use super::path::Path;
use super::scalar::{Plain, resolve};

/// What passes over one object share.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Nodes with an error that is already reported; they are read as if they were absent.
    pub poisoned: FxHashSet<usize>,
    /// Unknown fields found, by the address of their value.
    pub unknown: RefCell<FxHashMap<usize, Fault>>,
    /// Keys of the outermost map that are skipped without a word.
    pub skipped: &'static [&'static str],
    /// Address of the outermost node.
    pub outermost: usize,
}

/// The address of a node is its name during the passes over one tree.
pub(super) fn address(node: &Node<'_>) -> usize {
    std::ptr::from_ref(node) as usize
}

/// Deserializes one node.
#[derive(Clone, Copy)]
pub(super) struct De<'t, 'p> {
    pub node: &'t Node<'t>,
    /// Where to point at when this node is at fault.
    pub at: Mark,
    pub path: &'p Path<'p>,
    pub pass: &'p Pass,
}

impl<'t, 'p> De<'t, 'p> {
    /// The deserializer of a node below this one.
    fn child<'q>(&self, node: &'t Node<'t>, at: Mark, path: &'q Path<'q>) -> De<'t, 'q>
    where
        'p: 'q,
    {
        De {
            node,
            at,
            path,
            pass: self.pass,
        }
    }

    fn fail(&self, error: ReadError) -> ReadError {
        error.locate(self)
    }

    /// What the node is, for serde's own "invalid type".
    fn unexpected(&self) -> de::Unexpected<'t> {
        match &self.node.value {
            Value::List(_) => de::Unexpected::Seq,
            Value::Map(_) => de::Unexpected::Map,
            Value::Scalar(text, Style::Plain) => match resolve(text) {
                Plain::Null => de::Unexpected::Unit,
                Plain::Bool(b) => de::Unexpected::Bool(b),
                Plain::Int(n) => de::Unexpected::Signed(n),
                Plain::Big(n) => de::Unexpected::Unsigned(n),
                Plain::Float(n) => de::Unexpected::Float(n),
                Plain::Ambiguous | Plain::Text => de::Unexpected::Str(text),
            },
            Value::Scalar(text, _) => de::Unexpected::Str(text),
        }
    }

    fn wrong<V: de::Expected>(&self, expected: &V) -> ReadError {
        self.fail(de::Error::invalid_type(self.unexpected(), expected))
    }

    /// The text of a node that has to be a string.
    fn string<V: de::Expected>(&self, expected: &V) -> Result<&'t str, ReadError> {
        match &self.node.value {
            Value::Scalar(text, Style::Plain) => match resolve(text) {
                Plain::Text => Ok(text),
                Plain::Null => Err(self.wrong(expected)),
                plain => Err(self.fail(ReadError::unquoted(text, plain))),
            },
            Value::Scalar(text, _) => Ok(text),
            _ => Err(self.wrong(expected)),
        }
    }

    fn any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::List(_) => visitor.visit_seq(Items {
                list: self,
                next: 0,
            }),
            Value::Map(_) => visitor.visit_map(Entries::new(self, None)),
            Value::Scalar(text, Style::Plain) => match resolve(text) {
                Plain::Null => visitor.visit_unit(),
                Plain::Bool(b) => visitor.visit_bool(b),
                Plain::Int(n) => visitor.visit_i64(n),
                Plain::Big(n) => visitor.visit_u64(n),
                Plain::Float(n) => visitor.visit_f64(n),
                Plain::Ambiguous => Err(ReadError::ambiguous(text)),
                Plain::Text => visitor.visit_borrowed_str(text),
            },
            Value::Scalar(text, _) => visitor.visit_borrowed_str(text),
        }
        .map_err(|e| self.fail(e))
    }
}

impl<'t> Deserializer<'t> for De<'t, '_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.any(visitor)
    }

    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.node.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_str<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let text = self.string(&visitor)?;
        visitor.visit_borrowed_str(text).map_err(|e| self.fail(e))
    }

    fn deserialize_string<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self).map_err(|e| self.fail(e))
    }

    fn deserialize_struct<V: Visitor<'t>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Map(_) => visitor
                .visit_map(Entries::new(self, Some(fields)))
                .map_err(|e| self.fail(e)),
            _ => Err(self.wrong(&"a map")),
        }
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Scalar(text, _) if !self.node.is_null() => visitor
                .visit_enum(Variant { name: text })
                .map_err(|e| self.fail(e)),
            _ => Err(self.wrong(&"a string")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier
    }
}

/// The items of a list.
struct Items<'t, 'p> {
    list: De<'t, 'p>,
    next: usize,
}

impl<'t> SeqAccess<'t> for Items<'t, '_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'t>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        while let Some(node) = self.list.node.items().get(self.next) {
            let path = self.list.path.index(self.next);
            self.next += 1;
            if self.list.pass.poisoned.contains(&address(node)) {
                continue;
            }
            return seed
                .deserialize(self.list.child(node, node.at, &path))
                .map(Some);
        }
        Ok(None)
    }

    /// Exact, so that vectors are as large as they need to be: types of the Gateway API are large.
    fn size_hint(&self) -> Option<usize> {
        Some(self.list.node.items().len().saturating_sub(self.next))
    }
}

/// The entries of a map; with `fields`, of a struct.
struct Entries<'t, 'p> {
    map: De<'t, 'p>,
    fields: Option<&'static [&'static str]>,
    next: usize,
    value: Option<&'t Entry<'t>>,
}

impl<'t, 'p> Entries<'t, 'p> {
    fn new(map: De<'t, 'p>, fields: Option<&'static [&'static str]>) -> Self {
        Self {
            map,
            fields,
            next: 0,
            value: None,
        }
    }

    /// Whether the entry is for the type; notes it when the type does not know it.
    fn is_wanted(&self, entry: &Entry<'_>) -> bool {
        let pass = self.map.pass;
        let is_outermost = pass.outermost == address(self.map.node);
        if is_outermost && pass.skipped.contains(&&*entry.key) {
            return false;
        }
        if let Some(fields) = self.fields
            && !fields.contains(&&*entry.key)
        {
            let path = self.map.path.key(&entry.key);
            let fault = || Fault::unknown_field(&entry.key, fields, path.to_string(), entry.key_at);
            let mut unknown = pass.unknown.borrow_mut();
            unknown.entry(address(&entry.value)).or_insert_with(fault);
            return false;
        }
        !pass.poisoned.contains(&address(&entry.value))
    }
}

impl<'t> MapAccess<'t> for Entries<'t, '_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'t>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        while let Some(entry) = self.map.node.entries().get(self.next) {
            self.next += 1;
            if self.is_wanted(entry) {
                self.value = Some(entry);
                return seed
                    .deserialize(BorrowedStrDeserializer::new(&entry.key))
                    .map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some(entry) = self.value.take() else {
            return Err(de::Error::custom("a value is asked for before its key"));
        };
        let path = self.map.path.key(&entry.key);
        seed.deserialize(self.map.child(&entry.value, entry.at(), &path))
    }
}

/// The name of an enum's variant; none of the types read here has variants with content.
struct Variant<'t> {
    name: &'t str,
}

impl<'t> EnumAccess<'t> for Variant<'t> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'t>>(self, seed: V) -> Result<(V::Value, Self), ReadError> {
        let value = seed.deserialize(BorrowedStrDeserializer::new(self.name))?;
        Ok((value, self))
    }
}

impl<'t> VariantAccess<'t> for Variant<'t> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'t>>(self, _: T) -> Result<T::Value, ReadError> {
        Err(de::Error::invalid_type(
            de::Unexpected::UnitVariant,
            &"a variant with a value",
        ))
    }

    fn tuple_variant<V: Visitor<'t>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        Err(de::Error::invalid_type(
            de::Unexpected::UnitVariant,
            &visitor,
        ))
    }

    fn struct_variant<V: Visitor<'t>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        Err(de::Error::invalid_type(
            de::Unexpected::UnitVariant,
            &visitor,
        ))
    }
}
