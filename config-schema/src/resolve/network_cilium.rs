//! What a CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy says of ingress
//! (specs/policies.md 2.1). Peers are read in `cilium_peers`, ports in `cilium_ports`, HTTP rules in
//! `cilium_http`.

use std::sync::Arc;

use super::network::Selecting;
use super::{Findings, cilium_http, cilium_peers, cilium_ports, dry_run, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::Origin;
use crate::resources::cilium::{
    CiliumPolicySpec, CiliumRule, IngressRule, L7Rules, PortProtocol, PortRule,
};
use crate::resources::{Broken, Loaded, Object, Place, Resources};
use crate::snapshot::{
    AuthenticationMode, HttpRules, LabelExpression, NetworkAction, NetworkPolicy, NetworkRule,
    Sources, Standing, Surface,
};

const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";

/// Reads every policy. One that is broken denies what it selects.
pub(super) fn read_all(resources: &Resources, findings: &mut Findings) -> Vec<Selecting> {
    let mut read = Vec::new();
    for loaded in resources.cilium_policies.values() {
        match loaded {
            Loaded::Good(o) | Loaded::KeptLastGood(o) => {
                policy(o, &o.spec, &mut read, findings);
            }
            Loaded::Broken(broken) => read.push(deny_all(broken, findings)),
        }
    }
    for loaded in resources.cilium_clusterwide_policies.values() {
        match loaded {
            Loaded::Good(o) | Loaded::KeptLastGood(o) => {
                policy(o, &o.spec.0, &mut read, findings);
            }
            Loaded::Broken(broken) => read.push(deny_all(broken, findings)),
        }
    }
    read
}

/// A policy that can not be read: what it selects is unknown, and so all it could select is denied.
fn deny_all(broken: &Broken, findings: &mut Findings) -> Selecting {
    let namespace = &broken.origin.key.namespace;
    let scope = scope(namespace);
    let denied = format!("everything for {scope} is denied");
    let effect = dry_run::effect(broken.dry_run, denied);
    findings.push(unreadable(broken, effect));
    let standing = standing(broken.dry_run);
    let policy = broken_policy(&broken.origin, standing, broken.reason.clone());
    Selecting {
        policy: Arc::new(policy),
        selector: in_namespace(namespace),
        namespace_selector: LabelExpression::everything(),
    }
}

fn scope(namespace: &str) -> String {
    match namespace {
        "" => "every workload".to_owned(),
        namespace => format!("workloads of {namespace}"),
    }
}

/// How a policy stands that is only tried, or not.
pub(super) fn standing(is_tried: bool) -> Standing {
    match is_tried {
        true => Standing::Tried,
        false => Standing::InForce,
    }
}

fn broken_policy(origin: &Origin, standing: Standing, reason: Arc<str>) -> NetworkPolicy {
    NetworkPolicy {
        origin: origin.clone(),
        surface: Surface::Cilium,
        standing,
        default_deny: true,
        rules: Vec::new(),
        broken: Some(reason),
    }
}

/// Every workload of a namespace; of all namespaces if it is empty.
fn in_namespace(namespace: &Arc<str>) -> LabelExpression {
    match &**namespace {
        "" => LabelExpression::everything(),
        _ => LabelExpression::equals(NAMESPACE_LABEL, namespace.clone()),
    }
}

/// What reading one rule of a policy needs.
pub(super) struct Reading<'a> {
    /// The policy.
    pub origin: &'a Origin,
    /// Where its parts stand.
    pub place: &'a Place,
    /// Whether it is only tried.
    pub is_tried: bool,
    /// The first error, for which the policy denies what it selects.
    pub broken: Option<Arc<str>>,
    /// What there is to say.
    pub findings: &'a mut Findings,
}

