//! A namespace with two pods in the mesh and one that is not, an API server and an istiod.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use cairn_conformance::cairn::{Addresses, Cairn};
use cairn_conformance::cluster::{ApiServer, Istiod, Node, collection};
use cairn_conformance::process::Process;
use cairn_conformance::workspace;
use serde_json::json;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// The order is that of dropping.
pub struct World {
    pub istiod: Istiod,
    _node: Node,
    pub cluster: ApiServer,
    pub namespace: String,
    pub roots: PathBuf,
}

impl World {
    /// `None` where there is no istiod or API server, which is said.
    pub async fn start() -> Option<Self> {
        // It is built before the node wants it.
        workspace::cairn();
        let cluster = ApiServer::start().await?;
        let istiod = Istiod::start(&cluster).await?;
        let namespace = cluster.namespace("shop").await;
        let node = Node::start(&cluster, &[&namespace]).await;
        let world = Self {
            roots: istiod.roots(&cluster, &namespace).await,
            istiod,
            _node: node,
            cluster,
            namespace,
        };
        world.account("web").await;
        world.application("web", 2, "enabled").await;
        world.application("plain", 1, "disabled").await;
        Some(world)
    }

    /// A ServiceAccount; that of the waypoint is the controller's to make, where one runs.
    pub async fn account(&self, name: &str) {
        let accounts = collection("v1", &self.namespace, "serviceaccounts");
        let object = json!({ "metadata": { "name": name } });
        self.cluster.api.create(&accounts, &object).await;
    }

    /// A Service and its pods, with ztunnel's mark or without.
    async fn application(&self, name: &str, replicas: u32, redirection: &str) {
        self.cluster
            .apply(&format!(
                r#"
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {ns}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {ns}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata:
      labels: {{app: {name}, version: v1}}
      annotations: {{ambient.istio.io/redirection: {redirection}}}
    spec:
      serviceAccountName: web
      containers: [{{name: echo, image: echo, ports: [{{containerPort: 8080}}]}}]
"#,
                ns = self.namespace
            ))
            .await;
        let deployments = collection("apps/v1", &self.namespace, "deployments");
        self.cluster
            .api
            .until(&deployments, name, "is available", |it| {
                it["status"]["availableReplicas"] == json!(replicas)
            })
            .await;
    }

    /// A Gateway of Cairn's class for the namespace, which no controller looks after.
    pub async fn gateway(&self) {
        let gateways = collection(GATEWAY_API, &self.namespace, "gateways");
        let object = json!({
            "apiVersion": GATEWAY_API, "kind": "Gateway",
            "metadata": { "name": "waypoint" },
            "spec": {
                "gatewayClassName": "cairn-waypoint",
                "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE" }],
            },
        });
        self.cluster.api.create(&gateways, &object).await;
        let label = json!({ "metadata": { "labels": { "istio.io/use-waypoint": "waypoint" } } });
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        self.cluster.api.patch(&path, &label).await;
    }

    /// A file with a token of an account, for istiod unless another audience is said.
    pub async fn token(&self, account: &str, audience: Option<&str>) -> PathBuf {
        let token = self.cluster.token(&self.namespace, account, audience).await;
        let name = format!("token-{account}-{}", audience.unwrap_or("default"));
        let path = self.cluster.folder().join(name);
        std::fs::write(&path, token).expect("a file");
        path
    }

    /// `cairn run --kube` as the waypoint's pod, with more flags; it may not get ready.
    pub async fn waypoint(&self, name: &str, more: &[&str]) -> Cairn {
        let addresses = Addresses::free(LOOPBACK);
        let mut command = Command::new(workspace::cairn());
        command
            .env("POD_NAMESPACE", &self.namespace)
            .env("SERVICE_ACCOUNT", "waypoint")
            .args(["run", "--kube", "--kubeconfig"])
            .arg(self.cluster.admin())
            .args(["--gateway", &format!("{}/waypoint", self.namespace)])
            .arg("--ca-address")
            .arg(self.istiod.address())
            .arg("--ca-roots")
            .arg(&self.roots)
            .args(addresses.flags())
            .args(more);
        let mut process = Process::start(name, command, self.cluster.folder());
        process.listening(addresses.ready).await;
        addresses.of(process)
    }
}
