//! What the chains of one snapshot have in common, made once.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_authz::Egress;
use cairn_authz::jwt::InlineKeys;
use cairn_config_schema::snapshot::{ServicePort, Snapshot, Workload};
use rustc_hash::FxHashMap;

/// Pods by their addresses.
pub(super) type Callers = Arc<FxHashMap<IpAddr, Arc<Workload>>>;

/// The parts that are the same for every port. Immutable.
#[derive(Clone, Debug, Default)]
pub struct Common {
    pub(super) egress: Egress,
    pub(super) keys: InlineKeys,
    pub(super) callers: Callers,
}

impl Common {
    /// Those of a snapshot.
    pub fn compile(snapshot: &Snapshot) -> Self {
        Self {
            egress: Egress::compile(&snapshot.network),
            keys: InlineKeys::read(snapshot.authentications.all()),
            callers: callers(snapshot),
        }
    }
}

/// Empty, and then nobody asks, where no route looks at labels of callers.
fn callers(snapshot: &Snapshot) -> Callers {
    let mut ports = snapshot
        .services
        .values()
        .flat_map(|service| &service.ports);
    match ports.any(ServicePort::asks_for_caller_labels) {
        true => Arc::new(snapshot.workloads.clone()),
        false => Callers::default(),
    }
}
