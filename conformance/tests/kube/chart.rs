//! The Helm chart, rendered by Helm's own engine and applied to a real API server (issue 7 item 8).

use std::collections::BTreeSet;
use std::process::Command;

use cairn_conformance::cluster::ApiServer;
use cairn_conformance::{skip, workspace};
use serde_json::Value;

/// The chart rendered as release `cairn` in `cairn-system`, with these values as JSON. `None`: there is no engine.
pub fn rendered(values: &str) -> Option<Result<String, String>> {
    let helm = match workspace::helm() {
        Ok(helm) => helm,
        Err(why) => {
            skip::skipped("Helm's engine", &why, "REQUIRE_KUBE");
            return None;
        }
    };
    let chart = workspace::root().join("deploy/helm/cairn");
    let output = Command::new(helm)
        .arg(chart)
        .args(["cairn", "cairn-system", values])
        .output()
        .expect("target/helm runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Some(match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    })
}

/// An API server with the chart's defaults in it.
pub async fn installed() -> Option<ApiServer> {
    let manifests = rendered("{}")?.expect("the chart with its defaults");
    let cluster = ApiServer::start().await?;
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: cairn-system, labels: \
        {pod-security.kubernetes.io/enforce: restricted}}}";
    cluster.apply(namespace).await;
    cluster.apply(&manifests).await;
    Some(cluster)
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).expect("YAML")
}

#[test]
fn plain_manifests_are_the_chart_with_its_defaults() {
    let Some(manifests) = rendered("{}") else {
        return;
    };
    let manifests = manifests.expect("the chart with its defaults");
    let path = workspace::root().join("deploy/quickstart/cairn.yaml");
    let kept = std::fs::read_to_string(path).expect("deploy/quickstart/cairn.yaml");
    assert!(
        kept.ends_with(&manifests),
        "deploy/quickstart/cairn.yaml is not what the chart renders: run `make manifests`"
    );
}

#[test]
fn a_value_that_does_not_exist_is_refused() {
    for values in [
        r#"{"controler": {}}"#,
        r#"{"controller": {"replicas": "two"}}"#,
        r#"{"image": {"repository": ""}}"#,
        r#"{"istio": {"discovery": "consul"}}"#,
    ] {
        let Some(rendered) = rendered(values) else {
            return;
        };
        rendered.expect_err(values);
    }
}

