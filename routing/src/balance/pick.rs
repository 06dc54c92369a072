//! The choice of an endpoint: priority, algorithm, and who is passed over. Replaced as a whole when
//! endpoints or settings change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use cairn_config_schema::snapshot::{Balancer, ClusterSettings, ConsistentHash, HashTable};

use super::dice::Dice;
use super::maglev::Maglev;
use super::ring::Ring;
use super::rotation::Rotation;
use super::shares::Shares;
use super::tiers::{self, Count, Place};
use super::{Choice, least_request, warmup};
use crate::endpoint::LiveEndpoint;

/// Draws before the endpoints are walked one by one.
pub(super) const DRAWS_MAX: u32 = 8;

/// The endpoints of a cluster, ready to be picked from.
#[derive(Debug)]
pub(crate) struct EndpointSet {
    pub(crate) all: Arc<Vec<Arc<LiveEndpoint>>>,
    pub(crate) settings: Arc<ClusterSettings>,
    tiers: Box<[Tier]>,
    /// Whether any is ejected: without, the first priority takes everything.
    some_ejected: AtomicBool,
    active: Arc<AtomicU32>,
}

/// The endpoints of one priority.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) members: Vec<Arc<LiveEndpoint>>,
    pub(super) shares: Shares,
    rotation: Rotation,
    table: Table,
}

#[derive(Debug)]
enum Table {
    None,
    Ring(Ring),
    Maglev(Maglev),
}

/// Who may be picked for one request.
struct Filter<'c> {
    set: &'c EndpointSet,
    choice: &'c Choice<'c>,
    panic: bool,
}

impl EndpointSet {
    pub(crate) fn new(
        all: Vec<Arc<LiveEndpoint>>,
        settings: Arc<ClusterSettings>,
        active: Arc<AtomicU32>,
        random: u64,
    ) -> Self {
        let mut priorities: Vec<u8> = all.iter().map(|e| e.endpoint.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let tiers = priorities.into_iter().map(|priority| {
            let members = all.iter().filter(|e| e.endpoint.priority == priority);
            Tier::new(members.cloned().collect(), &settings, random)
        });
        Self {
            tiers: tiers.collect(),
            some_ejected: AtomicBool::new(some_ejected(&all)),
            all: Arc::new(all),
            settings,
            active,
        }
    }

    /// To be called after an ejection or a return.
    pub(crate) fn health_changed(&self) {
        let some = some_ejected(&self.all);
        self.some_ejected.store(some, Ordering::SeqCst);
        // Whoever was ejected after that look may have said so before the store took it back.
        if !some && some_ejected(&self.all) {
            self.some_ejected.store(true, Ordering::SeqCst);
        }
    }

    /// Whether an endpoint was ejected when the set was made or by the last word on their health.
    pub(crate) fn has_ejected(&self) -> bool {
        self.some_ejected.load(Ordering::Relaxed)
    }

    /// Picks an endpoint; one that was tried only if there is no other. `None`: there is none, or all
    /// are ejected and the threshold for panic is 0.
    pub(crate) fn pick(&self, choice: &Choice<'_>) -> Option<&Arc<LiveEndpoint>> {
        if let Some(held) = choice.prefer.and_then(|id| self.held(id, choice)) {
            return Some(held);
        }
        let mut dice = Dice::new(choice.random);
        let place = self.place(&mut dice)?;
        let filter = Filter {
            set: self,
            choice,
            panic: place.panic,
        };
        let tier = self.tiers.get(place.tier)?;
        self.algorithm(tier, &mut dice, &filter)
            .or_else(|| self.walk(place.tier, &mut dice, |e| filter.untried(e)))
            .or_else(|| self.walk(place.tier, &mut dice, |e| filter.healthy(e)))
    }

    /// The endpoint of a session.
    fn held(&self, id: u64, choice: &Choice<'_>) -> Option<&Arc<LiveEndpoint>> {
        let filter = Filter {
            set: self,
            choice,
            panic: false,
        };
        self.find(id).filter(|e| filter.untried(e))
    }

    /// The endpoint that sessions know by this name.
    pub(crate) fn find(&self, session_id: u64) -> Option<&Arc<LiveEndpoint>> {
        self.all.iter().find(|e| e.session_id() == session_id)
    }

    /// Whether there is one that a request may go to.
    pub(crate) fn has_healthy(&self) -> bool {
        match self.some_ejected.load(Ordering::Relaxed) {
            false => !self.all.is_empty(),
            true => self.all.iter().any(|e| !e.health().is_ejected()),
        }
    }

    fn place(&self, dice: &mut Dice) -> Option<Place> {
        if !self.some_ejected.load(Ordering::Relaxed) {
            let (tier, panic) = (0, false);
            return (!self.tiers.is_empty()).then_some(Place { tier, panic });
        }
        let counts: Vec<Count> = self.tiers.iter().map(Tier::count).collect();
        let threshold = self.settings.balancing.panic_threshold_percent;
        tiers::choose(&counts, threshold, dice.below(100))
    }

    fn algorithm<'t>(
        &self,
        tier: &'t Tier,
        dice: &mut Dice,
        filter: &Filter<'_>,
    ) -> Option<&'t Arc<LiveEndpoint>> {
        let accept = |e: &LiveEndpoint, dice: &mut Dice| filter.untried(e) && filter.warm(e, dice);
        let any = |e: &LiveEndpoint, _: &mut Dice| filter.untried(e);
        match &self.settings.balancing.balancer {
            Balancer::LeastRequest => least_request::pick(tier, dice, accept),
            Balancer::RoundRobin => tier.draw(dice, |_| tier.rotation.next(&tier.shares), accept),
            Balancer::Random => tier.draw(dice, |dice| tier.shares.at(dice.roll()), any),
            Balancer::Hash(by) => match filter.choice.hash {
                Some(hash) => {
                    let mut keyed = tier.keyed(hash);
                    keyed.find(|e| filter.untried(e) && filter.within_bound(by, tier, e))
                }
                None => tier.draw(dice, |dice| tier.shares.at(dice.roll()), any),
            },
        }
    }

    /// The first that will do, from a random one on: in the priority itself, then in all others.
    fn walk(
        &self,
        first: usize,
        dice: &mut Dice,
        accept: impl Fn(&LiveEndpoint) -> bool,
    ) -> Option<&Arc<LiveEndpoint>> {
        let others = (0..self.tiers.len()).filter(|at| *at != first);
        std::iter::once(first).chain(others).find_map(|at| {
            let members = &self.tiers.get(at)?.members;
            let (before, after) = members.split_at_checked(dice.below(members.len()))?;
            after.iter().chain(before).find(|e| accept(e))
        })
    }
}

