//! How a flow looks: one compact line, a block, a row of a table, or JSON. The compact line is that of the
//! `hubble` command, with the names of policies wherever there are some.

use std::fmt::Write;

use super::Format;
use crate::cli::output::Paint;
use crate::hubble::flows::event;
use crate::hubble::messages::{
    DropReason, Endpoint, Flow, GetFlowsResponse, L7FlowType, LostEvent, Timestamp,
    TrafficDirection, Verdict, get_flows_response::ResponseTypes, layer4,
};
use crate::telemetry::access_log::template::escaped;

/// Identities below are Hubble's own.
const RESERVED: [(u32, &str); 4] = [(0, "unknown"), (1, "host"), (2, "world"), (3, "unmanaged")];

/// Shows flows in one format.
pub struct Printer {
    format: Format,
    node_names: bool,
    paint: Paint,
    rows: Vec<[String; 6]>,
    begun: bool,
}

/// One flow in words.
struct Words {
    time: String,
    source: String,
    destination: String,
    source_id: String,
    destination_id: String,
    arrow: &'static str,
    kind: String,
    verdict: String,
    summary: String,
}

impl Printer {
    /// For a format.
    pub fn new(format: Format, node_names: bool, paint: Paint) -> Self {
        Self {
            format,
            node_names,
            paint,
            rows: Vec::new(),
            begun: false,
        }
    }

    /// What to print of one answer; of a table, nothing until the end.
    pub fn text(&mut self, response: &GetFlowsResponse) -> anyhow::Result<String> {
        if self.format == Format::Json {
            return Ok(json(&serde_json::to_string(response)?));
        }
        Ok(match &response.response_types {
            Some(ResponseTypes::Flow(flow)) => self.flow(flow),
            Some(ResponseTypes::LostEvents(lost)) => self.lost(lost, response),
            Some(ResponseTypes::NodeStatus(status)) => {
                let names = shown(&status.node_names.join(", "));
                format!("node {names}: {}\n", shown(&status.message))
            }
            None => String::new(),
        })
    }

    /// What to print when there is no more.
    pub fn end(&mut self) -> String {
        if self.format != Format::Table {
            return String::new();
        }
        let head = [
            "TIMESTAMP",
            "SOURCE",
            "DESTINATION",
            "TYPE",
            "VERDICT",
            "SUMMARY",
        ];
        self.rows.insert(0, head.map(str::to_owned));
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut table = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                // Writing to a String can not fail.
                let _ = write!(line, "{cell:<width$}   ");
            }
            table.push_str(line.trim_end());
            table.push('\n');
        }
        table
    }

    fn flow(&mut self, flow: &Flow) -> String {
        let mut words = words(flow);
        if self.node_names {
            words.time = format!("{} [{}]", words.time, shown(&flow.node_name));
        }
        let verdict = match Verdict::try_from(flow.verdict) {
            Ok(Verdict::Dropped | Verdict::Error) => self.paint.bad(&words.verdict),
            Ok(Verdict::Audit) => self.paint.odd(&words.verdict),
            _ => self.paint.good(&words.verdict),
        };
        match self.format {
            Format::Table => {
                let Words {
                    time,
                    source,
                    destination,
                    kind,
                    verdict,
                    summary,
                    ..
                } = words;
                self.rows
                    .push([time, source, destination, kind, verdict, summary]);
                String::new()
            }
            Format::Dict => {
                let separator = if self.begun { "------------\n" } else { "" };
                self.begun = true;
                format!(
                    "{separator}  TIMESTAMP: {}\n     SOURCE: {}\nDESTINATION: {}\n       TYPE: {}\n    VERDICT: {verdict}\n    SUMMARY: {}\n",
                    words.time, words.source, words.destination, words.kind, words.summary
                )
            }
            Format::Compact | Format::Json => self.compact(words, &verdict),
        }
    }

    fn compact(&self, mut words: Words, verdict: &str) -> String {
        if words.arrow == "<-" {
            // The client stays on the left.
            std::mem::swap(&mut words.source, &mut words.destination);
            std::mem::swap(&mut words.source_id, &mut words.destination_id);
        }
        format!(
            "{}: {} {} {} {} {} {} {verdict} ({})\n",
            words.time,
            self.paint.strong(&words.source),
            self.paint.faint(&words.source_id),
            words.arrow,
            self.paint.strong(&words.destination),
            self.paint.faint(&words.destination_id),
            words.kind,
            words.summary,
        )
    }

    fn lost(&mut self, lost: &LostEvent, response: &GetFlowsResponse) -> String {
        let time = time(response.time);
        let words = format!(
            "{} flows were overwritten before they were read",
            lost.num_events_lost
        );
        match self.format {
            Format::Table => {
                let row = [
                    time,
                    String::new(),
                    String::new(),
                    "EVENTS LOST".into(),
                    String::new(),
                    words,
                ];
                self.rows.push(row);
                String::new()
            }
            _ => format!("{time} {}: {words}\n", self.paint.odd("EVENTS LOST")),
        }
    }
}

/// Without control characters: clients choose paths and names, and a terminal obeys U+009B.
fn shown(text: &str) -> String {
    escaped(text).into_owned()
}

