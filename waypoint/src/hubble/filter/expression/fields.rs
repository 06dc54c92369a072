//! What a flow has for expressions to look at: the fields of the protocol that a waypoint fills, by their
//! names there, and its enumerations. What is not set has protobuf's default, not nothing.

use std::collections::HashMap;

use cel::Value;
use serde_json::Value as Json;

use crate::hubble::messages::{
    DropReason, FlowType, IpVersion, L7FlowType, TracePoint, TrafficDirection, Verdict,
};
use crate::telemetry::expression::types::Type;

/// A field by its name.
pub type Field = (&'static str, Kind);

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    Int,
    Uint,
    Bool,
    /// May be absent, which is null.
    MaybeBool,
    /// A number; in JSON it has a name.
    Enum(Numbers),
    Texts,
    /// A message, whose fields can be looked at.
    Message(&'static [Field]),
    Messages(&'static [Field]),
    /// Not evaluated; in words what to do.
    Refused(&'static str),
    /// A message that no flow of a waypoint has.
    Unseen,
}

/// The number that a name of an enumeration stands for.
pub type Numbers = fn(&str) -> Option<i32>;

macro_rules! numbers {
    ($of:ident) => {
        |name| {
            let mut all = $of::ALL.iter();
            all.find(|one| one.name() == name).map(|one| *one as i32)
        }
    };
}

/// The protocol's enumerations, as far as their values are known here.
pub const ENUMS: [(&str, Numbers); 7] = [
    ("Verdict", numbers!(Verdict)),
    ("DropReason", numbers!(DropReason)),
    ("FlowType", numbers!(FlowType)),
    ("L7FlowType", numbers!(L7FlowType)),
    ("IPVersion", numbers!(IpVersion)),
    ("TrafficDirection", numbers!(TrafficDirection)),
    ("TraceObservationPoint", numbers!(TracePoint)),
];

/// `flow.Flow`.
pub const FLOW: &[Field] = &[
    (
        "time",
        Kind::Refused("a time is asked for with since and until"),
    ),
    ("uuid", Kind::Text),
    ("emitter", Kind::Message(EMITTER)),
    ("verdict", Kind::Enum(numbers!(Verdict))),
    ("drop_reason", Kind::Uint),
    ("drop_reason_desc", Kind::Enum(numbers!(DropReason))),
    ("ethernet", Kind::Unseen),
    ("IP", Kind::Message(IP)),
    ("l4", Kind::Message(LAYER_4)),
    ("source", Kind::Message(ENDPOINT)),
    ("destination", Kind::Message(ENDPOINT)),
    ("Type", Kind::Enum(numbers!(FlowType))),
    ("node_name", Kind::Text),
    ("node_labels", Kind::Texts),
    ("source_names", Kind::Texts),
    ("destination_names", Kind::Texts),
    ("l7", Kind::Message(LAYER_7)),
    ("reply", Kind::Bool),
    ("is_reply", Kind::MaybeBool),
    ("event_type", Kind::Message(EVENT_TYPE)),
    ("source_service", Kind::Message(SERVICE)),
    ("destination_service", Kind::Message(SERVICE)),
    ("traffic_direction", Kind::Enum(numbers!(TrafficDirection))),
    ("policy_match_type", Kind::Uint),
    ("trace_observation_point", Kind::Enum(numbers!(TracePoint))),
    ("interface", Kind::Unseen),
    ("trace_context", Kind::Message(TRACE_CONTEXT)),
    ("tunnel", Kind::Unseen),
    ("Summary", Kind::Text),
    ("egress_allowed_by", Kind::Messages(POLICY)),
    ("ingress_allowed_by", Kind::Messages(POLICY)),
    ("egress_denied_by", Kind::Messages(POLICY)),
    ("ingress_denied_by", Kind::Messages(POLICY)),
    ("policy_log", Kind::Texts),
];

const EMITTER: &[Field] = &[("name", Kind::Text), ("version", Kind::Text)];

const IP: &[Field] = &[
    ("source", Kind::Text),
    ("source_xlated", Kind::Text),
    ("destination", Kind::Text),
    ("ipVersion", Kind::Enum(numbers!(IpVersion))),
    ("encrypted", Kind::Bool),
];

const LAYER_4: &[Field] = &[
    ("TCP", Kind::Message(TCP)),
    ("UDP", Kind::Unseen),
    ("ICMPv4", Kind::Unseen),
    ("ICMPv6", Kind::Unseen),
    ("SCTP", Kind::Unseen),
    ("VRRP", Kind::Unseen),
    ("IGMP", Kind::Unseen),
];

const TCP: &[Field] = &[
    ("source_port", Kind::Uint),
    ("destination_port", Kind::Uint),
    ("flags", Kind::Message(TCP_FLAGS)),
];

const TCP_FLAGS: &[Field] = &[
    ("FIN", Kind::Bool),
    ("SYN", Kind::Bool),
    ("RST", Kind::Bool),
    ("PSH", Kind::Bool),
    ("ACK", Kind::Bool),
    ("URG", Kind::Bool),
    ("ECE", Kind::Bool),
    ("CWR", Kind::Bool),
    ("NS", Kind::Bool),
];

const LAYER_7: &[Field] = &[
    ("type", Kind::Enum(numbers!(L7FlowType))),
    ("latency_ns", Kind::Uint),
    ("http", Kind::Message(HTTP)),
    ("dns", Kind::Unseen),
    ("kafka", Kind::Unseen),
];

const HTTP: &[Field] = &[
    ("code", Kind::Uint),
    ("method", Kind::Text),
    ("url", Kind::Text),
    ("protocol", Kind::Text),
    ("headers", Kind::Messages(HEADER)),
];

const HEADER: &[Field] = &[("key", Kind::Text), ("value", Kind::Text)];

const ENDPOINT: &[Field] = &[
    ("ID", Kind::Uint),
    ("identity", Kind::Uint),
    ("cluster_name", Kind::Text),
    ("namespace", Kind::Text),
    ("labels", Kind::Texts),
    ("pod_name", Kind::Text),
    ("workloads", Kind::Messages(WORKLOAD)),
];

const WORKLOAD: &[Field] = &[("name", Kind::Text), ("kind", Kind::Text)];

const EVENT_TYPE: &[Field] = &[("type", Kind::Int), ("sub_type", Kind::Int)];

const SERVICE: &[Field] = &[("name", Kind::Text), ("namespace", Kind::Text)];

const TRACE_CONTEXT: &[Field] = &[("parent", Kind::Message(TRACE_PARENT))];

const TRACE_PARENT: &[Field] = &[("trace_id", Kind::Text)];

const POLICY: &[Field] = &[
    ("name", Kind::Text),
    ("namespace", Kind::Text),
    ("labels", Kind::Texts),
    ("revision", Kind::Uint),
    ("kind", Kind::Text),
];

impl Kind {
    /// What its value is, for expressions to be checked by.
    pub fn gives(self) -> Type {
        match self {
            Self::Text => Type::Text,
            Self::Int | Self::Enum(_) => Type::Int,
            Self::Uint => Type::Uint,
            Self::Bool | Self::MaybeBool => Type::Bool,
            Self::Texts => Type::list(Type::Text),
            Self::Message(fields) => message(fields),
            Self::Messages(fields) => Type::list(message(fields)),
            Self::Refused(_) | Self::Unseen => Type::Any,
        }
    }

    /// Its value, of how JSON has it; `None`: it is not set.
    pub fn value(self, json: Option<&Json>) -> Value {
        let list = || json.and_then(Json::as_array).into_iter().flatten();
        match self {
            Self::Text => text(json),
            Self::Int => Value::Int(json.and_then(Json::as_i64).unwrap_or_default()),
            Self::Uint => Value::UInt(uint(json)),
            Self::Bool => Value::Bool(json.and_then(Json::as_bool).unwrap_or_default()),
            Self::MaybeBool => json
                .and_then(Json::as_bool)
                .map_or(Value::Null, Value::Bool),
            Self::Enum(numbers) => {
                let named = json.and_then(Json::as_str).and_then(numbers);
                let number = named.map(i64::from).or_else(|| json.and_then(Json::as_i64));
                Value::Int(number.unwrap_or_default())
            }
            Self::Texts => Value::from(list().map(|item| text(Some(item))).collect::<Vec<_>>()),
            Self::Messages(fields) => {
                Value::from(list().map(|item| map(fields, item)).collect::<Vec<_>>())
            }
            // No path that is read ends here.
            Self::Message(_) | Self::Refused(_) | Self::Unseen => Value::Null,
        }
    }
}

fn message(fields: &[Field]) -> Type {
    let fields = fields.iter();
    Type::Message(fields.map(|(name, kind)| (*name, kind.gives())).collect())
}

fn map(fields: &[Field], json: &Json) -> Value {
    let fields = fields.iter();
    let fields = fields.map(|(name, kind)| ((*name).to_owned(), kind.value(json.get(name))));
    Value::from(fields.collect::<HashMap<_, _>>())
}

fn text(json: Option<&Json>) -> Value {
    Value::from(json.and_then(Json::as_str).unwrap_or_default())
}

/// Numbers of 64 bits are texts in JSON.
fn uint(json: Option<&Json>) -> u64 {
    let text = json.and_then(Json::as_str);
    let parsed = text.and_then(|text| text.parse().ok());
    parsed
        .or_else(|| json.and_then(Json::as_u64))
        .unwrap_or_default()
}
