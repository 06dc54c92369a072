//! Ports of a Cilium rule (specs/policies.md 2.1.1): numbers, ranges, names; those that TCP can have.

use super::network_cilium::Reading;
use crate::diagnostics::Code;
use crate::resources::cilium::{PortProtocol, PortRule};
use crate::snapshot::PortSet;

/// Ports of one PortRule, as Cilium's API limits them.
const PORTS_MAX: usize = 40;

/// The ports that TCP can have. `None`: any.
pub(super) fn ports(
    rule: &PortRule,
    path: &str,
    reading: &mut Reading<'_>,
) -> Option<Vec<PortSet>> {
    const PROTOCOLS: [&str; 8] = [
        "TCP", "UDP", "SCTP", "ANY", "ICMP", "ICMPV6", "VRRP", "IGMP",
    ];
    let written = rule.ports.as_deref().unwrap_or_default();
    if written.len() > PORTS_MAX {
        let message = format!("{} ports, and {PORTS_MAX} are the most", written.len());
        reading.refuse(&format!("{path}.ports"), message, "write several toPorts");
    }
    if written.is_empty() {
        let message = "toPorts without ports selects no port";
        reading.warn(
            Code::MissingField,
            path,
            message,
            "the rule matches nothing",
        );
    }
    let mut ports = Vec::new();
    for (index, port) in written.iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let protocol = port
            .protocol
            .as_deref()
            .unwrap_or("ANY")
            .to_ascii_uppercase();
        let protocol = if protocol.is_empty() {
            "ANY"
        } else {
            &protocol
        };
        if !PROTOCOLS.contains(&protocol) {
            let message = format!("unknown protocol '{protocol}'");
            reading.refuse(
                &format!("{path}.protocol"),
                message,
                "TCP, UDP, SCTP or ANY",
            );
        }
        match port_set(port) {
            Ok(set) if matches!(protocol, "TCP" | "ANY") => ports.push(set),
            Ok(_) => {}
            Err(message) => {
                let hint = "a number from 0 to 65535 in quotes, or the name of a port";
                reading.refuse(&format!("{path}.port"), message, hint);
            }
        }
    }
    let all = ports.contains(&PortSet::Range(0, u16::MAX));
    (!all).then_some(ports)
}

fn port_set(port: &PortProtocol) -> Result<PortSet, String> {
    let text = port.port.as_deref().unwrap_or_default();
    let is_number = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let Some(first) = text.parse::<u16>().ok().filter(|_| is_number) else {
        let legal = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        let has_letter = text.bytes().any(|c| c.is_ascii_alphabetic());
        return if has_letter && text.len() <= 15 && text.bytes().all(legal) {
            Ok(PortSet::Named(text.to_ascii_lowercase().into()))
        } else {
            Err(format!("'{text}' is no port"))
        };
    };
    match port.end_port {
        None | Some(0) if first == 0 => Ok(PortSet::Range(0, u16::MAX)),
        None | Some(0) => Ok(PortSet::Range(first, first)),
        Some(last) => match u16::try_from(last).ok().filter(|last| *last >= first) {
            Some(last) => Ok(PortSet::Range(first, last)),
            None => Err(format!("endPort {last} is not after port {first}")),
        },
    }
}
