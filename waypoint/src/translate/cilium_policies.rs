//! CiliumNetworkPolicies as AuthorizationPolicies of the Services whose pods they select. Labels of peers become
//! service accounts where Pods show that they mean the same; what can not be said allows nothing, and a policy that
//! denies or is about more than HTTP of one Service is not translated.

use std::collections::BTreeSet;
use std::sync::Arc;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resources::cilium::{
    CiliumRule, HttpRule, IngressRule, LabelSelector, PortRule,
};
use cairn_config_schema::resources::{Meta, Object};
use serde_json::{Map, Value, json};

use super::{Effect, Notes, Source, Translation, paths};

/// Keys by which Cilium knows the namespace and the service account of a pod, after any prefix `k8s:`.
const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";

/// Writes every CiliumNetworkPolicy that can be written.
pub(super) fn translate(source: Source<'_>, out: &mut Translation) {
    for object in source
        .resources
        .cilium_policies
        .values()
        .filter_map(|l| l.object())
    {
        let mut notes = Notes::of(&object.origin);
        if is_tried(&object.meta) {
            let message = "it is only tried; translate it once it is in force";
            notes.add(Effect::NotTranslated, "metadata.annotations", message);
        }
        let mut objects = Vec::new();
        for (at, rule) in &object.spec.rules {
            objects.extend(of_rule(source, object, rule, at, &mut notes));
        }
        name_apart(&mut objects);
        out.take(notes, objects);
    }
    for object in source
        .resources
        .cilium_clusterwide_policies
        .values()
        .filter_map(|l| l.object())
    {
        let mut notes = Notes::of(&object.origin);
        let message =
            "it is for the whole cluster, and AuthorizationPolicies of waypoints are for Services";
        notes.add(Effect::NotTranslated, "spec", message);
        out.take(notes, Vec::new());
    }
}

fn is_tried(meta: &Meta) -> bool {
    let annotation = meta.annotations.get("cairn.dev/dry-run");
    annotation.is_some_and(|value| **value == *"true")
}

/// Several rules make several objects, each with a name of its own.
fn name_apart(objects: &mut [Value]) {
    if objects.len() < 2 {
        return;
    }
    for (index, object) in objects.iter_mut().enumerate() {
        let name = object.pointer_mut("/metadata/name");
        if let Some(Value::String(name)) = name {
            name.push_str(&format!("-{index}"));
        }
    }
}

fn of_rule(
    source: Source<'_>,
    object: &Object<cairn_config_schema::resources::cilium::CiliumPolicySpec>,
    rule: &CiliumRule,
    at: &str,
    notes: &mut Notes<'_>,
) -> Option<Value> {
    let namespace = &object.origin.key.namespace;
    let given = |list: &Option<Vec<IngressRule>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let default_deny = rule.enable_default_deny.as_ref().and_then(|d| d.ingress);
    let why_not = [
        (
            given(&rule.ingress_deny),
            "ingressDeny",
            "write a DENY policy for it: peers of Cilium's denials may have no identity",
        ),
        (
            rule.node_selector.is_some(),
            "nodeSelector",
            "nodes are behind no Service",
        ),
        (
            rule.egress.is_some() || rule.egress_deny.is_some(),
            "egress",
            "what clients may reach is not asked by policies of Services; it has to stay",
        ),
        (
            default_deny == Some(false),
            "enableDefaultDeny",
            "an ALLOW policy denies what it does not allow",
        ),
        (!given(&rule.ingress), "ingress", "there is none"),
    ];
    for (_, field, why) in why_not.iter().filter(|(there, _, _)| *there) {
        notes.add(Effect::NotTranslated, format!("{at}.{field}"), *why);
    }
    let services = services(source, namespace, rule.endpoint_selector.as_ref()?);
    if services.is_empty() {
        let message = format!("no Service of {namespace} selects exactly these pods");
        notes.add(
            Effect::NotTranslated,
            format!("{at}.endpointSelector"),
            message,
        );
    }
    if notes.forbid() {
        return None;
    }
    let mut rules = Vec::new();
    for (index, item) in rule.ingress.iter().flatten().enumerate() {
        let at = format!("{at}.ingress[{index}]");
        rules.extend(of_item(source, namespace, &services, item, &at, notes));
    }
    let refs: Vec<Value> = services
        .iter()
        .map(|key| json!({"group": "", "kind": "Service", "name": &*key.name}))
        .collect();
    let mut spec = Map::new();
    spec.insert("targetRefs".into(), json!(refs));
    spec.insert("action".into(), json!("ALLOW"));
    if !rules.is_empty() {
        spec.insert("rules".into(), json!(rules));
    }
    Some(json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": &*object.origin.key.name, "namespace": &**namespace},
        "spec": spec,
    }))
}