impl Reading<'_> {
    /// Whether the policy is in no namespace.
    pub fn is_clusterwide(&self) -> bool {
        self.origin.key.namespace.is_empty()
    }

    /// An error: the policy is broken.
    pub fn refuse(&mut self, path: &str, message: impl Into<String>, hint: &str) {
        let message = message.into();
        let denied = "everything that the policy selects is denied".to_owned();
        let finding = Diagnostic::error(Code::BadValue, message.clone())
            .with_effect(dry_run::effect(self.is_tried, denied))
            .with_hint(hint);
        self.say(finding, path);
        self.broken.get_or_insert(message.into());
    }

    /// A part that means something else than it seems to, or nothing here.
    pub fn warn(&mut self, code: Code, path: &str, message: impl Into<String>, effect: &str) {
        let finding = Diagnostic::warning(code, message).with_effect(effect);
        self.say(finding, path);
    }

    /// A part that is right and yet nothing for a waypoint.
    pub fn not_here(&mut self, path: &str, message: &str) {
        let finding = Diagnostic::new(Severity::Info, Code::NotForWaypoint, message);
        self.say(finding.with_effect("nothing of it is enforced here"), path);
    }

    fn say(&mut self, finding: Diagnostic, path: &str) {
        let located = finding.at(self.place.locate(path));
        self.findings.push(located.of(self.origin.clone(), path));
    }
}

fn policy<T>(
    object: &Object<T>,
    spec: &CiliumPolicySpec,
    read: &mut Vec<Selecting>,
    findings: &mut Findings,
) {
    let (origin, place) = (&object.origin, &object.place);
    let is_tried = dry_run::is_tried(origin, &object.meta, place, findings);
    for (path, rule) in &spec.rules {
        let mut reading = Reading {
            origin,
            place,
            is_tried,
            broken: None,
            findings: &mut *findings,
        };
        read.extend(selecting(rule, path, &mut reading));
    }
}

/// `None`: it selects no workloads, but nodes.
fn selecting(rule: &CiliumRule, path: &str, reading: &mut Reading<'_>) -> Option<Selecting> {
    let own = in_namespace(&reading.origin.key.namespace);
    let mut selector = Some(own.clone());
    match (&rule.endpoint_selector, &rule.node_selector) {
        (Some(labels), None) => {
            let path = format!("{path}.endpointSelector");
            let labels = cilium_peers::subject(labels, &path, reading);
            selector = labels.map(|labels| LabelExpression::All(vec![own.clone(), labels]));
        }
        (None, Some(_)) if reading.is_clusterwide() => {
            reading.not_here(path, "a policy for nodes is not for a waypoint");
            return None;
        }
        (None, Some(_)) => {
            let message = "only a CiliumClusterwideNetworkPolicy has a nodeSelector";
            let path = format!("{path}.nodeSelector");
            reading.refuse(&path, message, "select workloads with endpointSelector");
        }
        (Some(_), Some(_)) => {
            let message = "a rule has either an endpointSelector or a nodeSelector";
            reading.refuse(&format!("{path}.nodeSelector"), message, "remove one");
        }
        (None, None) => {
            let message = "`endpointSelector` is missing";
            reading.refuse(path, message, "endpointSelector: {} selects everything");
        }
    }
    let rules = rules(rule, path, reading);
    let ingress = !is_empty(&rule.ingress) || !is_empty(&rule.ingress_deny);
    let asked = rule.enable_default_deny.as_ref().and_then(|d| d.ingress);
    let policy = match reading.broken.take() {
        Some(reason) => broken_policy(reading.origin, standing(reading.is_tried), reason),
        None => NetworkPolicy {
            origin: reading.origin.clone(),
            surface: Surface::Cilium,
            standing: standing(reading.is_tried),
            default_deny: asked.unwrap_or(ingress),
            rules,
            broken: None,
        },
    };
    // One for egress alone says nothing that a waypoint enforces.
    let speaks = policy.default_deny || !policy.rules.is_empty() || policy.broken.is_some();
    speaks.then(|| Selecting {
        policy: Arc::new(policy),
        selector: selector.unwrap_or(own),
        namespace_selector: LabelExpression::everything(),
    })
}

fn is_empty<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

