//! A real istiod for the tests, beside a real API server: Istio's own `pilot-discovery` as a process on loopback, in
//! ambient mode, with a CA of its own. Judges nothing; the tests do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::api::collection;
use super::server::ApiServer;
use crate::net::free_address;
use crate::process::{Process, tied};
use crate::{client, skip, workspace};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Where istiod lives, and its settings.
const NAMESPACE: &str = "istio-system";

/// A running istiod.
#[derive(Debug)]
pub struct Istiod {
    process: Option<Process>,
    /// The CA and discovery, over TLS.
    pub secure: SocketAddr,
    debug: SocketAddr,
    others: [SocketAddr; 4],
    kubeconfig: PathBuf,
    folder: PathBuf,
    starts: u32,
}

impl Istiod {
    /// Starts one and waits until it is ready. `None` where there is none, which is said; with REQUIRE_ISTIOD=1 that
    /// is a failure.
    pub async fn start(cluster: &ApiServer) -> Option<Self> {
        if let Err(why) = workspace::istiod() {
            skip::skipped("a real istiod", &why, "REQUIRE_ISTIOD");
            return None;
        }
        let folder = cluster.folder().join("istiod");
        std::fs::create_dir_all(&folder).expect("a folder");
        let namespace = json!({ "metadata": { "name": NAMESPACE } });
        cluster.api.create("/api/v1/namespaces", &namespace).await;
        let mut started = Self {
            process: None,
            secure: free_address(LOOPBACK),
            debug: free_address(LOOPBACK),
            others: [(); 4].map(|()| free_address(LOOPBACK)),
            kubeconfig: cluster.admin(),
            folder,
            starts: 0,
        };
        started.start_again().await;
        Some(started)
    }

    /// Starts it, on the same ports: the CA is kept in a Secret.
    pub async fn start_again(&mut self) {
        let program = workspace::istiod().expect("it was there before");
        let [http, webhooks, plain, control] = self.others;
        let mut command = tied(&program);
        command
            .current_dir(&self.folder)
            .arg("discovery")
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .arg(format!("--secureGRPCAddr={}", self.secure))
            .arg(format!("--monitoringAddr={}", self.debug))
            .arg(format!("--httpAddr={http}"))
            .arg(format!("--httpsAddr={webhooks}"))
            .arg(format!("--grpcAddr={plain}"))
            .arg("--ctrlz_address=127.0.0.1")
            .arg(format!("--ctrlz_port={}", control.port()))
            .arg("--shutdownDuration=1s")
            .env("POD_NAMESPACE", NAMESPACE)
            .env("POD_NAME", "istiod-0")
            .env("CLUSTER_ID", "Kubernetes")
            .env("REVISION", "default")
            .env("PILOT_ENABLE_AMBIENT", "true")
            // A name beside those in the cluster, under which this machine finds it.
            .env("ISTIOD_CUSTOM_HOST", "localhost")
            .env("CA_TRUSTED_NODE_ACCOUNTS", "istio-system/ztunnel")
            .env("VALIDATION_WEBHOOK_CONFIG_NAME", "")
            .env("INJECTION_WEBHOOK_CONFIG_NAME", "");
        self.starts += 1;
        let name = format!("istiod-{}", self.starts);
        let mut process = Process::start(&name, command, &self.folder);
        let ready = format!("http://{http}/ready");
        process
            .until("istiod is ready", async || {
                client::answers_200(&ready).await
            })
            .await;
        self.process = Some(process);
    }

    /// Kills it; what it wrote into the API server stays.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal("KILL");
        process.wait(crate::process::READY_DEADLINE).await;
    }

    /// `HOST:PORT`, by a name that its certificate has.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.secure.port())
    }

    /// What it has written.
    pub fn log(&self) -> String {
        let process = self.process.as_ref().expect("it runs");
        process.stdout() + &process.stderr()
    }

    /// What it tells at its debug endpoint.
    pub async fn shows(&self, path: &str) -> Value {
        let answer = client::get(self.debug, path).await;
        serde_json::from_str(&client::text(&answer)).unwrap_or(Value::Null)
    }

    /// The roots that it gives to a namespace, as a file.
    pub async fn roots(&self, cluster: &ApiServer, namespace: &str) -> PathBuf {
        let maps = collection("v1", namespace, "configmaps");
        let map = cluster
            .api
            .until(&maps, "istio-ca-root-cert", "has a root", |map| {
                map["data"]["root-cert.pem"].is_string()
            })
            .await;
        let path = self.folder.join(format!("roots-{namespace}.pem"));
        let pem = map["data"]["root-cert.pem"].as_str().expect("a root");
        std::fs::write(&path, pem).expect("a file");
        path
    }
}
