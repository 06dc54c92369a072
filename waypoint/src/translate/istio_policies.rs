//! AuthorizationPolicies as CiliumNetworkPolicies. What a rule asks and Cilium can not ask makes the rule allow
//! nothing; a policy that denies is not translated, for Cilium's deny rules know no HTTP.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cairn_config_schema::origin::{Kind, Origin};
use cairn_config_schema::snapshot::{
    Action, ClusterKey, Condition, Operation, Policy, PolicyRule, Service, Source as Peer,
    StringMatch, Values,
};
use serde_json::{Map, Value, json};

use super::{Effect, Notes, Source, Translation, paths};

const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace";
const SERVICE_ACCOUNT: &str = "k8s:io.cilium.k8s.policy.serviceaccount";

/// Writes every AuthorizationPolicy that can be written.
pub(super) fn translate(source: Source<'_>, out: &mut Translation) {
    let kept = out.replaced.len();
    for loaded in source.resources.authorization_policies.values() {
        let Some(object) = loaded.object() else {
            continue;
        };
        let mut notes = Notes::of(&object.origin);
        let objects = of_policy(source, &object.origin, &mut notes);
        out.take(notes, objects);
    }
    tell_of_halves(source, kept, out);
}

/// Services some of whose ALLOW policies were translated and some not: until all are, a request needs the leave
/// of both sides.
fn tell_of_halves(source: Source<'_>, kept: usize, out: &mut Translation) {
    let new: Vec<Origin> = out.replaced.iter().skip(kept).cloned().collect();
    let policies = source.resources.authorization_policies.values();
    for object in policies.filter_map(|loaded| loaded.object()) {
        let services = served(source).filter(|s| applies(s, &object.origin).is_some());
        let other = services
            .flat_map(|s| &s.policies)
            .find(|policy| policy.action == Action::Allow && !new.contains(&policy.origin));
        if let (true, Some(other)) = (new.contains(&object.origin), other) {
            let mut notes = Notes::of(&object.origin);
            let message = format!(
                "{} stays, and what it does not allow is denied",
                other.origin
            );
            notes.add(Effect::Stricter, "spec", message);
            out.losses.extend(notes.losses);
        }
    }
}

fn served(source: Source<'_>) -> impl Iterator<Item = &Service> {
    source.snapshot.services.values().map(|service| &**service)
}

fn applies<'a>(service: &'a Service, origin: &Origin) -> Option<&'a Policy> {
    let mut policies = service.policies.iter();
    policies
        .find(|policy| policy.origin == *origin)
        .map(|policy| &**policy)
}

fn of_policy(source: Source<'_>, origin: &Origin, notes: &mut Notes<'_>) -> Vec<Value> {
    let services: Vec<(&Service, &Policy)> = served(source)
        .filter_map(|service| Some((service, applies(service, origin)?)))
        .collect();
    let Some((_, policy)) = services.first() else {
        let message = "it applies to no Service of this waypoint (a selector is for ztunnel)";
        notes.add(Effect::NotTranslated, "spec", message);
        return Vec::new();
    };
    let why_not = match (policy.action, &policy.broken) {
        (_, Some(reason)) => Some(format!("it can not be read: {reason}")),
        (Action::Deny, _) => Some("deny rules of Cilium know no HTTP; it stays as it is".into()),
        (Action::Custom, _) => Some("Cilium asks no external provider; it stays as it is".into()),
        (Action::Audit, _) => Some("Cilium has no AUDIT; it stays as it is".into()),
        _ if policy.dry_run => {
            Some("Cilium has no dry run of one policy and would enforce it".into())
        }
        (Action::Allow, None) => None,
    };
    if let Some(message) = why_not {
        notes.add(Effect::NotTranslated, "spec", message);
        return Vec::new();
    }
    let several = services.len() > 1;
    let objects = services
        .iter()
        .filter_map(|(service, policy)| of_service(source, service, policy, several, notes));
    objects.collect()
}

