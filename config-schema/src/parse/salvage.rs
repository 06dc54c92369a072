//! What can still be told of an object that cannot be read: what it is aimed at, from a tree; kind
//! and name, from a text that is no YAML. Lenient where the reader is strict, and silent: whoever
//! calls has reported the error.

use std::net::IpAddr;

use serde::Deserialize;

use super::fault::closest;
use super::node::{Node, Value, duplicates};
use super::path::walk;
use super::scalar::{Plain, resolve};
use crate::origin::Kind;
use crate::resolve::virtual_services::{HOST, STREAMS};
use crate::resources::{TargetRef, dry_run};

/// `targetRefs` of a policy, `parentRefs` of a route, `hosts` of a VirtualService, `services` of a
/// CiliumEnvoyConfig, or `host` of a
/// DestinationRule that may have asked for TLS. `None`: not to be told, so that the object
/// may be aimed at anything it could reach.
pub(super) fn targets(kind: Kind, object: &Node<'_>) -> Option<Vec<TargetRef>> {
    if kind == Kind::DestinationRule {
        return tls_host(object);
    }
    let fields: &[&str] = match kind {
        Kind::AuthorizationPolicy | Kind::RequestAuthentication | Kind::TrafficPolicy => {
            &["targetRefs", "targetRef"]
        }
        Kind::BackendTLSPolicy => &["targetRefs"],
        Kind::HTTPRoute | Kind::GRPCRoute | Kind::TLSRoute | Kind::TCPRoute => &["parentRefs"],
        Kind::VirtualService => &["hosts"],
        Kind::CiliumEnvoyConfig | Kind::CiliumClusterwideEnvoyConfig => &["services"],
        _ => return None,
    };
    let mut specs = object.entries().iter().filter(|e| e.key == "spec");
    let spec = specs.next()?;
    if specs.next().is_some() || !duplicates(&spec.value).is_empty() {
        return None;
    }
    let mut found = Vec::new();
    for entry in spec.value.entries() {
        if !fields.contains(&&*entry.key) {
            // A misspelt field may have been meant to hold more of them.
            if closest(&entry.key, fields.iter().copied()).is_some() {
                return None;
            }
            continue;
        }
        match &entry.value.value {
            Value::List(items) => {
                for item in items {
                    found.push(target(kind, item)?);
                }
            }
            Value::Map(_) => found.push(target(kind, &entry.value)?),
            Value::Scalar(..) if entry.value.is_null() => {}
            Value::Scalar(..) => return None,
        }
    }
    if found.is_empty() {
        return None;
    }
    // `tcp`, `tls`, or a field that is neither those nor one of the others.
    let is_other = |key: &str| matches!(key, "hosts" | "http" | "gateways" | "exportTo");
    let mut entries = spec.value.entries().iter();
    if kind == Kind::VirtualService && entries.any(|entry| !is_other(&entry.key)) {
        found.push(TargetRef {
            kind: STREAMS.to_owned(),
            ..TargetRef::default()
        });
    }
    Some(found)
}

/// The host of a DestinationRule that may have asked for TLS; none if it did not. Of what else it said
/// nothing is missed that would be a danger.
fn tls_host(object: &Node<'_>) -> Option<Vec<TargetRef>> {
    let mut asks = false;
    walk(object, &mut |path, _, _| {
        let path = path.to_string();
        let last = path.rsplit('.').next().unwrap_or_default();
        // One slip of the pen from `tls`, and no more: `tcp` is two.
        asks |= strsim::damerau_levenshtein(&last.to_ascii_lowercase(), "tls") <= 1;
        true
    });
    if !asks {
        return Some(Vec::new());
    }
    let mut specs = object.entries().iter().filter(|e| e.key == "spec");
    let spec = specs.next()?;
    let mut hosts = spec.value.entries().iter().filter(|e| e.key == "host");
    let host = hosts.next()?.value.text().filter(|host| !host.is_empty())?;
    let is_doubtful = specs.next().is_some() || hosts.next().is_some();
    (!is_doubtful).then(|| vec![host_named(host)])
}

