//! What is wrong with the pods that were asked, each in one line, and what to do about it. Judges what they said;
//! asks nobody.

use cairn_config_schema::origin::ObjectKey;
use serde::Serialize;
use serde_json::Value;

use super::agents::{self, Agent};
use super::named_some;
use super::probe::{AgentState, Answers};
use crate::cluster::{Cluster, GATEWAY_NAME};
use crate::objects::{controller, controller_of, name_of, namespace_of, text};
use crate::status::{Acknowledgement, behind, is_ready};

/// States of pods at an agent by which their connections are not steered.
const NOT_ENROLLED: [&str; 3] = ["overdue", "failed", "unserved"];

/// A pod that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// `shop/waypoint-1`.
    pub pod: String,
    /// What it is.
    pub role: Role,
    /// The Gateway that it serves.
    pub gateway: String,
    /// Its node; empty while it has none.
    pub node: String,
    /// How it stands, in words.
    pub state: String,
    /// What is to be done, if something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// What a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It serves tunnels.
    Waypoint,
    /// It serves the pods of its node.
    Agent,
    /// It has the label of a waypoint's pods, and is none.
    Stranger,
}

impl Role {
    /// In words, before the Gateway.
    pub fn words(self) -> &'static str {
        match self {
            Self::Waypoint => "waypoint",
            Self::Agent => "agent of a node for",
            Self::Stranger => "no replica of",
        }
    }
}

/// Every pod of these Gateways and what it said.
pub(super) fn of(cluster: &Cluster, gateways: &[ObjectKey], answers: &Answers) -> Vec<Asked> {
    let mut asked = Vec::new();
    for gateway in gateways {
        let all: Vec<&Value> = cluster.pods_of(gateway).collect();
        let one_is_ready = all.iter().any(|pod| is_ready(pod));
        let of_waypoint = all.iter().filter(|pod| !agents::is_one(cluster, pod));
        asked.extend(of_waypoint.map(|pod| {
            let key = ObjectKey::new(namespace_of(pod), name_of(pod));
            let (state, mend) = match is_ready(pod) {
                true => serving(cluster, gateway, &key, answers.acknowledged.get(&key)),
                false => waiting(&key, answers, !one_is_ready),
            };
            Asked {
                pod: key.to_string(),
                role: Role::Waypoint,
                gateway: gateway.to_string(),
                node: text(pod, "/spec/nodeName").unwrap_or("").to_owned(),
                state,
                mend,
            }
        }));
        let strangers = cluster.strangers_of(gateway);
        let strangers = strangers.filter(|pod| !agents::is_one(cluster, pod));
        asked.extend(strangers.map(|pod| stranger(gateway, pod)));
        asked.extend(
            agents::of(cluster, gateway)
                .into_iter()
                .map(|agent| of_agent(agent, answers)),
        );
    }
    asked
}

/// `ReplicaSet web-1`.
fn controller_name(pod: &Value) -> String {
    let owner = controller(pod);
    let field = |at: &str| owner.and_then(|owner| text(owner, at)).unwrap_or("");
    format!("{} {}", field("/kind"), field("/name"))
}

/// A pod that has the label of a waypoint's, by which its Service selects them.
fn stranger(gateway: &ObjectKey, pod: &Value) -> Asked {
    let key = ObjectKey::new(namespace_of(pod), name_of(pod));
    // A pod that lost its label is made anew by who made it.
    let mend = match controller_of(pod) {
        Some(_) => format!(
            "take the label {GATEWAY_NAME} out of what makes it: {}",
            controller_name(pod)
        ),
        None => format!(
            "see who made it, and take the label away: kubectl label pod -n {} {} {GATEWAY_NAME}-",
            key.namespace, key.name
        ),
    };
    Asked {
        pod: key.to_string(),
        role: Role::Stranger,
        gateway: gateway.to_string(),
        node: text(pod, "/spec/nodeName").unwrap_or("").to_owned(),
        state: "it has the label of a waypoint's pods, so that clients are led to it, and the Gateway's Deployment did not make it".to_owned(),
        mend: Some(mend),
    }
}

