//! What pods of waypoints and agents of nodes say of themselves, asked through the API server: whether they are ready
//! and why not, what they have in force, whom they have not enrolled. The administration at 127.0.0.1 of a pod is not
//! asked: nobody but the pod reaches it. Sends nothing to a service.

use std::collections::{BTreeMap, BTreeSet};

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resources::Version;
use futures::stream::{self, StreamExt};
use http::StatusCode;
use kube_client::Client;

use super::agents::{self, Agent};
use crate::cluster::Cluster;
use crate::enrolment;
use crate::limits::PODS_ASKED_BY_PEOPLE;
use crate::objects::{ApiError, name_of, namespace_of};
use crate::pod::{self, METRICS_PORT, STATUS_PORT, shown};
use crate::status::{Acknowledgement, Acknowledgements, is_ready, ready_pods, settled, versions};
use crate::versions::Differs;

/// What pods said, by their keys; or why they did not.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Ready pods of waypoints and agents: what is in force.
    pub(super) acknowledged: Acknowledgements,
    /// Pods that are not ready: why not.
    pub(super) readiness: BTreeMap<ObjectKey, Result<String, String>>,
    /// Ready agents: where they stand.
    pub(super) agents: BTreeMap<ObjectKey, Result<AgentState, String>>,
    /// Versions that the API server has, of all that waypoints tell of.
    pub(super) wanted: BTreeMap<String, Version>,
}

/// Where an agent stands, by its metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AgentState {
    /// Pods by state (docs/operations.md, `cairn_node_pods`).
    pub(super) pods: BTreeMap<String, u64>,
    /// Ports of services that did not fit into the kernel.
    pub(super) left_out: u64,
}

/// Gateways that the namespace, or what is in it, has to do with; all without one.
pub(super) fn concerned(cluster: &Cluster, namespace: Option<&str>) -> Vec<ObjectKey> {
    let mut gateways = cluster.waypoints();
    let Some(namespace) = namespace else {
        return gateways;
    };
    let key = ObjectKey::new("", namespace);
    let own = cluster.object("Namespace", &key).into_iter();
    let services = cluster.objects("Service");
    let services = services.filter(|service| namespace_of(service) == namespace);
    let asking: Vec<_> = own.chain(services).collect();
    gateways.retain(|gateway| {
        *gateway.namespace == *namespace || asking.iter().any(|o| enrolment::names(o, gateway))
    });
    gateways
}

/// Asks every pod of the waypoints, and every agent of them, that a namespace has to do with; of all without one. What
/// they said, and the cluster beside which it counts: what pods have another text of was read again. `api` is for the
/// API server, `client` for questions through it.
///
/// # Errors
/// When the API server does not answer.
pub async fn ask(
    (api, client): (&Client, &Client),
    cluster: Cluster,
    namespace: Option<&str>,
) -> Result<(Cluster, Answers), ApiError> {
    let pods = |cluster: &Cluster| {
        let gateways = concerned(cluster, namespace);
        let agents = gateways.iter().flat_map(|g| agents::of(cluster, g));
        let agents = agents.filter(|agent| agent.ready).map(|agent| agent.pod);
        let mut pods = ready_pods(cluster, &gateways);
        pods.extend(agents);
        pods
    };
    let (cluster, acknowledged) = settled((api, client), cluster, pods).await?;
    let answers = ask_the_rest(client, &cluster, namespace, acknowledged).await;
    Ok((cluster, answers))
}

/// Asks agents whom they have enrolled, and pods that are not ready why.
async fn ask_the_rest(
    client: &Client,
    cluster: &Cluster,
    namespace: Option<&str>,
    acknowledged: Acknowledgements,
) -> Answers {
    let gateways = concerned(cluster, namespace);
    let agents = gateways.iter().flat_map(|g| agents::of(cluster, g));
    let (ready, not_ready): (Vec<Agent>, Vec<Agent>) = agents.partition(|agent| agent.ready);
    let waiting = gateways.iter().flat_map(|gateway| cluster.pods_of(gateway));
    let waiting = waiting.filter(|pod| !is_ready(pod));
    let waiting = waiting.map(|pod| ObjectKey::new(namespace_of(pod), name_of(pod)));
    let waiting: Vec<ObjectKey> = waiting
        .chain(not_ready.into_iter().map(|agent| agent.pod))
        .collect();
    let reasons = stream::iter(waiting).map(|key| async move {
        let answer = pod::get(client, &key, STATUS_PORT, "/healthz/ready").await;
        (key, answer.map(|answer| reasons(&answer)))
    });
    let states = stream::iter(ready).map(|agent| async move {
        let answer = pod::get(client, &agent.pod, METRICS_PORT, "/metrics").await;
        let state = answer.and_then(|answer| match answer.status {
            StatusCode::OK => agent_state(&answer.text)
                .ok_or_else(|| "/metrics: nothing of an agent is there".to_owned()),
            status => Err(format!("/metrics: {status}")),
        });
        (agent.pod, state)
    });
    Answers {
        acknowledged,
        readiness: reasons
            .buffer_unordered(PODS_ASKED_BY_PEOPLE)
            .collect()
            .await,
        agents: states
            .buffer_unordered(PODS_ASKED_BY_PEOPLE)
            .collect()
            .await,
        wanted: versions(cluster),
    }
}

