//! An endpoint with its load and its health. Does not choose, judge or connect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use cairn_config_schema::snapshot::Endpoint;

use crate::ejection::Health;
use crate::session;

/// One endpoint of a cluster and what it is doing for us.
#[derive(Debug)]
pub struct LiveEndpoint {
    /// Address and workload.
    pub endpoint: Endpoint,
    // Shared with the `LiveEndpoint` that takes this one's place when only the pod's metadata
    // changes, so that requests in flight go on counting.
    state: Arc<State>,
    cluster_active: Arc<AtomicU32>,
    session_id: u64,
}

#[derive(Debug)]
struct State {
    active: AtomicU32,
    /// When it came, in milliseconds of the caller's clock.
    since_ms: AtomicU64,
    health: Health,
}

impl LiveEndpoint {
    pub(crate) fn new(endpoint: Endpoint, cluster_active: Arc<AtomicU32>, now_ms: u64) -> Self {
        let state = State {
            active: AtomicU32::new(0),
            since_ms: AtomicU64::new(now_ms),
            health: Health::default(),
        };
        Self {
            session_id: session::endpoint_id(&endpoint),
            endpoint,
            state: Arc::new(state),
            cluster_active,
        }
    }

    /// The same pod with newer metadata.
    pub(crate) fn renewed(&self, endpoint: Endpoint) -> Self {
        Self {
            session_id: session::endpoint_id(&endpoint),
            endpoint,
            state: self.state.clone(),
            cluster_active: self.cluster_active.clone(),
        }
    }

    /// What sessions call it.
    pub fn session_id(&self) -> u64 {
        self.session_id
    }

    /// Requests in flight.
    pub fn active(&self) -> u32 {
        // Relaxed: a heuristic; nothing else is read through it.
        self.state.active.load(Ordering::Relaxed)
    }

    /// When it came or came back from an ejection, in milliseconds of the caller's clock.
    pub fn since_ms(&self) -> u64 {
        self.state.since_ms.load(Ordering::Relaxed)
    }

    /// Starts slow again, as after an ejection.
    pub(crate) fn restart(&self, now_ms: u64) {
        self.state.since_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Its record as outlier detection sees it.
    pub fn health(&self) -> &Health {
        &self.state.health
    }

    /// Counts one request in flight until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> ActiveRequest {
        self.state.active.fetch_add(1, Ordering::Relaxed);
        self.cluster_active.fetch_add(1, Ordering::Relaxed);
        ActiveRequest {
            endpoint: self.clone(),
        }
    }
}

/// One request in flight at an endpoint, counted until dropped.
#[derive(Debug)]
pub struct ActiveRequest {
    endpoint: Arc<LiveEndpoint>,
}

impl ActiveRequest {
    /// The endpoint that serves it.
    pub fn endpoint(&self) -> &Arc<LiveEndpoint> {
        &self.endpoint
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.endpoint.state.active.fetch_sub(1, Ordering::Relaxed);
        self.endpoint.cluster_active.fetch_sub(1, Ordering::Relaxed);
    }
}
