//! Asks the pods of waypoints what they have in force.

use std::collections::BTreeMap;

use cairn_config_schema::origin::ObjectKey;
use futures::stream::{self, StreamExt};
use http::StatusCode;
use kube_client::Client;

use super::replicas::{Acknowledgement, is_ready, pods};
use crate::cluster::Cluster;
use crate::limits::PODS_ASKED_BY_PEOPLE;
use crate::objects::{name_of, namespace_of};
use crate::pod::{self, STATUS_PORT, shown};

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
        let said = acknowledgement(client, &key).await;
        (key, said)
    });
    asked.buffer_unordered(PODS_ASKED_BY_PEOPLE).collect().await
}

/// What one pod has in force, or why it does not say.
pub(crate) async fn acknowledgement(
    client: &Client,
    pod: &ObjectKey,
) -> Result<Acknowledgement, String> {
    let answer = pod::get(client, pod, STATUS_PORT, "/acknowledged").await?;
    if answer.status != StatusCode::OK {
        return Err(format!(
            "Pod {pod} says {}: {}",
            answer.status,
            shown(&answer.text)
        ));
    }
    serde_json::from_str(&answer.text)
        .map_err(|error| format!("Pod {pod} does not say what is in force: {error}"))
}
