//! An address as a text of JSON. One of IPv4 is put together by hand: there are four in each line of the
//! access log, and the standard library's formatting took a quarter of the line's time.

use std::net::SocketAddr;

use serde::{Serialize, Serializer};

/// Written as it displays.
pub struct Address(pub SocketAddr);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let SocketAddr::V4(address) = self.0 else {
            return serializer.collect_str(&self.0);
        };
        let mut text = Short::default();
        for (n, octet) in address.ip().octets().into_iter().enumerate() {
            if n > 0 {
                text.push(b'.');
            }
            text.number(u16::from(octet));
        }
        text.push(b':');
        text.number(address.port());
        serializer.serialize_str(text.as_str())
    }
}

/// Room for `255.255.255.255:65535`.
#[derive(Default)]
struct Short {
    bytes: [u8; 21],
    len: usize,
}

impl Short {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn number(&mut self, number: u16) {
        for unit in [10_000, 1_000, 100, 10] {
            if number >= unit {
                self.digit(number / unit);
            }
        }
        self.digit(number);
    }

    /// The last one of a number.
    fn digit(&mut self, number: u16) {
        self.push(b'0' + u8::try_from(number % 10).unwrap_or_default());
    }

    fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_displays(address: SocketAddr) {
            let text = serde_json::to_string(&Address(address)).unwrap();
            prop_assert_eq!(text, format!("\"{address}\""));
        }

        /// Small numbers are rare among all.
        #[test]
        fn small_ones_too(octets in prop::array::uniform4(0_u8..12), port in 0_u16..1_100) {
            let address = SocketAddr::from((octets, port));
            let text = serde_json::to_string(&Address(address)).unwrap();
            prop_assert_eq!(text, format!("\"{address}\""));
        }
    }
}
