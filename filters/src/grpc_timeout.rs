//! The header `grpc-timeout`: how long the client of a gRPC call will wait (gRPC's protocol page,
//! "Timeout"). Reads and writes the value; keeps no time.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

/// `grpc-timeout`.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The most digits that a value may have.
const DIGITS_MAX: usize = 8;

/// What a value says. `None`: it is none.
pub fn parse(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    let digits = std::str::from_utf8(digits).ok()?;
    if !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3_600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// A time as a value: never longer than it is, in the finest unit that has room for it.
pub fn format(time: Duration) -> HeaderValue {
    let units = [
        (time.as_nanos(), 'n'),
        (time.as_micros(), 'u'),
        (time.as_millis(), 'm'),
        (u128::from(time.as_secs()), 'S'),
        (u128::from(time.as_secs() / 60), 'M'),
    ];
    let fits = |(number, _): &(u128, char)| *number < 10u128.pow(DIGITS_MAX as u32);
    let hours = u128::from(time.as_secs() / 3_600).min(99_999_999);
    let (number, unit) = units.into_iter().find(fits).unwrap_or((hours, 'H'));
    // Digits and a letter are always a header value.
    HeaderValue::try_from(format!("{number}{unit}"))
        .unwrap_or_else(|_| HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_digits_and_a_unit() {
        let parsed = |text| parse(&HeaderValue::from_static(text));
        assert_eq!(parsed("1H"), Some(Duration::from_secs(3_600)));
        assert_eq!(parsed("5M"), Some(Duration::from_secs(300)));
        assert_eq!(parsed("30S"), Some(Duration::from_secs(30)));
        assert_eq!(parsed("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parsed("7u"), Some(Duration::from_micros(7)));
        assert_eq!(parsed("00000009n"), Some(Duration::from_nanos(9)));
        for text in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            "1.5S",
            "123456789S",
            "1 S",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    proptest! {
        /// A deadline that is forwarded never grows, and loses less than a part in a million of what
        /// has eight digits.
        #[test]
        fn what_is_written_is_read_and_never_longer(nanos in 0u64..=u64::MAX) {
            let time = Duration::from_nanos(nanos);
            let read = parse(&format(time)).unwrap();
            prop_assert!(read <= time);
            prop_assert!(time - read <= time / 100_000);
        }
    }
}
