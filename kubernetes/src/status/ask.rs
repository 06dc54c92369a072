//! Asks the pods of waypoints what they have in force, and reads again what they have another text of: objects and
//! answers are of different moments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use futures::stream::{self, StreamExt};
use http::StatusCode;
use kube_client::Client;

use super::replicas::{Acknowledgement, differing, is_ready, versions};
use crate::cluster::{Cluster, read_again};
use crate::limits::PODS_ASKED_BY_PEOPLE;
use crate::objects::{ApiError, name_of, namespace_of};
use crate::pod::{self, STATUS_PORT, shown};

/// Until pods that have another text in force are asked again: a change that was made just now takes so long at most.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How often they are, while what they have another text of goes on changing.
const ROUNDS_MAX: usize = 5;

/// What pods said, by their keys; or why they did not.
pub type Acknowledgements = BTreeMap<ObjectKey, Result<Acknowledgement, String>>;

/// What each of these pods has in force, or why it does not say, and the cluster beside
/// which that is to be judged. Whatever differs has been as it is written for [`ASK_AGAIN`], and differed before: what
/// was made, changed or deleted while it was read is no reason to call a pod behind. `client` is for the API server,
/// `to_pods` for questions through it.
///
/// # Errors
/// When the API server does not answer.
pub async fn settled(
    (client, to_pods): (&Client, &Client),
    mut cluster: Cluster,
    pods: impl Fn(&Cluster) -> Vec<ObjectKey>,
) -> Result<(Cluster, Acknowledgements), ApiError> {
    let mut said = acknowledgements(to_pods, pods(&cluster)).await;
    let mut names = differences(&cluster, &said);
    for _ in 0..ROUNDS_MAX {
        if names.is_empty() {
            break;
        }
        tokio::time::sleep(ASK_AGAIN).await;
        let before = versions(&cluster);
        cluster = read_again(client, cluster, &names).await?;
        said = acknowledgements(to_pods, pods(&cluster)).await;
        let now = versions(&cluster);
        let last = std::mem::replace(&mut names, differences(&cluster, &said));
        let lasts = |name: &String| last.contains(name) && before.get(name) == now.get(name);
        if names.iter().all(lasts) {
            break;
        }
    }
    Ok((cluster, said))
}

/// Names of objects of which a pod has another text in force than is written.
fn differences(cluster: &Cluster, said: &Acknowledgements) -> BTreeSet<String> {
    let said = said.values().filter_map(|said| said.as_ref().ok());
    let names = said.flat_map(|said| differing(cluster, said));
    names.map(|(name, _)| name).collect()
}

async fn acknowledgements(client: &Client, pods: Vec<ObjectKey>) -> Acknowledgements {
    let asked = stream::iter(pods).map(|key| async move {
        let said = acknowledgement(client, &key).await;
        (key, said)
    });
    asked.buffer_unordered(PODS_ASKED_BY_PEOPLE).collect().await
}

/// The ready pods of these Gateways' waypoints.
pub fn ready_pods(cluster: &Cluster, gateways: &[ObjectKey]) -> Vec<ObjectKey> {
    let pods = gateways.iter().flat_map(|gateway| cluster.pods_of(gateway));
    let ready = pods.filter(|pod| is_ready(pod));
    ready
        .map(|pod| ObjectKey::new(namespace_of(pod), name_of(pod)))
        .collect()
}

/// What one pod has in force, or why it does not say.
async fn acknowledgement(client: &Client, pod: &ObjectKey) -> Result<Acknowledgement, String> {
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
