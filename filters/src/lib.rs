//! Everything that may look at or change a request or response, and the one order it happens in.
//!
//! [`chain`] is that order; the data path and `cairn explain` both run it. The other modules each do one
//! thing. This crate opens no connection and moves no bytes; clock and random numbers are arguments.

pub mod authority;
pub mod chain;
pub mod connect;
pub mod cors;
mod decision;
pub mod external;
pub mod fault;
pub mod grpc_timeout;
pub mod header_change;
pub mod hygiene;
pub mod login;
pub mod normalise;
pub mod outcome;
pub mod redirect;
pub mod rewrite;
mod trial;

pub use chain::{Answer, Decision, Destination, Failure, PortChain, RequestView, ResponseChanges};
pub use header_change::Headers;
pub use normalise::{Rejection, Target, normalise};
pub use outcome::{Fault, LocalReply, Outcome};
