//! A real Kubernetes for the tests, on this machine alone: upstream's etcd, API server and controllers as
//! processes, kubectl as the user, and a node that is played by the test, because there is no container
//! runtime. Nothing of the API server is imitated. Judges nothing; the tests do.

mod access;
mod api;
mod guard;
mod istiod;
mod kubectl;
mod node;
mod pod;
mod sandbox;
mod server;

pub use access::ADMIN;
pub use api::{Api, Event, Watch, collection};
pub use istiod::Istiod;
pub use kubectl::Said;
pub use node::{NODE, Node};
pub use server::ApiServer;
