//! The node agent: which pods there are, what is steered, and what happens when somebody who should
//! serve does not. Steering itself is `cairn-kernel-redirect`'s, serving is the workers'.

pub mod agent;
mod cgroup;
pub mod cluster;
pub mod enrol_error;
pub mod enrolment;
pub mod guard;
pub mod namespace;
pub mod pod;
mod process;
mod relist;
pub mod site;
pub mod slots;
pub mod source;
pub mod steering;
pub mod watchdog;

pub use agent::Agent;
pub use cluster::PodsOfCluster;
pub use namespace::Namespace;
pub use pod::Pod;
pub use site::Site;
pub use slots::Slots;
pub use source::{PodList, PodSource, PodsFile};
pub use steering::Steering;
pub use watchdog::Beat;
