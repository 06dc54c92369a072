//! Names of endpoints outside the mesh, looked up beforehand and again when answers expire, so that no
//! request waits for DNS but the first for a name inside of a wildcard (specs/istio-waypoint.md 4.2).

pub mod answer;
mod follow;
mod resolver;
mod room;
mod state;

pub use answer::Answer;
pub use follow::{Following, start};
pub use resolver::Servers;
pub use state::Names;