/// The same of a text that is no YAML: only that nothing in it looks like TLS.
pub(super) fn targets_of_text(kind: Kind, text: &str) -> Option<Vec<TargetRef>> {
    let is_plain = kind == Kind::DestinationRule && !text.to_ascii_lowercase().contains("tls");
    is_plain.then(Vec::new)
}

fn host_named(host: &str) -> TargetRef {
    TargetRef {
        kind: HOST.to_owned(),
        name: host.to_owned(),
        ..TargetRef::default()
    }
}

/// One reference. A field that cannot be read makes the target unknown; a name above all.
fn target(kind: Kind, node: &Node<'_>) -> Option<TargetRef> {
    if kind == Kind::VirtualService {
        return Some(host_named(node.text()?));
    }
    let text = |key: &str| -> Option<Option<String>> {
        match node.get(key) {
            None => Some(None),
            Some(value) if value.is_null() => Some(None),
            Some(value) => value.text().map(|t| Some(t.to_owned())),
        }
    };
    let is_route = matches!(
        kind,
        Kind::HTTPRoute | Kind::GRPCRoute | Kind::TLSRoute | Kind::TCPRoute
    );
    let default = |value: &str| is_route.then(|| value.to_owned());
    let is_service = matches!(
        kind,
        Kind::CiliumEnvoyConfig | Kind::CiliumClusterwideEnvoyConfig
    );
    let port = match node.get("port") {
        None => None,
        Some(port) => match resolve(port.text()?) {
            Plain::Int(n) => Some(u16::try_from(n).ok()?),
            _ => return None,
        },
    };
    Some(TargetRef {
        group: text("group")?
            .or_else(|| default("gateway.networking.k8s.io"))
            .unwrap_or_default(),
        kind: text("kind")?
            .or_else(|| default("Gateway"))
            .or_else(|| is_service.then(|| "Service".to_owned()))
            .filter(|k| !k.is_empty())?,
        name: text("name")?.filter(|n| !n.is_empty())?,
        namespace: text("namespace")?,
        section_name: text("sectionName")?,
        port,
    })
}

/// Whether a policy is only to be tried. What is not to be told is enforced.
pub(super) fn is_dry_run(kind: Kind, object: &Node<'_>) -> bool {
    let all = object.entries().iter().filter(|e| e.key == "metadata");
    let metadata: Vec<&Node<'_>> = all.map(|e| &e.value).collect();
    let [metadata] = metadata.as_slice() else {
        return kind.is_staged();
    };
    if !duplicates(metadata).is_empty() {
        return kind.is_staged();
    }
    let annotations = metadata.get("annotations");
    let annotation = |name: &str| annotations?.get(name)?.text();
    dry_run::asked_by(kind, annotation) == dry_run::Asked::Yes
}

