//! Shares of backends.

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{BackendTarget, ClusterKey};
use proptest::prelude::*;

use super::*;

fn backends(weights: &[u32]) -> Vec<Backend> {
    let backend = |(at, weight): (usize, &u32)| Backend {
        weight: *weight,
        target: if at % 3 == 2 {
            BackendTarget::Invalid("no such service".into())
        } else {
            BackendTarget::Cluster(ClusterKey::new(
                ObjectKey::new("default", format!("s{at}")),
                80,
            ))
        },
        filters: Vec::new(),
    };
    weights.iter().enumerate().map(backend).collect()
}

/// Which backend was chosen, told by its place in the list.
fn chosen(backends: &[Backend], random: u64) -> Option<usize> {
    let found = choose(backends, random)?;
    backends.iter().position(|b| std::ptr::eq(b, found))
}

#[test]
fn no_backends_no_choice() {
    assert_eq!(chosen(&[], 7), None);
    assert_eq!(chosen(&backends(&[0, 0]), 7), None);
}

#[test]
fn a_single_backend_gets_everything() {
    let one = backends(&[5]);
    for random in [0, 1, u64::MAX] {
        assert_eq!(chosen(&one, random), Some(0));
    }
}

#[test]
fn the_share_of_an_invalid_backend_is_not_given_to_the_others() {
    let three = backends(&[1, 1, 2]);
    let invalid = (0..400).filter(|r| chosen(&three, *r) == Some(2)).count();
    assert_eq!(invalid, 200);
}

#[test]
fn the_largest_weights_do_not_overflow() {
    let large = backends(&[u32::MAX; 16]);
    assert!(chosen(&large, u64::MAX).is_some());
}

proptest! {
    /// The oracle writes a ticket for each unit of weight and counts.
    #[test]
    fn over_a_cycle_every_backend_gets_exactly_its_weight(
        weights in prop::collection::vec(1..50u32, 1..8),
        start in any::<u32>(),
    ) {
        let backends = backends(&weights);
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let mut counts = vec![0; weights.len()];
        for random in u64::from(start)..u64::from(start) + total {
            counts[chosen(&backends, random).unwrap()] += 1;
        }
        prop_assert_eq!(counts, weights);
    }
}