/// What a policy says of one Service, for the pods behind it.
fn of_service(
    source: Source<'_>,
    service: &Service,
    policy: &Policy,
    several: bool,
    notes: &mut Notes<'_>,
) -> Option<Value> {
    let selector = match service.origin.kind {
        Kind::Service => source.resources.services.get(&service.key)?.object()?,
        kind => {
            let message = format!(
                "{kind} {} has no pods that Cilium could select",
                service.key
            );
            notes.add(Effect::NotTranslated, "spec.targetRefs", message);
            return None;
        }
    };
    let labels = &selector.spec.selector;
    if labels.is_empty() {
        let message = format!("Service {} has no selector", service.key);
        notes.add(Effect::NotTranslated, "spec.targetRefs", message);
        return None;
    }
    tell_of_shared_pods(source, service, notes);
    let mut ingress = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let at = format!("spec.rules[{index}]");
        ingress.extend(of_rule(source, service, rule, &at, notes));
    }
    if ingress.is_empty() {
        // Nobody and nothing: it still makes everything else denied (specs/policies.md 2.1.3).
        ingress.push(json!({}));
    }
    let name = match several {
        true => format!("{}-{}", policy.origin.key.name, service.key.name),
        false => policy.origin.key.name.to_string(),
    };
    let labels: Map<String, Value> = labels
        .iter()
        .map(|(k, v)| (k.to_string(), json!(&**v)))
        .collect();
    Some(json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": &*service.key.namespace},
        "spec": {"endpointSelector": {"matchLabels": labels}, "ingress": ingress},
    }))
}

/// Pods that are behind other Services, too, are under the policy there as well.
fn tell_of_shared_pods(source: Source<'_>, service: &Service, notes: &mut Notes<'_>) {
    let own: BTreeSet<IpAddr> = addresses(source, service).collect();
    let shared = served(source).find(|other| {
        other.key != service.key && addresses(source, other).any(|address| own.contains(&address))
    });
    if let Some(other) = shared {
        let message = format!(
            "its pods are behind Service {} as well, and the policy is for pods",
            other.key
        );
        notes.add(Effect::Stricter, "spec.targetRefs", message);
    }
}

fn addresses<'a>(source: Source<'a>, service: &'a Service) -> impl Iterator<Item = IpAddr> + 'a {
    let clusters = source.snapshot.clusters.iter();
    let of_it = clusters.filter(|(cluster, _)| cluster.service == service.key);
    of_it
        .flat_map(|(_, endpoints)| endpoints.iter())
        .map(|e| e.address.ip())
}

/// The items of `ingress` for one rule; none if it can not be said, and then nothing is allowed by it.
fn of_rule(
    source: Source<'_>,
    service: &Service,
    rule: &PolicyRule,
    at: &str,
    notes: &mut Notes<'_>,
) -> Vec<Value> {
    if let Some(reason) = &rule.broken {
        notes.add(
            Effect::Stricter,
            at,
            format!("the rule can not be read: {reason}"),
        );
        return Vec::new();
    }
    let Some(headers) = headers(&rule.when, at, notes) else {
        return Vec::new();
    };
    let mut peers = Vec::new();
    for (index, peer) in rule.from.iter().enumerate() {
        peers.extend(endpoint(
            source,
            peer,
            &format!("{at}.from[{index}].source"),
            notes,
        ));
    }
    if peers.is_empty() && !rule.from.is_empty() {
        return Vec::new();
    }
    let to_ports = match rule.to.is_empty() && headers.is_empty() {
        true => Vec::new(),
        false => {
            let everything = [Operation::default()];
            let operations = match rule.to.is_empty() {
                true => &everything[..],
                false => &rule.to,
            };
            let mut items = Vec::new();
            for (index, operation) in operations.iter().enumerate() {
                let at = format!("{at}.to[{index}].operation");
                items.extend(to_ports(source, service, operation, &headers, &at, notes));
            }
            if items.is_empty() {
                return Vec::new();
            }
            items
        }
    };
    let mut item = Map::new();
    if peers.is_empty() {
        // Whoever it is, with a certificate or without.
        item.insert("fromEntities".into(), json!(["all"]));
    } else {
        item.insert("fromEndpoints".into(), json!(peers));
    }
    if !to_ports.is_empty() {
        item.insert("toPorts".into(), json!(to_ports));
    }
    vec![Value::Object(item)]
}

