//! The commands of the guides, in the order of their pages, typed by a shell with the real kubectl and cairn at a real
//! API server: those in blocks, and in the guides for a move those of the text. What is not run of these is marked in the
//! page's source with the reason, and told. Not looked at: tables, and commands of two words.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cairn_conformance::cluster::{ApiServer, Node};
use cairn_conformance::workspace;
use serde_json::json;

use super::attach::controller;
use super::chart::rendered;
use super::node::echo;

/// Words before what the page's source says of commands that begin so, each a line of its own in a comment.
const NOT_RUN: &str = "<!-- not run: ";
const EXIT_1: &str = "<!-- exit code 1: ";

/// What these commands say among other things, if they do what the page says.
const SAYS: [(&str, &str); 6] = [
    ("cairn doctor", "BYPASS"),
    ("cairn status", "programmed"),
    ("cairn attach -n shop --dry-run", "serverside-applied"),
    (
        "cairn detach -n shop --delete-gateway",
        "deleted   Gateway shop/waypoint",
    ),
    ("cairn translate --to cilium", "kind: CiliumNetworkPolicy"),
    ("cairn translate --to istio", "parts lost"),
];

/// One thing that a page has its reader do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Typed into a shell.
    Type(String),
    /// A manifest that is applied.
    Apply(String),
}

/// What a page says.
#[derive(Debug, Default)]
struct Guide {
    /// In order.
    forward: Vec<Step>,
    /// The ways back, of each section in order.
    back: Vec<Vec<Step>>,
    /// The paragraph goes on with a way back.
    in_back: bool,
    /// Beginnings of commands that are not run, and why.
    not_run: Vec<(String, String)>,
    /// Of those whose exit code is 1, and why.
    exits_1: Vec<(String, String)>,
}

impl Guide {
    fn read(page: &str, with_inline: bool) -> Self {
        let mut guide = Self::default();
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            if let Some(kind) = line.strip_prefix("```") {
                let block: Vec<&str> = lines.by_ref().take_while(|l| *l != "```").collect();
                match kind {
                    "sh" => guide.forward.extend(commands(&block).map(Step::Type)),
                    "yaml" => guide.forward.push(Step::Apply(block.join("\n"))),
                    _ => {}
                }
            } else if let Some(mark) = line.strip_prefix(NOT_RUN) {
                guide.not_run.push(marked(mark));
            } else if let Some(mark) = line.strip_prefix(EXIT_1) {
                guide.exits_1.push(marked(mark));
            } else if line.starts_with("## ") {
                guide.back.push(Vec::new());
            } else if with_inline && !line.starts_with('|') {
                guide.inline(line);
            }
        }
        guide
    }

    /// Commands in the text: those after "*Back:*" lead back, to the end of the paragraph.
    fn inline(&mut self, line: &str) {
        if line.is_empty() {
            self.in_back = false;
        }
        let (ahead, back) = match line.split_once("*Back:*") {
            Some(parts) => parts,
            None if self.in_back => ("", line),
            None => (line, ""),
        };
        self.in_back |= line.contains("*Back:*");
        let steps = |text: &str| -> Vec<Step> {
            let spans = text.split('`').skip(1).step_by(2);
            let typed = spans.filter(|s| s.starts_with("kubectl ") || s.starts_with("cairn "));
            let whole = typed.filter(|s| s.split(' ').count() > 2);
            whole.map(|s| Step::Type(s.to_owned())).collect()
        };
        self.forward.extend(steps(ahead));
        if let Some(backs) = self.back.last_mut() {
            backs.extend(steps(back));
        }
    }
}

/// `PREFIX: WHY -->`.
fn marked(mark: &str) -> (String, String) {
    let mark = mark.strip_suffix(" -->").expect("a mark is one line");
    let (prefix, why) = mark.split_once(": ").expect("a mark says why");
    (prefix.to_owned(), why.to_owned())
}

