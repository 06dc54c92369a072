//! Endpoints by their weights: a point on a line belongs to one of them, to each as much as it weighs.
//! Does not know load or health.

use std::sync::Arc;

use super::dice::scale;
use crate::endpoint::LiveEndpoint;

/// The line.
#[derive(Debug)]
pub(super) struct Shares {
    /// Where each one's part ends. Empty when all weigh the same.
    ends: Box<[u64]>,
    count: usize,
}

impl Shares {
    pub(super) fn of(members: &[Arc<LiveEndpoint>]) -> Self {
        let weight = |e: &Arc<LiveEndpoint>| u64::from(e.endpoint.weight.max(1));
        let first = members.first().map_or(1, weight);
        let ends = if members.iter().all(|e| weight(e) == first) {
            Box::default()
        } else {
            let mut end = 0;
            let part = |e| {
                end += weight(e);
                end
            };
            members.iter().map(part).collect()
        };
        Self {
            ends,
            count: members.len(),
        }
    }

    /// Whom a point belongs to; `point` may be any number, uniform ones give each its share.
    pub(super) fn at(&self, point: u64) -> usize {
        match self.ends.last() {
            None => scale(point, self.count as u64) as usize,
            Some(total) => {
                let place = scale(point, *total);
                self.ends.partition_point(|end| *end <= place)
            }
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether all weigh the same.
    pub(super) fn are_equal(&self) -> bool {
        self.ends.is_empty()
    }
}