/// The Services of a namespace that select by exactly these labels.
fn services(source: Source<'_>, namespace: &str, selector: &LabelSelector) -> Vec<ObjectKey> {
    let Some(wanted) = labels(selector) else {
        return Vec::new();
    };
    let wanted: BTreeSet<(&str, &str)> = wanted
        .into_iter()
        .filter(|(k, _)| *k != NAMESPACE)
        .collect();
    let services = source
        .resources
        .services
        .iter()
        .filter(|(key, _)| *key.namespace == *namespace);
    let same = services.filter(|(_, loaded)| {
        loaded.object().is_some_and(|service| {
            let own: BTreeSet<(&str, &str)> = service
                .spec
                .selector
                .iter()
                .map(|(k, v)| (&**k, &**v))
                .collect();
            !own.is_empty() && own == wanted
        })
    });
    same.map(|(key, _)| key.clone()).collect()
}

/// The labels of a selector that asks for values alone, without the prefix of their source.
fn labels(selector: &LabelSelector) -> Option<Vec<(&str, &str)>> {
    let expressions = selector.match_expressions.as_ref();
    if expressions.is_some_and(|list| !list.is_empty()) {
        return None;
    }
    let labels = selector.match_labels.iter().flatten();
    let plain = labels.map(|(key, value)| {
        let key = key
            .strip_prefix("k8s:")
            .or_else(|| key.strip_prefix("any:"))
            .unwrap_or(key);
        (!key.contains(':')).then_some((key, value.as_str()))
    });
    plain.collect()
}

/// One item of `ingress` as a rule. `None`: it allows nobody, or can not be said.
fn of_item(
    source: Source<'_>,
    namespace: &Arc<str>,
    services: &[ObjectKey],
    item: &IngressRule,
    at: &str,
    notes: &mut Notes<'_>,
) -> Option<Value> {
    let mut rule = Map::new();
    match peers(source, namespace, item, at, notes)? {
        Who::Anybody => {}
        Who::Accounts(principals) => {
            rule.insert(
                "from".into(),
                json!([{"source": {"principals": principals}}]),
            );
        }
    }
    let Some(ports) = item.to_ports.as_ref().filter(|ports| !ports.is_empty()) else {
        return Some(Value::Object(rule));
    };
    let mut to = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let at = format!("{at}.toPorts[{index}]");
        to.extend(of_ports(source, services, port, &at, notes).unwrap_or_default());
    }
    if to.is_empty() {
        return None;
    }
    let to: Vec<Value> = to
        .into_iter()
        .map(|operation| json!({"operation": operation}))
        .collect();
    rule.insert("to".into(), json!(to));
    Some(Value::Object(rule))
}

enum Who {
    Anybody,
    Accounts(Vec<String>),
}

