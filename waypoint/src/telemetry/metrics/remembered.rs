//! Label sets of the objects that exchanges point to, which a thread remembers by their addresses. Counts nothing.

use std::sync::{Arc, PoisonError};

use super::Shard;
use crate::limits::METRIC_BAGGAGE_CLIENTS_MAX;
use crate::telemetry::exchange::{Exchange, Peer, StreamOrigin};
use crate::telemetry::labels::{
    Baggage, DestinationLabels, ServiceLabels, SourceLabels, source_workload,
};
use crate::telemetry::series::UNKNOWN_ID;
use cairn_config_schema::snapshot::Workload;

/// Objects a thread remembers the label sets of. Beyond, it starts over: nothing is lost, for
/// counts are kept by label set.
const REMEMBERED_MAX: usize = 8_192;

/// What the labels of a client were made from; held for its address.
#[allow(dead_code)] // held, never read
pub(super) enum Client {
    Known(Arc<Peer>, Arc<Workload>),
    Stream(Arc<StreamOrigin>),
}

impl Shard {
    pub(super) fn source(&mut self, exchange: &Exchange) -> u32 {
        self.forget_if_due(exchange.snapshot);
        let (origin, workload) = (&exchange.origin, source_workload(exchange));
        let key = match workload {
            Some(workload) => (address(&origin.peer), address(workload)),
            None => (address(origin), 0),
        };
        if let Some((held, _)) = self.sources.get(&key) {
            return held.id;
        }
        let (labels, client) = match workload {
            Some(workload) => (
                SourceLabels::of_workload(&origin.peer.identity, workload, &self.registry.cluster),
                Client::Known(origin.peer.clone(), workload.clone()),
            ),
            None => (self.baggage_labels(origin), Client::Stream(origin.clone())),
        };
        let held = self.registry.sources.id(labels);
        let id = held.id;
        self.sources.insert(key, (held, client));
        id
    }

    /// Labels of a client that no Pod describes. What it says of itself is bounded, for any client
    /// could make up a new name in every stream.
    fn baggage_labels(&self, origin: &StreamOrigin) -> SourceLabels {
        let peer = &origin.peer.identity;
        let labels = SourceLabels::of_baggage(peer, &Baggage::parse(origin.baggage.as_ref()));
        let plain = SourceLabels::of_baggage(peer, &Baggage::default());
        if labels == plain {
            return plain;
        }
        let clients = &self.registry.baggage_clients;
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.contains(&labels) {
            labels
        } else if clients.len() < METRIC_BAGGAGE_CLIENTS_MAX {
            clients.insert(labels.clone());
            labels
        } else {
            self.registry.baggage_overflow.add(1);
            plain
        }
    }

    pub(super) fn destination(&mut self, exchange: &Exchange) -> u32 {
        let endpoint = exchange.endpoint.as_ref();
        let Some(workload) = endpoint.and_then(|e| e.workload.as_ref()) else {
            return UNKNOWN_ID;
        };
        if let Some((held, _)) = self.destinations.get(&address(workload)) {
            return held.id;
        }
        let labels = DestinationLabels::of_workload(workload, &self.registry.cluster);
        let held = self.registry.destinations.id(labels);
        let id = held.id;
        self.destinations
            .insert(address(workload), (held, workload.clone()));
        id
    }

    pub(super) fn service(&mut self, exchange: &Exchange) -> u32 {
        let Some(service) = &exchange.service else {
            return UNKNOWN_ID;
        };
        if let Some((held, _)) = self.services.get(&address(service)) {
            return held.id;
        }
        let labels = ServiceLabels::of_service(service);
        let held = self.registry.services.id(labels);
        let id = held.id;
        self.services
            .insert(address(service), (held, service.clone()));
        id
    }

    /// Lets go of the objects of the old configuration when a new one shows up, and of too many
    /// clients. Counts are not touched.
    fn forget_if_due(&mut self, snapshot: u64) {
        let newer = snapshot > self.snapshot;
        if newer || self.sources.len() >= REMEMBERED_MAX {
            self.sources.clear();
        }
        if newer || self.destinations.len() >= REMEMBERED_MAX {
            self.destinations.clear();
        }
        if newer || self.services.len() >= REMEMBERED_MAX {
            self.services.clear();
        }
        self.snapshot = self.snapshot.max(snapshot);
    }
}

fn address<T>(object: &Arc<T>) -> usize {
    Arc::as_ptr(object).addr()
}
