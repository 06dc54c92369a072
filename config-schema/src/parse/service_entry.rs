//! A ServiceEntry: its specification, and the addresses that the cluster allocated for it, which stand
//! in its status (specs/istio-waypoint.md 4.2).

use super::fault::Fault;
use super::node::Node;
use super::subject::optional_spec;
use crate::resources::service_entry::ServiceEntrySpec;

/// Reads one. The status is read leniently, for it is the cluster's, not the user's.
pub(super) fn read(node: &Node<'_>, faults: &mut Vec<Fault>) -> Option<ServiceEntrySpec> {
    let mut spec: ServiceEntrySpec = optional_spec(node, faults)?;
    let addresses = node.get("status").and_then(|s| s.get("addresses"));
    for item in addresses.map_or(&[][..], Node::items) {
        let text = |key: &str| item.get(key).and_then(Node::text);
        let host = text("host").unwrap_or_default().to_owned();
        let value = text("value").and_then(|value| value.parse().ok());
        spec.allocated.extend(value.map(|address| (host, address)));
    }
    Some(spec)
}