fn peers(
    source: Source<'_>,
    namespace: &Arc<str>,
    item: &IngressRule,
    at: &str,
    notes: &mut Notes<'_>,
) -> Option<Who> {
    let unsayable = [
        (
            item.from_cidr.is_some() || item.from_cidr_set.is_some(),
            "fromCIDR",
            "Cilium means addresses outside of the cluster, ipBlocks means any",
        ),
        (
            item.from_nodes.is_some() || item.from_groups.is_some(),
            "fromNodes",
            "nodes have no identity in the mesh",
        ),
        (
            item.authentication
                .as_ref()
                .is_some_and(|a| a.mode == "test-always-fail"),
            "authentication",
            "it fails always",
        ),
    ];
    if let Some((_, field, why)) = unsayable.iter().find(|(there, _, _)| *there) {
        notes.add(
            Effect::Stricter,
            format!("{at}.{field}"),
            format!("{why}: the item allows nobody"),
        );
        return None;
    }
    if let Some(entities) = &item.from_entities {
        let all = entities.iter().any(|entity| entity == "all");
        if !all {
            let message = "only `all` has a counterpart: the item allows nobody";
            notes.add(Effect::Stricter, format!("{at}.fromEntities"), message);
        }
        return all.then_some(Who::Anybody);
    }
    let Some(selectors) = &item.from_endpoints else {
        // No peers at all: with ports everybody, without them nobody (specs/policies.md 2.1.2, 2.1.3).
        return item.to_ports.is_some().then_some(Who::Anybody);
    };
    let mut principals = Vec::new();
    for (index, selector) in selectors.iter().enumerate() {
        let at = format!("{at}.fromEndpoints[{index}]");
        for principal in principals_of(source, namespace, selector, &at, notes) {
            if !principals.contains(&principal) {
                principals.push(principal);
            }
        }
    }
    (!principals.is_empty()).then_some(Who::Accounts(principals))
}

/// The principals that are the same workloads as a selector's.
fn principals_of(
    source: Source<'_>,
    own: &Arc<str>,
    selector: &LabelSelector,
    at: &str,
    notes: &mut Notes<'_>,
) -> Vec<String> {
    let Some(wanted) = labels(selector) else {
        let message = "only labels with values are translated: the peer is left out";
        notes.add(Effect::Stricter, at, message);
        return Vec::new();
    };
    let value = |key| wanted.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    let namespace = value(NAMESPACE).unwrap_or(own);
    let domain = &source.snapshot.mesh.trust_domain;
    let principal = |account: &str| format!("{domain}/ns/{namespace}/sa/{account}");
    let rest: Vec<(&str, &str)> = wanted
        .iter()
        .copied()
        .filter(|(key, _)| ![NAMESPACE, SERVICE_ACCOUNT].contains(key))
        .collect();
    match (value(SERVICE_ACCOUNT), rest.is_empty()) {
        (Some(account), true) => vec![principal(account)],
        (None, true) => vec![principal("*")],
        (account, false) => {
            let found = accounts(source, namespace, account, &rest);
            if found.is_empty() {
                let message = "no Pods show that these labels mean a service account of their own: \
                               the peer is left out; give its pods one, and their Pods as input";
                notes.add(Effect::Stricter, at, message);
            }
            found.iter().map(|account| principal(account)).collect()
        }
    }
}

/// Service accounts all of whose pods have these labels, if they are those of all pods that have them.
fn accounts<'a>(
    source: Source<'a>,
    namespace: &str,
    account: Option<&str>,
    labels: &[(&str, &str)],
) -> Vec<&'a Arc<str>> {
    let pods = source.resources.pods.iter().filter_map(|(key, loaded)| {
        (*key.namespace == *namespace)
            .then(|| loaded.object())
            .flatten()
    });
    let (mut with, mut without) = (BTreeSet::new(), BTreeSet::new());
    for pod in pods {
        let has = labels.iter().all(|(key, value)| {
            pod.meta
                .labels
                .get(*key)
                .is_some_and(|found| **found == **value)
        });
        match has {
            true => with.insert(&pod.spec.service_account),
            false => without.insert(&pod.spec.service_account),
        };
    }
    let wanted = with
        .iter()
        .filter(|found| account.is_none_or(|a| *a == ****found));
    let wanted: Vec<&Arc<str>> = wanted.copied().collect();
    match wanted.iter().any(|found| without.contains(found)) {
        true => Vec::new(),
        false => wanted,
    }
}

