//! Who may do what, and why: policies compiled, verdicts, explanations.
//!
//! Pure: the facts of a request or stream come in, a [`Verdict`] goes out. This crate has no clock,
//! no socket, no randomness and no async, and it never reads configuration: it compiles what
//! `cairn-config-schema` resolved. The rules are those of specs/istio-waypoint.md 4.8.

mod candidates;
mod clause;
pub mod cni;
mod decide;
mod explain;
mod facts;
pub mod jwt;
pub mod lint;
mod network;
mod policy;
mod policy_list;
mod text;
mod token;
mod trial;
mod verdict;
pub mod waypoint;
mod words;
pub mod ztunnel;

pub use decide::{Consulted, Question};
pub use explain::{
    AuditOutcome, ClauseOutcome, DryRunExplanation, Explanation, NearestAllow, PolicyOutcome,
    RuleOutcome,
};
pub use facts::{Attestation, Facts, HttpFacts};
pub use network::{
    BackendEdit, Egress, HeaderEdit, Network, NetworkExplanation, NetworkPolicyOutcome,
    NetworkRuleOutcome, NetworkVerdict, NetworkWhy,
};
pub use policy::PolicySet;
pub use token::Token;
pub use trial::{DryRun, TrialOutcome, Would};
pub use verdict::{Audited, Verdict};
