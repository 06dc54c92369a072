//! One rule of a Calico policy (specs/policies.md 2.5): ports, HTTP. Who is at the other end is read in
//! `calico_peers`. What a waypoint can not judge makes the rule fail on the safe side.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::network_cilium::Reading;
use super::{calico_peers, calico_selector};
use crate::diagnostics::Code;
use crate::resources::calico::{CalicoRule, EntityRule, HttpMatch, HttpPath};
use crate::snapshot::{
    CalicoHttp, CalicoPath, Direction, HttpRules, LabelExpression, NetworkAction, NetworkRule,
    PortSet, calico_path,
};

/// `None`: it can not be read, and the policy is broken.
pub(super) fn expression(
    text: &Option<String>,
    path: &str,
    reading: &mut Reading<'_>,
) -> Option<LabelExpression> {
    let text = text.as_deref().unwrap_or_default();
    match calico_selector::parse(text) {
        Ok(expression) => Some(expression),
        Err(reason) => {
            let message = format!("'{text}' is no selector: {reason}");
            reading.refuse(path, message, "app == 'web' && has(tier), or all()");
            None
        }
    }
}

/// `None`: it is never about TCP.
pub(super) fn rule(
    rule: &CalicoRule,
    direction: Direction,
    index: usize,
    reading: &mut Reading<'_>,
) -> Option<NetworkRule> {
    let path = match direction {
        Direction::Ingress => format!("spec.ingress[{index}]"),
        Direction::Egress => format!("spec.egress[{index}]"),
    };
    let action = match rule.action.to_ascii_lowercase().as_str() {
        "allow" => NetworkAction::Allow,
        "deny" => NetworkAction::Deny,
        "pass" => NetworkAction::Pass,
        "log" => NetworkAction::Log,
        _ => {
            let message = format!("unknown action '{}'", rule.action);
            reading.refuse(
                &format!("{path}.action"),
                message,
                "Allow, Deny, Pass or Log",
            );
            return None;
        }
    };
    let mut protocol = |written: &Option<IntOrString>, field: &str| {
        let written = written.as_ref()?;
        let read = is_tcp(written);
        if read.is_none() {
            let hint = "TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255";
            reading.refuse(&format!("{path}.{field}"), "this is no protocol", hint);
        }
        read
    };
    let never = protocol(&rule.protocol, "protocol") == Some(false)
        || protocol(&rule.not_protocol, "notProtocol") == Some(true);
    check_protocol(rule, &path, reading);
    let mut broken = None;
    let peers = calico_peers::peers(rule, direction, &path, &mut broken, reading);
    calico_peers::check_own_end(rule, direction, &path, &mut broken, reading);
    let ports = ports(rule.destination.as_ref(), &path, &mut broken, reading);
    let http = match &rule.http {
        Some(http) => HttpRules::Calico(self::http(http, &path, reading)),
        None => HttpRules::NotAsked,
    };
    (!never).then(|| NetworkRule {
        index,
        path: path.into(),
        action,
        peers,
        ports,
        http,
        authentication: None,
        broken,
    })
}

/// Criteria that only some protocols have, beside a protocol that has them not. Calico's API refuses
/// that; a Deny of it must not be taken for one that is never about TCP.
fn check_protocol(rule: &CalicoRule, path: &str, reading: &mut Reading<'_>) {
    let of_icmp = rule.protocol.as_ref().is_some_and(is_icmp);
    for (there, field) in [
        (rule.icmp.is_some(), "icmp"),
        (rule.not_icmp.is_some(), "notICMP"),
    ] {
        if there && !of_icmp {
            let message = format!("{field} needs protocol: ICMP or ICMPv6");
            let hint = "write the protocol, or remove it from a rule for TCP";
            reading.refuse(&format!("{path}.{field}"), message, hint);
        }
    }
    let of_tcp = rule
        .protocol
        .as_ref()
        .is_none_or(|p| is_tcp(p) != Some(false));
    if rule.http.is_some() && !of_tcp {
        let message = "http needs protocol: TCP, or none";
        reading.refuse(&format!("{path}.http"), message, "write protocol: TCP");
    }
}

fn is_icmp(protocol: &IntOrString) -> bool {
    match protocol {
        IntOrString::Int(number) => matches!(number, 1 | 58),
        IntOrString::String(name) => {
            let names = ["ICMP", "ICMPv6", "1", "58"];
            names.iter().any(|n| name.eq_ignore_ascii_case(n))
        }
    }
}

