//! The agents of nodes (docs/node.md) as the cluster's objects have them: which serve a Gateway and where, who they are
//! to a ztunnel, and which nodes have none. Asks nobody.

use std::collections::BTreeSet;

use cairn_config_schema::origin::ObjectKey;
use serde_json::Value;

use super::pods::{Arrival, Pods};
use super::remedy;
use super::{From, Outcome, Patient, Way, named_some, policies, ways};
use crate::cluster::{Cluster, GATEWAY_NAME, looks_like_agent};
use crate::objects::{label, name_of, namespace_of, text};
use crate::status::is_ready;

/// Of a pod whose connections ztunnel takes (specs/istio-waypoint.md 2.1).
const REDIRECTION: &str = "ambient.istio.io/redirection";

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agent {
    pub(super) pod: ObjectKey,
    pub(super) node: String,
    /// It takes its node's connections.
    pub(super) ready: bool,
    /// The Gateway that it is told to serve.
    pub(super) gateway: ObjectKey,
    account: ObjectKey,
}

/// Every agent. By its ServiceAccount, which administrators bind: whoever may set labels is not let in by a policy
/// that the doctor prints.
pub(super) fn all(cluster: &Cluster) -> Vec<Agent> {
    let accounts = cluster.agents_accounts();
    let pods = cluster.objects("Pod").filter(|pod| looks_like_agent(pod));
    let agents = pods.filter_map(|pod| read(pod, &accounts));
    agents.collect()
}

/// Those that serve a Gateway.
pub(super) fn of(cluster: &Cluster, gateway: &ObjectKey) -> Vec<Agent> {
    let mut agents = all(cluster);
    agents.retain(|agent| agent.gateway == *gateway);
    agents
}

/// Whether a pod is an agent, whatever else its labels say.
pub(super) fn is_one(cluster: &Cluster, pod: &Value) -> bool {
    looks_like_agent(pod) && read(pod, &cluster.agents_accounts()).is_some()
}

/// `None`: it ends, is nobody's agent, or does not say whom it serves.
fn read(pod: &Value, accounts: &[ObjectKey]) -> Option<Agent> {
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return None;
    }
    let namespace = namespace_of(pod);
    let account = ObjectKey::new(namespace, text(pod, "/spec/serviceAccountName")?);
    if !accounts.contains(&account) {
        return None;
    }
    Some(Agent {
        pod: ObjectKey::new(namespace, name_of(pod)),
        node: text(pod, "/spec/nodeName")?.to_owned(),
        ready: is_ready(pod),
        gateway: gateway_of(pod)?,
        account,
    })
}

/// `--gateway=NAMESPACE/NAME` of its containers.
fn gateway_of(pod: &Value) -> Option<ObjectKey> {
    let containers = pod.pointer("/spec/containers")?.as_array()?;
    let arguments = containers.iter().filter_map(|c| c.get("args")?.as_array());
    let mut arguments = arguments.flatten().filter_map(Value::as_str);
    let named = arguments.find_map(|argument| argument.strip_prefix("--gateway="))?;
    let (namespace, name) = named.split_once('/')?;
    Some(ObjectKey::new(namespace, name))
}

/// Who the agents of a Gateway are to a ztunnel, each once. `waypoint` is the waypoint's own principal: the trust
/// domain is the same.
pub(super) fn principals(
    cluster: &Cluster,
    gateway: &ObjectKey,
    waypoint: &str,
) -> BTreeSet<String> {
    let Some((domain, _)) = waypoint.split_once("/ns/") else {
        return BTreeSet::new();
    };
    let agents = of(cluster, gateway).into_iter();
    let principal = |agent: Agent| {
        let (namespace, name) = (agent.account.namespace, agent.account.name);
        format!("{domain}/ns/{namespace}/sa/{name}")
    };
    agents.map(principal).collect()
}

/// The ways by agents and past those that are missing; none where no agent serves the Gateway.
pub(super) fn ways(
    patient: &Patient<'_>,
    gateway: &ObjectKey,
    pods: &Pods<'_>,
    plain: &Arrival,
) -> Vec<Way> {
    let agents = of(patient.cluster, gateway);
    if agents.is_empty() {
        return Vec::new();
    }
    let mut found = vec![by_agent(patient, gateway, pods, &agents)];
    found.extend(without_agent(patient, plain, &agents));
    found
}

