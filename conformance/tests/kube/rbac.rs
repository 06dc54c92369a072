//! Who may do what with the chart's roles: every verb on every resource that the API server has, asked of the API
//! server itself, beside tables that say all there may be (issue 7, Proof: nothing else is allowed).

use std::collections::{BTreeMap, BTreeSet};

use cairn_conformance::cluster::ApiServer;
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};

use super::chart::{installed, rendered};

const VERBS: [&str; 10] = [
    "bind",
    "create",
    "delete",
    "deletecollection",
    "escalate",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// Questions that are open at a time.
const AT_ONCE: usize = 16;

/// What is read of the configuration, by everybody who reads it.
const CONFIGURATION: &str = "
configmaps: get list watch
namespaces: get list watch
pods: get list watch
services: get list watch
ciliumclusterwideenvoyconfigs.cilium.io: get list watch
ciliumclusterwidenetworkpolicies.cilium.io: get list watch
ciliumenvoyconfigs.cilium.io: get list watch
ciliumnetworkpolicies.cilium.io: get list watch
endpointslices.discovery.k8s.io: get list watch
backendtlspolicies.gateway.networking.k8s.io: get list watch
gatewayclasses.gateway.networking.k8s.io: get list watch
gateways.gateway.networking.k8s.io: get list watch
grpcroutes.gateway.networking.k8s.io: get list watch
httproutes.gateway.networking.k8s.io: get list watch
tcproutes.gateway.networking.k8s.io: get list watch
tlsroutes.gateway.networking.k8s.io: get list watch
xbackendtrafficpolicies.gateway.networking.x-k8s.io: get list watch
destinationrules.networking.istio.io: get list watch
serviceentries.networking.istio.io: get list watch
virtualservices.networking.istio.io: get list watch
workloadentries.networking.istio.io: get list watch
networkpolicies.networking.k8s.io: get list watch
authorizationpolicies.security.istio.io: get list watch
requestauthentications.security.istio.io: get list watch
telemetries.telemetry.istio.io: get list watch
trafficpolicies.cairn.dev: get list watch
";

/// What the controller may beside that.
const CONTROLLER: &str = "
events: create patch
serviceaccounts: create delete get list patch watch
services: create delete get list patch watch
services/status: patch
deployments.apps: create delete get list patch watch
replicasets.apps: get list watch
horizontalpodautoscalers.autoscaling: create delete get list patch watch
events.events.k8s.io: create patch
backendtlspolicies/status.gateway.networking.k8s.io: patch
gatewayclasses.gateway.networking.k8s.io: create get list patch watch
gatewayclasses/status.gateway.networking.k8s.io: patch
gateways/status.gateway.networking.k8s.io: patch
grpcroutes/status.gateway.networking.k8s.io: patch
httproutes/status.gateway.networking.k8s.io: patch
tcproutes/status.gateway.networking.k8s.io: patch
tlsroutes/status.gateway.networking.k8s.io: patch
xbackendtrafficpolicies/status.gateway.networking.x-k8s.io: patch
serviceentries/status.networking.istio.io: patch
poddisruptionbudgets.policy: create delete get list patch watch
authorizationpolicies/status.security.istio.io: patch
requestauthentications/status.security.istio.io: patch
trafficpolicies/status.cairn.dev: patch
";

/// What people who ask for the state of waypoints may beside that (`cairn status`, `cairn doctor`).
const STATUS: &str = "
pods/proxy: get
deployments.apps: get list
replicasets.apps: get list
peerauthentications.security.istio.io: get list
";

type Table = BTreeMap<String, BTreeSet<String>>;

/// A later line for a resource takes the place of an earlier one.
fn table(texts: &[&str]) -> Table {
    let lines = texts.iter().flat_map(|text| text.trim().lines());
    let row = |line: &str| {
        let (resource, verbs) = line.split_once(": ").expect("resource: verbs");
        (
            resource.to_owned(),
            verbs.split(' ').map(str::to_owned).collect(),
        )
    };
    lines.map(row).collect()
}

/// Every resource with subresources, as (group, name).
async fn resources(cluster: &ApiServer) -> Vec<(String, String)> {
    let mut paths = vec!["/api/v1".to_owned()];
    let groups = cluster.api.get("/apis").await.expect("groups");
    for group in groups["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            paths.push(format!(
                "/apis/{}",
                version["groupVersion"].as_str().unwrap()
            ));
        }
    }
    let mut found = BTreeSet::new();
    for path in paths {
        let group = path
            .trim_start_matches("/api/v1")
            .trim_start_matches("/apis/");
        let group = group.split('/').next().unwrap().to_owned();
        let list = cluster.api.get(&path).await.expect("resources");
        for resource in list["resources"].as_array().unwrap() {
            found.insert((group.clone(), resource["name"].as_str().unwrap().to_owned()));
        }
    }
    assert!(found.len() > 150, "{}", found.len());
    found.into_iter().collect()
}

