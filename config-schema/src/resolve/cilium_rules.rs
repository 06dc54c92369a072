//! Rules of a Cilium policy (specs/policies.md 2.1.1, 2.1.4). Peers are read in `cilium_peers`, ports
//! in `cilium_ports`, HTTP rules in `cilium_http`.

use std::sync::Arc;

use super::cilium_peers::WrittenPeers;
use super::network_cilium::{Reading, is_empty};
use super::{cilium_http, cilium_peers, cilium_ports};
use crate::diagnostics::Code;
use crate::resources::cilium::{
    Authentication, CiliumRule, EgressRule, IngressRule, L7Rules, PortProtocol, PortRule,
};
use crate::snapshot::{
    AuthenticationMode, Direction, HttpRules, NetworkAction, NetworkRule, Peers,
};

/// The rules of one direction.
pub(super) fn rules(
    rule: &CiliumRule,
    direction: Direction,
    path: &str,
    reading: &mut Reading<'_>,
) -> Vec<NetworkRule> {
    let mut rules = Vec::new();
    let mut read = |items: Vec<Written<'_>>, field: &str, action| {
        for (index, written) in items.into_iter().enumerate() {
            let path = format!("{path}.{field}[{index}]");
            let item = Item {
                written,
                direction,
                index,
                path: &path,
                action,
            };
            item.read(&mut rules, reading);
        }
    };
    let (allow, deny) = (NetworkAction::Allow, NetworkAction::Deny);
    match direction {
        Direction::Ingress => {
            read(each(&rule.ingress, Written::ingress), "ingress", allow);
            read(
                each(&rule.ingress_deny, Written::ingress),
                "ingressDeny",
                deny,
            );
        }
        Direction::Egress => {
            // Of a fault an error was told; what is left of the rules would only be told wrongly.
            if let Some(reason) = &rule.egress_fault {
                reading.broken.get_or_insert(reason.clone());
                return Vec::new();
            }
            read(each(&rule.egress, Written::egress), "egress", allow);
            read(each(&rule.egress_deny, Written::egress), "egressDeny", deny);
        }
    }
    rules
}

fn each<'a, T>(list: &'a Option<Vec<T>>, written: fn(&'a T) -> Written<'a>) -> Vec<Written<'a>> {
    list.iter().flatten().map(written).collect()
}

/// What an item says, whatever the direction.
struct Written<'a> {
    peers: WrittenPeers<'a>,
    to_ports: &'a [PortRule],
    has_icmps: bool,
    authentication: Option<&'a Authentication>,
}

impl<'a> Written<'a> {
    fn ingress(rule: &'a IngressRule) -> Self {
        Self {
            peers: WrittenPeers::from_rule(rule),
            to_ports: rule.to_ports.as_deref().unwrap_or_default(),
            has_icmps: !is_empty(&rule.icmps),
            authentication: rule.authentication.as_ref(),
        }
    }

    fn egress(rule: &'a EgressRule) -> Self {
        Self {
            peers: WrittenPeers::to_rule(rule),
            to_ports: rule.to_ports.as_deref().unwrap_or_default(),
            has_icmps: !is_empty(&rule.icmps),
            authentication: rule.authentication.as_ref(),
        }
    }
}

/// One item of `ingress`, `ingressDeny`, `egress` or `egressDeny`.
struct Item<'a> {
    written: Written<'a>,
    direction: Direction,
    index: usize,
    path: &'a str,
    action: NetworkAction,
}

impl Item<'_> {
    fn read(&self, rules: &mut Vec<NetworkRule>, reading: &mut Reading<'_>) {
        let peers = cilium_peers::peers(&self.written.peers, self.path, reading);
        let authentication = self.authentication(reading);
        let new = |path: &str, ports, http| NetworkRule {
            index: self.index,
            path: path.into(),
            action: self.action,
            peers: peers.clone(),
            ports,
            http,
            authentication,
            broken: None,
        };
        let (port_rules, icmps) = (self.written.to_ports, self.written.has_icmps);
        if icmps && !port_rules.is_empty() {
            let message = "a rule has either toPorts or icmps";
            reading.refuse(&format!("{}.icmps", self.path), message, "write two rules");
        }
        if port_rules.is_empty() {
            // Neither peers nor ports: nothing is selected (specs/policies.md 2.1.3). And what is on
            // ICMP alone is on no connection.
            let nothing = peers == Peers::Anybody || icmps;
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
        let authentication = self.written.authentication?;
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
        let listener = port_rule.listener.is_some();
        if listener && self.direction == Direction::Ingress {
            let message = "a listener is for egress only";
            reading.refuse(&format!("{path}.listener"), message, "remove it");
        }
        if names && port_rule.rules.is_some() && port_rule.terminating_tls.is_none() {
            let message = "serverNames with L7 rules need terminatingTLS";
            reading.refuse(&format!("{path}.serverNames"), message, "write two rules");
        }
        let rules = port_rule.rules.as_ref();
        let other = rules.is_some_and(|r| r.families() > 0 && r.http.is_none());
        if rules.is_some_and(|r| r.dns.is_some()) {
            let message = "questions of DNS do not go through a waypoint";
            reading.not_here(&format!("{rules_path}.dns"), message);
            return (HttpRules::NotAsked, Some(message.into()));
        }
        for (there, field) in [
            (tls, "terminatingTLS"),
            (names, "serverNames"),
            (listener, "listener"),
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
        if rules.dns.is_some() && self.direction == Direction::Ingress {
            let message = "DNS rules are for egress only";
            reading.refuse(&format!("{path}.dns"), message, "remove them");
        }
        let is_tcp = |p: &PortProtocol| p.protocol.as_deref() == Some("TCP");
        let is_dns = rules.dns.is_some();
        if rules.families() > 0 && !is_dns && !on.ports.iter().flatten().all(is_tcp) {
            let message = "L7 rules need ports with protocol: TCP";
            reading.refuse(path, message, "write protocol: TCP beside each port");
        }
        let is_zero = |p: &PortProtocol| p.port.as_deref() == Some("0");
        if rules.families() > 0 && on.ports.iter().flatten().any(is_zero) {
            reading.refuse(path, "L7 rules need ports other than 0", "name the ports");
        }
    }
}
