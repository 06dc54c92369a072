//! The control plane's processes: started on free ports of loopback, stopped and started again on the same
//! data, killed when dropped. Knows nothing of pods.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::OnceCell;

use super::access::{ADMIN, Access, NOBODY};
use super::api::{Api, collection};
use super::guard::Guard;
use super::kubectl::{self, Said};
use crate::net::free_port;
use crate::process::{Process, tied};
use crate::{client, skip, workspace};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Virtual IPs of Services. Nothing listens there: no test sends to one but in the authority of a CONNECT.
const SERVICES: &str = "10.96.0.0/16";

/// Between two looks at an API server that is starting.
const LOOK: Duration = Duration::from_millis(100);

/// A Kubernetes control plane.
#[derive(Debug)]
pub struct ApiServer {
    // The order is that of dropping: the processes end before their folder goes.
    proxy: Process,
    controllers: Process,
    server: Option<Process>,
    _etcd: Process,
    /// The objects, as the administrator.
    pub api: Api,
    port: u16,
    etcd_port: u16,
    flags: Vec<String>,
    access: Access,
    pods: Arc<Pods>,
    guard: Guard,
}

impl ApiServer {
    /// One for this test alone. `None` where this machine can not run it, which is said; with REQUIRE_KUBE=1
    /// that is a failure.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// The same, with more flags of kube-apiserver.
    pub async fn start_with(flags: &[&str]) -> Option<Self> {
        let pods = Pods::new();
        let ready = workspace::control_plane().and_then(|program| {
            let guard = Guard::new(&pods.block())?;
            Ok((program, guard))
        });
        match ready {
            Ok((program, guard)) => {
                let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
                Some(Self::begin(&program, guard, pods, flags).await)
            }
            Err(why) => {
                skip::skipped("a Kubernetes API server", &why, "REQUIRE_KUBE");
                None
            }
        }
    }