/// The selectors for one source. None if it can not be said.
fn endpoint(source: Source<'_>, peer: &Peer, at: &str, notes: &mut Notes<'_>) -> Vec<Value> {
    let asked = [
        peer.principals.is_empty(),
        peer.namespaces.is_empty(),
        peer.service_accounts.is_empty(),
    ];
    let sayable = [
        (peer.trust_domains.is_empty(), "trustDomains"),
        (peer.request_principals.is_empty(), "requestPrincipals"),
        (peer.ip_blocks.is_empty(), "ipBlocks"),
        (peer.remote_ip_blocks.is_empty(), "remoteIpBlocks"),
        (peer.principals.none_of.is_empty(), "notPrincipals"),
        (peer.namespaces.none_of.is_empty(), "notNamespaces"),
        (
            peer.service_accounts.none_of.is_empty(),
            "notServiceAccounts",
        ),
        (
            asked.iter().filter(|absent| !**absent).count() == 1,
            "more than one kind of name",
        ),
    ];
    if let Some((_, field)) = sayable.iter().find(|(fine, _)| !fine) {
        let message = format!("{field} can not be asked of Cilium: the source allows nobody");
        notes.add(Effect::Stricter, at, message);
        return Vec::new();
    }
    let domains = &source.snapshot.mesh;
    let all = peer
        .principals
        .any_of
        .iter()
        .map(|p| by_principal(p, domains));
    let all = all.chain(peer.namespaces.any_of.iter().map(in_namespace));
    let all = all.chain(peer.service_accounts.any_of.iter().map(by_account));
    let mut selectors: Vec<Value> = Vec::new();
    for (namespace, account) in all.flatten() {
        let mut labels = Map::new();
        labels.insert(NAMESPACE.into(), json!(namespace));
        if let Some(account) = account {
            labels.insert(SERVICE_ACCOUNT.into(), json!(account));
        }
        let selector = json!({"matchLabels": labels});
        if !selectors.contains(&selector) {
            selectors.push(selector);
        }
    }
    if selectors.is_empty() {
        let message = "no name in it stands for one namespace or service account of this mesh: \
                       the source allows nobody";
        notes.add(Effect::Stricter, at, message);
    }
    selectors
}

/// A namespace, and a service account in it unless it is any.
type Account = (String, Option<String>);

/// `domain/ns/namespace/sa/account`, or with a star in place of domain or account.
fn by_principal(name: &StringMatch, mesh: &cairn_config_schema::snapshot::Mesh) -> Option<Account> {
    let text = name.to_string();
    let (domain, rest) = text.split_once("/ns/")?;
    let of_mesh = *domain == *mesh.trust_domain
        || mesh
            .trust_domain_aliases
            .iter()
            .any(|alias| **alias == *domain)
        || domain == "*"
        || domain == "cluster.local";
    let (namespace, account) = rest
        .split_once("/sa/")
        .or_else(|| Some((rest.strip_suffix("/*")?, "*")))?;
    (of_mesh && is_name(namespace)).then_some(())?;
    match account {
        "*" => Some((namespace.to_owned(), None)),
        account if is_name(account) => Some((namespace.to_owned(), Some(account.to_owned()))),
        _ => None,
    }
}

fn in_namespace(name: &StringMatch) -> Option<Account> {
    match name {
        StringMatch::Exact(namespace) if is_name(namespace) => Some((namespace.to_string(), None)),
        _ => None,
    }
}

fn by_account(name: &StringMatch) -> Option<Account> {
    let StringMatch::Exact(text) = name else {
        return None;
    };
    let (namespace, account) = text.split_once('/')?;
    (is_name(namespace) && is_name(account))
        .then(|| (namespace.to_owned(), Some(account.to_owned())))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['*', '/'])
}

/// `headers` of HTTP rules for the conditions of a rule. `None`: one of them can not be said.
fn headers(when: &[Condition], at: &str, notes: &mut Notes<'_>) -> Option<Vec<String>> {
    let mut headers = Vec::new();
    for (index, condition) in when.iter().enumerate() {
        let said = match condition {
            Condition::RequestHeader { name, values } => header(name.as_str(), values),
            _ => None,
        };
        let Some(header) = said else {
            let at = format!("{at}.when[{index}]");
            let message = "Cilium can ask for one exact value of a header or for its presence, \
                           and for nothing else: the rule allows nothing";
            notes.add(Effect::Stricter, at, message);
            return None;
        };
        headers.push(header);
    }
    Some(headers)
}