fn rules(rule: &CiliumRule, path: &str, reading: &mut Reading<'_>) -> Vec<NetworkRule> {
    let egress = !is_empty(&rule.egress) || !is_empty(&rule.egress_deny);
    if is_empty(&rule.ingress) && is_empty(&rule.ingress_deny) && !egress {
        // Cilium counts what is in the lists: `ingress: []` is none (specs/policies.md 2.1.3).
        let message = "a rule must have at least one of ingress, ingressDeny, egress, egressDeny";
        let hint = "to deny everything write ingress: [{}]";
        reading.refuse(path, message, hint);
    }
    if egress {
        tell_of_egress(rule, path, reading);
    }
    let mut rules = Vec::new();
    for (field, list, action) in [
        ("ingress", &rule.ingress, NetworkAction::Allow),
        ("ingressDeny", &rule.ingress_deny, NetworkAction::Deny),
    ] {
        for (index, item) in list.iter().flatten().enumerate() {
            let path = format!("{path}.{field}[{index}]");
            let item = Item {
                rule: item,
                index,
                path: &path,
                action,
            };
            item.read(&mut rules, reading);
        }
    }
    rules
}

/// Egress is enforced at the source (specs/policies.md 2.1.8). Who does not know that its L7 rules
/// can not be, there either, believes that they work.
fn tell_of_egress(rule: &CiliumRule, path: &str, reading: &mut Reading<'_>) {
    let lists = [("egress", &rule.egress), ("egressDeny", &rule.egress_deny)];
    if let Some((field, _)) = lists.iter().find(|(_, list)| !is_empty(list)) {
        let message = "egress is enforced at the source, by Cilium, and not at a waypoint";
        reading.not_here(&format!("{path}.{field}"), message);
    }
    for (field, list) in lists {
        for (index, item) in list.iter().flatten().enumerate() {
            let path = format!("{path}.{field}[{index}]");
            if !is_empty(&item.to_fqdns) {
                let message = "Cilium learns from its own DNS proxy which addresses a name has, and \
                               a waypoint stands in front of Services of the cluster";
                reading.not_here(&format!("{path}.toFQDNs"), message);
            }
            for (at, ports) in item.to_ports.iter().flatten().enumerate() {
                let on_l7 = |l7: &L7Rules| l7.families() > 0 && l7.dns.is_none();
                if ports.rules.as_ref().is_some_and(on_l7) {
                    let message = "what a client of the mesh asks is encrypted before Cilium could \
                                   read it, and a waypoint enforces ingress";
                    let effect =
                        "nobody enforces these rules for requests that go through a waypoint";
                    let path = format!("{path}.toPorts[{at}].rules");
                    reading.warn(Code::NotEnforced, &path, message, effect);
                }
            }
        }
    }
}

/// One item of `ingress` or `ingressDeny`.
struct Item<'a> {
    rule: &'a IngressRule,
    index: usize,
    path: &'a str,
    action: NetworkAction,
}