    /// The one that the tests of this process share, each in namespaces of its own. It ends with the process.
    pub async fn shared() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<ApiServer>> = OnceCell::const_new();
        let server = SHARED.get_or_init(|| async {
            let (started, starting) = tokio::sync::oneshot::channel();
            // Children end with the thread that started them, and a test's thread ends with the test.
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                let server = runtime.block_on(Self::start());
                let _ = started.send(server);
                loop {
                    std::thread::park();
                }
            });
            starting.await.expect("the shared API server starts")
        });
        server.await.as_ref()
    }

    async fn begin(program: &Path, guard: Guard, pods: Pods, flags: Vec<String>) -> Self {
        let folder = guard.folder();
        let [etcd_port, peer_port, port, proxy_port] = [(); 4].map(|()| free_port(LOOPBACK));
        let access = Access::write(folder);
        let mut etcd = tied(program);
        etcd.arg("etcd")
            .arg(folder.join("etcd"))
            .args([etcd_port.to_string(), peer_port.to_string()]);
        let mut etcd = Process::start("etcd", etcd, folder);
        etcd.listening(SocketAddr::new(LOOPBACK, etcd_port)).await;
        let server = serve(program, folder, &access, (port, etcd_port), &flags).await;
        let kubeconfig = access.kubeconfig("administrator", port, ADMIN);
        let mut controllers = tied(program);
        controllers
            .arg("controllers")
            .arg(&kubeconfig)
            .arg(access.root());
        let controllers = Process::start("controllers", controllers, folder);
        let mut proxy = tied(&workspace::kubectl());
        proxy
            .env("KUBECONFIG", &kubeconfig)
            .args(["proxy", "--disable-filter", "--port"])
            .arg(proxy_port.to_string());
        let mut proxy = Process::start("proxy", proxy, folder);
        let behind = SocketAddr::new(LOOPBACK, proxy_port);
        proxy.listening(behind).await;
        let started = Self {
            proxy,
            controllers,
            server: Some(server),
            _etcd: etcd,
            api: Api::behind(behind),
            port,
            etcd_port,
            flags,
            access,
            pods: Arc::new(pods),
            guard,
        };
        started.define().await;
        started
    }

    /// Defines the kinds of the Gateway API, of Istio, Cilium and Cairn.
    async fn define(&self) {
        let theirs = workspace::definitions();
        let ours = workspace::root().join("deploy/crds");
        let (theirs, ours) = (theirs.to_string_lossy(), ours.to_string_lossy());
        self.kubectl(&["create", "-f", &theirs, "-f", &ours], "")
            .await
            .expect("definitions");
        let established = [
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=60s",
        ];
        self.kubectl(&established, "").await.expect("definitions");
    }

    /// Kills the API server; etcd keeps its data. Controllers try again until it is back.
    pub async fn stop(&mut self) {
        let mut server = self.server.take().expect("it runs");
        server.signal("KILL");
        server.wait(Duration::from_secs(10)).await;
    }

    /// Starts it again, on the same data and port, and waits until it is ready.
    pub async fn start_again(&mut self) {
        let program = workspace::control_plane().expect("it was there before");
        let ports = (self.port, self.etcd_port);
        let folder = self.guard.folder();
        let server = serve(&program, folder, &self.access, ports, &self.flags).await;
        self.server = Some(server);
    }

    /// Forgets everything but the present: whoever watches from an older version is told that it is gone. With
    /// its own cache of events the API server may still know; `--watch-cache=false` leaves that out.
    pub async fn compact(&self) {
        let etcd = format!("http://127.0.0.1:{}/v3/kv", self.etcd_port);
        let ask = async |path: &str, body: String| {
            let url = format!("{etcd}/{path}");
            let (code, said, why) = client::curl(&["--fail", "--data", &body, &url]).await;
            assert_eq!(code, Some(0), "etcd {path}: {said}{why}");
            serde_json::from_str::<serde_json::Value>(&said).expect("JSON")
        };
        // One byte, of base64: any key tells the present revision.
        let range = ask("range", json!({ "key": "AA==" }).to_string()).await;
        let present = range["header"]["revision"].clone();
        ask(
            "compaction",
            json!({ "revision": present, "physical": true }).to_string(),
        )
        .await;
    }

    /// kubectl as the administrator.
    pub async fn kubectl(&self, arguments: &[&str], stdin: &str) -> Said {
        let kubeconfig = self.kubeconfig("administrator", ADMIN);
        self.kubectl_as(kubeconfig, arguments, stdin).await
    }

    /// kubectl with another kubeconfig.
    pub async fn kubectl_as(&self, kubeconfig: PathBuf, arguments: &[&str], stdin: &str) -> Said {
        let caches = self.guard.folder().join("kubectl");
        kubectl::run(kubeconfig, &caches, arguments, stdin).await
    }

    /// Applies YAML as the administrator would.
    pub async fn apply(&self, yaml: &str) {
        self.kubectl(&["apply", "-f", "-"], yaml)
            .await
            .expect("kubectl apply");
    }

    /// A kubeconfig file under this name, for whoever has the token.
    pub fn kubeconfig(&self, name: &str, token: &str) -> PathBuf {
        self.access.kubeconfig(name, self.port, token)
    }

    /// A kubeconfig file of the administrator.
    pub fn admin(&self) -> PathBuf {
        self.kubeconfig("administrator", ADMIN)
    }

    /// A kubeconfig file of a user whom no rule allows anything.
    pub fn nobody(&self) -> PathBuf {
        self.kubeconfig("nobody", NOBODY)
    }

    /// A token of a ServiceAccount by TokenRequest, for the API server itself or for another audience.
    pub async fn token(&self, namespace: &str, account: &str, audience: Option<&str>) -> String {
        let audiences: Vec<_> = audience.into_iter().collect();
        let of = collection("v1", namespace, "serviceaccounts");
        let spec = json!({ "audiences": audiences, "expirationSeconds": 3600 });
        let path = format!("{of}/{account}/token");
        let answer = self.api.create(&path, &json!({ "spec": spec })).await;
        let token = answer["status"]["token"].as_str();
        token.expect("a token").to_owned()
    }

    /// A kubeconfig file of a ServiceAccount.
    pub async fn account(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.token(namespace, account, None).await;
        self.kubeconfig(&format!("{namespace}-{account}"), &token)
    }

    /// A new namespace whose name begins with `prefix`, once it can take pods.
    pub async fn namespace(&self, prefix: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let object = json!({ "metadata": { "name": name } });
        self.api.create("/api/v1/namespaces", &object).await;
        let accounts = collection("v1", &name, "serviceaccounts");
        self.api
            .until(&accounts, "default", "is there", |_| true)
            .await;
        let maps = collection("v1", &name, "configmaps");
        self.api
            .until(&maps, "kube-root-ca.crt", "is there", |_| true)
            .await;
        name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(LOOPBACK, self.port)
    }

    /// The certificate to verify it with.
    pub fn root(&self) -> PathBuf {
        self.access.root()
    }

    /// A folder for what belongs to it; it is gone when this is.
    pub fn folder(&self) -> &Path {
        self.guard.folder()
    }

    /// An address for a pod, which no other has.
    pub fn pod_address(&self) -> IpAddr {
        self.pods.address()
    }

    /// The same, for a node that outlives this borrow.
    pub(super) fn addresses(&self) -> Arc<Pods> {
        self.pods.clone()
    }

    /// Process ids: etcd aside, the API server's, the controllers' and the proxy's.
    pub fn processes(&self) -> Vec<u32> {
        let server = self.server.iter().map(Process::id);
        server
            .chain([self.controllers.id(), self.proxy.id()])
            .collect()
    }
}