fn by_agent(patient: &Patient<'_>, gateway: &ObjectKey, pods: &Pods<'_>, agents: &[Agent]) -> Way {
    let from = From::ByAgent;
    if let Some(lost) = ways::unenforced(patient, from) {
        return lost;
    }
    if let Some(why) = pods.agents_shut_out(patient) {
        return Way::new(from, Outcome::NotReachable, why).closed_by(remedy::ADMIT);
    }
    let ready = agents.iter().filter(|agent| agent.ready).count();
    if ready == 0 {
        let why = format!("no agent of Gateway {gateway} is ready: what is steered is refused");
        let close = format!(
            "see `cairn status -n {}` and the agents' logs",
            gateway.namespace
        );
        return Way::new(from, Outcome::NotReachable, why).closed_by(close);
    }
    if let Some(why) = patient
        .answers
        .and_then(|answers| answers.lagging(patient.cluster, gateway, &policies::of(patient)))
    {
        let close = "ask again; if it lasts, see the log of that pod";
        return Way::new(from, Outcome::Bypass, why).closed_by(close);
    }
    let why = format!(
        "by the agents of Gateway {gateway}, of which {ready} of {} are ready",
        agents.len()
    );
    Way::new(from, Outcome::Enforced, why)
}

/// From the nodes that have no ready agent. `None`: every node with a client has one.
fn without_agent(patient: &Patient<'_>, plain: &Arrival, agents: &[Agent]) -> Option<Way> {
    let with_agent = |node: &str| agents.iter().any(|a| a.ready && a.node == node);
    let mut nodes = clients_nodes(patient.cluster);
    nodes.retain(|node| !with_agent(node));
    if nodes.is_empty() {
        return None;
    }
    let from = From::NodeWithoutAgent;
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let why = format!("{}: {}", named_some(&names), plain.why);
    let way = Way::new(from, plain.outcome, why);
    Some(match plain.outcome {
        Outcome::Bypass => way.closed_by(format!(
            "have an agent there (nodeSelector and tolerations of the DaemonSet; `kubectl describe` says why a pod is not ready), and {}",
            plain.close.as_deref().unwrap_or("close the pods")
        )),
        _ => way,
    })
}

/// Nodes with a pod that an agent is to steer: not on the host's network, not ztunnel's already, no agent and no gateway.
/// Anybody can give a pod their labels: an agent has its account besides, and a waypoint of ours was made for its Gateway.
fn clients_nodes(cluster: &Cluster) -> BTreeSet<String> {
    let accounts = cluster.agents_accounts();
    let is_agent = |pod: &Value| {
        let account = text(pod, "/spec/serviceAccountName").unwrap_or_default();
        looks_like_agent(pod) && accounts.contains(&ObjectKey::new(namespace_of(pod), account))
    };
    let ours = cluster.waypoints();
    let strangers = ours.iter().flat_map(|key| cluster.strangers_of(key));
    let strangers: BTreeSet<ObjectKey> = strangers
        .map(|pod| ObjectKey::new(namespace_of(pod), name_of(pod)))
        .collect();
    // How others make pods of their Gateways is theirs.
    let is_gateway = |pod: &Value| {
        let names_one = label(pod, GATEWAY_NAME).is_some_and(|name| {
            let key = ObjectKey::new(namespace_of(pod), name);
            cluster.object("Gateway", &key).is_some()
        });
        names_one && !strangers.contains(&ObjectKey::new(namespace_of(pod), name_of(pod)))
    };
    let is_client = |pod: &&Value| {
        let on_host = pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true));
        let annotation = pod
            .pointer("/metadata/annotations")
            .and_then(|annotations| annotations.get(REDIRECTION)?.as_str());
        let has_ended = matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed"));
        let is_steered = annotation == Some("enabled");
        !on_host && !has_ended && !is_steered && !is_agent(pod) && !is_gateway(pod)
    };
    let clients = cluster.objects("Pod").filter(is_client);
    let nodes = clients.filter_map(|pod| text(pod, "/spec/nodeName"));
    nodes.map(str::to_owned).collect()
}
