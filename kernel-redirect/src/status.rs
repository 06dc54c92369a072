//! What can be seen of the redirect from outside: plain values for `cairn node status`.

use crate::FlaggedService;

/// A pod whose connections are steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnrolledPod {
    /// Of its network namespace, see [`netns_cookie`](crate::netns_cookie); or what
    /// [`host_key`](crate::host_key) says of its cgroup, if its listener is in the host's namespace.
    pub netns_cookie: u64,
    /// Port of its listener.
    pub listener_port: u16,
    /// Whether it can be reached at slots of IPv6, which must be routed first
    /// ([`route_ipv6_slots`](crate::route_ipv6_slots), [`route_host_slots`](crate::route_host_slots)).
    /// Without, its IPv6 sockets are steered to slots of IPv4, which those that are IPV6_V6ONLY can
    /// not reach.
    pub ipv6_slots: bool,
}

/// Tells ids of cgroups from cookies of network namespaces: both count up from small numbers.
const BY_CGROUP: u64 = 1 << 63;

/// Folders between the root of all cgroups and a pod's, that one included, if it is to be known by that:
/// the program looks no deeper for who connects.
pub const CGROUP_DEPTH_MAX: usize = 12;

/// What the kernel knows a pod by whose listener is in the host's network namespace: the id (inode
/// number) of its cgroup. Its processes are in it or in folders below.
#[must_use]
pub fn host_key(cgroup_id: u64) -> u64 {
    cgroup_id | BY_CGROUP
}

/// Whether this is what [`host_key`] makes.
#[must_use]
pub fn is_host_key(key: u64) -> bool {
    key & BY_CGROUP != 0
}

/// How much there is room for in the kernel's maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Flagged services. By the count of kernel 6.18 room for one is 32 bytes in both maps, and one
    /// that is there 176 more.
    pub services: u32,
    /// Pods.
    pub pods: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            services: 65_536,
            pods: 4_096,
        }
    }
}

/// The redirect as it is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Version of the layout of maps and pins.
    pub layout: u32,
    /// Folders of other layouts that are still there: an upgrade or downgrade not finished.
    pub other_layouts: Vec<String>,
    /// The four programs.
    pub programs: Vec<ProgramStatus>,
    /// Maps and how full they are.
    pub maps: Vec<MapStatus>,
    /// Enrolled pods.
    pub pods: Vec<PodStatus>,
    /// Flagged services, by address and port.
    pub services: Vec<FlaggedService>,
    /// Since the maps were made.
    pub counters: Counters,
    /// Id (inode number) of the cgroup whose processes are never steered.
    pub own_cgroup_id: u64,
    /// What of the kernel is in use, and if not, why.
    pub features: Vec<Feature>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramStatus {
    /// Its name, e.g. `cairn_connect4`.
    pub name: &'static str,
    /// The kernel's id for it; `None` if it is not attached.
    pub id: Option<u32>,
    /// Id (inode number) of the cgroup it is attached to; `None` if that is gone or never was.
    pub cgroup_id: Option<u64>,
    /// How often it ran. Counts only while `kernel.bpf_stats_enabled` is on.
    pub runs: u64,
    /// How long it ran in all, in nanoseconds; as `runs`.
    pub run_time_ns: u64,
}

impl ProgramStatus {
    /// Whether it is attached to a cgroup that exists.
    #[must_use]
    pub fn attached(&self) -> bool {
        self.id.is_some() && self.cgroup_id.is_some()
    }
}

/// A map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapStatus {
    /// Its name, e.g. `cairn_services`.
    pub name: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// Entries it has room for.
    pub limit: u32,
}

/// A pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodStatus {
    /// Of its network namespace.
    pub netns_cookie: u64,
    /// Port of the listener in that namespace.
    pub listener_port: u16,
    /// Whether IPv6 sockets that are IPV6_V6ONLY can be steered: needs IPv6 on the pod's loopback.
    pub ipv6_slots: bool,
    /// Whether the listener is there: if not, each service's failure mode applies.
    pub listening: bool,
}

/// What happened to connections to flagged services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sent to the pod's listener.
    pub steered: u64,
    /// No listener, service fails closed: refused.
    pub refused: u64,
    /// No listener, service fails open: went direct.
    pub opened: u64,
    /// From sockets bound to a device that does not reach loopback; each is also in `refused` or
    /// `opened`.
    pub unreachable: u64,
    /// From a network namespace that is not enrolled (hostNetwork, pods the agent does not know):
    /// went direct.
    pub not_enrolled: u64,
    /// The waypoint's own: went direct.
    pub own: u64,
}

impl Counters {
    /// Each with its name.
    #[must_use]
    pub fn by_name(&self) -> [(&'static str, u64); 6] {
        [
            ("steered", self.steered),
            ("refused", self.refused),
            ("opened", self.opened),
            ("unreachable", self.unreachable),
            ("not_enrolled", self.not_enrolled),
            ("own", self.own),
        ]
    }
}

/// Something the kernel may or may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// What it is called.
    pub name: &'static str,
    /// Whether it is used.
    pub in_use: bool,
    /// What it gives, or why it is not used and what that means.
    pub why: String,
}

/// What detaching took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Detached {
    /// Programs detached.
    pub programs: usize,
    /// Maps removed.
    pub maps: usize,
}
