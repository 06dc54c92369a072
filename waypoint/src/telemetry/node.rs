//! The node agent's metrics: where pods, services and the kernel's maps stand, and what the watchdog
//! noticed. Set by the agent from time to time; a waypoint without one shows none of them.

use cairn_kernel_redirect::{Counters, Sizes};
use prometheus::proto::MetricFamily;

use super::instruments::{ByLabel, Instrument};
use super::names;

static PODS: ByLabel = ByLabel::new(&names::NODE_PODS);
static SERVICES: ByLabel = ByLabel::new(&names::NODE_SERVICES);
static MAP_ENTRIES: ByLabel = ByLabel::new(&names::NODE_MAP_ENTRIES);
static MAP_LIMIT: ByLabel = ByLabel::new(&names::NODE_MAP_LIMIT);
static CONNECTIONS: ByLabel = ByLabel::new(&names::NODE_CONNECTIONS);
static EVENTS: ByLabel = ByLabel::new(&names::NODE_EVENTS);

/// Something that the watchdog noticed.
#[derive(Clone, Copy, Debug)]
pub enum NodeEvent {
    /// A worker answers no more.
    WorkerHung,
    /// It answers again.
    WorkerBack,
    /// The whole process stood still.
    StoodStill,
    /// The guard beside it is no more.
    GuardEnded,
}

impl NodeEvent {
    const ALL: [Self; 4] = [
        Self::WorkerHung,
        Self::WorkerBack,
        Self::StoodStill,
        Self::GuardEnded,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::WorkerHung => "worker_hung",
            Self::WorkerBack => "worker_back",
            Self::StoodStill => "stood_still",
            Self::GuardEnded => "guard_ended",
        }
    }
}

/// Counts it.
pub fn event(event: NodeEvent) {
    EVENTS.inc(event.label());
}

/// Where an agent stands; numbers of pods, services and slots.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeState {
    /// Enrolled, and a worker that lives has their listener.
    pub served: usize,
    /// Enrolled, and none has: each service's failure mode applies.
    pub unserved: usize,
    /// Listed and not enrolled.
    pub failing: usize,
    /// Known to the kernel from before.
    pub earlier: usize,
    /// Flagged services.
    pub services: usize,
    /// Slots with a name.
    pub slots: usize,
    /// Services that should be flagged and are not.
    pub left_out: usize,
    /// What there is room for.
    pub sizes: Sizes,
    /// The kernel's counters; `None` if they can not be read.
    pub connections: Option<Counters>,
}

/// Where the roll of a node's pods stands, that comes from the API server; numbers of pods.
#[derive(Clone, Copy, Debug, Default)]
pub struct RollState {
    /// No process of theirs is there yet.
    pub awaited: usize,
    /// The same, for more than ten seconds.
    pub overdue: usize,
    /// The API server has them no more, and processes of theirs run on.
    pub lingering: usize,
    /// Never steered: on the host's network, or without a service account.
    pub left_out: usize,
}

/// Shows it until the next time.
pub fn roll(state: &RollState) {
    for (label, value) in [
        ("awaited", state.awaited),
        ("overdue", state.overdue),
        ("lingering", state.lingering),
        ("left_out", state.left_out),
    ] {
        PODS.set(label, value as u64);
    }
}

/// Shows it until the next time.
pub fn state(state: &NodeState) {
    EVENTS.preset(NodeEvent::ALL.map(NodeEvent::label));
    let set = |of: &ByLabel, values: &[(&'static str, u64)]| {
        for (label, value) in values {
            of.set(label, *value);
        }
    };
    let pods = [
        ("served", state.served as u64),
        ("unserved", state.unserved as u64),
        ("failed", state.failing as u64),
        ("earlier", state.earlier as u64),
    ];
    set(&PODS, &pods);
    let services = [
        ("flagged", state.services as u64),
        ("left_out", state.left_out as u64),
    ];
    set(&SERVICES, &services);
    let in_kernel = state.served + state.unserved + state.earlier;
    let entries = [
        ("cairn_services", state.services as u64),
        ("cairn_slots", state.slots as u64),
        ("cairn_pods", in_kernel as u64),
        ("cairn_listeners", state.served as u64),
    ];
    set(&MAP_ENTRIES, &entries);
    let limits = [
        ("cairn_services", u64::from(state.sizes.services)),
        ("cairn_slots", u64::from(state.sizes.services)),
        ("cairn_pods", u64::from(state.sizes.pods)),
        ("cairn_listeners", u64::from(state.sizes.pods)),
    ];
    set(&MAP_LIMIT, &limits);
    if let Some(counters) = state.connections {
        set(&CONNECTIONS, &counters.by_name());
    }
}

/// Everything above, as a scrape shows it.
pub fn families() -> impl Iterator<Item = MetricFamily> {
    let all: [&dyn Instrument; 6] = [
        &PODS,
        &SERVICES,
        &MAP_ENTRIES,
        &MAP_LIMIT,
        &CONNECTIONS,
        &EVENTS,
    ];
    all.into_iter().filter_map(|i| i.family())
}
