//! What the endpoints show and may do, as the rest of the process hands it to them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use cairn_config_schema::snapshot::{ClusterKey, Snapshot};
use cairn_routing::Cluster;

use super::readiness::Readiness;
use crate::explain::{Question, Report};
use crate::hubble::flows::Teller;
use crate::jwks::Jwks;
use crate::telemetry::flow::Ring;
use crate::telemetry::series::Registry;
use crate::throttle::Limiter;

/// How the last attempt to read the configuration came out.
#[derive(Clone, Debug)]
pub struct Reload {
    /// When.
    pub at: SystemTime,
    /// From the change noticed to the snapshot in force, or to the failure.
    pub took: Duration,
    /// The version it brought, or why what was in force still is.
    pub outcome: Result<u64, String>,
}

/// The cluster that requests are balanced over now; `None` when there is none.
pub type LiveCluster = dyn Fn(&ClusterKey) -> Option<Arc<Cluster>> + Send + Sync;

/// The flow records, and how they are told.
pub type FlowRecords = Option<(Arc<Ring>, Arc<Teller>)>;

/// What would become of a request under the configuration in force.
pub type Explain = dyn Fn(Question<'_>) -> anyhow::Result<Report> + Send + Sync;

/// Sets the filter of the process's own log, `info` or `cairn=debug,h2=warn`; the error says what
/// is wrong with it.
pub type SetLogFilter = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Everything the endpoints need. Closures, because what they reach into belongs to others.
pub struct AdminState {
    /// Asked by `/healthz/ready`.
    pub readiness: Arc<Readiness>,
    /// The snapshot in force; `None` before the first.
    pub snapshot: Box<dyn Fn() -> Option<Arc<Snapshot>> + Send + Sync>,
    /// The last reload; written by whoever publishes.
    pub last_reload: Arc<ArcSwapOption<Reload>>,
    /// Keys that verify tokens, for `/config_dump` and `/metrics`.
    pub jwks: Arc<Jwks>,
    /// Asked by `/clusters`, `/config_dump` and `/metrics`.
    pub live_cluster: Box<LiveCluster>,
    /// Asked by `/config_dump` and `/metrics`.
    pub limiters: Box<dyn Fn() -> Vec<Arc<Limiter>> + Send + Sync>,
    /// Asked by `/api/flows` and `/api/map`; `None`: no records are kept.
    pub flows: FlowRecords,
    /// Asked by `/api/explain`.
    pub explain: Box<Explain>,
    /// Called by `/logging`.
    pub set_log_filter: Box<SetLogFilter>,
    /// Begins to drain, as SIGTERM does.
    pub quit: Box<dyn Fn() + Send + Sync>,
    /// What a scrape reads: [`crate::telemetry::metrics::registry`].
    pub registry: Arc<Registry>,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}
