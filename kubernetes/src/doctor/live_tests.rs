//! What pods of waypoints and agents of nodes say, beside the same shop as in the other tests.

use super::asked::Role;
use super::probe::AgentState;
use super::tests::shop;
use super::*;
use crate::cluster::documents;
use crate::status::{Acknowledgement, versions};
use std::collections::BTreeMap;

/// An agent on node-a, bound by the chart, and a client's pod on node-b.
const AGENT: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: cairn-node}
subjects: [{kind: ServiceAccount, namespace: cairn-system, name: cairn-node}]
---
apiVersion: v1
kind: Pod
metadata: {name: cairn-node-x, namespace: cairn-system, labels: {app.kubernetes.io/name: cairn, app.kubernetes.io/component: node}}
spec: {serviceAccountName: cairn-node, nodeName: node-a, containers: [{name: node, image: cairn, args: [node, --kube, --gateway=shop/waypoint]}]}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {serviceAccountName: client, nodeName: node-b, containers: [{name: c, image: c}]}
status: {podIP: 10.244.2.2, phase: Running}
";

fn cluster(more: &str) -> Cluster {
    let shop = shop().replace(
        "metadata: {name: readers, namespace: shop}",
        "metadata: {name: readers, namespace: shop, generation: 3}",
    );
    Cluster::of(documents(&format!("{shop}---{more}")), Vec::new())
}

fn said(gateway: Option<&str>, policy: Option<i64>) -> Result<Acknowledgement, String> {
    let policy = policy.map(|n| ("AuthorizationPolicy/shop/readers".to_owned(), n));
    let own = gateway.map(|g| (format!("Gateway/{g}"), 2));
    Ok(Acknowledgement {
        snapshot: 7,
        gateway: gateway.map(str::to_owned),
        objects: policy.into_iter().chain(own).collect(),
        ..Acknowledgement::default()
    })
}

fn waypoint_says(cluster: &Cluster, said: Result<Acknowledgement, String>) -> Answers {
    Answers {
        acknowledged: BTreeMap::from([(ObjectKey::new("shop", "waypoint-1"), said)]),
        wanted: versions(cluster),
        ..Answers::default()
    }
}

fn way(matrix: &Matrix, from: From) -> Option<&Way> {
    matrix.services[0].ways.iter().find(|way| way.from == from)
}

/// What was written is not what holds until a replica says that it is in force.
#[test]
fn a_policy_that_a_replica_does_not_have_in_force_is_a_way_past_it() {
    let cluster = cluster("");
    let here = Some("shop/waypoint");
    for (answer, outcome, words, mended) in [
        (said(here, Some(3)), Outcome::Enforced, "in force: 1", None),
        (
            said(here, Some(2)),
            Outcome::Bypass,
            "generation 2 of AuthorizationPolicy/shop/readers in force, and 3 is written",
            Some("kubectl logs -n shop waypoint-1"),
        ),
        (
            said(here, None),
            Outcome::Bypass,
            "does not have AuthorizationPolicy/shop/readers in force yet",
            Some("kubectl logs -n shop waypoint-1"),
        ),
        // Who refuses everybody lets nobody past; it is to be mended all the same.
        (
            said(None, None),
            Outcome::Enforced,
            "by Gateway shop/waypoint",
            Some("cairn status -n shop"),
        ),
        (
            Err("no answer within 5 s".to_owned()),
            Outcome::Enforced,
            "by Gateway shop/waypoint",
            Some("ask again"),
        ),
    ] {
        let answers = waypoint_says(&cluster, answer.clone());
        let matrix = examine(&cluster, Some("shop"), Some(&answers));
        let by_service = way(&matrix, From::MeshByService).unwrap();
        assert_eq!(by_service.outcome, outcome, "{answer:?}");
        assert!(by_service.why.contains(words), "{}", by_service.why);
        let [asked] = matrix.asked.as_slice() else {
            panic!("{:?}", matrix.asked)
        };
        let mend = asked.mend.as_deref();
        match mended {
            None => assert_eq!(mend, None),
            Some(words) => assert!(mend.unwrap().contains(words), "{mend:?}"),
        }
    }
}

