//! Round robin: one after the other, by weight. All workers share the rotation.

use std::sync::atomic::{AtomicU64, Ordering};

use super::shares::Shares;

/// The golden ratio's fraction of 2^64: steps of it fill a line evenly wherever one stops.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug, Default)]
pub(super) struct Rotation(AtomicU64);

impl Rotation {
    /// Begins anywhere, so that replicas do not walk in step.
    pub(super) fn starting_at(random: u64) -> Self {
        Self(AtomicU64::new(random))
    }

    pub(super) fn next(&self, shares: &Shares) -> usize {
        if shares.count() == 0 {
            return 0;
        }
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        if shares.are_equal() {
            (turn % shares.count() as u64) as usize
        } else {
            shares.at(turn.wrapping_mul(STEP))
        }
    }
}
