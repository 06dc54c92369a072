//! Who may do what, and why: policies compiled, verdicts, explanations.
//!
//! Pure: the facts of a request or stream come in, a [`Verdict`] goes out. This crate has no clock,
//! no socket, no randomness and no async, and it never reads configuration: it compiles what
//! `cairn-config-schema` resolved. The rules are those of specs/istio-waypoint.md 4.8.

mod clause;
mod decide;
mod explain;
mod facts;
mod policy;
mod text;
mod verdict;
mod words;

pub use explain::{
    ClauseOutcome, Explanation, NearestAllow, PolicyOutcome, RuleOutcome, ShadowOutcome,
};
pub use facts::{Facts, HttpFacts};
pub use policy::PolicySet;
pub use verdict::{Shadow, Verdict};
