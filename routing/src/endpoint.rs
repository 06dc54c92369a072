//! An endpoint with its load. Does not choose and does not connect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cairn_config_schema::snapshot::Endpoint;

/// One endpoint of a cluster and the number of requests it is serving for us.
#[derive(Debug)]
pub struct LiveEndpoint {
    /// Address and workload.
    pub endpoint: Endpoint,
    // Shared with the `LiveEndpoint` that takes this one's place when only the pod's metadata
    // changes, so that requests in flight go on counting.
    active: Arc<AtomicU32>,
}

impl LiveEndpoint {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            active: Arc::default(),
        }
    }

    /// The same pod with newer metadata.
    pub(crate) fn renewed(&self, endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            active: self.active.clone(),
        }
    }

    /// Requests in flight.
    pub fn active(&self) -> u32 {
        // Relaxed: a heuristic; nothing else is read through it.
        self.active.load(Ordering::Relaxed)
    }

    /// Counts one request in flight until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::Relaxed);
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
        self.endpoint.active.fetch_sub(1, Ordering::Relaxed);
    }
}
