//! Under load: configuration that never stops changing, ten thousand streams, idle or closed by
//! policy, SIGTERM. One at a time, for each takes the whole machine.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod idle;
mod recheck;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_conformance::app::{App, BANNER, read_exactly};
use cairn_conformance::client::{self, Connection};
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::process::Process;
use tokio::sync::Mutex;

static ALONE: Mutex<()> = Mutex::const_new(());

/// How long load is put on.
const LOAD: Duration = Duration::from_secs(6);

async fn lab(flags: &[&str]) -> (Lab, [App; 3]) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let web = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
    lab.service("v1", &[Port::new("http", 80)]);
    let v1 = lab.pod("v1", "v1-a", Reach::Hbone, |at| App::http("v1", at));
    lab.service("mail", &[Port::new("tcp", 25)]);
    let mail = lab.pod("mail", "mail-a", Reach::Hbone, App::server_first);
    lab.start_with(flags).await;
    (lab, [web, v1, mail])
}

/// Version `n` of the configuration: the route leads to v1 or to the service itself and stamps the
/// request with the version; what is denied is denied in every version, by a rule that moves.
fn version(n: u64) -> String {
    let backend = ["web", "v1"][(n % 2) as usize];
    let filler: String = (0..n % 5)
        .map(|at| format!("  - to: [{{operation: {{paths: [\"/filler/{at}\"]}}}}]\n"))
        .collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: shop}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: web}}]
  rules:
  - matches: [{{path: {{value: /open}}}}, {{path: {{value: /secret}}}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {{set: [{{name: x-version, value: \"{backend}-{n}\"}}]}}
    backendRefs: [{{name: {backend}, port: 80}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: secrets, namespace: shop}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: web}}]
  action: DENY
  rules:
{filler}  - to: [{{operation: {{paths: [\"/secret*\"]}}}}]
"
    )
}

#[tokio::test]
async fn configuration_that_changes_50_times_a_second_gives_no_wrong_answer() {
    let _alone = ALONE.lock().await;
    let (lab, _apps) = lab(&[]).await;
    lab.write("changing", &version(0));
    let client = lab.client("shop/viewer").await;
    let to = client.to("web", 80);
    cairn_conformance::process::until("version 0 is in force", async || {
        client::get(to, "/secret").await.status() == 403
    })
    .await;

    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let mut askers = Vec::new();
    for asker in 0..8 {
        let (stop, asked) = (stop.clone(), asked.clone());
        askers.push(tokio::spawn(async move {
            let mut connection = Connection::http1(to).await;
            while !stop.load(Ordering::Relaxed) {
                let denied = asker % 2 == 0;
                let path = if denied { "/secret/x" } else { "/open/x" };
                let answer = connection.get(path).await.expect("an answer");
                if denied {
                    assert_eq!(answer.status(), 403, "{}", client::text(&answer));
                } else {
                    assert_eq!(answer.status(), 200, "{}", client::text(&answer));
                    // Route, filter and backend are of one version.
                    let echo = client::echo(&answer);
                    let version = echo.header("x-version").expect("stamped");
                    assert!(version.starts_with(&format!("{}-", echo.app)), "{version}");
                }
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let end = Instant::now() + LOAD;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut changes = 0;
    while Instant::now() < end {
        tick.tick().await;
        changes += 1;
        lab.write("changing", &version(changes));
    }
    stop.store(true, Ordering::Relaxed);
    for asker in askers {
        asker.await.expect("no wrong answer");
    }
    assert!(changes >= 200, "{changes} changes");
    assert!(asked.load(Ordering::Relaxed) >= 1_000, "{asked:?} requests");
    let snapshots = lab.cairn().metric("cairn_snapshot_version", &[]).await;
    assert!(
        snapshots >= 20.0,
        "{snapshots} snapshots of {changes} changes"
    );
}

#[tokio::test]
async fn a_thousand_tcp_streams_share_few_tunnels() {
    let _alone = ALONE.lock().await;
    let (lab, apps) = lab(&[]).await;
    let client = lab.client("shop/viewer").await;
    let mut streams = Vec::new();
    for _ in 0..1_000 {
        let stream = tokio::net::TcpStream::connect(client.to("mail", 25));
        streams.push(stream.await.unwrap());
    }
    for stream in &mut streams {
        assert_eq!(read_exactly(stream, BANNER.len()).await, BANNER);
    }
    assert_eq!(apps[2].connections(), 1_000);
    let tunnels = lab.cairn().metric("cairn_upstream_tunnels", &[]).await;
    // At most 100 streams a tunnel, for each of the workers.
    assert!(tunnels <= 30.0, "{tunnels} tunnels");
}

#[tokio::test]
async fn sigterm_under_load_fails_no_request() {
    let _alone = ALONE.lock().await;
    let (mut lab, _apps) = lab(&["--drain-seconds", "30"]).await;
    let client = lab.client("shop/viewer").await;
    let to = client.to("web", 80);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let mut askers = Vec::new();
    for _ in 0..16 {
        let (stop, asked) = (stop.clone(), asked.clone());
        askers.push(tokio::spawn(async move {
            let mut connection = Connection::http1(to).await;
            while !stop.load(Ordering::Relaxed) {
                let answer = connection.get("/wait/5").await.expect("an answer");
                assert_eq!(answer.status(), 200);
                asked.fetch_add(1, Ordering::Relaxed);
                // The waypoint may close a connection it has answered on; that is no failure.
                if answer
                    .headers()
                    .get("connection")
                    .is_some_and(|v| v == "close")
                {
                    return;
                }
            }
        }));
    }
    let enough = async || asked.load(Ordering::Relaxed) > 500;
    cairn_conformance::process::until("there is load", enough).await;
    lab.cairn().process.signal("TERM");
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    for asker in askers {
        asker.await.expect("no failed request");
    }
    drop(client);
    let status = lab.cairn_mut().process.wait(Duration::from_secs(25)).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn h2load_through_the_chain_fails_nothing() {
    let _alone = ALONE.lock().await;
    let (lab, _apps) = lab(&[]).await;
    let client = lab.client("shop/viewer").await;
    let mut command = std::process::Command::new("h2load");
    command
        .args(["--h1", "--requests", "4000", "--clients", "20"])
        .arg(format!("http://{}/bytes/1024", client.to("web", 80)));
    let mut load = Process::start("h2load", command, lab.folder());
    let status = load.wait(Duration::from_secs(60)).await;
    assert!(status.success(), "{}", load.stderr());
    let out = load.stdout();
    assert!(
        out.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{out}"
    );
    let counted = lab
        .cairn()
        .metric("istio_requests_total", &["response_code=\"200\""]);
    assert_eq!(counted.await, 4_000.0);
}