/// Whether a protocol is TCP; `None`: it is no protocol. Calico reads names in any case and numbers
/// in quotes.
fn is_tcp(protocol: &IntOrString) -> Option<bool> {
    const OTHERS: [&str; 5] = ["UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite"];
    let number = match protocol {
        IntOrString::Int(number) => u8::try_from(*number).ok(),
        IntOrString::String(name) if name.eq_ignore_ascii_case("TCP") => return Some(true),
        IntOrString::String(name) if OTHERS.iter().any(|o| name.eq_ignore_ascii_case(o)) => {
            return Some(false);
        }
        IntOrString::String(text) => text.parse().ok(),
    };
    Some(number.filter(|n| *n != 0)? == 6)
}

/// A criterion that a waypoint can not judge: the rule fails on the safe side.
pub(super) fn can_not(
    what: &str,
    path: &str,
    broken: &mut Option<Arc<str>>,
    reading: &mut Reading<'_>,
) {
    let message = format!("{what}: a waypoint can not evaluate this");
    let effect = "an allow by it allows nothing, a deny or pass denies everything";
    reading.warn(Code::Unsupported, path, message.clone(), effect);
    broken.get_or_insert(message.into());
}

/// The ports of the destination.
fn ports(
    destination: Option<&EntityRule>,
    path: &str,
    broken: &mut Option<Arc<str>>,
    reading: &mut Reading<'_>,
) -> Option<Vec<PortSet>> {
    let destination = destination?;
    let path = format!("{path}.destination");
    let mut read = |list: &Option<Vec<IntOrString>>, field: &str| {
        let list = list.as_ref().filter(|list| !list.is_empty())?;
        let mut sets = Vec::new();
        for (index, port) in list.iter().enumerate() {
            match port_set(port) {
                Some(set) => sets.push(set),
                None => {
                    let path = format!("{path}.{field}[{index}]");
                    reading.refuse(&path, "this is no port", "80, 8000:8100 or a name");
                }
            }
        }
        Some(sets)
    };
    let ports = read(&destination.ports, "ports");
    match (ports, read(&destination.not_ports, "notPorts")) {
        (ports, None) => ports,
        (None, Some(not)) => Some(vec![PortSet::Not(not)]),
        (Some(_), Some(_)) => {
            can_not(
                "ports with notPorts",
                &format!("{path}.notPorts"),
                broken,
                reading,
            );
            None
        }
    }
}

fn port_set(port: &IntOrString) -> Option<PortSet> {
    match port {
        IntOrString::Int(number) => {
            let port = u16::try_from(*number).ok()?;
            Some(PortSet::Range(port, port))
        }
        IntOrString::String(text) => {
            if let Some((first, last)) = text.split_once(':') {
                let (first, last) = (first.parse().ok()?, last.parse().ok()?);
                return (first <= last).then_some(PortSet::Range(first, last));
            }
            if let Ok(port) = text.parse() {
                return Some(PortSet::Range(port, port));
            }
            let is_name = text.bytes().any(|c| c.is_ascii_alphabetic());
            is_name.then(|| PortSet::Named(text.to_ascii_lowercase().into()))
        }
    }
}

fn http(http: &HttpMatch, path: &str, reading: &mut Reading<'_>) -> CalicoHttp {
    let methods = http.methods.iter().flatten();
    for (index, method) in methods.clone().enumerate() {
        if method.bytes().any(|c| c.is_ascii_lowercase()) {
            let path = format!("{path}.http.methods[{index}]");
            let message = format!(
                "methods are compared with their case, and '{method}' is not in upper case"
            );
            reading.warn(
                Code::LowerCaseMethod,
                &path,
                message,
                "no usual request has this method",
            );
        }
    }
    let mut paths = Vec::new();
    for (index, written) in http.paths.iter().flatten().enumerate() {
        let path = format!("{path}.http.paths[{index}]");
        match http_path(written) {
            Some(read) => paths.push(read),
            None => {
                let message = "a path is either exact or a prefix, begins with a slash, has neither \
                               query, fragment nor space, and hides nothing in escapes";
                reading.refuse(&path, message, "exact: /a, or prefix: /a");
            }
        }
    }
    CalicoHttp {
        methods: methods.map(|m| m.as_str().into()).collect(),
        paths,
    }
}

/// `None`: it is no path, or none as Calico's API takes it. An empty text is as good as none.
fn http_path(written: &HttpPath) -> Option<CalicoPath> {
    let given = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
    let normal = |text: String| {
        let is_path = text.starts_with('/') && !text.contains(['?', '#', ' ']);
        let path = calico_path(&text).filter(|_| is_path)?;
        Some(Arc::<str>::from(&*path))
    };
    match (given(&written.exact), given(&written.prefix)) {
        (Some(exact), None) => normal(exact).map(CalicoPath::Exact),
        (None, Some(prefix)) => normal(prefix).map(CalicoPath::Prefix),
        _ => None,
    }
}