/// Addresses in `status.podIPs` and `status.podIP` of a Pod that has not ended. Nothing may be sent
/// there as long as it is not known whose identity to expect.
pub(super) fn pod_ips(kind: Kind, object: &Node<'_>) -> Vec<IpAddr> {
    let statuses = object.entries().iter().filter(|e| e.key == "status");
    let mut found = Vec::new();
    for status in statuses.filter(|_| kind == Kind::Pod) {
        let phase = status.value.get("phase").and_then(Node::text);
        if matches!(phase, Some("Succeeded" | "Failed")) {
            continue;
        }
        for entry in status.value.entries() {
            match &*entry.key {
                "podIP" => found.extend(address(&entry.value)),
                "podIPs" => {
                    let ips = entry.value.items().iter().flat_map(Node::entries);
                    found.extend(ips.filter_map(|ip| address(&ip.value)));
                }
                _ => {}
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn address(node: &Node<'_>) -> Option<IpAddr> {
    node.text()?.trim().parse().ok()
}

/// The same from a text that is no YAML: whatever follows `podIP`, `podIPs` or `ip` and is an
/// address. Of the node's addresses (`hostIPs`) none is meant.
pub(super) fn pod_ips_of_text(kind: Kind, text: &str) -> Vec<IpAddr> {
    if kind != Kind::Pod {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut is_of_pod = false;
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | ':')) {
        match (word.parse(), word.trim_end_matches(':')) {
            (Ok(address), _) if is_of_pod => found.push(address),
            (Ok(_), _) | (Err(_), "" | "ip") => {}
            (Err(_), key) => is_of_pod = matches!(key, "podIP" | "podIPs"),
        }
    }
    found.sort();
    found.dedup();
    found
}

/// What a line scan finds at the top of a text that could not be parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub name: Option<String>,
    pub namespace: Option<String>,
}

/// What JSON says at its top, however odd the rest is.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonObject {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: JsonMeta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonMeta {
    name: Option<String>,
    namespace: Option<String>,
}

/// The top of a text that could not be parsed. What is JSON and no YAML that is read is still JSON: nested too
/// deep, or with a character that YAML has not.
pub(super) fn header(text: &str) -> Header {
    let told = |text: Option<String>| text.filter(|text| !text.is_empty());
    match serde_json::from_str::<JsonObject>(text) {
        Ok(object) => Header {
            api_version: told(object.api_version),
            kind: told(object.kind),
            name: told(object.metadata.name),
            namespace: told(object.metadata.namespace),
        },
        Err(_) => header_of_lines(text),
    }
}

/// Finds `apiVersion:`, `kind:` and the name and namespace in the block under `metadata:`, if each
/// stands on a line of its own and none comes twice.
fn header_of_lines(text: &str) -> Header {
    let mut header = Header::default();
    let mut clashes = false;
    let mut metadata_indent = None;
    let mut is_in_metadata = false;
    let mut set = |slot: &mut Option<String>, value: Option<String>| {
        clashes |= slot.is_some();
        *slot = value;
    };
    for line in text.lines() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let indent = line.len() - content.len();
        let Some((key, value)) = content.split_once(':') else {
            is_in_metadata &= indent > 0;
            continue;
        };
        if indent == 0 {
            is_in_metadata = key.trim_end() == "metadata";
            match key.trim_end() {
                "apiVersion" => set(&mut header.api_version, scalar(value)),
                "kind" => set(&mut header.kind, scalar(value)),
                _ => {}
            }
        } else if is_in_metadata {
            let level = *metadata_indent.get_or_insert(indent);
            match key.trim_end() {
                "name" if indent == level => set(&mut header.name, scalar(value)),
                "namespace" if indent == level => set(&mut header.namespace, scalar(value)),
                _ => {}
            }
        }
    }
    if clashes { Header::default() } else { header }
}

