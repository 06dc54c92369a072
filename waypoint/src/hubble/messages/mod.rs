//! The messages of Hubble's observer API (specs/policies.md 3.3), as far as they are filled or looked at
//! here. Field numbers are the protocol's, names its JSON form; unknown fields are skipped, as protobuf
//! wants. No behaviour beside how they are written as JSON.

mod enums;
mod filter;
mod flow;
mod http;
mod json;
mod observer;

pub use enums::{
    DropReason, FlowType, IpVersion, L7FlowType, LostEventSource, NodeState, ServingStatus,
    TracePoint, TrafficDirection, Verdict,
};
pub use filter::{EventTypeFilter, Experimental, FlowFilter};
pub use flow::{
    Emitter, Endpoint, EventType, Flow, Interface, Ip, Layer4, Policy, Service, Tcp, TcpFlags,
    TraceContext, TraceParent, Workload, layer4,
};
pub use http::{Http, HttpHeader, Layer7, layer7};
pub use observer::{
    Empty, FieldMask, GetFlowsRequest, GetFlowsResponse, GetNamespacesResponse, GetNodesResponse,
    HealthCheckRequest, HealthCheckResponse, LostEvent, Namespace, Node, NodeStatusEvent,
    ServerStatusResponse, Timestamp, Tls, get_flows_response,
};

#[cfg(test)]
mod tests;
