//! What of a CiliumNetworkPolicy has no counterpart, by how it is written: the resolved rules do not
//! hold what a waypoint does not see, and whoever takes them for all would lose it.

use crate::resources::cilium::{CiliumRule, IngressRule, L7Rules, PortRule};

/// What of a rule has no counterpart, by how it is written: the resolved rule does not hold it.
pub(super) fn refused(rule: &CiliumRule, at: &str) -> Vec<(String, String)> {
    let there = |list: Option<usize>| list.is_some_and(|length| length > 0);
    let mut refused = Vec::new();
    for (is_there, field, why) in [
        (
            rule.node_selector.is_some(),
            "nodeSelector",
            "nodes are behind no Service",
        ),
        (
            rule.egress.is_some() || rule.egress_deny.is_some() || rule.egress_fault.is_some(),
            "egress",
            "what these pods may reach is not asked by policies of Services: write it as an object of its own, which stays",
        ),
        (
            // With no list at all it denies all that these pods send.
            (rule.enable_default_deny.as_ref()).is_some_and(|deny| deny.egress == Some(true)),
            "enableDefaultDeny.egress",
            "what these pods may reach is not asked by policies of Services: write it as an object of its own, which stays",
        ),
        (
            there(rule.ingress_deny.as_ref().map(Vec::len)),
            "ingressDeny",
            "Cilium denies whoever may be meant, an AuthorizationPolicy whoever is known to be",
        ),
    ] {
        if is_there {
            refused.push((format!("{at}.{field}"), why.to_owned()));
        }
    }
    for (index, item) in rule.ingress.iter().flatten().enumerate() {
        let at = format!("{at}.ingress[{index}]");
        refused.extend(refused_of_item(item, &at));
    }
    refused
}

fn refused_of_item(item: &IngressRule, at: &str) -> Vec<(String, String)> {
    let mut refused = Vec::new();
    let mode = item.authentication.as_ref().map(|a| a.mode.as_str());
    let kinds = [
        item.from_endpoints.is_some(),
        item.from_cidr.is_some(),
        item.from_cidr_set.is_some(),
        item.from_entities.is_some(),
        item.from_groups.is_some(),
        item.from_nodes.is_some(),
    ];
    let kinds = kinds.into_iter().filter(|there| *there).count();
    for (is_there, field, why) in [
        (item.icmps.is_some(), "icmps", "a waypoint sees no ICMP"),
        (kinds > 1, "", "peers of two kinds exclude each other"),
        (
            item.to_ports.as_ref().is_some_and(Vec::is_empty),
            "toPorts",
            "an empty list is no port to some and every port to others",
        ),
        (
            mode == Some("test-always-fail"),
            "authentication",
            "it denies its peers whatever else allows them",
        ),
    ] {
        if is_there {
            let path = [at, field].join(if field.is_empty() { "" } else { "." });
            refused.push((path, why.to_owned()));
        }
    }
    for (index, port) in item.to_ports.iter().flatten().enumerate() {
        let at = format!("{at}.toPorts[{index}]");
        refused.extend(
            refused_of_ports(port)
                .into_iter()
                .map(|(field, why)| (format!("{at}.{field}"), why.to_owned())),
        );
    }
    refused
}

fn refused_of_ports(port: &PortRule) -> Vec<(&'static str, &'static str)> {
    let ports = || port.ports.iter().flatten();
    let transport = |protocol: &Option<String>| {
        let protocol = protocol.as_deref().unwrap_or("ANY");
        !["", "ANY", "TCP"]
            .iter()
            .any(|known| protocol.eq_ignore_ascii_case(known))
    };
    let found = [
        (
            ports().next().is_none(),
            "ports",
            "an empty list is no port to some and every port to others",
        ),
        (
            ports().any(|p| transport(&p.protocol)),
            "ports",
            "a waypoint sees TCP alone",
        ),
        (
            port.server_names.is_some(),
            "serverNames",
            "an AuthorizationPolicy of a waypoint knows no server names",
        ),
        (
            port.terminating_tls.is_some(),
            "terminatingTLS",
            "a waypoint does not end TLS of applications",
        ),
        (
            port.originating_tls.is_some(),
            "originatingTLS",
            "a waypoint does not begin TLS of applications",
        ),
        (
            port.listener.is_some(),
            "listener",
            "there is no other proxy to send to",
        ),
        (
            port.rules
                .as_ref()
                .is_some_and(|r| r.families() != 1 || r.http.is_none()),
            "rules",
            "of L7 rules only those of HTTP have a counterpart",
        ),
        (
            port.rules.as_ref().is_some_and(asks_for_header_values),
            "rules",
            "`headerMatches` is not translated: an AuthorizationPolicy changes no headers; write a value that is asked for as `headers`",
        ),
    ];
    let there = found.into_iter().filter(|(there, _, _)| *there);
    there.map(|(_, field, why)| (field, why)).collect()
}

/// Whether a rule has `headerMatches`, which leave all rules of the port in doubt where it is not known for whom
/// they are (specs/policies.md 2.1.5).
fn asks_for_header_values(rules: &L7Rules) -> bool {
    let mut http = rules.http.iter().flatten();
    http.any(|rule| {
        rule.header_matches
            .as_ref()
            .is_some_and(|list| !list.is_empty())
    })
}
