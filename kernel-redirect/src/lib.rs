//! The kernel redirect: connections to L7-flagged services are steered to the node's waypoint while
//! they connect, everything else stays in the kernel. Loads the eBPF program, fills its maps and
//! tells their state; which services and pods there are, and what becomes of a steered connection,
//! is the caller's. The only crate that holds unsafe code. README.md beside this folder tells how it
//! works.

mod error;
mod flagged;
mod slot;
mod status;

#[cfg(any(kernel, test))]
mod changes;
#[cfg(kernel)]
mod earlier;
#[cfg(kernel)]
mod host;
#[cfg(kernel)]
mod inspect;
#[cfg(kernel)]
mod kernel;
#[cfg(kernel)]
mod layout;
#[cfg(kernel)]
mod listener;
#[cfg(kernel)]
mod load;
#[cfg(kernel)]
mod maps;
#[cfg(kernel)]
mod redirect;
#[cfg(kernel)]
mod stranger;

#[cfg(kernel)]
mod claim;

#[cfg(not(kernel))]
mod absent;

#[cfg(target_os = "linux")]
pub mod existing;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
mod netns;
mod place;

#[cfg(not(kernel))]
pub use absent::{
    Claim, LinkError, Redirect, pod_link, requirements, route_host_slots, route_ipv6_slots,
};
#[cfg(kernel)]
pub use claim::Claim;
pub use error::RedirectError;
pub use flagged::{FlaggedService, LeftOut, LeftOutReason, ServicesReport};
#[cfg(kernel)]
pub use host::{LinkError, pod_link, route_host_slots};
#[cfg(target_os = "linux")]
pub use netns::netns_cookie;
#[cfg(kernel)]
pub use netns::route_ipv6_slots;
#[cfg(kernel)]
pub use place::requirements;
pub use place::{Duty, Place, cgroup2_root};
#[cfg(kernel)]
pub use redirect::Redirect;
pub use slot::{SLOT_MAX, address_of, is_of_slots, slot_of};
pub use status::{
    CGROUP_DEPTH_MAX, Counters, Detached, EnrolledPod, Feature, MapStatus, PodStatus,
    ProgramStatus, Sizes, Status, host_key, is_host_key,
};
