//! Which workloads a network policy selects whose rules cannot be read: it denies them, and not its
//! whole namespace. Whatever is doubtful in the selection itself leaves it untold.

use super::node::{Node, Value, duplicates};
use super::path::Path;
use super::read::read;
use crate::origin::Kind;
use crate::resources::Selection;
use crate::resources::calico::CalicoPolicySpec;
use crate::resources::cilium::CiliumRule;

/// Parts of a Cilium rule that do not select.
const OF_CILIUM: [&str; 8] = [
    "ingress",
    "ingressDeny",
    "egress",
    "egressDeny",
    "enableDefaultDeny",
    "labels",
    "description",
    "log",
];

/// Parts of a Calico policy that neither select nor say for which direction it is.
const OF_CALICO: [&str; 9] = [
    "ingress",
    "egress",
    "tier",
    "order",
    "stagedAction",
    "doNotTrack",
    "preDNAT",
    "applyOnForward",
    "performanceHints",
];

/// Fields of an object.
const KNOWN: [&str; 6] = ["apiVersion", "kind", "metadata", "spec", "specs", "status"];

/// What the policy selects, with the lists that are there emptied. `None`: not to be told, so that it
/// may select all it could.
pub(super) fn selection(kind: Kind, object: &Node<'_>) -> Option<Selection> {
    // A misspelt field may have been meant to hold more rules.
    let is_known = |e| KNOWN.contains(&key(e));
    if !object.entries().iter().all(is_known) {
        return None;
    }
    let of_spec = |e: &&_| matches!(key(e), "spec" | "specs");
    let mut specs = object.entries().iter().filter(of_spec);
    let spec = specs.next()?;
    if specs.next().is_some() || !duplicates(&spec.value).is_empty() {
        return None;
    }
    match (kind, key(spec)) {
        (Kind::CiliumNetworkPolicy | Kind::CiliumClusterwideNetworkPolicy, "spec") => {
            let rule = of_cilium(&spec.value)?;
            Some(Selection::Cilium(vec![("spec".to_owned(), rule)]))
        }
        (Kind::CiliumNetworkPolicy | Kind::CiliumClusterwideNetworkPolicy, _) => {
            let Value::List(items) = &spec.value.value else {
                return None;
            };
            let rules = items.iter().enumerate();
            let rules = rules.map(|(i, item)| Some((format!("specs[{i}]"), of_cilium(item)?)));
            let rules: Option<Vec<_>> = rules.collect();
            rules.filter(|r| !r.is_empty()).map(Selection::Cilium)
        }
        (
            Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy,
            "spec",
        ) => of_calico(&spec.value).map(|spec| Selection::Calico(Box::new(spec))),
        _ => None,
    }
}

fn key<'e>(entry: &'e super::node::Entry<'_>) -> &'e str {
    &entry.key
}

fn has(node: &Node<'_>, key: &str) -> bool {
    node.entry(key).is_some()
}

fn of_cilium(node: &Node<'_>) -> Option<CiliumRule> {
    let mut faults = Vec::new();
    let mut rule: CiliumRule = read(node, node.at, &Path::ROOT, &OF_CILIUM, &mut faults)?;
    rule.endpoint_selector.as_ref()?;
    // What is denied by default may be either direction.
    let both = has(node, "enableDefaultDeny");
    let egress = both || has(node, "egress") || has(node, "egressDeny");
    let ingress = both || !egress || has(node, "ingress") || has(node, "ingressDeny");
    rule.ingress = ingress.then(Vec::new);
    rule.egress = egress.then(Vec::new);
    faults.is_empty().then_some(rule)
}

fn of_calico(node: &Node<'_>) -> Option<CalicoPolicySpec> {
    let mut faults = Vec::new();
    let mut spec: CalicoPolicySpec = read(node, node.at, &Path::ROOT, &OF_CALICO, &mut faults)?;
    spec.ingress = has(node, "ingress").then(Vec::new);
    spec.egress = has(node, "egress").then(Vec::new);
    faults.is_empty().then_some(spec)
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    fn read_of(kind: Kind, text: &str) -> Option<Selection> {
        selection(kind, &tree::build(text).unwrap().unwrap())
    }

    #[test]
    fn a_selector_is_read_beside_rules_that_are_not() {
        let text = "spec: {endpointSelector: {matchLabels: {app: a}}, egress: 7, nonsense: 1}";
        assert_eq!(read_of(Kind::CiliumNetworkPolicy, text), None);
        let text = "spec: {endpointSelector: {matchLabels: {app: a}}, egress: 7}";
        let Some(Selection::Cilium(rules)) = read_of(Kind::CiliumNetworkPolicy, text) else {
            panic!("{text}");
        };
        let [(_, rule)] = rules.as_slice() else {
            panic!("{rules:?}");
        };
        assert!(rule.endpoint_selector.is_some());
        assert_eq!(
            (rule.ingress.is_some(), rule.egress.is_some()),
            (false, true)
        );
        let text = "spec: {selector: app == 'a', types: [Ingress], ingress: {a: b}, order: x}";
        let Some(Selection::Calico(spec)) = read_of(Kind::NetworkPolicy, text) else {
            panic!("{text}");
        };
        assert_eq!(spec.selector.as_deref(), Some("app == 'a'"));
    }

    #[test]
    fn a_doubtful_selection_is_none() {
        for text in [
            "spec: {ingress: 7}",
            "spec: {endpointSelector: {matchLabels: [a]}, ingress: 7}",
            "spec: {endpointSelector: {matchLabel: {a: b}}, ingress: 7}",
            "spec: {endpointSelector: {}, endpointSelector: {}}",
            "spec: {endpointSelector: {}, specs: 1}",
            "{spec: {endpointSelector: {}}, specs: []}",
            "specs: [{endpointSelector: {}}, {ingress: 7}]",
            "specs: []",
        ] {
            assert_eq!(read_of(Kind::CiliumNetworkPolicy, text), None, "{text}");
        }
        let text = "spec: {selectr: app == 'a', ingress: 7}";
        assert_eq!(read_of(Kind::NetworkPolicy, text), None);
    }
}
