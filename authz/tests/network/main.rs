//! Network policies of Cilium and Calico, held against naive oracles over generated policies and
//! requests. The rules one by one are golden cases (`conformance/golden/cilium`, `calico`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod dry_run;
mod egress;
mod found_by_name;
mod generate;
mod oracle;
mod properties;
mod steered;
