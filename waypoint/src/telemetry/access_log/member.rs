//! Members of the JSON line as bytes. What is plain is copied: nearly every text is, and to look at all of its bytes at
//! once costs a fraction of looking at each. Everything else is left to serde_json; the outcome is the same.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::SocketAddr;

use cairn_config_schema::origin::Origin;
use serde::Serialize;
use serde_json::Value;

use super::address::Address;
use super::line::{Records, Text};
use super::names::{RouteName, UpstreamCluster};
use crate::telemetry::trace::context::TraceId;

/// What can be a member.
pub(super) trait Member {
    /// Appends it.
    ///
    /// # Errors
    /// None but serde_json's, which texts and numbers do not give.
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()>;

    /// Tells of it, if it is there.
    fn tell(&self, key: &str, to: &mut impl Members);
}

/// Who is told of members one by one.
pub trait Members {
    /// A text.
    fn text(&mut self, key: &str, text: &str);
    /// A text that displays.
    fn shown(&mut self, key: &str, text: impl Display);
    /// An integer.
    fn number(&mut self, key: &str, number: u64);
    /// Anything else, which is rare. `null` is not there.
    fn json(&mut self, key: &str, value: Value);
}

/// Whether a text stands in JSON as it is.
fn is_plain(text: &str) -> bool {
    // Without an end in between, so that many are compared at once.
    let odd = |found, byte: &u8| found | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    !text.as_bytes().iter().fold(false, odd)
}

/// Appends a text with its quotes.
///
/// # Errors
/// As [`Member::write`].
pub(super) fn text(text: &str, to: &mut Vec<u8>) -> serde_json::Result<()> {
    if !is_plain(text) {
        return serde_json::to_writer(to, text);
    }
    to.reserve(text.len() + 2);
    to.push(b'"');
    to.extend_from_slice(text.as_bytes());
    to.push(b'"');
    Ok(())
}

/// Appends the pieces of one text, if all of them are plain.
fn pieces(pieces: &[&str], to: &mut Vec<u8>) -> bool {
    let plain = pieces.iter().all(|piece| is_plain(piece));
    if plain {
        to.push(b'"');
        for piece in pieces {
            to.extend_from_slice(piece.as_bytes());
        }
        to.push(b'"');
    }
    plain
}

/// Appends an integer.
///
/// # Errors
/// As [`Member::write`].
pub(super) fn number(number: u64, to: &mut Vec<u8>) -> serde_json::Result<()> {
    match u8::try_from(number) {
        Ok(digit @ 0..=9) => {
            to.push(b'0' + digit);
            Ok(())
        }
        _ => serde_json::to_writer(to, &number),
    }
}

impl<T: Member> Member for Option<T> {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Some(member) => member.write(to),
            None => {
                to.extend_from_slice(b"null");
                Ok(())
            }
        }
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        if let Some(member) = self {
            member.tell(key, to);
        }
    }
}

impl Member for &str {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        text(self, to)
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        to.text(key, self);
    }
}

impl Member for Cow<'_, str> {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        text(self, to)
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        to.text(key, self);
    }
}

impl Member for u64 {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        number(*self, to)
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        to.number(key, *self);
    }
}

impl Member for u32 {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        number(u64::from(*self), to)
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        to.number(key, u64::from(*self));
    }
}

impl Member for u16 {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        number(u64::from(*self), to)
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        to.number(key, u64::from(*self));
    }
}

impl Member for usize {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        number(*self as u64, to)
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        to.number(key, *self as u64);
    }
}

impl Member for Text<u64> {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        to.push(b'"');
        number(self.0, to)?;
        to.push(b'"');
        Ok(())
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        to.shown(key, self.0);
    }
}

impl Member for Text<TraceId> {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        to.push(b'"');
        to.extend_from_slice(&self.0.digits());
        to.push(b'"');
        Ok(())
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        let digits = self.0.digits();
        to.text(key, std::str::from_utf8(&digits).unwrap_or_default());
    }
}

impl Member for Text<&Origin> {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        let Origin { kind, key } = self.0;
        let kind = kind.as_str();
        let written = match &*key.namespace {
            "" => pieces(&[kind, "/", &key.name], to),
            namespace => pieces(&[kind, "/", namespace, "/", &key.name], to),
        };
        if written {
            Ok(())
        } else {
            serde_json::to_writer(to, self)
        }
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        to.shown(key, self.0);
    }
}