/// Whether a ServiceAccount may; in a namespace, of a name, where they are not empty.
async fn may(cluster: &ApiServer, account: (&str, &str), asked: &Value) -> bool {
    let (namespace, name) = account;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("system:serviceaccount:{namespace}:{name}"),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
            "resourceAttributes": asked,
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = cluster.api.create(path, &review).await;
    answer["status"]["allowed"] == true
}

/// Everything that an account may do in all namespaces, whatever the object.
async fn all(cluster: &ApiServer, resources: &[(String, String)], account: (&str, &str)) -> Table {
    let questions = resources.iter().flat_map(|(group, name)| {
        VERBS
            .iter()
            .map(move |verb| (group.as_str(), name.as_str(), *verb))
    });
    let asked = stream::iter(questions).map(|(group, name, verb)| async move {
        let (resource, sub) = name.split_once('/').unwrap_or((name, ""));
        let question =
            json!({"group": group, "resource": resource, "subresource": sub, "verb": verb});
        may(cluster, account, &question).await.then(|| {
            let dot = if group.is_empty() { "" } else { "." };
            (format!("{name}{dot}{group}"), verb.to_owned())
        })
    });
    let mut table = Table::new();
    for (resource, verb) in asked
        .buffer_unordered(AT_ONCE)
        .filter_map(async |x| x)
        .collect::<Vec<_>>()
        .await
    {
        table.entry(resource).or_default().insert(verb);
    }
    table
}

/// What an account may that every account may not.
async fn own(cluster: &ApiServer, resources: &[(String, String)], account: (&str, &str)) -> Table {
    let anybody = all(cluster, resources, ("default", "default")).await;
    let mut table = all(cluster, resources, account).await;
    for (resource, verbs) in &mut table {
        for verb in anybody.get(resource).into_iter().flatten() {
            verbs.remove(verb);
        }
    }
    table.retain(|_, verbs| !verbs.is_empty());
    table
}

fn assert_is(found: &Table, expected: &Table) {
    let lines = |table: &Table| -> Vec<String> {
        let line = |(resource, verbs): (&String, &BTreeSet<String>)| {
            format!(
                "{resource}: {}",
                verbs
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(" ")
            )
        };
        table.iter().map(line).collect()
    };
    assert_eq!(lines(found), lines(expected));
}

