//! How long to wait after a failure. Does not wait.

use std::time::Duration;

use crate::limits::{IDENTITY_BACK_OFF, IDENTITY_BACK_OFF_MAX};

/// The wait after so many failures in a row, the first being 1. `random`: 0 to 1.
pub(super) fn after(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let wait = IDENTITY_BACK_OFF.saturating_mul(1 << doublings);
    wait.min(IDENTITY_BACK_OFF_MAX).mul_f64(0.9 + 0.2 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// specs/istio-waypoint.md 3: exponential, 0.5 s to 150 s.
    #[test]
    fn it_doubles_from_half_a_second_to_150_seconds() {
        let waits = [1, 2, 3, 4, 8, 9, 10, 11, u32::MAX].map(|n| after(n, 0.5).as_millis());
        let doubled = [500, 1_000, 2_000, 4_000, 64_000, 128_000, 150_000];
        assert_eq!(waits[..7], doubled);
        assert_eq!(waits[7..], [150_000; 2]);
    }

    #[test]
    fn replicas_are_a_tenth_apart_at_most() {
        assert_eq!(after(1, 0.0).as_millis(), 450);
        assert_eq!(after(1, 1.0).as_millis(), 550);
    }
}