impl Tier {
    fn new(members: Vec<Arc<LiveEndpoint>>, settings: &ClusterSettings, random: u64) -> Self {
        let table = match &settings.balancing.balancer {
            Balancer::Hash(hash) => match hash.table {
                HashTable::Ring { points_min } => Table::Ring(Ring::build(&members, points_min)),
                HashTable::Maglev { size } => Table::Maglev(Maglev::build(&members, size)),
            },
            _ => Table::None,
        };
        Self {
            shares: Shares::of(&members),
            rotation: Rotation::starting_at(random),
            table,
            members,
        }
    }

    fn count(&self) -> Count {
        let healthy = self.members.iter().filter(|e| !e.health().is_ejected());
        Count {
            healthy: healthy.count(),
            all: self.members.len(),
        }
    }

    /// Draws until one is accepted, a few times.
    fn draw(
        &self,
        dice: &mut Dice,
        next: impl Fn(&mut Dice) -> usize,
        accept: impl Fn(&LiveEndpoint, &mut Dice) -> bool,
    ) -> Option<&Arc<LiveEndpoint>> {
        (0..DRAWS_MAX).find_map(|_| {
            let drawn = self.members.get(next(dice))?;
            accept(drawn, dice).then_some(drawn)
        })
    }

    /// The endpoints for a key, the one it belongs to first.
    fn keyed(&self, hash: u64) -> impl Iterator<Item = &Arc<LiveEndpoint>> {
        let ring = match &self.table {
            Table::Ring(ring) => Some(ring.from(hash)),
            _ => None,
        };
        let maglev = match &self.table {
            Table::Maglev(maglev) => Some(maglev.from(hash)),
            _ => None,
        };
        let places = ring
            .into_iter()
            .flatten()
            .chain(maglev.into_iter().flatten());
        places.filter_map(|at| self.members.get(at))
    }
}

impl Filter<'_> {
    fn healthy(&self, endpoint: &LiveEndpoint) -> bool {
        self.panic || !endpoint.health().is_ejected()
    }

    fn untried(&self, endpoint: &LiveEndpoint) -> bool {
        self.healthy(endpoint) && !self.choice.tried.contains(&endpoint.endpoint.address)
    }

    /// Whether an endpoint that is new gets this request already.
    fn warm(&self, endpoint: &LiveEndpoint, dice: &mut Dice) -> bool {
        let Some(warmup) = &self.set.settings.balancing.warmup else {
            return true;
        };
        let age_ms = self.choice.now_ms.saturating_sub(endpoint.since_ms());
        let part = warmup::part(warmup, age_ms);
        part >= 1.0 || dice.fraction() < part
    }

    /// Whether an endpoint has not more than its bound (Mirrokni et al., consistent hashing with
    /// bounded loads), with this request.
    fn within_bound(&self, by: &ConsistentHash, tier: &Tier, endpoint: &LiveEndpoint) -> bool {
        let Some(percent) = by.load_bound_percent else {
            return true;
        };
        let active = u64::from(self.set.active.load(Ordering::Relaxed)) + 1;
        let count = tier.members.len() as u64;
        let bound = (active * u64::from(percent)).div_ceil(count.max(1) * 100);
        u64::from(endpoint.active()) < bound
    }
}

fn some_ejected(endpoints: &[Arc<LiveEndpoint>]) -> bool {
    endpoints.iter().any(|e| e.health().is_ejected())
}