#[tokio::test]
async fn each_may_do_what_it_needs_and_nothing_else() {
    let Some(cluster) = installed().await else {
        return;
    };
    let cluster = &cluster;
    let resources = resources(cluster).await;
    let controller = ("cairn-system", "cairn-controller");
    let found = own(cluster, &resources, controller).await;
    assert_is(&found, &table(&[CONFIGURATION, CONTROLLER]));

    // By name: leases in its own namespace, one binding, one role to bind.
    let asks = async |question: Value| may(cluster, controller, &question).await;
    let lease = |verb: &str, namespace: &str| json!({"group": "coordination.k8s.io", "resource": "leases", "verb": verb, "namespace": namespace});
    for verb in ["get", "list", "watch", "create", "update", "patch"] {
        assert!(asks(lease(verb, "cairn-system")).await, "{verb}");
        assert!(!asks(lease(verb, "kube-system")).await, "{verb}");
    }
    assert!(!asks(lease("delete", "cairn-system")).await);
    let rbac = |resource: &str, verb: &str, name: &str| json!({"group": "rbac.authorization.k8s.io", "resource": resource, "verb": verb, "name": name});
    for (question, allowed) in [
        (rbac("clusterrolebindings", "get", "cairn-waypoint"), true),
        (rbac("clusterrolebindings", "patch", "cairn-waypoint"), true),
        (
            rbac("clusterrolebindings", "delete", "cairn-waypoint"),
            false,
        ),
        (
            rbac("clusterrolebindings", "patch", "cairn-controller"),
            false,
        ),
        (rbac("clusterroles", "bind", "cairn-waypoint"), true),
        (rbac("clusterroles", "patch", "cairn-waypoint"), false),
        (rbac("clusterroles", "bind", "cluster-admin"), false),
    ] {
        assert_eq!(asks(question.clone()).await, allowed, "{question}");
    }

    // The agent of a node reads what configures a waypoint, its node's pods with it, and nothing else.
    let values = r#"{"node": {"enabled": true, "gateway": "shop/waypoint"}}"#;
    let with_agents = rendered(values).unwrap().expect("the chart with agents");
    cluster.apply(&with_agents).await;
    let agent = ("cairn-system", "cairn-node");
    assert_is(
        &own(cluster, &resources, agent).await,
        &table(&[CONFIGURATION]),
    );
    let token = cluster.account(agent.0, agent.1).await;
    let list = ["get", "pods", "-A", "--field-selector=spec.nodeName=node-a"];
    cluster
        .kubectl_as(token.clone(), &list, "")
        .await
        .expect("pods of a node");
    let refused = ["get", "secrets", "-A"];
    let refused = cluster.kubectl_as(token, &refused, "").await;
    assert!(refused.refused("secrets").contains("orbidden"));

    // People who ask read that and what pods say, and write nothing.
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "people"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cairn-status"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "people"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    cluster.api.create(bindings, &binding).await;
    let people = ("default", "people");
    let found = own(cluster, &resources, people).await;
    assert_is(&found, &table(&[CONFIGURATION, STATUS]));
    for (name, allowed) in [("cairn-node", true), ("cairn-controller", false)] {
        let question = rbac("clusterrolebindings", "get", name);
        assert_eq!(may(cluster, people, &question).await, allowed, "{name}");
    }

    // A waypoint's account may nothing before the controller has bound it, and reads afterwards.
    let waypoint = ("shop", "waypoint");
    assert_is(&own(cluster, &resources, waypoint).await, &Table::new());
    bind_as_the_controller(cluster).await;
    let found = own(cluster, &resources, waypoint).await;
    assert_is(&found, &table(&[CONFIGURATION]));
}

/// With the controller's own token: it writes the subjects of that binding, and can make no other.
async fn bind_as_the_controller(cluster: &ApiServer) {
    let controller = cluster.account("cairn-system", "cairn-controller").await;
    let binding = |name: &str, role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "namespace": "shop", "name": "waypoint"}],
        })
        .to_string()
    };
    let apply = [
        "apply",
        "--server-side",
        "--field-manager=cairn-controller",
        "-f",
        "-",
    ];
    let good = binding("cairn-waypoint", "cairn-waypoint");
    let said = cluster.kubectl_as(controller.clone(), &apply, &good).await;
    said.expect("the subjects of the binding");
    let said = cluster
        .kubectl_as(controller, &apply, &binding("more", "cluster-admin"))
        .await;
    assert!(said.refused("another binding").contains("orbidden"));
}

/// To attach Services is not to write the labels of their Namespace, which a RoleBinding in it would allow.
#[tokio::test]
async fn who_attaches_services_writes_no_namespace() {
    let Some(cluster) = installed().await else {
        return;
    };
    for (name, role) in [
        ("of-services", "cairn-attach"),
        ("of-namespaces", "cairn-attach-namespace"),
    ] {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": name}],
        });
        let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
        cluster.api.create(path, &binding).await;
    }
    let patch = |group: &str, resource: &str| json!({"group": group, "resource": resource, "verb": "patch", "namespace": "default", "name": "default"});
    let gateway = patch("gateway.networking.k8s.io", "gateways");
    for (name, question, allowed) in [
        ("of-services", gateway.clone(), true),
        ("of-services", patch("", "services"), true),
        ("of-services", patch("", "namespaces"), false),
        ("of-namespaces", patch("", "namespaces"), true),
        ("of-namespaces", gateway, false),
    ] {
        let found = may(&cluster, ("default", name), &question).await;
        assert_eq!(found, allowed, "{name}: {question}");
    }
}