fn header(name: &str, values: &Values<StringMatch>) -> Option<String> {
    if !values.none_of.is_empty() {
        return None;
    }
    match values.any_of.as_slice() {
        [StringMatch::Any] => Some(name.to_owned()),
        [StringMatch::Exact(value)] => Some(format!("{name}: {value}")),
        _ => None,
    }
}

/// The item of `toPorts` for one operation.
fn to_ports(
    source: Source<'_>,
    service: &Service,
    operation: &Operation,
    headers: &[String],
    at: &str,
    notes: &mut Notes<'_>,
) -> Option<Value> {
    let negated = [
        (operation.hosts.none_of.is_empty(), "notHosts"),
        (operation.methods.none_of.is_empty(), "notMethods"),
        (operation.paths.none_of.is_empty(), "notPaths"),
        (operation.ports.none_of.is_empty(), "notPorts"),
    ];
    if let Some((_, field)) = negated.iter().find(|(absent, _)| !absent) {
        let message = format!("{field} can not be asked of Cilium: the operation allows nothing");
        notes.add(Effect::Stricter, at, message);
        return None;
    }
    let ports = ports(source, service, operation, at, notes);
    if ports.is_empty() {
        return None;
    }
    if !operation.has_http_fields() && headers.is_empty() {
        return Some(json!({"ports": ports}));
    }
    Some(json!({"ports": ports, "rules": {"http": http(operation, headers)}}))
}

/// The ports of the pods, for network policies know no Services.
fn ports(
    source: Source<'_>,
    service: &Service,
    operation: &Operation,
    at: &str,
    notes: &mut Notes<'_>,
) -> Vec<Value> {
    let wanted = &operation.ports.any_of;
    let mut numbers = BTreeSet::new();
    for port in &service.ports {
        if !wanted.is_empty() && !wanted.contains(&port.number) {
            continue;
        }
        let cluster = ClusterKey::new(service.key.clone(), port.number);
        let endpoints = source.snapshot.clusters.get(&cluster);
        let before = numbers.len();
        numbers.extend(
            endpoints
                .into_iter()
                .flat_map(|e| e.iter())
                .map(|e| e.address.port()),
        );
        if numbers.len() == before && endpoints.is_none_or(|e| e.is_empty()) {
            let message = format!(
                "no endpoint says which port of the pods is behind port {}: it is left out",
                port.number
            );
            notes.add(Effect::Stricter, at, message);
        }
    }
    let numbers = numbers.into_iter();
    numbers
        .map(|n| json!({"port": n.to_string(), "protocol": "TCP"}))
        .collect()
}

/// One HTTP rule for each path, with all methods and hosts.
fn http(operation: &Operation, headers: &[String]) -> Vec<Value> {
    let mut rest = Map::new();
    if let Some(methods) = choice(&operation.methods.any_of, "") {
        rest.insert("method".into(), json!(methods));
    }
    // Istio compares hosts without their case.
    if let Some(hosts) = choice(&operation.hosts.any_of, "(?i)") {
        rest.insert("host".into(), json!(hosts));
    }
    if !headers.is_empty() {
        rest.insert("headers".into(), json!(headers));
    }
    let paths: Option<Vec<String>> = operation
        .paths
        .any_of
        .iter()
        .map(paths::expression)
        .collect();
    let with = |path: Option<String>| {
        let mut rule = Map::new();
        rule.extend(path.map(|path| ("path".to_owned(), json!(path))));
        rule.extend(rest.clone());
        Value::Object(rule)
    };
    match paths {
        Some(paths) if !paths.is_empty() => paths.into_iter().map(|p| with(Some(p))).collect(),
        _ => vec![with(None)],
    }
}

/// An expression for any of these texts. `None`: any text.
fn choice(texts: &[StringMatch], flags: &str) -> Option<String> {
    let expressions: Option<Vec<String>> = texts.iter().map(expression).collect();
    let expressions = expressions.filter(|all| !all.is_empty())?;
    Some(format!("{flags}{}", expressions.join("|")))
}

fn expression(text: &StringMatch) -> Option<String> {
    match text {
        StringMatch::Any => None,
        StringMatch::Exact(text) | StringMatch::Glob(text) => Some(regex::escape(text)),
        StringMatch::Prefix(text) => Some(format!("{}.*", regex::escape(text))),
        StringMatch::Suffix(text) => Some(format!(".*{}", regex::escape(text))),
    }
}