impl Item<'_> {
    fn read(&self, rules: &mut Vec<NetworkRule>, reading: &mut Reading<'_>) {
        let from = cilium_peers::sources(self.rule, self.path, reading);
        let authentication = self.authentication(reading);
        let new = |path: &str, ports, http| NetworkRule {
            index: self.index,
            path: path.into(),
            action: self.action,
            from: from.clone(),
            ports,
            http,
            authentication,
            broken: None,
        };
        let port_rules = self.rule.to_ports.as_deref().unwrap_or_default();
        let icmps = !is_empty(&self.rule.icmps);
        if icmps && !port_rules.is_empty() {
            let message = "a rule has either toPorts or icmps";
            reading.refuse(&format!("{}.icmps", self.path), message, "write two rules");
        }
        if port_rules.is_empty() {
            // Neither peers nor ports: nothing is selected (specs/policies.md 2.1.3). And what is on
            // ICMP alone is on no connection.
            let nothing = from == Sources::Anybody || icmps;
            if !nothing {
                rules.push(new(self.path, None, HttpRules::NotAsked));
            }
            return;
        }
        for (index, port_rule) in port_rules.iter().enumerate() {
            let path = format!("{}.toPorts[{index}]", self.path);
            let ports = cilium_ports::ports(port_rule, &path, reading);
            let (http, broken) = self.l7(port_rule, &path, reading);
            rules.push(NetworkRule {
                broken,
                ..new(&path, ports, http)
            });
        }
    }

    fn authentication(&self, reading: &mut Reading<'_>) -> Option<AuthenticationMode> {
        let authentication = self.rule.authentication.as_ref()?;
        match authentication.mode.as_str() {
            "disabled" => Some(AuthenticationMode::Disabled),
            "required" => Some(AuthenticationMode::Required),
            "test-always-fail" => Some(AuthenticationMode::TestAlwaysFail),
            unknown => {
                let path = format!("{}.authentication.mode", self.path);
                let message = format!("unknown mode of authentication '{unknown}'");
                reading.refuse(&path, message, "disabled, required or test-always-fail");
                None
            }
        }
    }

    /// The L7 rules of a port, and why they can not be evaluated.
    fn l7(
        &self,
        port_rule: &PortRule,
        path: &str,
        reading: &mut Reading<'_>,
    ) -> (HttpRules, Option<Arc<str>>) {
        let tls = port_rule.terminating_tls.is_some() || port_rule.originating_tls.is_some();
        let names = !is_empty(&port_rule.server_names);
        let rules_path = format!("{path}.rules");
        if let Some(rules) = &port_rule.rules {
            self.check_l7(rules, port_rule, &rules_path, reading);
        }
        if port_rule.listener.is_some() {
            let message = "a listener is for egress only";
            reading.refuse(&format!("{path}.listener"), message, "remove it");
        }
        if names && port_rule.rules.is_some() && port_rule.terminating_tls.is_none() {
            let message = "serverNames with L7 rules need terminatingTLS";
            reading.refuse(&format!("{path}.serverNames"), message, "write two rules");
        }
        let rules = port_rule.rules.as_ref();
        let other = rules.is_some_and(|r| r.families() > 0 && r.http.is_none());
        for (there, field) in [
            (tls, "terminatingTLS"),
            (names, "serverNames"),
            (other, "rules"),
        ] {
            if there {
                let message = format!("{field}: a waypoint can not evaluate this");
                let effect = "the rule allows nothing";
                let path = format!("{path}.{field}");
                reading.warn(Code::Unsupported, &path, message.clone(), effect);
                return (HttpRules::NotAsked, Some(message.into()));
            }
        }
        match rules.and_then(|r| r.http.as_ref()) {
            None => (HttpRules::NotAsked, None),
            Some(http) => {
                let path = format!("{rules_path}.http");
                if http.is_empty() {
                    let message = "an empty list of http rules matches no request";
                    reading.warn(Code::BadValue, &path, message, "the rule allows nothing");
                }
                let read = http.iter().enumerate().map(|(index, rule)| {
                    cilium_http::rule(rule, &format!("{path}[{index}]"), reading)
                });
                (HttpRules::Cilium(read.collect()), None)
            }
        }
    }

    fn check_l7(&self, rules: &L7Rules, on: &PortRule, path: &str, reading: &mut Reading<'_>) {
        if self.action == NetworkAction::Deny {
            let message = "a deny rule has no L7 rules";
            reading.refuse(path, message, "deny the port, or allow what may pass");
        }
        if rules.families() > 1 {
            let message = "a port has one kind of L7 rules";
            reading.refuse(path, message, "http, or dns, or kafka, or l7proto");
        }
        if rules.dns.is_some() {
            let message = "DNS rules are for egress only";
            reading.refuse(&format!("{path}.dns"), message, "remove them");
        }
        let is_tcp = |p: &PortProtocol| p.protocol.as_deref() == Some("TCP");
        if rules.families() > 0 && !on.ports.iter().flatten().all(is_tcp) {
            let message = "L7 rules need ports with protocol: TCP";
            reading.refuse(path, message, "write protocol: TCP beside each port");
        }
        let is_zero = |p: &PortProtocol| p.port.as_deref() == Some("0");
        if rules.families() > 0 && on.ports.iter().flatten().any(is_zero) {
            reading.refuse(path, "L7 rules need ports other than 0", "name the ports");
        }
    }
}
