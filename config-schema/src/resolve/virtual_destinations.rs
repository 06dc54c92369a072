//! Destinations of VirtualServices: a host, a port and a subset as a cluster (specs/policies.md 2.6).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::destination_rules::Subset;
use super::route_backends::by_host;
use super::virtual_services::full_host;
use crate::origin::ObjectKey;
use crate::resources::virtual_service::Destination;
use crate::snapshot::{ClusterKey, Mesh, Service};

/// Looks up what destinations point to.
pub(super) struct Destinations<'a> {
    mesh: &'a Mesh,
    services: &'a BTreeMap<ObjectKey, Service>,
    subsets: &'a BTreeMap<ClusterKey, Subset>,
}

/// Why a destination leads nowhere: the field at fault, the reason, what to do.
pub(super) struct Nowhere {
    pub field: &'static str,
    pub reason: String,
    pub hint: String,
}

impl<'a> Destinations<'a> {
    /// Looks them up among these services.
    pub fn new(
        mesh: &'a Mesh,
        services: &'a BTreeMap<ObjectKey, Service>,
        subsets: &'a BTreeMap<ClusterKey, Subset>,
    ) -> Self {
        Self {
            mesh,
            services,
            subsets,
        }
    }

    /// The cluster of a destination in an object of `namespace`, for requests that came to
    /// `dialled_port`.
    pub fn find(
        &self,
        written: &Destination,
        namespace: &str,
        dialled_port: u16,
    ) -> Result<ClusterKey, Nowhere> {
        let nowhere = |field, reason: String, hint: String| Nowhere {
            field,
            reason,
            hint,
        };
        let host = full_host(&written.host, namespace, self.mesh);
        let Some(service) = by_host(self.services, &host, namespace) else {
            let reason = format!("no Service has the host '{}'", written.host);
            let hint = "a name without dots is one of the VirtualService's namespace; others are written in full";
            return Err(nowhere("host", reason, hint.to_owned()));
        };
        let only = match service.ports.as_slice() {
            [only] => Some(only.number),
            _ => None,
        };
        let wanted = written.port.as_ref().map(|port| port.number);
        let number = wanted.or(only).unwrap_or(dialled_port);
        let declared = |number| service.ports.iter().any(|p| p.number == number);
        if !declared(number) {
            let numbers: Vec<String> = service.ports.iter().map(|p| p.number.to_string()).collect();
            let reason = format!("Service {} has no port {number}", service.key);
            let hint = format!("it has: {}", numbers.join(", "));
            return Err(nowhere("port", reason, hint));
        }
        let whole = ClusterKey::new(service.key.clone(), number);
        let Some(subset) = written.subset.as_deref().filter(|s| !s.is_empty()) else {
            return Ok(whole);
        };
        let key = whole.with_subset(Arc::from(subset));
        if self.subsets.contains_key(&key) {
            return Ok(key);
        }
        let reason = format!("no DestinationRule in force has a subset '{subset}' of {host}");
        let hint = "name one of the subsets of its DestinationRule";
        Err(nowhere("subset", reason, hint.to_owned()))
    }
}
