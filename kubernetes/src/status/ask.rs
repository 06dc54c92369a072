//! Asks the pods of waypoints what they have in force, through the API server's proxy: whoever may read
//! pods/proxy need not be in the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use futures::stream::{self, StreamExt};
use kube_client::Client;

use super::replicas::{Acknowledgement, is_ready, pods};
use crate::cluster::{Cluster, get_json};
use crate::objects::{name_of, namespace_of};

/// The readiness port of waypoints (specs/istio-waypoint.md 1.6).
const READY_PORT: u16 = 15021;
/// A pod that does not answer so long says nothing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pods asked at once.
const ASKED_AT_ONCE: usize = 16;

/// What each ready pod of these Gateways has in force, or why it does not say.
pub async fn acknowledgements(
    client: &Client,
    cluster: &Cluster,
    gateways: &[ObjectKey],
) -> BTreeMap<ObjectKey, Result<Acknowledgement, String>> {
    let pods = gateways.iter().flat_map(|gateway| pods(cluster, gateway));
    let ready = pods.filter(|pod| is_ready(pod));
    let keys: Vec<ObjectKey> = ready
        .map(|pod| ObjectKey::new(namespace_of(pod), name_of(pod)))
        .collect();
    let asked = stream::iter(keys).map(|key| async move {
        let said = ask(client, &key).await;
        (key, said)
    });
    asked.buffer_unordered(ASKED_AT_ONCE).collect().await
}

async fn ask(client: &Client, pod: &ObjectKey) -> Result<Acknowledgement, String> {
    let url = format!(
        "/api/v1/namespaces/{}/pods/{}:{READY_PORT}/proxy/acknowledged",
        pod.namespace, pod.name
    );
    let doing = format!("ask Pod {pod} what is in force");
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, get_json(client, &url, &doing)).await;
    let answer = answer.map_err(|_| format!("{doing}: no answer within {ANSWER_TIMEOUT:?}"))?;
    let answer = answer.map_err(|error| error.to_string())?;
    serde_json::from_value(answer).map_err(|error| format!("{doing}: {error}"))
}