/// A dry run that ended makes no generation: what is in force is the policy as it was only tried.
#[test]
fn an_earlier_text_of_the_same_generation_is_a_way_past_a_policy() {
    let cluster = cluster("");
    let name = "AuthorizationPolicy/shop/readers";
    let written = versions(&cluster)[name].fingerprint;
    for (told, outcome) in [(written, Outcome::Enforced), (written + 1, Outcome::Bypass)] {
        let mut said = said(Some("shop/waypoint"), Some(3)).unwrap();
        said.fingerprints = BTreeMap::from([(name.to_owned(), told)]);
        let answers = waypoint_says(&cluster, Ok(said));
        let matrix = examine(&cluster, Some("shop"), Some(&answers));
        let by_service = way(&matrix, From::MeshByService).unwrap();
        assert_eq!(by_service.outcome, outcome, "{}", by_service.why);
        let words = "another text of generation 3";
        assert_eq!(by_service.why.contains(words), told != written);
        assert_eq!(matrix.asked[0].state.contains(words), told != written);
    }
}

/// Closed at the pods, so that only what the replica says decides the exit code.
#[test]
fn a_pod_that_does_not_answer_is_a_gap() {
    let open = cluster("");
    let lock = examine(&open, None, None).remedies()[0].0.to_string();
    let closed = cluster(&format!("\n{lock}"));
    let gaps = |answers: Option<&Answers>| examine(&closed, None, answers).has_gaps();
    assert!(!gaps(None), "by the objects nothing is open");
    let here = Some("shop/waypoint");
    let well = waypoint_says(&closed, said(here, Some(3)));
    // The lock has no generation in this test, so that nobody can be behind on it.
    assert!(!gaps(Some(&well)));
    let silent = waypoint_says(&closed, Err("forbidden".to_owned()));
    assert!(gaps(Some(&silent)));
}

/// A tenant's pod with the label counts for nothing, and is told of: the Service leads clients to it.
#[test]
fn a_pod_that_only_has_the_label_is_told_of() {
    let stranger = "
apiVersion: v1
kind: Pod
metadata: {name: theirs, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}
spec: {serviceAccountName: tenant, containers: [{name: c, image: c}]}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
";
    let cluster = cluster(stranger);
    let mut answers = waypoint_says(&cluster, said(Some("shop/waypoint"), Some(3)));
    // Whatever it says of itself.
    let theirs = ObjectKey::new("shop", "theirs");
    let lie = said(Some("shop/waypoint"), Some(2));
    answers.acknowledged.insert(theirs, lie);
    let matrix = examine(&cluster, Some("shop"), Some(&answers));
    let by_service = way(&matrix, From::MeshByService).unwrap();
    assert_eq!(by_service.outcome, Outcome::Enforced, "{}", by_service.why);
    assert!(by_service.why.ends_with(": 1"), "{}", by_service.why);
    let [_, stranger] = matrix.asked.as_slice() else {
        panic!("{:?}", matrix.asked)
    };
    assert_eq!(
        (&*stranger.pod, stranger.role),
        ("shop/theirs", Role::Stranger)
    );
    assert!(stranger.mend.is_some() && matrix.has_gaps());
}

#[test]
fn a_pod_that_is_not_ready_says_why_and_is_to_be_mended_if_no_other_serves() {
    let two = |second: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata:
  {{name: waypoint-2, namespace: shop, labels: {{gateway.networking.k8s.io/gateway-name: waypoint}},
   ownerReferences: [{{kind: ReplicaSet, name: waypoint-1, uid: set-1, controller: true}}]}}
spec: {{serviceAccountName: waypoint, containers: [{{name: cairn, image: cairn}}]}}
status: {{podIP: 10.244.1.10, phase: Running, conditions: [{{type: Ready, status: '{second}'}}]}}
"
        )
    };
    let cluster = cluster(&two("False"));
    let mut answers = waypoint_says(&cluster, said(Some("shop/waypoint"), Some(3)));
    let second = ObjectKey::new("shop", "waypoint-2");
    let reasons = Ok("waiting for the first certificate".to_owned());
    answers.readiness.insert(second, reasons);
    let matrix = examine(&cluster, None, Some(&answers));
    let of = |name: &str| matrix.asked.iter().find(|a| a.pod == name).unwrap();
    let waiting = of("shop/waypoint-2");
    assert_eq!(
        waiting.state,
        "not ready: waiting for the first certificate"
    );
    assert_eq!(waiting.mend, None, "the other one serves");
}

