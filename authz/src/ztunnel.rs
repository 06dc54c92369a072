//! What the ztunnel of a destination makes of AuthorizationPolicies that are not for a waypoint
//! (specs/policies.md 2.8), for `explain` and lints. A waypoint enforces none of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{
    Condition, LabelView, Policy, PolicyRule, Truth, Workload, ZtunnelPolicy,
};

use crate::facts::{Attestation, Facts};
use crate::policy::PolicySet;

/// A connection as it arrives at a pod.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Who ztunnel sees: behind a waypoint the waypoint.
    pub peer: &'a Identity,
    /// From where. `None`: not known.
    pub source: Option<IpAddr>,
    /// Address and port of the pod.
    pub destination: SocketAddr,
}

/// The policies for a pod: its namespace's, the mesh's, and those that select it.
pub fn of_pod<'p>(
    policies: &'p [ZtunnelPolicy],
    pod: &Workload,
) -> impl Iterator<Item = &'p ZtunnelPolicy> {
    let view = LabelView {
        pod: pod.labels.as_deref(),
        namespace: Some(&pod.key.namespace),
        ..LabelView::default()
    };
    policies.iter().filter(move |policy| {
        let namespace = policy.namespace.as_ref();
        namespace.is_none_or(|namespace| *namespace == pod.key.namespace)
            && policy.selector.holds(&|key| view.of_pod(key)) == Truth::Yes
    })
}

/// What ztunnel answers, and by which policy and rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrived {
    /// Whether it lets the connection in.
    pub passes: Truth,
    /// The policy that decides; of a denial because nothing allows it there is none.
    pub policy: Option<Origin>,
    /// Its rule, from 0.
    pub rule: Option<usize>,
}

/// What these policies make of the connection.
pub fn judge(policies: &[&ZtunnelPolicy], arrival: &Arrival<'_>) -> Arrived {
    let compiled: Vec<Arc<Policy>> = policies.iter().map(|p| p.policy.clone()).collect();
    let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let source_ip = arrival.source.unwrap_or(unspecified);
    let facts = Facts {
        peer: Some(arrival.peer),
        attested_by: Attestation::Certificate,
        source_ip,
        remote_ip: source_ip,
        destination_ip: arrival.destination.ip(),
        destination_port: arrival.destination.port(),
        backends: &[],
        http: None,
    };
    let verdict = PolicySet::compile(&compiled).decide(&facts);
    let unknown = compiled.iter().any(|policy| is_doubtful(policy, arrival));
    Arrived {
        passes: match unknown {
            true => Truth::Unknown,
            false => verdict.allowed.into(),
        },
        policy: verdict.policy.map(|policy| policy.origin.clone()),
        rule: verdict.rule,
    }
}

/// Whether what the policy says can not be told: of a rule that can not be read, or of an address
/// that nobody knows.
fn is_doubtful(policy: &Policy, arrival: &Arrival<'_>) -> bool {
    let by_address = |rule: &PolicyRule| {
        rule.from.iter().any(|source| !source.ip_blocks.is_empty())
            || (rule.when.iter()).any(|condition| matches!(condition, Condition::SourceIp(_)))
    };
    policy
        .rules
        .iter()
        .any(|rule| rule.broken.is_some() || arrival.source.is_none() && by_address(rule))
}
