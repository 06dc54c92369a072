//! What may be configured, and what it means.
//!
//! Parse (`parse`): YAML or JSON becomes typed resources, every unknown field a diagnostic with its
//! line. Resolve (`resolve`): a pure function from resources to a [`snapshot::Snapshot`], every
//! reference followed or turned into a diagnostic and a safe outcome. This crate has no clock, no
//! socket, no randomness and no async; it never reads a file.

pub mod diagnostics;
pub mod discovered;
mod duration;
pub mod identity;
pub mod limits;
pub mod origin;
pub mod parse;
pub mod resolve;
pub mod resources;
pub mod snapshot;
pub mod status;
pub mod store;
pub mod translate;
