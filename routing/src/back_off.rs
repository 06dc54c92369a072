//! How long to wait before a retry. Does not wait.

use cairn_config_schema::snapshot::BackOff;

/// Milliseconds before retry number `retry`, counted from 1. `random` is uniform. Exponential, and
/// random so that requests that failed together do not come back together.
pub fn delay_ms(back_off: &BackOff, retry: u32, random: u64) -> u64 {
    let doublings = retry.saturating_sub(1).min(63);
    let spread = back_off.spread_ms.saturating_mul(1 << doublings);
    let room = back_off.at_most_ms.saturating_sub(back_off.at_least_ms);
    // The bias of the remainder is nothing for spreads of minutes.
    let extra = random % spread.min(room).saturating_add(1).max(1);
    back_off.at_least_ms.saturating_add(extra)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: BackOff = BackOff {
        at_least_ms: 0,
        spread_ms: 0,
        at_most_ms: 0,
    };

    #[test]
    fn no_back_off_is_at_once() {
        assert_eq!(delay_ms(&NONE, 1, u64::MAX), 0);
    }

    #[test]
    fn the_mean_doubles_until_the_most() {
        let mean = |retry| {
            let sum: u64 = (0..10_000u64)
                .map(|n| {
                    delay_ms(
                        &BackOff::default(),
                        retry,
                        n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7,
                    )
                })
                .sum();
            sum as f64 / 10_000.0
        };
        for (retry, expected) in [
            (1, 12.5),
            (2, 25.0),
            (3, 50.0),
            (4, 100.0),
            (5, 125.0),
            (90, 125.0),
        ] {
            let mean = mean(retry);
            assert!((mean - expected).abs() < expected * 0.05, "{retry}: {mean}");
        }
    }

    proptest! {
        /// Against the definition, in arithmetic that can not overflow.
        #[test]
        fn a_delay_is_within_its_bounds(
            (at_least_ms, spread_ms, more) in any::<(u32, u32, u32)>(),
            (retry, random) in (1..100u32, any::<u64>()),
        ) {
            let at_most_ms = u64::from(at_least_ms) + u64::from(more);
            let back_off = BackOff {
                at_least_ms: at_least_ms.into(),
                spread_ms: spread_ms.into(),
                at_most_ms,
            };
            let delay = u128::from(delay_ms(&back_off, retry, random));
            let spread = u128::from(spread_ms) << (retry - 1).min(64);
            prop_assert!(delay >= u128::from(at_least_ms));
            prop_assert!(delay <= u128::from(at_most_ms));
            prop_assert!(delay <= u128::from(at_least_ms) + spread);
        }
    }
}