/// A line of JSON, in which those control characters are escaped, too, that JSON may hold as they are.
fn json(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        match c.is_control() {
            // Writing to a String can not fail.
            true => drop(write!(line, "\\u{:04x}", u32::from(c))),
            false => line.push(c),
        }
    }
    line.push('\n');
    line
}

fn words(flow: &Flow) -> Words {
    let protocol = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref());
    let ports = protocol.map(|layer4::Protocol::Tcp(tcp)| (tcp.source_port, tcp.destination_port));
    let (from, to) = ports.unwrap_or_default();
    let ip = flow.ip.clone().unwrap_or_default();
    let service = |service: &Option<crate::hubble::messages::Service>| {
        service
            .as_ref()
            .map(|s| format!("{}/{}", s.namespace, s.name))
    };
    let (source, destination) = (flow.source.as_ref(), flow.destination.as_ref());
    Words {
        time: time(flow.time),
        source: shown(&host(
            source,
            service(&flow.source_service),
            &ip.source,
            from,
        )),
        destination: shown(&host(
            destination,
            service(&flow.destination_service),
            &ip.destination,
            to,
        )),
        source_id: identity(source),
        destination_id: identity(destination),
        arrow: match flow.is_reply {
            Some(true) => "<-",
            Some(false) => "->",
            None => "<>",
        },
        kind: kind(flow),
        verdict: shown(&verdict(flow)),
        summary: shown(&flow.summary),
    }
}

/// `Nov 04 12:34:56.789`, UTC.
fn time(at: Option<Timestamp>) -> String {
    let at = at.unwrap_or_default();
    let at = jiff::Timestamp::new(at.seconds, at.nanos).unwrap_or_default();
    at.strftime("%b %d %H:%M:%S%.3f").to_string()
}

/// The pod, else the service, else the address; with the port.
fn host(end: Option<&Endpoint>, service: Option<String>, ip: &str, port: u32) -> String {
    let pod = end.filter(|end| !end.pod_name.is_empty());
    let pod = pod.map(|end| format!("{}/{}", end.namespace, end.pod_name));
    // A client whose pod is not known has a workload, perhaps.
    let workload = end.and_then(|end| {
        let workload = end.workloads.first()?;
        Some(format!("{}/{}", end.namespace, workload.name))
    });
    let name = pod
        .or(workload)
        .or(service)
        .unwrap_or_else(|| match ip.contains(':') {
            true => format!("[{ip}]"),
            false => ip.to_owned(),
        });
    format!("{name}:{port}")
}

fn identity(end: Option<&Endpoint>) -> String {
    let id = end.map_or(0, |end| end.identity);
    match RESERVED.iter().find(|(reserved, _)| *reserved == id) {
        Some((_, name)) => format!("({name})"),
        None => format!("(ID:{id})"),
    }
}

fn kind(flow: &Flow) -> String {
    if let Some(l7) = &flow.l7 {
        return match L7FlowType::try_from(l7.r#type) {
            Ok(L7FlowType::Request) => "http-request".to_owned(),
            Ok(L7FlowType::Response) => "http-response".to_owned(),
            _ => "l7".to_owned(),
        };
    }
    match flow.event_type.map_or(0, |event| event.r#type) {
        event::TRACE => "to-endpoint".to_owned(),
        event::DROP => {
            let reason = DropReason::try_from(flow.drop_reason_desc);
            let reason = reason.map_or("dropped", DropReason::name);
            reason.to_lowercase().replace('_', "-")
        }
        event::POLICY_VERDICT => {
            let direction = TrafficDirection::try_from(flow.traffic_direction);
            let matched = if flow.policy_match_type == 0 {
                "none"
            } else {
                "L3-L4"
            };
            let direction = direction.map_or("", TrafficDirection::name);
            format!("policy-verdict:{matched} {direction}")
        }
        other => format!("event-{other}"),
    }
}

/// The verdict, and by which policies.
fn verdict(flow: &Flow) -> String {
    let is_of_policy = flow
        .event_type
        .is_some_and(|e| e.r#type == event::POLICY_VERDICT);
    let verdict = Verdict::try_from(flow.verdict).unwrap_or(Verdict::Unknown);
    let mut words = match verdict {
        Verdict::Forwarded if is_of_policy => "ALLOWED",
        Verdict::Dropped if is_of_policy => "DENIED",
        Verdict::Audit if is_of_policy => "AUDITED",
        other => other.name(),
    }
    .to_owned();
    let lists = [
        &flow.ingress_denied_by,
        &flow.ingress_allowed_by,
        &flow.egress_denied_by,
        &flow.egress_allowed_by,
    ];
    let mut separator = " BY ";
    for policy in lists.into_iter().flatten() {
        // Writing to a String can not fail.
        let _ = match policy.namespace.is_empty() {
            true => write!(words, "{separator}{} ({})", policy.name, policy.kind),
            false => write!(
                words,
                "{separator}{}/{} ({})",
                policy.namespace, policy.name, policy.kind
            ),
        };
        separator = ", ";
    }
    words
}
