//! A record in Hubble's terms (specs/policies.md 3.4): of an HTTP exchange a policy verdict, the request
//! and the response; of a TCP stream a policy verdict, its opening and its end; of what is tried and would
//! be denied an AUDIT verdict beside. Each flow names what decided.

mod words;

use std::net::SocketAddr;
use std::time::SystemTime;

use http::HeaderName;
use http::header::USER_AGENT;
use uuid::Uuid;

use self::words::{named, policy_log, reason};
use super::Redaction;
use super::endpoint;
use super::messages::{
    DropReason, Emitter, EventType, Flow, FlowType, Http, Ip, IpVersion, L7FlowType, Layer4,
    Layer7, Tcp, TcpFlags, Timestamp, TraceContext, TraceParent, TracePoint, TrafficDirection,
    Verdict, layer4, layer7,
};
use crate::telemetry::flow::{Kept, Part, Record, Request};

/// Kinds of events, by the numbers of Cilium's monitor.
pub mod event {
    /// A packet or stream was dropped.
    pub const DROP: i32 = 1;
    /// A packet or stream was seen on its way.
    pub const TRACE: i32 = 4;
    /// Policy decided.
    pub const POLICY_VERDICT: i32 = 5;
    /// Something of layer 7 was seen.
    pub const L7: i32 = 129;
}

/// How a policy was found, by Cilium's numbers.
mod matched {
    /// By nothing: decided by default.
    pub const NONE: u32 = 0;
    /// By who asks and by port.
    pub const L3_L4: u32 = 2;
}

/// What is the same in all flows of a process.
#[derive(Clone, Debug)]
pub struct Teller {
    /// Name of the node, or of the waypoint's pod.
    pub node: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Random: tells flows of one process from those of another.
    pub seed: u64,
    /// What is shown.
    pub redaction: Redaction,
}