/// The commands of a block: a line each, but for those that go on after a backslash, and with what is written to
/// their stdin.
fn commands<'b>(block: &'b [&'b str]) -> impl Iterator<Item = String> + 'b {
    let mut lines = block.iter();
    std::iter::from_fn(move || {
        let mut command = (*lines.next()?).to_owned();
        while command.ends_with('\\') {
            command.push('\n');
            command.push_str(lines.next()?);
        }
        if command.contains("<<'EOF'") {
            for line in lines.by_ref() {
                command.push('\n');
                command.push_str(line);
                if *line == "EOF" {
                    break;
                }
            }
        }
        Some(command)
    })
}

/// A shell in a folder of its own, with `cairn` and `kubectl` and the administrator's kubeconfig.
struct Shell {
    folder: tempfile::TempDir,
    kubeconfig: std::path::PathBuf,
}

impl Shell {
    fn new(cluster: &ApiServer) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, program) in [
            ("cairn", workspace::cairn()),
            ("kubectl", workspace::kubectl()),
        ] {
            let program = std::fs::canonicalize(program).expect("a program");
            std::os::unix::fs::symlink(program, folder.path().join(name)).expect("a link");
        }
        Self {
            folder,
            kubeconfig: cluster.admin(),
        }
    }

    /// Exit code and everything it said.
    async fn run(&self, command: &str) -> (i32, String) {
        let folder: &Path = self.folder.path();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("timeout");
        shell
            .args(["150", "sh", "-c", command])
            .current_dir(folder)
            .env("PATH", format!("{}:{path}", folder.display()))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", folder.join("kubectl-cache"))
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || shell.output()).await;
        let output = output.expect("no panic").expect("a shell");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.code().unwrap_or(-1), said)
    }
}

/// Does what a page says, forward and then back. What was not run is told; a mark that no command begins with is one
/// that went stale.
async fn follow(shell: &Shell, cluster: &ApiServer, page: &str, with_inline: bool) {
    let path = workspace::root().join("docs").join(page);
    let text = std::fs::read_to_string(path).expect(page);
    let guide = Guide::read(&text, with_inline);
    let back = guide.back.iter().rev().flatten();
    let steps: Vec<&Step> = guide.forward.iter().chain(back).collect();
    assert!(steps.len() > 5, "{page}: {steps:?}");
    let mut used = BTreeSet::new();
    let mut mark = |marks: &[(String, String)], command: &str| {
        let found = marks
            .iter()
            .find(|(p, _)| command.starts_with(p.as_str()))?;
        used.insert(found.0.clone());
        Some(found.1.clone())
    };
    for step in steps {
        let command = match step {
            Step::Apply(manifest) => {
                cluster.apply(manifest).await;
                continue;
            }
            Step::Type(command) => command,
        };
        if let Some(why) = mark(&guide.not_run, command) {
            eprintln!("{page}: not run: {command} ({why})");
            continue;
        }
        let expected = i32::from(mark(&guide.exits_1, command).is_some());
        let (code, said) = shell.run(command).await;
        eprintln!("{page}: {command}: exit code {code}");
        assert_eq!(code, expected, "{page}: {command}\n{said}");
        for (prefix, words) in SAYS {
            let meant = command.starts_with(prefix);
            assert!(!meant || said.contains(words), "{page}: {command}\n{said}");
        }
    }
    let marks = guide.not_run.iter().chain(&guide.exits_1);
    let stale: Vec<_> = marks.filter(|(prefix, _)| !used.contains(prefix)).collect();
    assert!(stale.is_empty(), "{page}: no command begins with {stale:?}");
}

/// A namespace `shop` with an application, for one page.
async fn shop(cluster: &ApiServer, labels: serde_json::Value, more: &str) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}});
    cluster.apply(&namespace.to_string()).await;
    let accounts = "/api/v1/namespaces/shop/serviceaccounts";
    cluster
        .api
        .until(accounts, "default", "is there", |_| true)
        .await;
    cluster
        .apply(&format!("{}---\n{more}", echo("shop", 1)))
        .await;
    let deployments = "/apis/apps/v1/namespaces/shop/deployments";
    let available = |web: &serde_json::Value| web["status"]["availableReplicas"] == json!(1);
    cluster
        .api
        .until(deployments, "web", "has a ready pod", available)
        .await;
    is_an_endpoint(cluster).await;
}

