//! Cairn on Kubernetes: what is watched, what the controller makes and writes, what people ask. Knows
//! the API server; serves no traffic and decides nothing about it.

pub mod attach;
pub mod client;
pub mod cluster;
pub mod controller;
pub mod detach;
pub mod doctor;
pub mod enrolment;
mod json;
pub mod kinds;
pub mod limits;
pub mod objects;
pub mod pod;
pub mod status;
mod versions;
pub mod watch;
