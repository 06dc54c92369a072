//! Filters on what a flow is: its kind, verdict, direction, protocol, trace, node.

use super::pattern::Pattern;
use super::selector::Selector;
use super::{Filter, Invalid, Test};
use crate::hubble::messages::{
    EventTypeFilter, Flow, FlowFilter, Interface, TcpFlags, Verdict, layer4,
};

/// A protocol that can be asked for. Only TCP and HTTP are ever seen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Http,
    /// One that Hubble knows, and that no waypoint sees.
    Unseen,
}

/// The cluster of a node that is named without one.
const CLUSTER_DEFAULT: &str = "default";

/// Reads the fields that are about the flow itself.
pub fn read(from: &FlowFilter, tests: &mut Filter) -> Result<(), Invalid> {
    fn some<T: Clone>(values: &[T], test: fn(Vec<T>) -> Test) -> Option<Test> {
        (!values.is_empty()).then(|| test(values.to_vec()))
    }
    tests.extend(some(&from.uuid, Test::Uuid));
    tests.extend(some(&from.event_type, Test::EventType));
    tests.extend(some(&from.verdict, Test::Verdict));
    tests.extend(some(&from.drop_reason_desc, Test::DropReason));
    tests.extend(some(&from.reply, Test::Reply));
    tests.extend(some(&from.encrypted, Test::Encrypted));
    tests.extend(some(&from.ip_version, Test::IpVersion));
    tests.extend(some(&from.traffic_direction, Test::Direction));
    tests.extend(some(&from.tcp_flags, Test::TcpFlags));
    tests.extend(some(&from.trace_id, Test::TraceId));
    tests.extend(some(&from.interface, Test::Interface));
    if !from.ip_trace_id.is_empty() || !from.dns_query.is_empty() {
        tests.push(Test::Never);
    }
    if !from.protocol.is_empty() {
        let protocols = from.protocol.iter().map(|name| protocol(name));
        tests.push(Test::Protocol(protocols.collect::<Result<_, _>>()?));
    }
    if !from.node_name.is_empty() {
        let names = from.node_name.iter().map(|text| node_name(text));
        tests.push(Test::Node(names.collect::<Result<_, _>>()?));
    }
    if !from.node_labels.is_empty() {
        let selectors = from.node_labels.iter().map(|text| Selector::read(text));
        tests.push(Test::NodeLabel(selectors.collect::<Result<_, _>>()?));
    }
    Ok(())
}

fn protocol(name: &str) -> Result<Protocol, Invalid> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "http" => Ok(Protocol::Http),
        "udp" | "sctp" | "icmp" | "icmpv4" | "icmpv6" | "vrrp" | "igmp" | "dns" | "kafka" => {
            Ok(Protocol::Unseen)
        }
        _ => Err(Invalid::new(format!("unknown protocol {name:?}"))),
    }
}

/// `cluster/node`, either part empty for any; without a slash, a node of any cluster.
fn node_name(text: &str) -> Result<(Pattern, Pattern), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new("the name of a node must not be empty"));
    }
    let (cluster, node) = text.split_once('/').unwrap_or(("", text));
    let part = |text: &str| match text {
        "" => Ok(Pattern::any()),
        text => Pattern::read(text),
    };
    Ok((part(cluster)?, part(node)?))
}

impl Protocol {
    /// Whether a flow is of it.
    pub fn is_of(self, flow: &Flow) -> bool {
        match self {
            Self::Tcp => flow.l4.as_ref().is_some_and(|l4| l4.protocol.is_some()),
            Self::Http => flow.l7.as_ref().is_some_and(|l7| l7.record.is_some()),
            Self::Unseen => false,
        }
    }
}

/// Type 0 is every one.
pub fn event_type(wanted: &[EventTypeFilter], flow: &Flow) -> bool {
    let Some(event) = &flow.event_type else {
        return false;
    };
    wanted.iter().any(|wanted| {
        (wanted.r#type == 0 || wanted.r#type == event.r#type)
            && (!wanted.match_sub_type || wanted.sub_type == event.sub_type)
    })
}

/// Of dropped flows only.
pub fn drop_reason(wanted: &[i32], flow: &Flow) -> bool {
    flow.verdict == Verdict::Dropped as i32 && wanted.contains(&flow.drop_reason_desc)
}

/// Where it is not known, a dropped flow is none.
pub fn reply(wanted: &[bool], flow: &Flow) -> bool {
    let known = flow.is_reply.is_some() || flow.verdict == Verdict::Dropped as i32;
    known && wanted.contains(&flow.is_reply.unwrap_or_default())
}

/// Whether it came in by mTLS.
pub fn is_encrypted(flow: &Flow) -> bool {
    flow.ip.as_ref().is_some_and(|ip| ip.encrypted)
}

/// The family of its addresses.
pub fn ip_version(wanted: &[i32], flow: &Flow) -> bool {
    wanted.contains(&flow.ip.as_ref().map_or(0, |ip| ip.ip_version))
}

/// It has all flags of one of them.
pub fn tcp_flags(wanted: &[TcpFlags], flow: &Flow) -> bool {
    let l4 = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref());
    let Some(has) = l4.and_then(|layer4::Protocol::Tcp(tcp)| tcp.flags.as_ref()) else {
        return false;
    };
    wanted.iter().any(|wanted| {
        let pairs = [
            (wanted.fin, has.fin),
            (wanted.syn, has.syn),
            (wanted.rst, has.rst),
            (wanted.psh, has.psh),
            (wanted.ack, has.ack),
            (wanted.urg, has.urg),
            (wanted.ece, has.ece),
            (wanted.cwr, has.cwr),
            (wanted.ns, has.ns),
        ];
        pairs.iter().all(|(wanted, has)| !wanted || *has)
    })
}

/// The trace it is part of.
pub fn trace_id(wanted: &[String], flow: &Flow) -> bool {
    let parent = flow.trace_context.as_ref().and_then(|c| c.parent.as_ref());
    let id = parent.map_or("", |parent| &parent.trace_id);
    wanted.iter().any(|wanted| wanted == id)
}

/// The node that told of it.
pub fn node(wanted: &[(Pattern, Pattern)], flow: &Flow) -> bool {
    if flow.node_name.is_empty() {
        return false;
    }
    let name = flow.node_name.split_once('/');
    let (cluster, node) = name.unwrap_or((CLUSTER_DEFAULT, &flow.node_name));
    wanted
        .iter()
        .any(|(of_cluster, of_node)| of_cluster.matches(cluster) && of_node.matches(node))
}

/// The network interface it was seen on; none is known here.
pub fn interface(wanted: &[Interface], flow: &Flow) -> bool {
    let Some(seen) = &flow.interface else {
        return false;
    };
    wanted.iter().any(|wanted| {
        (wanted.index == 0 || wanted.index == seen.index)
            && (wanted.name.is_empty() || wanted.name == seen.name)
    })
}
