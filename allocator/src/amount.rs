//! How much a sample stands for. Counts nothing itself.

use crate::PERIOD_BYTES;

/// Objects and their bytes, estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Amount {
    /// Allocations.
    pub objects: f64,
    /// Their bytes.
    pub bytes: f64,
}

impl Amount {
    /// What one sample of so many bytes stands for. An allocation of s bytes is sampled with a probability of
    /// 1 - exp(-s / period), so each that is stands for so many of its size as that is small.
    pub(crate) fn of_sample(bytes: usize) -> Self {
        let bytes = bytes.max(1) as f64;
        let objects = 1.0 / -(-bytes / PERIOD_BYTES as f64).exp_m1();
        Self {
            objects,
            bytes: objects * bytes,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ones_stand_for_a_period_and_large_ones_for_themselves() {
        let small = Amount::of_sample(64);
        let period = PERIOD_BYTES as f64;
        assert!((small.bytes / period - 1.0).abs() < 0.001, "{small:?}");
        let large = Amount::of_sample(64 * PERIOD_BYTES);
        assert!((large.objects - 1.0).abs() < 0.001, "{large:?}");
        assert!(Amount::of_sample(0).bytes.is_finite());
    }
}