/// One item of `toPorts` as operations.
fn of_ports(
    source: Source<'_>,
    services: &[ObjectKey],
    item: &PortRule,
    at: &str,
    notes: &mut Notes<'_>,
) -> Option<Vec<Value>> {
    let ports = service_ports(source, services, item, at, notes)?;
    let with_ports = |mut operation: Map<String, Value>| {
        if !ports.is_empty() {
            operation.insert("ports".into(), json!(ports));
        }
        Value::Object(operation)
    };
    let Some(rules) = &item.rules else {
        return Some(vec![with_ports(Map::new())]);
    };
    if rules.kafka.is_some() || rules.dns.is_some() || rules.l7.is_some() {
        let message = "only HTTP rules are translated: the ports allow nothing";
        notes.add(Effect::Stricter, format!("{at}.rules"), message);
        return None;
    }
    let mut operations = Vec::new();
    for (index, rule) in rules.http.iter().flatten().enumerate() {
        let at = format!("{at}.rules.http[{index}]");
        operations.extend(of_http(rule, &at, notes).map(with_ports));
    }
    Some(operations)
}

/// The ports of the Services behind which the ports of the pods are. Empty: all of them. `None`: none.
fn service_ports(
    source: Source<'_>,
    services: &[ObjectKey],
    item: &PortRule,
    at: &str,
    notes: &mut Notes<'_>,
) -> Option<Vec<String>> {
    let Some(wanted) = item.ports.as_ref().filter(|ports| !ports.is_empty()) else {
        return Some(Vec::new());
    };
    let mut found = BTreeSet::new();
    for (index, port) in wanted.iter().enumerate() {
        let number = port.port.as_deref().and_then(|p| p.parse::<u16>().ok());
        let last = number.map(|n| {
            port.end_port
                .and_then(|e| u16::try_from(e).ok())
                .unwrap_or(n)
        });
        let clusters = source.snapshot.clusters.iter().filter(|(key, endpoints)| {
            services.contains(&key.service)
                && key.subset.is_none()
                && !endpoints.is_empty()
                && endpoints.iter().all(|e| {
                    number
                        .zip(last)
                        .is_some_and(|(a, b)| (a..=b).contains(&e.address.port()))
                })
        });
        let before = found.len();
        found.extend(clusters.map(|(key, _)| key.port.to_string()));
        if found.len() == before {
            let message = "no endpoint says that this port of the pods is behind a port of the \
                           Service: it is left out";
            notes.add(Effect::Stricter, format!("{at}.ports[{index}]"), message);
        }
    }
    (!found.is_empty()).then(|| found.into_iter().collect())
}

fn of_http(rule: &HttpRule, at: &str, notes: &mut Notes<'_>) -> Option<Map<String, Value>> {
    let mut operation = Map::new();
    let mut refuse = |field: &str, message: &str| {
        let message = format!("{message}: the rule allows nothing");
        notes.add(Effect::Stricter, format!("{at}.{field}"), message);
    };
    if rule.headers.as_ref().is_some_and(|h| !h.is_empty())
        || rule.header_matches.as_ref().is_some_and(|h| !h.is_empty())
    {
        refuse(
            "headers",
            "conditions of Istio hold for a whole rule, not for one request",
        );
        return None;
    }
    if let Some(method) = &rule.method {
        let Some(words) = paths::literals(method) else {
            refuse(
                "method",
                "Istio compares methods with words, not with expressions",
            );
            return None;
        };
        operation.insert("methods".into(), json!(words));
    }
    if let Some(host) = &rule.host {
        let host = host.strip_prefix("(?i)").unwrap_or(host);
        let Some(words) = paths::literals(host) else {
            refuse(
                "host",
                "Istio compares hosts with names, not with expressions",
            );
            return None;
        };
        operation.insert("hosts".into(), json!(words));
    }
    if let Some(path) = &rule.path {
        let Some(found) = paths::istio_path(path) else {
            refuse(
                "path",
                "Istio has no expressions for paths, only a star at an end and templates",
            );
            return None;
        };
        if found.also_with_query {
            let message = "Cilium denies this path with a query, Istio does not look at queries";
            notes.add(Effect::Wider, format!("{at}.path"), message);
        }
        operation.insert("paths".into(), json!([found.pattern]));
    }
    Some(operation)
}