/// Labels may be set by whoever runs pods: who is admitted is bound by administrators.
#[test]
fn the_policy_that_is_printed_admits_the_agents_that_are_bound() {
    let with = cluster(AGENT);
    let matrix = examine(&with, None, None);
    let principals = |matrix: &Matrix| {
        let remedy = matrix.services[0].remedy.as_ref().unwrap();
        remedy.0["spec"]["rules"][0]["from"][0]["source"]["principals"].clone()
    };
    assert_eq!(
        principals(&matrix),
        serde_json::json!([
            "cluster.local/ns/shop/sa/waypoint",
            "cluster.local/ns/cairn-system/sa/cairn-node"
        ])
    );
    let forged = AGENT.replace("namespace: cairn-system, labels", "namespace: evil, labels");
    let matrix = examine(&cluster(&forged), None, None);
    assert_eq!(
        principals(&matrix),
        serde_json::json!(["cluster.local/ns/shop/sa/waypoint"])
    );
    assert_eq!(way(&matrix, From::ByAgent), None);
    let other = AGENT.replace("--gateway=shop/waypoint", "--gateway=bank/waypoint");
    assert_eq!(
        way(&examine(&cluster(&other), None, None), From::ByAgent),
        None
    );
}

#[test]
fn what_is_printed_lets_the_agents_in_and_closes_the_rest() {
    let open = examine(&cluster(AGENT), None, None);
    let remedy = open.remedies()[0].0.to_string();
    let closed = examine(&cluster(&format!("{AGENT}---\n{remedy}")), None, None);
    for way in &closed.services[0].ways {
        assert!(!way.is_gap(), "{way:?}");
    }
    assert_eq!(
        way(&closed, From::ByAgent).unwrap().outcome,
        Outcome::Enforced
    );
}

/// A lock from before the agents came: it refuses what they send.
#[test]
fn a_lock_for_the_waypoint_alone_shuts_its_agents_out() {
    let before = examine(&cluster(""), None, None);
    let lock = before.remedies()[0].0.to_string();
    let matrix = examine(&cluster(&format!("{AGENT}---\n{lock}")), None, None);
    let by_agent = way(&matrix, From::ByAgent).unwrap();
    assert_eq!(by_agent.outcome, Outcome::NotReachable);
    assert!(
        by_agent
            .why
            .contains("cluster.local/ns/cairn-system/sa/cairn-node"),
        "{}",
        by_agent.why
    );
    assert!(matrix.has_gaps());
    assert_eq!(
        matrix.remedies().len(),
        1,
        "and it is printed how to mend it"
    );
}

/// A lock that is whole and leaves out the waypoint refuses all that it sends.
#[test]
fn a_lock_without_the_waypoint_shuts_the_waypoint_out() {
    let before = examine(&cluster(AGENT), None, None);
    let lock = before.remedies()[0].0.to_string();
    let own = "\"cluster.local/ns/shop/sa/waypoint\",";
    assert!(lock.contains(own), "{lock}");
    let lock = lock.replace(own, "");
    let matrix = examine(&cluster(&format!("{AGENT}---\n{lock}")), None, None);
    let by_service = way(&matrix, From::MeshByService).unwrap();
    assert_eq!(by_service.outcome, Outcome::NotReachable);
    assert!(
        by_service.why.contains("shop/sa/waypoint"),
        "{}",
        by_service.why
    );
    assert!(matrix.has_gaps());
    assert_eq!(
        way(&matrix, From::ByAgent).unwrap().outcome,
        Outcome::Enforced
    );
}

