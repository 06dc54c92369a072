//! What protobuf's JSON form asks for beside what serde does: no fields with default values, 64-bit
//! numbers as strings.

use serde::Serializer;

/// Whether a field is left out.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A 64-bit number is a string, for not every reader of JSON has such numbers.
pub fn number<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}
