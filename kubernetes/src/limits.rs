//! Limits on what is taken from the API server, each with its reason.

use std::time::Duration;

/// Objects of one page of a list: what `kubectl` asks for as well. A page of Pods is a few megabytes.
pub const PAGE_OBJECTS: u32 = 500;

/// Pages that are asked for and read at once. Each takes several times its size while it is read, and all kinds
/// are listed when a waypoint starts. The others wait.
pub const PAGES_AT_ONCE: usize = 4;

/// Levels of an object of the API server: with those around it fewer than the 128 at which serde_json would
/// fail with the whole page. Beyond: the parser refuses the object as nested too deep.
pub const OBJECT_LEVELS_MAX: usize = 120;

/// Levels put in place of what is nested too deep: with those above more than the parser takes
/// (`cairn_config_schema::limits::DEPTH_MAX`).
pub const TOO_DEEP_LEVELS: usize = 32;

/// ConfigMaps of one namespace that are followed because BackendTLSPolicies name them, each with a watch of its own.
/// Beyond: the last by name are as if they were not there, and the log says so.
pub const NAMED_PER_NAMESPACE_MAX: usize = 32;

/// The same of all namespaces.
pub const NAMED_MAX: usize = 512;

/// Size in bytes of the state that is stored for the next start. A hundred thousand Pods have 50 MiB.
/// Beyond: nothing is stored, and the log says so.
pub const STATE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Size in bytes of what a waypoint answers to `/acknowledged`: its 20,000 objects with names as long as they may be
/// are 14 MiB. Beyond: it counts as no answer.
pub const ACKNOWLEDGED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a waypoint may take to acknowledge; a ready one answers within milliseconds.
pub const ACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(2);

/// Pods of one Gateway that are asked at the same time. Beyond: they wait their turn.
pub const PODS_ASKED_AT_ONCE: usize = 32;

/// Gateways and statuses that the controller sees to at the same time. Beyond: they wait in its queue, which holds no
/// more than there are objects.
pub const TASKS_AT_ONCE: usize = 16;

/// Entries of `status.parents` of a route: the API takes no more, and a longer list is refused whole. Those of other
/// controllers come first; beyond, parentRefs of ours have no entry.
pub const PARENTS_MAX: usize = 32;

/// Entries of `status.ancestors` of a policy, likewise.
pub const ANCESTORS_MAX: usize = 16;

/// Size in bytes of what a pod may answer to people who ask it through the API server: what it acknowledges, or its
/// metrics with all their labels. Beyond: it counts as no answer.
pub const POD_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long people wait for a pod's answer through the API server.
pub const POD_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Objects of which pods have another text in force, that are read again before that is told to people. Beyond: it is
/// told of them as they were first read.
pub const READ_AGAIN_MAX: usize = 100;

/// Pods that people ask at the same time. Beyond: they wait their turn.
pub const PODS_ASKED_BY_PEOPLE: usize = 16;