#[test]
fn values_do_what_their_comments_say() {
    let values = r#"{"controller": {"replicas": 1}, "gatewayClass": {"create": false}, "userRoles": {"create": false},
        "istio": {"caAddress": "ca.mesh:15012", "namespace": "mesh", "discovery": "istiod", "xdsAddress": "pilot.mesh:15012"}, "image": {"tag": "next"},
        "monitoring": {"podMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}}}"#;
    let Some(rendered) = rendered(values) else {
        return;
    };
    let objects = documents(&rendered.expect("the chart"));
    let kinds: BTreeSet<&str> = objects.iter().filter_map(|o| o["kind"].as_str()).collect();
    assert!(!kinds.contains("PodDisruptionBudget"), "of one replica");
    assert!(!kinds.contains("GatewayClass"));
    assert!(kinds.contains("PodMonitor") && kinds.contains("PrometheusRule"));
    let of = |kind: &str| objects.iter().find(|o| o["kind"] == kind).expect("one");
    let arguments = &of("Deployment")["spec"]["template"]["spec"]["containers"][0]["args"];
    let arguments: Vec<&str> = arguments
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for expected in [
        "--image=cairn:next",
        "--ca-address=ca.mesh:15012",
        "--istio-namespace=mesh",
        "--discovery=istiod",
        "--xds-address=pilot.mesh:15012",
        "--gateway-class=",
    ] {
        assert!(arguments.contains(&expected), "{expected} in {arguments:?}");
    }
    let groups = of("PrometheusRule")["spec"]["groups"].as_array().unwrap();
    assert!(!groups.is_empty(), "the rules of deploy/monitoring");
}

#[test]
fn agents_of_nodes_are_there_when_asked_for() {
    let Some(without) = rendered(r#"{"node": {"enabled": true}}"#) else {
        return;
    };
    let said = without.expect_err("no Gateway is named");
    assert!(said.contains("node.gateway"), "{said}");
    // Without discovery an address of its own stops controller and agents.
    let values = r#"{"istio": {"xdsAddress": "pilot.mesh:15012"}, "node": {"enabled": true, "gateway": "shop/waypoint"}}"#;
    let without = rendered(values).unwrap().expect("the chart");
    assert!(!without.contains("pilot.mesh"), "{without}");
    let values = r#"{"node": {"enabled": true, "gateway": "shop/waypoint"}, "istio": {"namespace": "mesh", "discovery": "istiod"}, "monitoring": {"podMonitor": {"enabled": true}}}"#;
    let objects = documents(&rendered(values).unwrap().expect("the chart"));
    let named = |kind: &str| {
        let found = objects
            .iter()
            .find(|o| o["kind"] == kind && o["metadata"]["name"] == "cairn-node");
        found.unwrap_or_else(|| panic!("no {kind} cairn-node"))
    };
    for kind in [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "PodMonitor",
    ] {
        named(kind);
    }
    let set = &named("DaemonSet")["spec"];
    assert_eq!(set["updateStrategy"]["rollingUpdate"]["maxUnavailable"], 1);
    let pod = &set["template"]["spec"];
    assert_eq!(pod["hostPID"], true);
    assert_eq!(pod["tolerations"][0]["operator"], "Exists");
    let container = &pod["containers"][0];
    let arguments = container["args"].as_array().unwrap();
    assert!(arguments.contains(&"--gateway=shop/waypoint".into()));
    let variables = container["env"].as_array().unwrap();
    for (name, value) in [
        ("CAIRN_ISTIO_NAMESPACE", "mesh"),
        ("CAIRN_DISCOVERY", "istiod"),
    ] {
        assert!(variables.contains(&serde_json::json!({"name": name, "value": value})));
    }
    let may = &container["securityContext"];
    assert_eq!(may["privileged"], Value::Null);
    assert_eq!(may["capabilities"]["drop"][0], "ALL");
    let added: Vec<&str> = may["capabilities"]["add"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    // What `conformance/tests/kernel/cluster.rs` runs the agent with.
    assert_eq!(added, ["BPF", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]);
}

/// Everything is taken by the API server, and again without a change; the namespace enforces the restricted
/// Pod Security Standard, which a ReplicaSet of the controller passes.
#[tokio::test]
async fn it_applies_to_a_real_api_server() {
    let Some(cluster) = installed().await else {
        return;
    };
    let class = "/apis/gateway.networking.k8s.io/v1/gatewayclasses/cairn-waypoint";
    let class = cluster.api.get(class).await.expect("the GatewayClass");
    assert_eq!(
        class["spec"]["controllerName"],
        "cairn.dev/waypoint-controller"
    );
    let deployments = "/apis/apps/v1/namespaces/cairn-system/deployments";
    let two = |d: &Value| d["status"]["replicas"] == 2;
    cluster
        .api
        .until(deployments, "cairn-controller", "has two pods", two)
        .await;
    let again = rendered("{}").unwrap().unwrap();
    let said = cluster
        .kubectl(&["apply", "-f", "-"], &again)
        .await
        .expect("applied again");
    // kubectl replaces the selector of a disruption budget as a whole, and says so each time.
    let changed = said
        .lines()
        .filter(|line| line.ends_with(" configured") && !line.starts_with("poddisruptionbudget."));
    assert_eq!(changed.count(), 0, "{said}");
}

/// What the image holds is enough for the binary to run, as the user that it runs as, with nothing else there.
#[test]
fn the_image_has_what_the_binary_needs() {
    if !nix_is_root() {
        return skip::skipped("chroot", "needs root", "REQUIRE_KUBE");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = workspace::root().join("deploy/image-root.sh");
    let made = Command::new(script)
        .arg(workspace::cairn())
        .arg(folder.path())
        .status();
    assert!(made.expect("deploy/image-root.sh runs").success());
    for arguments in [&["--version"][..], &["check", "--help"]] {
        let output = Command::new("chroot")
            .arg("--userspec=1337:1337")
            .arg(folder.path())
            .arg("/usr/local/bin/cairn")
            .args(arguments)
            .output()
            .expect("chroot runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    }
}

fn nix_is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout == b"0\n"
}
