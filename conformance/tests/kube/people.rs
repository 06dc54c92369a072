//! What people type: attach, detach, status and doctor, the real binary against a real API server (issue 7 item 7).

use std::process::Command;

use cairn_conformance::cluster::ApiServer;
use cairn_conformance::workspace;
use serde_json::{Value, json};

/// Exit code, stdout and stderr of `cairn`, with the administrator's kubeconfig.
pub async fn cairn(cluster: &ApiServer, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(workspace::cairn());
    command
        .args(arguments)
        .arg("--kubeconfig")
        .arg(cluster.admin());
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("no panic").expect("cairn runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

async fn label(cluster: &ApiServer, path: &str) -> Option<String> {
    let object = cluster.api.get(path).await.expect(path);
    let label = object.pointer("/metadata/labels/istio.io~1use-waypoint");
    label.and_then(Value::as_str).map(str::to_owned)
}

fn service(name: &str, namespace: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]},
    })
    .to_string()
}

#[tokio::test]
async fn a_service_is_attached_and_detached() {
    let Some(cluster) = ApiServer::shared().await else {
        return;
    };
    let namespace = cluster.namespace("attach").await;
    let ns = namespace.as_str();
    cluster.apply(&service("web", ns)).await;
    let web = format!("/api/v1/namespaces/{ns}/services/web");
    let gateway = format!("/apis/gateway.networking.k8s.io/v1/namespaces/{ns}/gateways/waypoint");

    let attach = ["attach", "-n", ns, "--service", "web"];
    let (code, said, err) = cairn(cluster, &attach).await;
    assert_eq!(code, 0, "{err}");
    assert!(
        said.contains(&format!("created   Gateway {ns}/waypoint")),
        "{said}"
    );
    assert_eq!(label(cluster, &web).await.as_deref(), Some("waypoint"));
    let made = cluster.api.get(&gateway).await.expect("the Gateway");
    assert_eq!(made["spec"]["gatewayClassName"], "cairn-waypoint");
    assert_eq!(made["spec"]["listeners"][0]["protocol"], "HBONE");

    // Again: nothing is changed.
    let (code, said, _) = cairn(cluster, &attach).await;
    assert!(
        code == 0 && said.contains(&format!("unchanged Service {ns}/web")),
        "{said}"
    );
    let now = cluster.api.get(&gateway).await.unwrap();
    assert_eq!(
        now["metadata"]["generation"],
        made["metadata"]["generation"]
    );

    // Another waypoint is not taken over unasked.
    let other = ["attach", "-n", ns, "--service", "web", "--name", "other"];
    let (code, _, err) = cairn(cluster, &other).await;
    assert!(code == 1 && err.contains("--overwrite"), "{err}");
    let others = gateway.replace("/waypoint", "/other");
    assert!(
        cluster.api.get(&others).await.is_none(),
        "nothing was changed"
    );

    // The Gateway stays while somebody uses it.
    cluster.apply(&service("api", ns)).await;
    let (code, ..) = cairn(cluster, &["attach", "-n", ns, "--service", "api"]).await;
    assert_eq!(code, 0);
    let detach = |name| ["detach", "-n", ns, "--service", name, "--delete-gateway"];
    let (code, _, err) = cairn(cluster, &detach("web")).await;
    assert!(
        code == 1 && err.contains(&format!("used by Service {ns}/api")),
        "{err}"
    );
    assert_eq!(label(cluster, &web).await, None);
    let (code, said, err) = cairn(cluster, &detach("api")).await;
    assert!(
        code == 0 && said.contains(&format!("deleted   Gateway {ns}/waypoint")),
        "{said}{err}"
    );
    assert!(cluster.api.get(&gateway).await.is_none());
}

