//! The fields of a type as serde knows them: reads the type from nothing and notes what it asks for. A field that
//! no made-up value will do for is noted and left out.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// Values tried for a field, one after the other.
const CANDIDATES: [&str; 6] = [
    "text",
    "1s",
    "1",
    "true",
    "10.0.0.1",
    "2026-01-01T00:00:00Z",
];

/// No field of any kind is nested so deep but by recursion.
const DEPTH_MAX: usize = 24;

#[derive(Default)]
struct Trace {
    fields: RefCell<BTreeSet<String>>,
    /// Which candidate a leaf is at.
    tried: RefCell<BTreeMap<String, usize>>,
    /// The leaf that was read last: the one at fault, if there is any.
    last: RefCell<String>,
}

/// Paths of all fields of `T`: `rules[].matches[].path.type`.
pub fn fields<T: DeserializeOwned>() -> Vec<String> {
    let trace = Trace::default();
    for _ in 0..2_000 {
        let result = T::deserialize(At {
            trace: &trace,
            path: String::new(),
            depth: 0,
        });
        if result.is_ok() {
            break;
        }
        let last = trace.last.borrow().clone();
        *trace.tried.borrow_mut().entry(last).or_default() += 1;
    }
    trace.fields.into_inner().into_iter().collect()
}

#[derive(Clone)]
struct At<'t> {
    trace: &'t Trace,
    path: String,
    depth: usize,
}

type Error = serde::de::value::Error;

impl<'t> At<'t> {
    fn below(&self, key: &str) -> At<'t> {
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        At {
            trace: self.trace,
            path,
            depth: self.depth + 1,
        }
    }

    fn item(&self) -> At<'t> {
        At {
            trace: self.trace,
            path: format!("{}[]", self.path),
            depth: self.depth + 1,
        }
    }

    /// Which candidate is its turn. `None`: all were tried in vain.
    fn candidate(&self) -> Option<&'static str> {
        self.trace.last.replace(self.path.clone());
        let at = self
            .trace
            .tried
            .borrow()
            .get(&self.path)
            .copied()
            .unwrap_or(0);
        CANDIDATES.get(at).copied()
    }

    fn is_given_up(&self) -> bool {
        let tried = self.trace.tried.borrow();
        self.depth > DEPTH_MAX
            || tried
                .get(&self.path)
                .is_some_and(|n| *n >= CANDIDATES.len())
    }
}

/// A number of any kind.
macro_rules! numbers {
    ($($method:ident => $visit:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.candidate();
            visitor.$visit(1 as _)
        })*
    };
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.candidate() {
            Some("1") => visitor.visit_u64(1),
            Some("true") => visitor.visit_bool(true),
            Some(text) => visitor.visit_str(text),
            None => visitor.visit_unit(),
        }
    }

    numbers! {
        deserialize_i8 => visit_i8, deserialize_i16 => visit_i16, deserialize_i32 => visit_i32,
        deserialize_i64 => visit_i64, deserialize_u8 => visit_u8, deserialize_u16 => visit_u16,
        deserialize_u32 => visit_u32, deserialize_u64 => visit_u64, deserialize_f32 => visit_f32,
        deserialize_f64 => visit_f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.candidate();
        visitor.visit_bool(true)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.is_given_up() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let item = self.item();
        let left = !item.is_given_up();
        visitor.visit_seq(Once { item, left })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Fields {
            of: self,
            names: &["*"],
            next: 0,
            is_struct: false,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Fields {
            of: self,
            names: fields,
            next: 0,
            is_struct: true,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.candidate();
        let at = self
            .trace
            .tried
            .borrow()
            .get(&self.path)
            .copied()
            .unwrap_or(0);
        let name = variants.get(at).or(variants.first()).copied();
        visitor.visit_enum(Variant(name.unwrap_or_default()))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

struct Once<'t> {
    item: At<'t>,
    left: bool,
}

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        match std::mem::take(&mut self.left) {
            true => seed.deserialize(self.item.clone()).map(Some),
            false => Ok(None),
        }
    }
}

struct Fields<'t> {
    of: At<'t>,
    names: &'static [&'static str],
    next: usize,
    is_struct: bool,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        while let Some(name) = self.names.get(self.next) {
            let field = self.of.below(name);
            if self.is_struct {
                self.of.trace.fields.borrow_mut().insert(field.path.clone());
            }
            if !field.is_given_up() {
                return seed
                    .deserialize(StrDeserializer::<Error>::new(name))
                    .map(Some);
            }
            self.next += 1;
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let name = self.names.get(self.next).copied();
        self.next += 1;
        let name = name.ok_or_else(|| Error::custom("a value without a key"))?;
        seed.deserialize(self.of.below(name))
    }
}

struct Variant(&'static str);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name = seed.deserialize(StrDeserializer::<Error>::new(self.0))?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(Error::custom("a variant with a value"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("a variant with values"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(Error::custom("a variant with fields"))
    }
}