impl Member for Text<RouteName<'_>> {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        match &self.0 {
            RouteName::Default => text("default", to),
            RouteName::Rule(origin, rule) => {
                let key = &origin.key;
                if !pieces(&[&key.namespace, ".", &key.name, "."], to) {
                    return serde_json::to_writer(to, self);
                }
                // The number belongs before the quote.
                to.pop();
                number(*rule as u64, to)?;
                to.push(b'"');
                Ok(())
            }
        }
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        to.shown(key, &self.0);
    }
}

impl Member for Text<UpstreamCluster<'_>> {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        let UpstreamCluster {
            service,
            port,
            protocol,
        } = &self.0;
        if !is_plain(&service.hostname) {
            return serde_json::to_writer(to, self);
        }
        to.extend_from_slice(b"\"inbound-vip|");
        number(u64::from(*port), to)?;
        for piece in ["|", protocol, "|", &service.hostname, ";\""] {
            to.extend_from_slice(piece.as_bytes());
        }
        Ok(())
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        to.shown(key, &self.0);
    }
}

impl Member for Address {
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        let SocketAddr::V4(address) = &self.0 else {
            return serde_json::to_writer(to, self);
        };
        to.push(b'"');
        for octet in address.ip().octets() {
            small(u16::from(octet), to);
            to.push(b'.');
        }
        // A colon in the place of the last point.
        to.pop();
        to.push(b':');
        small(address.port(), to);
        to.push(b'"');
        Ok(())
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        to.shown(key, self.0);
    }
}

/// The standard library's formatting of four addresses took a quarter of the line's time.
fn small(number: u16, to: &mut Vec<u8>) {
    for unit in [10_000, 1_000, 100, 10] {
        if number >= unit {
            digit(number / unit, to);
        }
    }
    digit(number, to);
}

/// The last one of a number.
fn digit(number: u16, to: &mut Vec<u8>) {
    to.push(b'0' + u8::try_from(number % 10).unwrap_or_default());
}

impl<T> Member for Records<'_, T>
where
    Self: Serialize,
{
    fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        if self.0.is_empty() {
            to.extend_from_slice(b"[]");
            return Ok(());
        }
        serde_json::to_writer(to, self)
    }

    fn tell(&self, key: &str, to: &mut impl Members) {
        // A list of texts and numbers can not fail to be one of values.
        to.json(key, serde_json::to_value(self).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use cairn_config_schema::origin::{Kind, ObjectKey};
    use proptest::prelude::*;

    use super::*;

    /// What serde_json makes of it is right.
    fn agrees(member: &(impl Member + Serialize)) -> Result<(), TestCaseError> {
        let mut written = Vec::new();
        member.write(&mut written).unwrap();
        let expected = serde_json::to_string(member).unwrap();
        prop_assert_eq!(String::from_utf8(written).unwrap(), expected);
        Ok(())
    }

    proptest! {
        /// Texts of letters mostly, with what has to be escaped at any place.
        #[test]
        fn texts_are_as_serde_json_writes_them(text in "([a-z/.:-]|[\\x00-\\x22\\x7f]|\\\\|\\PC){0,40}") {
            agrees(&text.as_str())?;
            agrees(&Cow::Borrowed(text.as_str()))?;
            agrees(&Some(text.as_str()))?;
        }

        #[test]
        fn numbers_are_too(number: u64, small in 0_u64..1_200, id: u128) {
            agrees(&number)?;
            agrees(&small)?;
            agrees(&Text(small))?;
            agrees(&Some(small as u16))?;
            agrees(&TraceId::new(id).map(Text))?;
        }

        #[test]
        fn addresses_are_too(address: SocketAddr, octets in prop::array::uniform4(0_u8..12), port in 0_u16..1_100) {
            agrees(&Address(address))?;
            agrees(&Address(SocketAddr::from((octets, port))))?;
        }

        #[test]
        fn names_of_objects_and_rules_are_too(
            namespace in "[a-z\"]{0,5}",
            name in "[a-z\\\\]{1,5}",
            rule in 0_usize..30,
        ) {
            let key = ObjectKey::new(&*namespace, &*name);
            let origin = Origin { kind: Kind::AuthorizationPolicy, key };
            agrees(&Text(&origin))?;
            agrees(&Text(RouteName::Rule(&origin, rule)))?;
            agrees(&Text(RouteName::Default))?;
        }
    }
}
