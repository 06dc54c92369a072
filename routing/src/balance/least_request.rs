//! Least request by power of two choices: of two random endpoints the one with fewer requests in
//! flight. Not the least of all, for then every worker would run to the same endpoint at once.

use std::sync::Arc;

use super::dice::Dice;
use super::pick::Tier;
use crate::endpoint::LiveEndpoint;

/// `accept` says who may be picked; tried a few times, then `None`.
pub(super) fn pick<'t>(
    tier: &'t Tier,
    dice: &mut Dice,
    accept: impl Fn(&LiveEndpoint, &mut Dice) -> bool,
) -> Option<&'t Arc<LiveEndpoint>> {
    let first = draw(tier, dice, &accept, None)?;
    // A second one that is another: with two endpoints the less loaded is picked always. Of endpoints
    // that weigh differently only those of the same weight stand for each other (those of one place):
    // the less loaded of all would be the lighter ones, and no share be kept under load.
    let equal = |e: &LiveEndpoint, dice: &mut Dice| {
        e.endpoint.weight == first.endpoint.weight && accept(e, dice)
    };
    let Some(second) = draw(tier, dice, &equal, Some(first)) else {
        return Some(first);
    };
    Some(if second.active() < first.active() {
        second
    } else {
        first
    })
}

fn draw<'t>(
    tier: &'t Tier,
    dice: &mut Dice,
    accept: &impl Fn(&LiveEndpoint, &mut Dice) -> bool,
    other_than: Option<&Arc<LiveEndpoint>>,
) -> Option<&'t Arc<LiveEndpoint>> {
    for _ in 0..super::pick::DRAWS_MAX {
        let drawn = tier.members.get(tier.shares.at(dice.roll()))?;
        if other_than.is_some_and(|other| Arc::ptr_eq(other, drawn)) {
            continue;
        }
        if accept(drawn, dice) {
            return Some(drawn);
        }
    }
    None
}
