//! What TrafficPolicies let through, alive: buckets and places that outlive snapshots, and by what a
//! request is counted, here or by a rate limit service. How a refused request is answered is `proxy/throttle.rs`'s to say.

mod descriptors;
mod key;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;
use cairn_config_schema::origin::{ObjectKey, Origin};
use cairn_config_schema::snapshot::{LimitTarget, RateLimit, Snapshot, TrafficLimits};
use cairn_routing::{Bucket, KeyedBuckets, Place, Places, Rate, Share};
use rustc_hash::FxHashMap;

pub use self::descriptors::request;
pub use self::key::Counted;
use crate::clock::now_ns;
use crate::limits::{RATE_LIMIT_KEYS_MAX, RATE_LIMIT_SWEEP_INTERVAL};
use crate::runtime::Runtime;

/// One TrafficPolicy, alive.
#[derive(Debug)]
pub struct Limiter {
    /// What it says.
    pub limits: Arc<TrafficLimits>,
    /// Its rate limits, in the order written.
    pub counters: Vec<Arc<Counter>>,
    /// Places under its limit of requests at once.
    pub places: Arc<Places>,
    shares: FxHashMap<ObjectKey, Arc<Share>>,
}

/// One rate limit, alive.
#[derive(Debug)]
pub struct Counter {
    /// What it says.
    pub limit: RateLimit,
    rate: Rate,
    buckets: Buckets,
    tally: Tally,
}

#[derive(Debug)]
enum Buckets {
    One(Bucket),
    Keyed(KeyedBuckets),
}

#[derive(Debug, Default)]
struct Tally {
    passed: AtomicU64,
    limited: AtomicU64,
}

/// Why a request does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The policy could not be understood.
    Broken(Arc<str>),
    /// A rate limit has no token for it.
    Rate {
        /// The rate limit.
        name: Arc<str>,
        /// Nanoseconds until there is one.
        wait_ns: u64,
    },
    /// As many requests as may be are being answered.
    Places(u32),
}

/// Every limiter, by what it is for.
#[derive(Debug, Default)]
pub struct Limiters {
    all: Vec<Arc<Limiter>>,
    of_waypoint: Arc<[Arc<Limiter>]>,
    of_services: FxHashMap<ObjectKey, Arc<[Arc<Limiter>]>>,
    of_routes: FxHashMap<Origin, Arc<[Arc<Limiter>]>>,
    asks: bool,
}

impl Limiters {
    /// Makes the limiters of a snapshot. What `previous` has counted goes on where the limit is the same.
    pub fn new(snapshot: &Snapshot, previous: Option<&Self>) -> Self {
        let kept = |origin: &Origin| {
            let mut all = previous?.all.iter();
            all.find(|limiter| limiter.limits.origin == *origin)
        };
        let all: Vec<Arc<Limiter>> = (snapshot.limits.iter())
            .map(|limits| Arc::new(Limiter::new(limits, snapshot, kept(&limits.origin))))
            .collect();
        let for_target = |target: &LimitTarget| -> Arc<[Arc<Limiter>]> {
            let has = |limiter: &&Arc<Limiter>| limiter.limits.targets.contains(target);
            all.iter().filter(has).cloned().collect()
        };
        let mut limiters = Self {
            of_waypoint: for_target(&LimitTarget::Waypoint),
            ..Self::default()
        };
        for target in all.iter().flat_map(|limiter| &limiter.limits.targets) {
            match target {
                LimitTarget::Waypoint => {}
                LimitTarget::Service(key) => {
                    let found = for_target(target);
                    limiters.of_services.insert(key.clone(), found);
                }
                LimitTarget::Route(route) => {
                    let found = for_target(target);
                    limiters.of_routes.insert(route.clone(), found);
                }
            }
        }
        limiters.asks = all.iter().any(|l| l.limits.global.is_some());
        limiters.all = all;
        limiters
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether any of them asks a rate limit service.
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// All of them, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Limiter>> {
        self.all.iter()
    }

    /// Those that a request for this service by this route has to pass, each once.
    pub fn of<'a>(
        &'a self,
        service: Option<&ObjectKey>,
        route: Option<&Origin>,
    ) -> impl Iterator<Item = &'a Arc<Limiter>> {
        let of_service = service.and_then(|key| self.of_services.get(key));
        let of_route = route.and_then(|origin| self.of_routes.get(origin));
        let earlier = move |limiter: &Arc<Limiter>, lists: &[Option<&Arc<[Arc<Limiter>]>>]| {
            let mut lists = lists.iter().flatten().flat_map(|list| list.iter());
            lists.any(|other| Arc::ptr_eq(other, limiter))
        };
        let first = Some(&self.of_waypoint);
        let second = of_service.into_iter().flat_map(|list| list.iter());
        let second = second.filter(move |limiter| !earlier(limiter, &[first]));
        let third = of_route.into_iter().flat_map(|list| list.iter());
        let third = third.filter(move |limiter| !earlier(limiter, &[first, of_service]));
        self.of_waypoint.iter().chain(second).chain(third)
    }
}

