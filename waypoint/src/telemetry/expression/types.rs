//! What expressions give, as far as that is known before they are evaluated, and which of it can be compared.
//! Which expression gives what is said in `check`.

use std::collections::BTreeMap;
use std::fmt;

/// What an expression gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// It is not known.
    Any,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// An integer.
    Int,
    /// An integer that is not negative, as `1u`.
    Uint,
    /// A number with a fraction.
    Double,
    /// A text.
    Text,
    /// Bytes.
    Bytes,
    /// What `type()` gives.
    Type,
    /// A list of these.
    List(Box<Type>),
    /// These by texts; if they are not known, by anything.
    Map(Box<Type>),
    /// Fields with names that are known.
    Message(BTreeMap<&'static str, Type>),
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "anything",
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Int => "an integer",
            Self::Uint => "an unsigned integer",
            Self::Double => "a fraction",
            Self::Text => "a text",
            Self::Bytes => "bytes",
            Self::Type => "a type",
            Self::List(_) => "a list",
            Self::Map(_) | Self::Message(_) => "a map",
        })
    }
}

impl Type {
    /// A list of these.
    pub fn list(of: Self) -> Self {
        Self::List(Box::new(of))
    }

    /// These by texts.
    pub fn map(of: Self) -> Self {
        Self::Map(Box::new(of))
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }

    /// Whether a value can be this, as far as is known.
    pub(super) fn may_be(&self, wanted: &Self) -> bool {
        matches!(self, Self::Any) || self == wanted
    }

    /// Whether one can equal the other: numbers of all kinds are compared by their values, and what may be absent
    /// is compared with null.
    pub(super) fn may_equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any | Self::Null, _) | (_, Self::Any | Self::Null) => true,
            (Self::List(a), Self::List(b)) => a.may_equal(b),
            (Self::Map(_) | Self::Message(_), Self::Map(_) | Self::Message(_)) => true,
            (a, b) => a.is_number() && b.is_number() || a == b,
        }
    }

    /// Whether one can be less than the other.
    pub(super) fn has_order_with(&self, other: &Self) -> bool {
        let has_order = |of: &Self| {
            of.is_number() || matches!(of, Self::Any | Self::Bool | Self::Text | Self::Bytes)
        };
        has_order(self) && has_order(other) && self.may_equal(other)
    }

    /// What is in it by a key or an index; `None`: nothing is.
    pub(super) fn at(&self, key: &Self) -> Option<Self> {
        let is_key = match self {
            Self::List(_) => matches!(key, Self::Any) || key.is_number(),
            Self::Map(of) if **of == Self::Any => true,
            Self::Map(_) | Self::Message(_) => key.may_be(&Self::Text),
            _ => true,
        };
        match self {
            Self::Any => Some(Self::Any),
            Self::List(of) | Self::Map(of) => is_key.then(|| (**of).clone()),
            Self::Message(_) => is_key.then_some(Self::Any),
            _ => None,
        }
    }

    /// What a comprehension goes through: places or keys, and what is there. `None`: it can not be gone through.
    pub(super) fn items(&self) -> Option<(Self, Self)> {
        match self {
            Self::Any => Some((Self::Any, Self::Any)),
            Self::List(of) => Some((Self::Int, (**of).clone())),
            Self::Map(of) if **of == Self::Any => Some((Self::Any, Self::Any)),
            Self::Map(of) => Some((Self::Text, (**of).clone())),
            Self::Message(_) => Some((Self::Text, Self::Any)),
            _ => None,
        }
    }

    /// One of two.
    pub(super) fn either(self, other: Self) -> Self {
        if self == other { self } else { Self::Any }
    }
}