#[tokio::test]
async fn a_namespace_is_attached_by_a_dry_run_and_kubectl() {
    let Some(cluster) = ApiServer::shared().await else {
        return;
    };
    let namespace = cluster.namespace("dry").await;
    let path = format!("/api/v1/namespaces/{namespace}");
    // Without a cluster: the address leads nowhere.
    let mut command = Command::new(workspace::cairn());
    command.args(["attach", "--dry-run", "--for", "all", "-n", &namespace]);
    let output = command.env("KUBECONFIG", "/nonexistent").output().unwrap();
    assert!(output.status.success());
    assert_eq!(label(cluster, &path).await, None, "it touches nothing");
    let yaml = String::from_utf8(output.stdout).unwrap();
    let apply = ["apply", "--server-side", "-f", "-"];
    cluster
        .kubectl(&apply, &yaml)
        .await
        .expect("what was printed");
    assert_eq!(label(cluster, &path).await.as_deref(), Some("waypoint"));
    let (code, said, err) = cairn(cluster, &["detach", "-n", &namespace]).await;
    assert_eq!(code, 0, "{err}");
    assert!(said.contains("--delete-gateway deletes it"), "{said}");
    assert_eq!(label(cluster, &path).await, None);
}

/// With --wait the labels come after the Gateway is programmed; where no controller runs they never do. Its own API
/// server, for in the shared one somebody's controller may run.
#[tokio::test]
async fn waiting_sets_no_label_before_its_time() {
    let Some(cluster) = ApiServer::start().await else {
        return;
    };
    let cluster = &cluster;
    let namespace = cluster.namespace("wait").await;
    let path = format!("/api/v1/namespaces/{namespace}");
    let waits = ["attach", "-n", &namespace, "--wait", "--timeout", "1"];
    let (code, _, err) = cairn(cluster, &waits).await;
    assert!(
        code == 1 && err.contains("was not programmed within 1 s"),
        "{err}"
    );
    assert_eq!(label(cluster, &path).await, None);

    let gateway =
        format!("/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/gateways/waypoint");
    let status = json!({"status": {
        "addresses": [{"type": "IPAddress", "value": "10.96.1.9"}],
        "conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}],
    }});
    cluster
        .api
        .patch(&format!("{gateway}/status"), &status)
        .await;
    let (code, _, err) = cairn(cluster, &["attach", "-n", &namespace, "--wait"]).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(label(cluster, &path).await.as_deref(), Some("waypoint"));
}

#[tokio::test]
async fn status_and_doctor_find_what_is_not_enforced() {
    let Some(cluster) = ApiServer::shared().await else {
        return;
    };
    let namespace = cluster.namespace("gaps").await;
    let ns = namespace.as_str();
    let (code, said, err) = cairn(cluster, &["doctor", "-n", ns]).await;
    assert_eq!(code, 0, "{said}{err}");
    let policy = |target: &str| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "readers", "namespace": ns},
            "spec": {
                "targetRefs": [{"kind": "Service", "group": "", "name": target}],
                "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}],
            },
        })
        .to_string()
    };
    cluster.apply(&service("web", ns)).await;
    cluster.apply(&policy("wep")).await;
    let (code, said, err) = cairn(cluster, &["status", "-n", ns, "-o", "json"]).await;
    assert_eq!(code, 1, "{said}{err}");
    let report: Value = serde_json::from_str(&said).expect("JSON");
    let policies = report["not_enforced"].as_array().unwrap();
    assert_eq!(
        policies[0]["policy"],
        format!("AuthorizationPolicy/{ns}/readers")
    );

    cluster.apply(&policy("web")).await;
    let (code, said, _) = cairn(cluster, &["doctor", "-n", ns]).await;
    assert_eq!(code, 1);
    assert!(said.contains("its labels ask for no waypoint"), "{said}");
    assert!(
        said.contains(&format!("close: cairn attach -n {ns} --service web")),
        "{said}"
    );

    // What whoever asks may not read is said, and taken for a gap.
    let mut command = Command::new(workspace::cairn());
    command
        .args(["doctor", "-n", ns, "--kubeconfig"])
        .arg(cluster.nobody());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("not read, so that more may be wrong"),
        "{said}"
    );
}
