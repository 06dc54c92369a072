//! Ring hash: every endpoint has points on a circle, a key belongs to the next point. When an endpoint
//! goes, only its keys move. Lookup by binary search.

use std::sync::Arc;

use cairn_config_schema::limits::RING_POINTS_MAX;
use xxhash_rust::xxh64::xxh64;

use crate::endpoint::LiveEndpoint;

#[derive(Debug)]
pub(super) struct Ring(Box<[(u64, u32)]>);

impl Ring {
    pub(super) fn build(members: &[Arc<LiveEndpoint>], points_min: u32) -> Self {
        let weight = |e: &Arc<LiveEndpoint>| u64::from(e.endpoint.weight.max(1));
        let total: u64 = members.iter().map(weight).sum::<u64>().max(1);
        // A power of two, so that the number of endpoints seldom changes what each of them has: more
        // points for one are keys taken from another.
        let each = u64::from(points_min).div_ceil(total).next_power_of_two();
        let each = each.min(u64::from(RING_POINTS_MAX) / total).max(1);
        let mut points = Vec::new();
        for (at, member) in members.iter().enumerate() {
            let own = each * weight(member);
            let name = member.endpoint.address.to_string();
            // Each point by its number as the seed: no string to make for each of them.
            points.extend((0..own).map(|n| (xxh64(name.as_bytes(), n), at as u32)));
        }
        points.sort_unstable();
        Self(points.into())
    }

    /// The members whose points follow a key, nearest first; each as often as it has points.
    pub(super) fn from(&self, hash: u64) -> impl Iterator<Item = usize> {
        let start = self.0.partition_point(|(point, _)| *point < hash);
        let (before, after) = self.0.split_at(start);
        after.iter().chain(before).map(|(_, at)| *at as usize)
    }
}