/// The plain or quoted word after a colon. Anything more complicated is not to be told.
fn scalar(value: &str) -> Option<String> {
    let value = value.split(" #").next().unwrap_or_default().trim();
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let word = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/' | '_');
    (!word.is_empty() && word.chars().all(is_legal)).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    #[test]
    fn a_header_is_found_by_its_lines() {
        let text = "# a policy\napiVersion: security.istio.io/v1 # stable\nkind: \"AuthorizationPolicy\"\nmetadata:\n  labels:\n    name: not-this\n  name: web\n  namespace: 'shop'\nspec:\n  name: nor-this\n  rules: [\n";
        let header = header(text);
        assert_eq!(header.api_version.as_deref(), Some("security.istio.io/v1"));
        assert_eq!(header.kind.as_deref(), Some("AuthorizationPolicy"));
        assert_eq!(header.name.as_deref(), Some("web"));
        assert_eq!(header.namespace.as_deref(), Some("shop"));
    }

    #[test]
    fn what_comes_twice_or_in_flow_style_is_not_to_be_told() {
        let twice = "kind: Pod\nmetadata:\n  name: a\nkind: AuthorizationPolicy\n";
        assert_eq!(header(twice), Header::default());
        assert_eq!(header("{kind: Pod, metadata: {name: a}"), Header::default());
        assert_eq!(header("kind: Pod\nmetadata: {name: a}\nspec: [").name, None);
    }

    #[test]
    fn a_header_of_json_is_found_on_whatever_line() {
        let (open, close) = ("[".repeat(5000), "]".repeat(5000));
        for odd in ["\"\u{7f}\"", &format!("{open}{close}")] {
            let text = format!(
                r#"{{"spec":{odd},"kind":"AuthorizationPolicy","apiVersion":"security.istio.io/v1","metadata":{{"annotations":{{"name":{odd}}},"name":"web","namespace":"shop"}}}}"#
            );
            assert!(tree::build(&text).is_err());
            let header = header(&text);
            assert_eq!(header.api_version.as_deref(), Some("security.istio.io/v1"));
            assert_eq!(header.kind.as_deref(), Some("AuthorizationPolicy"));
            assert_eq!(header.name.as_deref(), Some("web"));
            assert_eq!(header.namespace.as_deref(), Some("shop"));
        }
        // Which of the two it is, nobody can tell.
        let twice = r#"{"kind":"Pod","kind":"AuthorizationPolicy","metadata":{"name":"a"}}"#;
        assert_eq!(header(twice), Header::default());
    }

    #[test]
    fn a_key_in_quotes_merges_nothing() {
        let node = tree::build("{\"<<\": x, a: {\"<<\": {b: c}}}")
            .unwrap()
            .unwrap();
        assert_eq!(node.get("<<").and_then(Node::text), Some("x"));
        let inner = node.get("a").unwrap();
        assert!(inner.get("b").is_none());
        let merged = tree::build("<<: {b: c}").unwrap().unwrap();
        assert_eq!(merged.get("b").and_then(Node::text), Some("c"));
        assert!(tree::build("<<: x").is_err());
    }

    fn salvaged(kind: Kind, spec: &str) -> Option<Vec<TargetRef>> {
        let object = tree::build(spec).unwrap().unwrap();
        targets(kind, &object)
    }

    #[test]
    fn targets_are_read_from_what_is_left() {
        let found = salvaged(
            Kind::AuthorizationPolicy,
            "spec: {targetRefs: [{kind: Service, group: '', name: web, bogus: 1}], rules: 7}",
        );
        let expected = TargetRef {
            kind: "Service".into(),
            name: "web".into(),
            ..TargetRef::default()
        };
        assert_eq!(found, Some(vec![expected]));
        let found = salvaged(
            Kind::HTTPRoute,
            "spec: {parentRefs: [{name: gw}], rules: 7}",
        );
        let gateway = found.unwrap().remove(0);
        assert_eq!(gateway.kind, "Gateway");
        assert_eq!(gateway.group, "gateway.networking.k8s.io");
    }

    #[test]
    fn the_addresses_of_a_pod_are_read_from_what_is_left() {
        let text = "kind: Pod\nstatus:\n  hostIP: 192.168.0.1\n  hostIPs:\n  - ip: 192.168.0.1\n  \
                    phase: Running\n  podIP: 10.1.0.1\n  podIPs:\n  - ip: 10.1.0.1\n  - ip: 'fd00::1'\n  \
                    startTime: x\n  ip: 10.9.9.9\n";
        let expected: Vec<IpAddr> = ["10.1.0.1", "fd00::1"]
            .map(|ip| ip.parse().unwrap())
            .to_vec();
        let object = tree::build(text).unwrap().unwrap();
        assert_eq!(pod_ips(Kind::Pod, &object), expected);
        let ended = text.replace("Running", "Succeeded");
        let object = tree::build(&ended).unwrap().unwrap();
        assert!(pod_ips(Kind::Pod, &object).is_empty());
        assert_eq!(pod_ips_of_text(Kind::Pod, text), expected);
        let flow =
            "{kind: Pod, status: {podIPs: [{ip: 10.1.0.1}, {\"ip\":\"fd00::1\"}], hostIP: 10.2.0.1";
        assert_eq!(pod_ips_of_text(Kind::Pod, flow), expected);
    }

    #[test]
    fn a_half_readable_target_is_unknown() {
        for spec in [
            "spec: {rules: 7}",
            "spec: {targetRefs: 7}",
            "spec: {targetRefs: []}",
            "spec: {targetRefs: [{kind: Service, name: a}, {kind: Service}]}",
            "spec: {targetRefs: [{kind: Service, name: [a]}]}",
            "spec: {selector: {}}",
            "spec: {targetRefs: [{kind: Service, name: a, name: b}]}",
            "{spec: {targetRefs: [{kind: Service, name: a}]}, spec: {}}",
            "spec: {targetRefs: [{kind: Service, name: a}], targetRfs: [{kind: Service, name: b}]}",
            "specs: {targetRefs: [{kind: Service, name: a}]}",
        ] {
            assert_eq!(salvaged(Kind::AuthorizationPolicy, spec), None, "{spec}");
        }
    }
}
