//! A node, played by the test because there is no container runtime: it binds pods, starts the real `cairn` (or an
//! echo application) for each with its arguments, variables, tokens and files, probes readiness for real, writes the
//! pod's status, and ends it as a kubelet does. Liveness probes, restarts and limits of resources it does not know.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::api::{Api, collection};
use super::pod::{Pod, Program};
use super::server::ApiServer;
use crate::identities::Identities;

/// Its name, and that of its Node object.
pub const NODE: &str = "node-a";

/// Between two probes of a pod that is not ready, and of one that is; a kubelet's are the pod's own.
const PROBE: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// Between two attempts while the API server is away.
const RETRY: Duration = Duration::from_millis(200);

/// What every pod of a node needs to know.
#[derive(Debug)]
pub(super) struct Place {
    pub api: Api,
    /// Where the API server listens, for `KUBERNETES_SERVICE_HOST` and `_PORT`.
    pub server: std::net::SocketAddr,
    /// For the pods' files and logs.
    pub folder: PathBuf,
    /// Certificates for whoever has no certificate authority in the cluster to ask.
    pub identities: Identities,
}

/// A running node; its pods are killed when it is dropped.
#[derive(Debug)]
pub struct Node {
    _tasks: JoinSet<()>,
    place: Arc<Place>,
    logs: Logs,
}

type Logs = Arc<Mutex<HashMap<String, PathBuf>>>;

impl Node {
    /// Runs every pod of these namespaces.
    pub async fn start(cluster: &ApiServer, namespaces: &[&str]) -> Self {
        let folder = cluster
            .folder()
            .join(format!("node-{}", namespaces.join("-")));
        std::fs::create_dir_all(&folder).expect("a folder");
        let place = Arc::new(Place {
            api: cluster.api,
            server: cluster.address(),
            identities: Identities::new(&folder.join("identities")),
            folder,
        });
        let object = json!({ "metadata": { "name": NODE, "labels": {
            "kubernetes.io/hostname": NODE, "topology.kubernetes.io/zone": "zone-a",
        }}});
        insist(&place.api, Method::POST, "/api/v1/nodes", Some(&object)).await;
        let logs = Logs::default();
        let mut tasks = JoinSet::new();
        for namespace in namespaces {
            let addresses = cluster.addresses();
            let node = follow(
                place.clone(),
                (*namespace).to_owned(),
                addresses,
                logs.clone(),
            );
            tasks.spawn(node);
        }
        Self {
            _tasks: tasks,
            place,
            logs,
        }
    }

    /// Who signs the certificates of its pods, for clients that shall be trusted by them.
    pub fn identities(&self) -> &Identities {
        &self.place.identities
    }

    /// What the pod has written, stdout and stderr.
    pub fn log(&self, pod: &str) -> String {
        let folder = self.logs.lock().expect("no panic").get(pod).cloned();
        let Some(folder) = folder else {
            return String::new();
        };
        ["out", "err"]
            .map(|end| std::fs::read_to_string(folder.join(format!("pod.{end}"))))
            .map(Result::unwrap_or_default)
            .concat()
    }
}

async fn follow(
    place: Arc<Place>,
    namespace: String,
    addresses: Arc<super::server::Pods>,
    logs: Logs,
) {
    let pods = collection("v1", &namespace, "pods");
    let mut lives = JoinSet::new();
    let mut known: HashMap<String, Arc<Notify>> = HashMap::new();
    loop {
        let mut watch = place.api.watch(&pods, "").await;
        while let Some(event) = watch.next().await {
            let metadata = &event.object["metadata"];
            let uid = metadata["uid"].as_str().unwrap_or_default().to_owned();
            let ends = event.kind == "DELETED" || metadata["deletionTimestamp"].is_string();
            match known.get(&uid) {
                Some(stop) if ends => stop.notify_one(),
                Some(_) => {}
                None if ends || uid.is_empty() => {}
                None => {
                    let stop = Arc::new(Notify::new());
                    known.insert(uid, stop.clone());
                    let ip = addresses.address();
                    lives.spawn(live(place.clone(), event.object, ip, stop, logs.clone()));
                }
            }
        }
    }
}

/// A pod from its binding to its end.
async fn live(
    place: Arc<Place>,
    object: Value,
    ip: std::net::IpAddr,
    stop: Arc<Notify>,
    logs: Logs,
) {
    let pod = Pod::new(object, ip);
    let path = pod.path();
    let target = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "name": pod.name() },
        "target": { "kind": "Node", "name": NODE },
    });
    insist(
        &place.api,
        Method::POST,
        &format!("{path}/binding"),
        Some(&target),
    )
    .await;
    let folder = place.folder.join(pod.name());
    std::fs::create_dir_all(&folder).expect("a folder");
    logs.lock()
        .expect("no panic")
        .insert(pod.name().to_owned(), folder.clone());
    let mut program = Program::start(&place, &pod, &folder).await;
    let status = format!("{path}/status");
    let mut was_ready = None;
    let mut ended = false;
    while !ended {
        ended = program.ended();
        let ready = !ended && pod.is_ready().await;
        if was_ready != Some(ready) {
            was_ready = Some(ready);
            let patch = pod.status(ready, ended);
            insist(&place.api, Method::PATCH, &status, Some(&patch)).await;
        }
        tokio::select! {
            () = stop.notified() => break,
            () = tokio::time::sleep(PROBE[usize::from(ready)]) => {}
        }
    }
    if ended {
        stop.notified().await;
    }
    program.stop(pod.grace()).await;
    let gone = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": pod.uid() } });
    insist(&place.api, Method::DELETE, &path, Some(&gone)).await;
}

/// Calls until the API server has answered: that it is away for a while is no reason to give up. `None`: refused,
/// because the object is not there, or there already, or another.
pub(super) async fn insist(
    api: &Api,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Option<Value> {
    let content_type = match method {
        Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    loop {
        match api.call(method.clone(), path, content_type, body).await {
            Ok((status, value)) if status.is_success() => return Some(value),
            Ok((StatusCode::NOT_FOUND | StatusCode::CONFLICT, _)) => return None,
            Ok((status, value)) if status.is_client_error() => {
                panic!("{method} {path}: {status} {value}")
            }
            _ => tokio::time::sleep(RETRY).await,
        }
    }
}
