//! The list of pods that a node agent is given in a file. Strict: one entry that is wrong makes the
//! whole list wrong, because a pod that is left out by mistake would pass policy by.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::fault::Fault;
use super::moved;
use super::node::{Node, duplicates};
use super::path::{Path, find};
use super::read::read;
use super::split::documents;
use super::subject::finding;
use super::tree;
use crate::diagnostics::{Code, Diagnostic, Location, Severity};
use crate::identity::Identity;
use crate::origin::ObjectKey;

/// One pod of a node, as the container runtime made it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePod {
    /// Name of the pod.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account: with the namespace and the trust domain this is its identity.
    pub service_account: String,
    /// Its labels, for telemetry.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its addresses, which policies that name addresses see. None: those its interfaces have, which
    /// a pod with CAP_NET_ADMIN chooses.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Path of its network namespace, absolute: `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub netns: PathBuf,
    /// The host's end of its link, for an agent that listens in the host's network namespace where it
    /// can not enter the pod's.
    #[serde(default)]
    pub host_interface: Option<String>,
    /// Path of its cgroup, absolute, below the one the redirect is attached to.
    pub cgroup: PathBuf,
}

impl NodePod {
    /// Namespace and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.as_str(), self.name.as_str())
    }
}

/// Reads a list of pods, YAML or JSON. No pods are `[]`: an empty file is one that is being written,
/// and whoever took it for an empty list would let all pods pass policy by.
///
/// # Errors
/// Everything that is wrong with it, with places and what to do.
pub fn node_pods(text: &str, file: &Arc<str>) -> Result<Vec<NodePod>, Vec<Diagnostic>> {
    let documents = documents(text);
    let Some(document) = documents.first() else {
        return Err(vec![no_list(file)]);
    };
    let mut findings = Vec::new();
    if let Some(second) = documents.get(1) {
        let location = Location {
            file: file.clone(),
            line: second.lines_before + 1,
            column: 1,
        };
        let finding = Diagnostic::error(Code::SyntaxError, "a second document begins here")
            .with_hint("write all pods as one list");
        findings.push(finding.at(Some(location)));
    }
    let mut pods = Vec::new();
    match tree::build(document.text) {
        Ok(None) => findings.push(no_list(file)),
        Ok(Some(root)) => {
            let mut faults = keys_twice(&root);
            pods = read::<Vec<NodePod>>(&root, root.at, &Path::ROOT, &[], &mut faults)
                .unwrap_or_default();
            if faults.is_empty() {
                judge(&root, &pods, &mut faults);
            }
            let found = faults.into_iter().map(|fault| finding(fault, file, None));
            findings.extend(found);
        }
        Err(error) => {
            let fault = Fault::error(error.code, error.message, "", error.at);
            let mut found = finding(fault, file, None);
            found.hint = error.hint;
            findings.push(found);
        }
    }
    if findings.is_empty() {
        return Ok(pods);
    }
    for finding in &mut findings {
        finding.severity = Severity::Error;
        let place = finding.location.take();
        finding.location = place.map(|place| moved(&place, document.lines_before));
    }
    Err(findings)
}

fn no_list(file: &Arc<str>) -> Diagnostic {
    let start = Location {
        file: file.clone(),
        line: 1,
        column: 1,
    };
    Diagnostic::error(Code::SyntaxError, "there is no list in it")
        .with_hint("write [] if there are no pods")
        .at(Some(start))
}

fn keys_twice(root: &Node<'_>) -> Vec<Fault> {
    let twice = duplicates(root).into_iter().map(|twice| {
        let line = twice.first.line;
        let message = format!("the key comes twice in one map, first in line {line}");
        Fault::error(Code::SyntaxError, message, twice.path, twice.at)
    });
    twice.collect()
}