/// A ready pod: what it has in force beside what is written.
fn serving(
    cluster: &Cluster,
    gateway: &ObjectKey,
    pod: &ObjectKey,
    said: Option<&Result<Acknowledgement, String>>,
) -> (String, Option<String>) {
    let said = match said {
        Some(Ok(said)) => said,
        Some(Err(why)) => {
            let state = format!("ready, and what it has in force is not known: {why}");
            return (state, Some("have that answered, and ask again".to_owned()));
        }
        None => {
            let state = "ready, and was not asked: it became so meanwhile".to_owned();
            return (state, Some("ask again".to_owned()));
        }
    };
    if said.gateway.as_deref() != Some(&*gateway.to_string()) {
        let mend = format!("`cairn status -n {}` says why", gateway.namespace);
        return ("ready, and refuses every tunnel".to_owned(), Some(mend));
    }
    let in_force = format!("ready, snapshot {} in force", said.snapshot);
    let behind = behind(cluster, said);
    let names: Vec<&str> = behind.iter().map(String::as_str).collect();
    match names.as_slice() {
        [] => (in_force, None),
        names => {
            let mend = format!("ask again; if it lasts, see its log: {}", log(pod));
            let state = format!("{in_force}, and is behind: {}", named_some(names));
            (state, Some(mend))
        }
    }
}

/// One that is not ready: that is to be mended where nobody else serves in its place.
fn waiting(pod: &ObjectKey, answers: &Answers, is_needed: bool) -> (String, Option<String>) {
    let state = match answers.readiness.get(pod) {
        Some(Ok(reasons)) => format!("not ready: {reasons}"),
        Some(Err(why)) => format!("not ready, and does not say why: {why}"),
        None => "not ready".to_owned(),
    };
    let mend = || {
        format!(
            "kubectl describe pod -n {} {}; {}",
            pod.namespace,
            pod.name,
            log(pod)
        )
    };
    (state, is_needed.then(mend))
}

fn of_agent(agent: Agent, answers: &Answers) -> Asked {
    let (state, mend) = match (agent.ready, answers.agents.get(&agent.pod)) {
        (false, _) => waiting(&agent.pod, answers, true),
        (true, Some(Ok(state))) => enrolling(&agent, state),
        (true, Some(Err(why))) => {
            let state = format!("ready, and whom it has enrolled is not known: {why}");
            (state, Some("have that answered, and ask again".to_owned()))
        }
        (true, None) => (
            "ready, and was not asked: it became so meanwhile".to_owned(),
            Some("ask again".to_owned()),
        ),
    };
    Asked {
        pod: agent.pod.to_string(),
        role: Role::Agent,
        gateway: agent.gateway.to_string(),
        node: agent.node,
        state,
        mend,
    }
}

fn enrolling(agent: &Agent, state: &AgentState) -> (String, Option<String>) {
    let number = |name: &str| state.pods.get(name).copied().unwrap_or(0);
    let mut words = format!("ready, {} pods served", number("served"));
    if number("awaited") > 0 {
        words.push_str(&format!(", {} awaited", number("awaited")));
    }
    let lost = NOT_ENROLLED.iter().filter(|name| number(name) > 0);
    let lost: Vec<String> = lost
        .map(|name| format!("{} {name}", number(name)))
        .collect();
    if !lost.is_empty() {
        let why = format!(
            "{words}; not enrolled: {}, whose connections are not steered",
            lost.join(", ")
        );
        return (
            why,
            Some(format!("its log names them: {}", log(&agent.pod))),
        );
    }
    if state.left_out > 0 {
        let why = format!(
            "{words}; {} ports of services do not fit into the kernel and go direct",
            state.left_out
        );
        return (
            why,
            Some("give the agents a larger --services-max".to_owned()),
        );
    }
    (words, None)
}

fn log(pod: &ObjectKey) -> String {
    format!("kubectl logs -n {} {}", pod.namespace, pod.name)
}
