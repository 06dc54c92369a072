//! NetworkPolicy and GlobalNetworkPolicy of Calico, read strictly. What is wrong in an egress rule
//! breaks egress and nothing else.

use super::fault::{Fault, first_error};
use super::node::Node;
use super::path::Path;
use super::read::read;
use crate::diagnostics::Code;
use crate::resources::calico::{CalicoPolicySpec, CalicoRule};

/// Reads a policy. Faults of egress rules go to `of_egress`.
pub(super) fn policy(
    node: &Node<'_>,
    faults: &mut Vec<Fault>,
    of_egress: &mut Vec<Fault>,
) -> Option<CalicoPolicySpec> {
    let Some(entry) = node.entry("spec").filter(|e| !e.value.is_null()) else {
        let fault = Fault::error(Code::MissingField, "`spec` is missing", "spec", node.at);
        faults.push(fault);
        return None;
    };
    let path = Path::ROOT.key("spec");
    let mut spec: CalicoPolicySpec = read(&entry.value, entry.at(), &path, &["egress"], faults)?;
    let egress = entry.value.entry("egress").filter(|e| !e.value.is_null());
    // One empty rule stands for a list that can not be read.
    spec.egress = egress.map(|egress| {
        let rules = read(
            &egress.value,
            egress.at(),
            &path.key("egress"),
            &[],
            of_egress,
        );
        rules.unwrap_or_else(|| vec![CalicoRule::default()])
    });
    spec.egress_fault = first_error(of_egress);
    Some(spec)
}