/// Addresses of pods: Kubernetes accepts none of 127.0.0.0/8 as an endpoint, so a block of the range for
/// benchmarks (RFC 2544) is made local to this machine.
#[derive(Debug)]
pub(super) struct Pods {
    block: [u8; 3],
    next: AtomicU32,
}

impl Pods {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = NEXT.fetch_add(1, Ordering::Relaxed) % 8;
        let process = std::process::id() % 64;
        Self {
            block: [
                198,
                18 + (server % 2) as u8,
                (process * 4 + server / 2) as u8,
            ],
            next: AtomicU32::new(1),
        }
    }

    fn block(&self) -> String {
        let [a, b, c] = self.block;
        format!("{a}.{b}.{c}.0/24")
    }

    pub fn address(&self) -> IpAddr {
        let host = self.next.fetch_add(1, Ordering::Relaxed) % 253 + 1;
        let [a, b, c] = self.block;
        Ipv4Addr::new(a, b, c, host as u8).into()
    }
}

/// Starts kube-apiserver and waits until it says that it is ready.
async fn serve(
    program: &Path,
    folder: &Path,
    access: &Access,
    (port, etcd): (u16, u16),
    more: &[String],
) -> Process {
    let path = |flag: &str, path: PathBuf| format!("--{flag}={}", path.display());
    let mut command: Command = tied(program);
    command
        .arg("kube-apiserver")
        .args([
            format!("--etcd-servers=http://127.0.0.1:{etcd}"),
            format!("--secure-port={port}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            path("cert-dir", access.certificates()),
            path("token-auth-file", access.tokens()),
            path("service-account-signing-key-file", access.signing_key()),
            path("service-account-key-file", access.verifying_key()),
        ])
        .args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            // Nobody looks for the API server by the Service `kubernetes`: loopback is no endpoint.
            "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            "--profiling=false",
        ])
        .args(more);
    let mut server = Process::start("kube-apiserver", command, folder);
    let url = format!("https://127.0.0.1:{port}/readyz");
    server
        .until("the API server is ready", async || {
            tokio::time::sleep(LOOK).await;
            let (code, said, _) = client::curl(&["--insecure", &url]).await;
            code == Some(0) && said == "ok"
        })
        .await;
    server
}
