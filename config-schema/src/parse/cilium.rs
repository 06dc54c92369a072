//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: `spec` or `specs`, read strictly. What is
//! wrong in an egress part breaks egress and nothing else. Whether the values make sense together is
//! `resolve`'s business.

use super::fault::{Fault, first_error};
use super::node::{Entry, Mark, Node, Value};
use super::path::Path;
use super::read::read;
use crate::diagnostics::Code;
use crate::resources::cilium::{CiliumPolicySpec, CiliumRule, EgressRule};

const EGRESS: [&str; 2] = ["egress", "egressDeny"];

/// Reads the rules of a policy. Faults of egress parts go to `of_egress`.
pub(super) fn policy(
    node: &Node<'_>,
    faults: &mut Vec<Fault>,
    of_egress: &mut Vec<Fault>,
) -> Option<CiliumPolicySpec> {
    let there = |key: &str| node.entry(key).filter(|e| !e.value.is_null());
    let (one, many) = (there("spec"), there("specs"));
    let root = Path::ROOT;
    let mut rules = Vec::new();
    if let Some(entry) = one {
        let path = root.key("spec");
        let rule = rule(&entry.value, entry.at(), &path, faults, of_egress)?;
        rules.push((path.to_string(), rule));
    }
    if let Some(entry) = many {
        let list = root.key("specs");
        let Value::List(items) = &entry.value.value else {
            let message = "expected a list";
            faults.push(Fault::error(Code::WrongType, message, "specs", entry.at()));
            return None;
        };
        for (index, item) in items.iter().enumerate() {
            let path = list.index(index);
            let rule = rule(item, item.at, &path, faults, of_egress)?;
            rules.push((path.to_string(), rule));
        }
    }
    if rules.is_empty() {
        let message = "a policy has a `spec` or a list of `specs`";
        faults.push(Fault::error(Code::MissingField, message, "spec", node.at));
        return None;
    }
    Some(CiliumPolicySpec { rules })
}

fn rule(
    node: &Node<'_>,
    at: Mark,
    path: &Path<'_>,
    faults: &mut Vec<Fault>,
    of_egress: &mut Vec<Fault>,
) -> Option<CiliumRule> {
    let mut rule: CiliumRule = read(node, at, path, &EGRESS, faults)?;
    let before = of_egress.len();
    let mut egress = |key: &'static str| {
        let entry = node.entry(key).filter(|e| !e.value.is_null())?;
        Some(egress_rules(entry, &path.key(key), of_egress))
    };
    rule.egress = egress("egress");
    rule.egress_deny = egress("egressDeny");
    rule.egress_fault = first_error(of_egress.get(before..).unwrap_or_default());
    Some(rule)
}

/// The rules as far as they can be read; one empty rule stands for a list that can not.
fn egress_rules(entry: &Entry<'_>, path: &Path<'_>, faults: &mut Vec<Fault>) -> Vec<EgressRule> {
    let rules = read(&entry.value, entry.at(), path, &[], faults);
    rules.unwrap_or_else(|| vec![EgressRule::default()])
}