/// What the types can not say.
fn judge(root: &Node<'_>, pods: &[NodePod], faults: &mut Vec<Fault>) {
    let mut complain = |index: usize, field: &str, code, message: String, hint: &str| {
        let path = format!("[{index}].{field}");
        let at = find(root, &path);
        faults.push(Fault::error(code, message, path, at).with_hint(hint));
    };
    let mut names = HashMap::new();
    let mut namespaces = HashMap::new();
    let mut addresses = HashMap::new();
    let mut interfaces = HashMap::new();
    for (index, pod) in pods.iter().enumerate() {
        for (field, value) in [
            ("name", &pod.name),
            ("namespace", &pod.namespace),
            ("serviceAccount", &pod.service_account),
        ] {
            // The identity's own rules: what it can not hold can not be a name either.
            if Identity::of_workload("td", value, value).is_err() {
                let message = format!("'{value}' is no name");
                let hint = "letters, digits, '-' and '.'";
                complain(index, field, Code::BadValue, message, hint);
            }
        }
        for (field, path) in [("netns", &pod.netns), ("cgroup", &pod.cgroup)] {
            if !path.is_absolute() {
                let message = format!("'{}' is no absolute path", path.display());
                complain(
                    index,
                    field,
                    Code::BadValue,
                    message,
                    "a path that begins with /",
                );
            }
        }
        for address in &pod.addresses {
            if let Some(why) = no_pods(*address) {
                let message = format!("{address} is {why}");
                let hint = "the addresses that others know the pod by";
                complain(index, "addresses", Code::BadValue, message, hint);
            } else if let Some(first) = addresses.insert(address.to_canonical(), index) {
                let message = format!("item {first} has the address {address} too");
                let hint = "an address is one pod's, and written once";
                complain(index, "addresses", Code::Conflict, message, hint);
            }
        }
        if let Some(interface) = &pod.host_interface {
            let is_name = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
            // Of include/uapi/linux/if.h: 16 bytes, the last one zero.
            if interface.is_empty() || interface.len() > 15 || !interface.chars().all(is_name) {
                let message = format!("'{interface}' is no name of an interface");
                let hint = "the host's end of the pod's veth";
                complain(index, "hostInterface", Code::BadValue, message, hint);
            } else if let Some(first) = interfaces.insert(interface, index) {
                let message = format!("item {first} has the same interface");
                let hint = "every pod has a veth of its own";
                complain(index, "hostInterface", Code::Conflict, message, hint);
            }
        }
        if let Some(first) = names.insert(pod.key(), index) {
            let message = format!("{} comes twice, first as item {first}", pod.key());
            let hint = "every pod of a node has one entry";
            complain(index, "name", Code::DuplicateObject, message, hint);
        }
        if let Some(first) = namespaces.insert(&pod.netns, index) {
            let message = format!("item {first} has the same network namespace");
            let hint = "pods on the host's network can not be steered: leave them out";
            complain(index, "netns", Code::Conflict, message, hint);
        }
    }
}

/// Why an address can not be one by which others know a pod.
fn no_pods(address: IpAddr) -> Option<&'static str> {
    let link_local = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    match address.to_canonical() {
        ip if ip.is_loopback() => Some("loopback's"),
        ip if ip.is_unspecified() => Some("no address"),
        ip if ip.is_multicast() => Some("a group's"),
        _ if link_local => Some("link-local"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, &str)]) -> String {
        let entry = |(name, addresses): &(&str, &str)| {
            format!(
                "- {{name: {name}, namespace: shop, serviceAccount: web, netns: /n/{name}, cgroup: /c/{name}, addresses: {addresses}}}\n"
            )
        };
        entries.iter().map(entry).collect()
    }

    fn complaints(text: &str) -> Vec<String> {
        let findings = node_pods(text, &"pods.yaml".into()).unwrap_err();
        let line = |d: &Diagnostic| d.location.as_ref().map_or(0, |l| l.line);
        findings
            .iter()
            .map(|d| format!("{}: {}", line(d), d.message))
            .collect()
    }

    #[test]
    fn addresses_are_those_that_others_know_a_pod_by() {
        let pods = node_pods(
            &list(&[("a", "[10.1.0.1, 'fd00::1']"), ("b", "[]")]),
            &"pods.yaml".into(),
        );
        let pods = pods.unwrap();
        assert_eq!(pods[0].addresses.len(), 2);
        assert!(pods[1].addresses.is_empty());
        for (addresses, why) in [
            ("[127.0.0.1]", "127.0.0.1 is loopback's"),
            ("['::']", ":: is no address"),
            ("[169.254.1.1]", "169.254.1.1 is link-local"),
            ("['fe80::1']", "fe80::1 is link-local"),
            ("[224.0.0.1]", "224.0.0.1 is a group's"),
        ] {
            assert_eq!(
                complaints(&list(&[("a", addresses)])),
                [format!("1: {why}")]
            );
        }
        assert!(
            !complaints(&list(&[("a", "[10.1.0]")])).is_empty(),
            "no address at all"
        );
    }

    #[test]
    fn an_interface_is_one_pods() {
        let entry = |name: &str, interface: &str| {
            format!(
                "- {{name: {name}, namespace: shop, serviceAccount: web, netns: /n/{name}, cgroup: /c/{name}, hostInterface: {interface}}}\n"
            )
        };
        let text = entry("a", "veth1") + &entry("b", "veth2");
        let pods = node_pods(&text, &"pods.yaml".into()).unwrap();
        assert_eq!(pods[1].host_interface.as_deref(), Some("veth2"));
        let text = entry("a", "veth1") + &entry("b", "veth1") + &entry("c", "../lo");
        let found = complaints(&text);
        assert_eq!(
            found,
            [
                "2: item 0 has the same interface",
                "3: '../lo' is no name of an interface"
            ]
        );
    }

    #[test]
    fn two_pods_with_one_address_make_the_list_wrong() {
        let text = list(&[("a", "[10.1.0.1]"), ("b", "['::ffff:10.1.0.1']")]);
        let found = complaints(&text);
        assert_eq!(found, ["2: item 0 has the address ::ffff:10.1.0.1 too"]);
    }
}