/// The lines below "not ready:" in one.
fn reasons(answer: &pod::Answer) -> String {
    let page = &answer.text;
    if !page.starts_with("not ready:") {
        return format!("it answers {}", answer.status);
    }
    let lines = page.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.filter(|line| *line != "not ready:").collect();
    shown(&lines.join("; "))
}

fn agent_state(metrics: &str) -> Option<AgentState> {
    let number = |line: &str, prefix: &str| -> Option<(String, u64)> {
        let rest = line.strip_prefix(prefix)?.strip_prefix("{state=\"")?;
        let (state, value) = rest.split_once("\"} ")?;
        let value: f64 = value.trim().parse().ok()?;
        // Numbers of pods and ports, which fit.
        Some((state.to_owned(), value as u64))
    };
    let pods = metrics
        .lines()
        .filter_map(|line| number(line, "cairn_node_pods"));
    let mut services = metrics
        .lines()
        .filter_map(|line| number(line, "cairn_node_services"));
    let left_out = services.find(|(state, _)| state == "left_out");
    let pods: BTreeMap<String, u64> = pods.collect();
    (!pods.is_empty()).then(|| AgentState {
        pods,
        left_out: left_out.map_or(0, |(_, n)| n),
    })
}

impl Answers {
    /// The first of these policies of which a ready pod of the Gateway has another version in force than is written:
    /// until it has, what is written does not hold there.
    pub(super) fn lagging(
        &self,
        cluster: &Cluster,
        gateway: &ObjectKey,
        policies: &[String],
    ) -> Option<String> {
        let ready = cluster.pods_of(gateway).filter(|pod| is_ready(pod));
        let ready = ready.map(|pod| ObjectKey::new(namespace_of(pod), name_of(pod)));
        let agents = agents::of(cluster, gateway).into_iter();
        let agents = agents.filter(|agent| agent.ready).map(|agent| agent.pod);
        let mut lagging = ready.chain(agents).filter_map(|key| {
            let said = self.acknowledged.get(&key)?.as_ref().ok()?;
            // Whoever refuses everything lets nobody past.
            said.gateway.as_ref()?;
            policies.iter().find_map(|policy| {
                let wanted = *self.wanted.get(policy)?;
                Some(match said.differs(policy, wanted)? {
                    Differs::Missing if said.left_out > 0 => return None,
                    Differs::Missing => format!("Pod {key} does not have {policy} in force yet"),
                    Differs::Generation(has) => format!(
                        "Pod {key} has generation {has} of {policy} in force, and {} is written",
                        wanted.generation
                    ),
                    Differs::Text(has) => format!(
                        "Pod {key} has another text of generation {has} of {policy} in force than is written"
                    ),
                })
            })
        });
        lagging.next()
    }

    /// How many pods have said what is in force, and serve.
    pub(super) fn heard(&self, cluster: &Cluster, gateway: &ObjectKey) -> usize {
        let keys = cluster
            .pods_of(gateway)
            .map(|p| ObjectKey::new(namespace_of(p), name_of(p)));
        let keys: BTreeSet<ObjectKey> = keys.collect();
        let serves = |said: &Result<Acknowledgement, String>| {
            said.as_ref().is_ok_and(|s| s.gateway.is_some())
        };
        let said = self.acknowledged.iter();
        said.filter(|(key, said)| keys.contains(*key) && serves(said))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_metrics_say_whom_it_has_not_enrolled() {
        let metrics = "# HELP cairn_node_pods Pods\n# TYPE cairn_node_pods gauge\n\
            cairn_node_pods{state=\"served\"} 12\ncairn_node_pods{state=\"overdue\"} 2\n\
            cairn_node_services{state=\"flagged\"} 4\ncairn_node_services{state=\"left_out\"} 1\n";
        let state = agent_state(metrics).unwrap();
        assert_eq!(state.pods.get("served"), Some(&12));
        assert_eq!(state.pods.get("overdue"), Some(&2));
        assert_eq!(state.left_out, 1);
        assert_eq!(agent_state("nothing of an agent\n"), None);
    }

    #[test]
    fn reasons_are_the_lines_below_the_heading() {
        let answer = |code: u16, text: &str| pod::Answer {
            status: StatusCode::from_u16(code).unwrap(),
            text: text.to_owned(),
        };
        let page = "not ready:\nwaiting for the first certificate\nPods are not read yet\n";
        assert_eq!(
            reasons(&answer(503, page)),
            "waiting for the first certificate; Pods are not read yet"
        );
        assert_eq!(reasons(&answer(200, "\u{1b}[2K")), "it answers 200 OK");
        let forged = answer(503, "not ready:\n\u{1b}[2Kenforced\n");
        assert!(!reasons(&forged).contains('\u{1b}'));
    }
}
