//! The endpoints of one service port, replaced as a whole, and the choice of one. Does not
//! discover endpoints and does not connect to them.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use cairn_config_schema::snapshot::{ClusterKey, Endpoint};
use rustc_hash::FxHashMap;

use crate::balance::Algorithm;
use crate::budget::{Budget, InFlight};
use crate::endpoint::LiveEndpoint;

/// A service port as a load-balancing target.
#[derive(Debug)]
pub struct Cluster {
    key: ClusterKey,
    algorithm: Algorithm,
    endpoints: ArcSwap<Vec<Arc<LiveEndpoint>>>,
    budget: Arc<Budget>,
}

impl Cluster {
    /// A cluster whose endpoints have served nothing yet.
    pub fn new(key: ClusterKey, endpoints: Arc<[Endpoint]>) -> Self {
        Self {
            key,
            algorithm: Algorithm::default(),
            endpoints: ArcSwap::from_pointee(merge(&[], &endpoints)),
            budget: Arc::default(),
        }
    }

    /// Service and port.
    pub fn key(&self) -> &ClusterKey {
        &self.key
    }

    /// Counts a request to this cluster, whatever endpoints it will try, until the guard is dropped.
    pub fn enter(&self) -> InFlight {
        self.budget.enter()
    }

    /// How many requests and retries are in flight.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Replaces the endpoints; the load of those that stay is kept. One caller at a time: of two
    /// concurrent updates one may be lost.
    pub fn update(&self, endpoints: Arc<[Endpoint]>) {
        let merged = merge(&self.endpoints.load(), &endpoints);
        self.endpoints.store(Arc::new(merged));
    }

    /// Picks an endpoint, by least requests of two (see `balance`), avoiding those whose address is
    /// in `tried` unless no other is left. `random` is uniform. `None`: there is no endpoint.
    pub fn pick(&self, random: u64, tried: &[SocketAddr]) -> Option<Arc<LiveEndpoint>> {
        let endpoints = self.endpoints.load();
        self.algorithm.pick(&endpoints, random, tried).cloned()
    }

    /// The endpoints in force.
    pub fn endpoints(&self) -> Arc<Vec<Arc<LiveEndpoint>>> {
        self.endpoints.load_full()
    }
}

/// The next set of endpoints, each address once; what stays keeps its state.
fn merge(old: &[Arc<LiveEndpoint>], next: &[Endpoint]) -> Vec<Arc<LiveEndpoint>> {
    let known: FxHashMap<SocketAddr, &Arc<LiveEndpoint>> =
        old.iter().map(|e| (e.endpoint.address, e)).collect();
    let mut seen = rustc_hash::FxHashSet::default();
    next.iter()
        .filter(|e| seen.insert(e.address))
        .map(|e| match known.get(&e.address) {
            Some(live) if live.endpoint == *e => (*live).clone(),
            Some(live) if same_pod(&live.endpoint, e) => Arc::new(live.renewed(e.clone())),
            _ => Arc::new(LiveEndpoint::new(e.clone())),
        })
        .collect()
}

/// Whether an address still belongs to the pod it belonged to. An address that passed to another
/// pod starts afresh: the load was the old pod's.
fn same_pod(old: &Endpoint, new: &Endpoint) -> bool {
    old.workload.as_ref().map(|w| &w.key) == new.workload.as_ref().map(|w| &w.key)
}

#[cfg(test)]
mod tests;
