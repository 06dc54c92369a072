//! Trace ids and span ids. How they are written into headers is in `w3c` and `b3`.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// The trace that a request belongs to. Never 0, which means "none" to every format.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// One span of a trace. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// `None` for 0.
    pub fn new(id: u128) -> Option<Self> {
        NonZeroU128::new(id).map(Self)
    }

    /// A new one, of random numbers.
    pub fn random(mut random: impl FnMut() -> u64) -> Self {
        let id = u128::from(random()) << 64 | u128::from(random());
        Self::new(id).unwrap_or(Self(NonZeroU128::MIN))
    }

    /// As a number.
    pub fn get(self) -> u128 {
        self.0.get()
    }

    /// The digits that it displays.
    pub fn digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        write_digits(&self.get().to_be_bytes(), &mut digits);
        digits
    }
}

/// There are ids in each line of the access log and each request that is sampled, and formatting a number of 128 bits
/// takes long: eight digits at once.
fn write_digits(bytes: &[u8], digits: &mut [u8]) {
    let (eights, _) = digits.as_chunks_mut::<8>();
    let (fours, _) = bytes.as_chunks::<4>();
    for (eight, four) in eights.iter_mut().zip(fours) {
        *eight = eight_digits(u32::from_be_bytes(*four));
    }
}

/// The digits of a number, each worked out in a byte of its own.
fn eight_digits(number: u32) -> [u8; 8] {
    let mut halves = u64::from(number);
    halves = (halves << 16 | halves) & 0x0000_ffff_0000_ffff;
    halves = (halves << 8 | halves) & 0x00ff_00ff_00ff_00ff;
    halves = (halves << 4 | halves) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte that is to be a letter, which comes 39 after where digits would go on.
    let letters = (halves + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (halves + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
}

impl SpanId {
    /// `None` for 0.
    pub fn new(id: u64) -> Option<Self> {
        NonZeroU64::new(id).map(Self)
    }

    /// A new one, of a random number.
    pub fn random(random: u64) -> Self {
        Self::new(random).unwrap_or(Self(NonZeroU64::MIN))
    }

    /// As a number.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The digits that it displays.
    pub fn digits(self) -> [u8; 16] {
        let mut digits = [0; 16];
        write_digits(&self.get().to_be_bytes(), &mut digits);
        digits
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

/// What the next hop is told: the trace, its parent span, whether it is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace.
    pub trace: TraceId,
    /// The span that is the parent of whatever the next hop does.
    pub span: SpanId,
    /// The trace is kept.
    pub sampled: bool,
    /// The trace id is random (W3C trace context level 2): told on as it came.
    pub random: bool,
}

/// Hexadecimal digits in lower case as a number.
pub(super) fn hex(digits: &[u8]) -> Option<u128> {
    let is_digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if digits.is_empty() || !digits.iter().all(is_digit) {
        return None;
    }
    u128::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_are_those_that_display(trace in 1_u128.., span in 1_u64..) {
            let (trace, span) = (TraceId::new(trace).unwrap(), SpanId::new(span).unwrap());
            prop_assert_eq!(trace.digits().to_vec(), trace.to_string().into_bytes());
            prop_assert_eq!(span.digits().to_vec(), span.to_string().into_bytes());
        }
    }
}
