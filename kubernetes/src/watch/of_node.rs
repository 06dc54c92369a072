//! The Pods of one node, for the agent there: followed as every other collection is, and kept. Where their
//! processes are is not known here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use kube_client::Client;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;

use super::api::{Collection, KindRef, Remote};
use super::discovery::Served;
use super::hub::Hub;
use super::mirror::Mirror;
use super::reduce::{self, Detail};
use super::reflector::Reflector;
use super::{Change, Objects};
use crate::kinds::WatchedKind;

/// A Pod, as far as the agent of its node needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodOfNode {
    /// Given by the API server to this Pod and to no other, ever.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its service account; empty for a static Pod, which has none.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses, once its node has told them.
    pub addresses: Vec<IpAddr>,
    /// Its processes are in the network namespace of the node.
    pub host_network: bool,
    /// All of its containers have ended, and none will be started again.
    pub has_ended: bool,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
    namespace: String,
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    service_account_name: String,
    host_network: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: Option<IpAddr>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    ip: IpAddr,
}

impl PodOfNode {
    /// Reads a Pod's text.
    ///
    /// # Errors
    /// What is wrong with it; the API server has no such Pods.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        let Object {
            metadata,
            spec,
            status,
        } = serde_json::from_str(text)?;
        let all: Vec<IpAddr> = status
            .pod_ips
            .into_iter()
            .map(|address| address.ip)
            .collect();
        Ok(Self {
            uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            service_account: spec.service_account_name,
            labels: metadata.labels,
            addresses: match all.is_empty() {
                true => status.pod_ip.into_iter().collect(),
                false => all,
            },
            host_network: spec.host_network,
            has_ended: matches!(&*status.phase, "Succeeded" | "Failed"),
        })
    }

    /// A text that reads as this Pod, for one that the API server has no more.
    pub fn text(&self) -> String {
        let addresses = self.addresses.iter().map(|ip| json!({"ip": ip}));
        let pod = json!({
            "metadata": {
                "uid": self.uid,
                "namespace": self.namespace,
                "name": self.name,
                "labels": self.labels,
            },
            "spec": {"serviceAccountName": self.service_account, "hostNetwork": self.host_network},
            "status": {
                "phase": if self.has_ended { "Failed" } else { "Running" },
                "podIPs": addresses.collect::<Vec<_>>(),
            },
        });
        pod.to_string()
    }
}

/// A watch of the Pods of one node. Dropping it ends it.
#[derive(Debug)]
pub struct PodsOfNode {
    hub: Arc<Hub>,
    news: watch::Receiver<u64>,
    task: AbortHandle,
    /// Pods are of the core, which every API server has: nobody needs to look.
    _served: watch::Sender<Served>,
}

impl PodsOfNode {
    /// Follows them, on the runtime that this is called on. What is known from earlier counts until the first
    /// list. `None`: Pods are no kind that is watched.
    pub fn follow(client: Client, node: &str, known: Vec<(Arc<str>, Arc<str>)>) -> Option<Self> {
        let kind: &'static WatchedKind = crate::kinds::watched_kind("Pod")?;
        let collection = Collection {
            kind: KindRef(kind),
            namespace: None,
            name: None,
        };
        let hub = Arc::new(Hub::new([collection.clone()], true));
        let (served, receiver) = watch::channel(Served::default());
        let mirror = Mirror::knowing(known.iter().map(|(path, text)| (path, &**text)));
        if !known.is_empty() {
            let put = |(path, text)| Change::put(path, text);
            hub.restore(known.into_iter().map(put).collect());
        }
        let reflector = Reflector {
            api: Remote {
                client,
                collection: collection.clone(),
                node: Some(node.into()),
                kept: reduce::kept(collection.kind.0, Detail::OfNode),
            },
            collection,
            detail: Detail::OfNode,
            mirror,
            hub: hub.clone(),
            served: receiver,
            look: Arc::new(Notify::new()),
            turns: Arc::new(Semaphore::new(1)),
        };
        Some(Self {
            news: hub.news.subscribe(),
            task: tokio::spawn(reflector.run()).abort_handle(),
            hub,
            _served: served,
        })
    }

    /// All of them by path, as JSON; `None`: nobody knows yet.
    pub fn objects(&self) -> Option<Arc<Objects>> {
        self.hub.is_complete().then(|| self.hub.objects())
    }

    /// The API server was asked: not all of it is known from earlier alone.
    pub fn synced(&self) -> bool {
        self.hub.synced()
    }

    /// Waits for news. Several changes at once are one.
    pub async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for PodsOfNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_its_uid_account_labels_and_addresses() {
        let text = r#"{"apiVersion":"v1","kind":"Pod",
            "metadata":{"name":"web-0","namespace":"shop","uid":"u-1","labels":{"app":"web"}},
            "spec":{"serviceAccountName":"web"},
            "status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}]}}"#;
        let pod = PodOfNode::read(text).unwrap();
        assert_eq!(
            (
                &*pod.uid,
                &*pod.namespace,
                &*pod.name,
                &*pod.service_account
            ),
            ("u-1", "shop", "web-0", "web")
        );
        assert_eq!(pod.labels["app"], "web");
        let both: Vec<IpAddr> = ["10.0.0.1", "fd00::1"].map(|a| a.parse().unwrap()).into();
        assert_eq!(pod.addresses, both);
        assert!(!pod.host_network && !pod.has_ended);

        let old = text.replace(r#","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}]"#, "");
        assert_eq!(PodOfNode::read(&old).unwrap().addresses, both[..1]);
        let ended = PodOfNode::read(&text.replace("Running", "Succeeded")).unwrap();
        assert!(ended.has_ended);
        let on_host = text.replace(r#""spec":{"#, r#""spec":{"hostNetwork":true,"#);
        assert!(PodOfNode::read(&on_host).unwrap().host_network);
        for text in [text, &old, &text.replace("Running", "Failed"), &on_host] {
            let pod = PodOfNode::read(text).unwrap();
            assert_eq!(PodOfNode::read(&pod.text()).unwrap(), pod);
        }
    }

    /// A Pod that nobody has begun to run has neither accounts' tokens nor addresses.
    #[test]
    fn what_is_not_known_yet_is_empty() {
        let text = r#"{"metadata":{"name":"a","namespace":"b","uid":"u"}}"#;
        let pod = PodOfNode::read(text).unwrap();
        assert_eq!(pod.service_account, "");
        assert!(pod.addresses.is_empty() && pod.labels.is_empty() && !pod.has_ended);
        PodOfNode::read(r#"{"metadata":{"name":"a","namespace":"b"}}"#).unwrap_err();
    }
}