/// Waits until the pod is listed where commands look for endpoints.
async fn is_an_endpoint(cluster: &ApiServer) {
    let slices = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
    let of_web = "labelSelector=kubernetes.io%2Fservice-name%3Dweb";
    let listed = async {
        let mut watch = cluster.api.watch(slices, of_web).await;
        while let Some(event) = watch.next().await {
            if event.object["endpoints"][0]["conditions"]["ready"] == json!(true) {
                return true;
            }
        }
        false
    };
    let listed = tokio::time::timeout(Duration::from_secs(60), listed).await;
    assert!(listed.is_ok_and(|listed| listed), "the pod is no endpoint");
}

async fn close(cluster: &ApiServer) {
    cluster.api.delete("/api/v1/namespaces/shop").await;
    cluster.api.until_gone("/api/v1/namespaces", "shop").await;
}

/// Istio's waypoint as its controller leaves it, and a policy on a Service.
const OF_ISTIO: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio-waypoint}
spec: {controllerName: istio.io/mesh-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: '', name: web}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

/// A policy of Cilium with a rule on HTTP.
const OF_CILIUM: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '8080', protocol: TCP}]
      rules: {http: [{method: GET, path: /.*}]}
";

#[tokio::test]
async fn the_commands_of_the_guides_do_what_the_pages_say() {
    let Some(chart) = rendered("{}") else {
        return;
    };
    let Some(cluster) = ApiServer::start().await else {
        return;
    };
    // In place of `helm install`, which needs Helm: what its engine renders. The controller is a process beside.
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: cairn-system}}";
    cluster.apply(namespace).await;
    cluster.apply(&chart.expect("the chart")).await;
    let _controller = controller(&cluster, "controller", "cairn:test").await;
    let _node = Node::start(&cluster, &["shop"]).await;
    let shell = Shell::new(&cluster);

    shop(&cluster, json!({}), "").await;
    follow(&shell, &cluster, "kubernetes.md", false).await;
    close(&cluster).await;

    shop(
        &cluster,
        json!({"istio.io/use-waypoint": "waypoint"}),
        OF_ISTIO,
    )
    .await;
    let status = json!({"status": {"addresses": [{"type": "IPAddress", "value": "10.96.9.9"}]}});
    let waypoint = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/waypoint/status";
    cluster.api.patch(waypoint, &status).await;
    follow(&shell, &cluster, "migrate-from-istio.md", true).await;
    // All the way back: nothing is Cairn's any more.
    let gateways = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways";
    cluster.api.until_gone(gateways, "cairn").await;
    let label = async |path: &str| {
        let object = cluster.api.get(path).await.expect(path);
        object["metadata"]["labels"]["istio.io/use-waypoint"].clone()
    };
    assert_eq!(label("/api/v1/namespaces/shop").await, json!("waypoint"));
    close(&cluster).await;

    shop(&cluster, json!({}), OF_CILIUM).await;
    follow(&shell, &cluster, "migrate-from-cilium.md", true).await;
    let web = label("/api/v1/namespaces/shop/services/web").await;
    assert_eq!(web, json!(null), "detached again");
}

#[test]
fn commands_are_found_in_blocks_and_in_the_text() {
    let page = "\
# A page
<!-- not run: helm : needs Helm -->
## One
```sh
helm install x
kubectl apply -f - <<'EOF'
a: b
EOF
cairn status \\
  -n shop
```
Do `cairn doctor -n shop`, and see `status`. *Back:* `cairn detach -n shop`: or
`kubectl delete gateway x`.
```yaml
kind: X
```
";
    let guide = Guide::read(page, true);
    let typed = |text: &str| Step::Type(text.to_owned());
    assert_eq!(
        guide.forward,
        [
            typed("helm install x"),
            typed("kubectl apply -f - <<'EOF'\na: b\nEOF"),
            typed("cairn status \\\n  -n shop"),
            typed("cairn doctor -n shop"),
            Step::Apply("kind: X".to_owned()),
        ]
    );
    let back = vec![
        typed("cairn detach -n shop"),
        typed("kubectl delete gateway x"),
    ];
    assert_eq!(guide.back, [back]);
    assert_eq!(
        guide.not_run,
        [("helm ".to_owned(), "needs Helm".to_owned())]
    );
}