impl Teller {
    /// For this process: node and cluster are those of Istio's and Kubernetes' pod variables, else the
    /// host's name and `default`.
    pub fn new(redaction: Redaction) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let node = variable("POD_NAME")
            .or_else(|| variable("HOSTNAME"))
            .or_else(host);
        let cluster = variable("ISTIO_META_CLUSTER_ID").or_else(|| variable("CLUSTER_ID"));
        Self {
            node: node.map_or_else(|| "cairn".to_owned(), |name| name.trim().to_owned()),
            cluster: cluster.unwrap_or_else(|| "default".to_owned()),
            seed: fastrand::u64(..),
            redaction,
        }
    }

    /// All flows of a record, in the order things happened.
    pub fn flows(&self, kept: &Kept) -> Vec<Flow> {
        let record = &kept.record;
        let mut flows = Vec::with_capacity(4);
        let mut add = |mut flow: Flow| {
            flow.uuid = self.uuid(kept.number, flows.len());
            flows.push(flow);
        };
        let has_verdict = match record.part {
            Part::Closed => record.was_cut(),
            _ => record.is_judged(),
        };
        if has_verdict {
            add(self.verdict(record));
        }
        if record.would_be_denied() && record.part != Part::Closed {
            add(self.audit(record));
        }
        match (record.part, &record.http) {
            (Part::Http, Some(http)) => {
                add(self.request(record, http));
                if http.status.is_some() {
                    add(self.response(record, http));
                }
            }
            (Part::Closed, _) => add(self.closed(record)),
            _ => add(self.opened(record)),
        }
        flows
    }

    /// The same for the same flow, whoever reads it.
    fn uuid(&self, number: u64, index: usize) -> String {
        // Of the lower half the first byte is not all the number's: it holds the variant.
        let low = ((number << 2) | (index as u64 & 3)) & (u64::MAX >> 8);
        let (high, low) = (self.seed, low);
        uuid::Builder::from_random_bytes(Uuid::from_u64_pair(high, low).into_bytes())
            .into_uuid()
            .to_string()
    }

    /// What is the same in all flows from client to service.
    fn forward(&self, record: &Record, at: SystemTime) -> Flow {
        let client = record.peer.address;
        let server = record.endpoint.as_ref().map_or(record.dialled, |e| e.0);
        let (verdict, reason) = outcome(record);
        Flow {
            time: Some(Timestamp::from(at)),
            emitter: Some(Emitter {
                name: "cairn".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            verdict: verdict as i32,
            drop_reason: reason as u32,
            drop_reason_desc: reason as i32,
            ip: Some(ip(client, server, record.encrypted)),
            l4: Some(tcp(client, server, None)),
            source: Some(endpoint::source(record, &self.cluster)),
            destination: Some(endpoint::destination(record, &self.cluster)),
            node_name: self.node.clone(),
            destination_names: record
                .service
                .iter()
                .map(|service| service.hostname.to_string())
                .collect(),
            destination_service: record.service.as_ref().map(endpoint::service),
            traffic_direction: TrafficDirection::Ingress as i32,
            is_reply: Some(false),
            policy_log: policy_log(record),
            trace_context: record.trace.map(|id| TraceContext {
                parent: Some(TraceParent {
                    trace_id: id.to_string(),
                }),
            }),
            ..Flow::default()
        }
    }

    /// [`Self::forward`] the other way round.
    fn back(&self, record: &Record) -> Flow {
        let at = record.started_at.checked_add(record.elapsed);
        let mut flow = self.forward(record, at.unwrap_or(record.started_at));
        let client = record.peer.address;
        let server = record.endpoint.as_ref().map_or(record.dialled, |e| e.0);
        flow.ip = Some(ip(server, client, record.encrypted));
        flow.l4 = Some(tcp(server, client, None));
        std::mem::swap(&mut flow.source, &mut flow.destination);
        std::mem::swap(&mut flow.source_names, &mut flow.destination_names);
        std::mem::swap(&mut flow.source_service, &mut flow.destination_service);
        (flow.is_reply, flow.reply) = (Some(true), true);
        flow.verdict = Verdict::Forwarded as i32;
        (flow.drop_reason, flow.drop_reason_desc) = (0, 0);
        flow
    }

    fn request(&self, record: &Record, http: &Request) -> Flow {
        let mut flow = self.forward(record, record.started_at);
        let url = self.redaction.url(http.authority(), http.path());
        flow.summary = format!("{} {} {url}", http.protocol, http.method);
        self.name_policies(&mut flow, record);
        self.say_http(&mut flow, record, http, L7FlowType::Request, url);
        flow
    }

    fn response(&self, record: &Record, http: &Request) -> Flow {
        let mut flow = self.back(record);
        let url = self.redaction.url(http.authority(), http.path());
        let code = http.status.map_or(0, |status| status.as_u16());
        flow.summary = format!(
            "{} {code} {}ms ({} {url})",
            http.protocol,
            record.elapsed.as_millis(),
            http.method,
        );
        self.say_http(&mut flow, record, http, L7FlowType::Response, url);
        flow
    }

    fn say_http(
        &self,
        flow: &mut Flow,
        record: &Record,
        http: &Request,
        of: L7FlowType,
        url: String,
    ) {
        let is_response = of == L7FlowType::Response;
        let elapsed = u64::try_from(record.elapsed.as_nanos()).unwrap_or(u64::MAX);
        let headers = [
            (USER_AGENT, http.user_agent()),
            (HeaderName::from_static("x-request-id"), http.request_id()),
        ];
        let headers = headers.into_iter();
        let headers = headers.filter_map(|(name, value)| Some(self.redaction.header(name, value?)));
        let code = http.status.filter(|_| is_response);
        flow.r#type = FlowType::L7 as i32;
        flow.event_type = Some(EventType {
            r#type: event::L7,
            sub_type: 0,
        });
        flow.l7 = Some(Layer7 {
            r#type: of as i32,
            latency_ns: if is_response { elapsed } else { 0 },
            record: Some(layer7::Record::Http(Http {
                code: code.map_or(0, |status| u32::from(status.as_u16())),
                method: http.method.to_string(),
                url,
                protocol: http.protocol.to_owned(),
                headers: headers.collect(),
            })),
        });
    }

    fn opened(&self, record: &Record) -> Flow {
        let mut flow = self.forward(record, record.started_at);
        let syn = TcpFlags {
            syn: true,
            ..TcpFlags::default()
        };
        let server = record.endpoint.as_ref().map_or(record.dialled, |e| e.0);
        flow.l4 = Some(tcp(record.peer.address, server, Some(syn)));
        flow.r#type = FlowType::L3L4 as i32;
        flow.summary = "TCP Flags: SYN".to_owned();
        self.name_policies(&mut flow, record);
        let dropped = flow.verdict != Verdict::Forwarded as i32;
        flow.event_type = Some(match dropped {
            true => EventType {
                r#type: event::DROP,
                sub_type: flow.drop_reason_desc,
            },
            false => EventType {
                r#type: event::TRACE,
                sub_type: 0,
            },
        });
        if !dropped {
            flow.trace_observation_point = TracePoint::ToEndpoint as i32;
        }
        if let Some(why) = reason(record).filter(|_| dropped) {
            flow.summary = format!("TCP Flags: SYN; {why}");
        }
        flow
    }

    fn closed(&self, record: &Record) -> Flow {
        let mut flow = self.back(record);
        let end = TcpFlags {
            fin: !record.is_denied(),
            rst: record.is_denied(),
            ack: true,
            ..TcpFlags::default()
        };
        let server = record.endpoint.as_ref().map_or(record.dialled, |e| e.0);
        flow.l4 = Some(tcp(server, record.peer.address, Some(end)));
        flow.r#type = FlowType::L3L4 as i32;
        flow.event_type = Some(EventType {
            r#type: event::TRACE,
            sub_type: 0,
        });
        flow.trace_observation_point = TracePoint::ToEndpoint as i32;
        flow.summary = format!(
            "TCP Flags: ACK, {}; {} bytes received, {} sent in {}ms",
            if end.rst { "RST" } else { "FIN" },
            record.bytes_received,
            record.bytes_sent,
            record.elapsed.as_millis(),
        );
        flow
    }

    /// The flow that the `hubble` command shows policy names of.
    fn verdict(&self, record: &Record) -> Flow {
        let mut flow = self.of_policy(record);
        let denied = record.is_denied();
        let verdict = if denied {
            Verdict::Dropped
        } else {
            Verdict::Forwarded
        };
        flow.verdict = verdict as i32;
        self.name_policies(&mut flow, record);
        let policy = record.decision.as_ref().and_then(|d| d.policy.as_ref());
        flow.summary = reason(record).unwrap_or_else(|| match policy {
            Some(policy) => format!("allowed by {policy}"),
            None => "allowed: no policy applies".to_owned(),
        });
        flow
    }

    /// What a policy that is tried would have denied.
    fn audit(&self, record: &Record) -> Flow {
        let mut flow = self.of_policy(record);
        flow.verdict = Verdict::Audit as i32;
        (flow.drop_reason, flow.drop_reason_desc) = (0, 0);
        let run = record.decision.as_ref().and_then(|d| d.dry_run.as_ref());
        let policy = run.and_then(|(_, policy, _)| policy.as_ref());
        flow.ingress_denied_by = policy.map(|p| named(p, record)).into_iter().collect();
        flow.summary = match policy {
            Some(policy) => format!("dry run: would be denied by {policy}"),
            None => "dry run: would be denied, no rule would allow it".to_owned(),
        };
        flow
    }

    fn of_policy(&self, record: &Record) -> Flow {
        let mut flow = self.forward(record, record.started_at);
        flow.r#type = FlowType::L3L4 as i32;
        flow.event_type = Some(EventType {
            r#type: event::POLICY_VERDICT,
            sub_type: 0,
        });
        let rule = record.decision.as_ref().and_then(|d| d.rule);
        flow.policy_match_type = rule.map_or(matched::NONE, |_| matched::L3_L4);
        flow
    }

    fn name_policies(&self, flow: &mut Flow, record: &Record) {
        let Some(decision) = &record.decision else {
            return;
        };
        // What the policy said, not what became of the request: an ExternalAuth filter may keep out
        // what policy allowed.
        let list = match decision.allowed {
            true => &mut flow.ingress_allowed_by,
            false => &mut flow.ingress_denied_by,
        };
        list.extend(decision.policy.as_ref().map(|policy| named(policy, record)));
    }
}

/// Verdict and reason of what the client sent.
fn outcome(record: &Record) -> (Verdict, DropReason) {
    if record.lacks_authentication() {
        return (Verdict::Dropped, DropReason::AuthRequired);
    }
    if record.is_denied() {
        let by_rule = record.decision.as_ref().is_some_and(|d| d.denied_by_rule);
        return match by_rule {
            true => (Verdict::Dropped, DropReason::PolicyDeny),
            false => (Verdict::Dropped, DropReason::PolicyDenied),
        };
    }
    // Envoy's flags say that it failed for other reasons than policy.
    let failed = !record.flags.is_empty() && record.flags != "-";
    match failed || (record.part == Part::Refused && record.endpoint.is_none()) {
        true => (Verdict::Error, DropReason::Unknown),
        false => (Verdict::Forwarded, DropReason::Unknown),
    }
}

fn ip(from: SocketAddr, to: SocketAddr, encrypted: bool) -> Ip {
    let (from, to) = (from.ip().to_canonical(), to.ip().to_canonical());
    let version = if from.is_ipv4() {
        IpVersion::V4
    } else {
        IpVersion::V6
    };
    Ip {
        source: from.to_string(),
        source_xlated: String::new(),
        destination: to.to_string(),
        ip_version: version as i32,
        encrypted,
    }
}

fn tcp(from: SocketAddr, to: SocketAddr, flags: Option<TcpFlags>) -> Layer4 {
    Layer4 {
        protocol: Some(layer4::Protocol::Tcp(Tcp {
            source_port: u32::from(from.port()),
            destination_port: u32::from(to.port()),
            flags,
        })),
    }
}

#[cfg(test)]
mod tests;