/// What agents judge by is what they have in force, not what the waypoint's pods have.
#[test]
fn agents_that_are_behind_or_not_ready_enforce_nothing() {
    let with = cluster(AGENT);
    let here = Some("shop/waypoint");
    let mut answers = waypoint_says(&with, said(here, Some(3)));
    let agent = ObjectKey::new("cairn-system", "cairn-node-x");
    answers.acknowledged.insert(agent, said(here, Some(2)));
    let matrix = examine(&with, None, Some(&answers));
    let by_agent = way(&matrix, From::ByAgent).unwrap();
    assert_eq!(by_agent.outcome, Outcome::Bypass);
    assert!(
        by_agent.why.contains("cairn-node-x has generation 2"),
        "{}",
        by_agent.why
    );
    let ready = "status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}";
    let waiting = AGENT.replace(ready, "status: {phase: Running}");
    let matrix = examine(&cluster(&waiting), None, None);
    let by_agent = way(&matrix, From::ByAgent).unwrap();
    assert_eq!(by_agent.outcome, Outcome::NotReachable);
    assert!(by_agent.is_gap());
}

#[test]
fn a_node_with_clients_and_no_ready_agent_is_named() {
    let matrix = examine(&cluster(AGENT), None, None);
    let lost = way(&matrix, From::NodeWithoutAgent).unwrap();
    assert_eq!(lost.outcome, Outcome::Bypass);
    assert!(lost.why.starts_with("node-b: "), "{}", lost.why);
    let both = AGENT.replace("nodeName: node-b", "nodeName: node-a");
    let matrix = examine(&cluster(&both), None, None);
    assert_eq!(way(&matrix, From::NodeWithoutAgent), None);
    let ready = "status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}";
    let waiting = both.replace(ready, "status: {phase: Running}");
    let matrix = examine(&cluster(&waiting), None, None);
    let lost = way(&matrix, From::NodeWithoutAgent).unwrap();
    assert!(lost.why.starts_with("node-a: "), "{}", lost.why);
}

/// Whoever makes a pod chooses its labels.
#[test]
fn a_client_with_the_labels_of_others_is_a_client() {
    let both = AGENT.replace("nodeName: node-b", "nodeName: node-a");
    let pod = |labels: &str, node: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: x, namespace: shop, labels: {{{labels}}}}}\n\
             spec: {{serviceAccountName: tenant, nodeName: {node}, containers: [{{name: c, image: c}}]}}\n\
             status: {{phase: Running}}\n"
        )
    };
    for labels in [
        "gateway.networking.k8s.io/gateway-name: waypoint",
        "gateway.networking.k8s.io/gateway-name: none-of-that-name",
        "app.kubernetes.io/name: cairn, app.kubernetes.io/component: node",
    ] {
        let objects = format!("{}\n{}", both.trim_end(), pod(labels, "node-c"));
        let matrix = examine(&cluster(&objects), None, None);
        let lost = way(&matrix, From::NodeWithoutAgent).unwrap();
        assert!(lost.why.starts_with("node-c: "), "{labels}: {}", lost.why);
    }
}

#[test]
fn pods_that_an_agent_has_not_enrolled_are_told() {
    let cluster = cluster(AGENT);
    let state = |name: &str, n: u64| AgentState {
        pods: BTreeMap::from([("served".to_owned(), 4), (name.to_owned(), n)]),
        left_out: 0,
    };
    let agent = ObjectKey::new("cairn-system", "cairn-node-x");
    for (answer, words, is_gap) in [
        (
            Ok(state("awaited", 1)),
            "ready, 4 pods served, 1 awaited",
            false,
        ),
        (Ok(state("overdue", 2)), "not enrolled: 2 overdue", true),
        (
            Ok(AgentState {
                left_out: 3,
                ..AgentState::default()
            }),
            "3 ports of services do not fit",
            true,
        ),
        (Err("forbidden".to_owned()), "is not known: forbidden", true),
    ] {
        let mut answers = waypoint_says(&cluster, said(Some("shop/waypoint"), Some(3)));
        answers.agents.insert(agent.clone(), answer);
        let matrix = examine(&cluster, Some("shop"), Some(&answers));
        let asked = matrix.asked.iter().find(|a| a.role == Role::Agent).unwrap();
        assert_eq!(
            (&*asked.pod, &*asked.node),
            ("cairn-system/cairn-node-x", "node-a")
        );
        assert!(asked.state.contains(words), "{}", asked.state);
        assert_eq!(asked.mend.is_some(), is_gap, "{}", asked.state);
    }
}
