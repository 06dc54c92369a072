//! A policy that is only to be tried, by an annotation that people set and take away (docs/dry-run.md): the annotation
//! changes no generation, and is in force all the same.

use cairn_conformance::cluster::{ApiServer, collection};
use serde_json::{Value, json};

use super::{mesh, start_ready};

#[tokio::test]
async fn a_policy_is_tried_while_its_annotation_says_so() {
    let Some(cluster) = ApiServer::shared().await else {
        return;
    };
    let namespace = cluster.namespace("tried").await;
    mesh(cluster, &namespace).await;
    let policies = collection("security.istio.io/v1", &namespace, "authorizationpolicies");
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "nobody", "namespace": namespace},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "action": "DENY",
            "rules": [{}],
        },
    });
    cluster.api.create(&policies, &policy).await;
    let folder = tempfile::tempdir().unwrap();
    let cairn = start_ready(folder.path(), &cluster.admin(), &namespace, &[]).await;
    let ask =
        format!("/api/explain?from={namespace}/viewer&to=web.{namespace}:80&method=GET&path=/");
    let is_denied = |report: &Value| report["verdict"]["allowed"] == false;
    let is_tried = |report: &Value| {
        let verdict = &report["verdict"];
        verdict["allowed"] == true && verdict["dry_run"]["allowed"] == false
    };
    cairn.admin_shows(&ask, is_denied).await;

    let path = format!("{policies}/nobody");
    let annotated =
        |value: Value| json!({"metadata": {"annotations": {"istio.io/dry-run": value}}});
    cluster.api.patch(&path, &annotated("true".into())).await;
    cairn.admin_shows(&ask, is_tried).await;

    cluster.api.patch(&path, &annotated(Value::Null)).await;
    cairn.admin_shows(&ask, is_denied).await;
}