impl Limiter {
    fn new(limits: &Arc<TrafficLimits>, snapshot: &Snapshot, kept: Option<&Arc<Self>>) -> Self {
        let counter = |limit: &RateLimit| {
            let mut kept = kept.into_iter().flat_map(|limiter| &limiter.counters);
            let same = kept.find(|counter| counter.limit == *limit);
            same.cloned()
                .unwrap_or_else(|| Arc::new(Counter::new(limit.clone())))
        };
        let is_fair = limits.concurrency.is_some_and(|c| c.fair_share);
        let shared = snapshot.served().filter(|_| is_fair);
        let share = |key: &ObjectKey| kept.and_then(|kept| kept.shares.get(key)).cloned();
        Self {
            limits: limits.clone(),
            counters: limits.rates.iter().map(counter).collect(),
            places: kept.map_or_else(Arc::default, |kept| kept.places.clone()),
            shares: shared
                .map(|service| (service.key.clone(), share(&service.key).unwrap_or_default()))
                .collect(),
        }
    }

    /// Takes a place for a request, to be kept until it is over. `None`: there is no limit.
    ///
    /// # Errors
    /// [`Refusal::Places`].
    pub fn enter(&self, service: Option<&ObjectKey>) -> Result<Option<Place>, Refusal> {
        let Some(limit) = self.limits.concurrency else {
            return Ok(None);
        };
        let share = service.and_then(|key| self.shares.get(key));
        let place = self.places.take(share, limit.requests_max);
        place.map(Some).ok_or(Refusal::Places(limit.requests_max))
    }

    /// Takes a token of every rate limit.
    ///
    /// # Errors
    /// [`Refusal::Broken`], or [`Refusal::Rate`] of the first that has none. The others' tokens are gone.
    pub fn take(&self, counted: &Counted<'_>, now_ns: u64) -> Result<(), Refusal> {
        if let Some(reason) = &self.limits.broken {
            return Err(Refusal::Broken(reason.clone()));
        }
        for counter in &self.counters {
            counter.take(counted, now_ns).map_err(|wait_ns| {
                let name = counter.limit.name.clone();
                Refusal::Rate { name, wait_ns }
            })?;
        }
        Ok(())
    }
}

impl Counter {
    fn new(limit: RateLimit) -> Self {
        let buckets = match limit.by.as_slice() {
            [] => Buckets::One(Bucket::default()),
            _ => Buckets::Keyed(KeyedBuckets::new(RATE_LIMIT_KEYS_MAX)),
        };
        Self {
            rate: Rate::new(limit.requests, limit.interval_ms, limit.burst),
            limit,
            buckets,
            tally: Tally::default(),
        }
    }

    fn take(&self, counted: &Counted<'_>, now_ns: u64) -> Result<(), u64> {
        let taken = match &self.buckets {
            Buckets::One(bucket) => bucket.take(&self.rate, now_ns),
            Buckets::Keyed(buckets) => {
                let key = key::hash(&self.limit.by, counted);
                buckets.take(key, &self.rate, now_ns).token
            }
        };
        match taken {
            Ok(()) => self.tally.passed.fetch_add(1, Relaxed),
            Err(_) => self.tally.limited.fetch_add(1, Relaxed),
        };
        taken
    }

    /// Requests that passed, and that did not.
    pub fn tally(&self) -> (u64, u64) {
        let Tally { passed, limited } = &self.tally;
        (passed.load(Relaxed), limited.load(Relaxed))
    }

    /// Keys with a bucket of their own, and requests that had to share one.
    pub fn keys(&self) -> (usize, u64) {
        match &self.buckets {
            Buckets::One(_) => (0, 0),
            Buckets::Keyed(buckets) => (buckets.len(), buckets.shared()),
        }
    }

    fn sweep(&self, now_ns: u64) {
        if let Buckets::Keyed(buckets) = &self.buckets {
            buckets.sweep(now_ns);
        }
    }
}

/// Starts the thread that drops buckets as good as new.
///
/// # Errors
/// When it can not be started.
pub fn start(runtime: Arc<ArcSwap<Runtime>>) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("rate limits".to_owned());
    thread.spawn(move || {
        loop {
            std::thread::sleep(RATE_LIMIT_SWEEP_INTERVAL);
            let runtime = runtime.load();
            let counters = runtime.limiters().iter().flat_map(|l| &l.counters);
            counters.for_each(|counter| counter.sweep(now_ns()));
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
