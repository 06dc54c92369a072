//! What a waypoint costs that follows many objects: memory, time until a change is in force, and churn (issue 7 item 1).

use std::time::{Duration, Instant};

use cairn_conformance::cairn::Cairn;
use cairn_conformance::cluster::{ApiServer, collection};
use cairn_conformance::memory::Memory;
use futures::{StreamExt, stream};
use serde_json::json;

use super::{in_force, mesh, route, routes, service, start_ready};

/// Processor time, in seconds.
fn worked_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// As a line of the measurement has it.
fn told(memory: Memory) -> String {
    let mib = |kib: u64| kib.div_ceil(1024);
    let rss = mib(memory.own + memory.program);
    format!("RSS {rss} MiB (of it the program {})", mib(memory.program))
}

/// Services that are filled in at the same time.
const AT_ONCE: usize = 8;

/// Services with ten endpoints, their Pods and a route each.
async fn fill(cluster: &ApiServer, namespace: &str, services: usize) {
    let all = stream::iter(0..services);
    all.for_each_concurrent(AT_ONCE, |n| fill_one(cluster, namespace, n))
        .await;
}

async fn fill_one(cluster: &ApiServer, namespace: &str, n: usize) {
    let name = format!("s{n}");
    service(cluster, namespace, &name).await;
    cluster
        .api
        .create(&routes(namespace), &route(namespace, &name, &name))
        .await;
    let mut endpoints = Vec::new();
    for m in 0..10 {
        let (pod, ip) = (
            format!("{name}-{m}"),
            format!("10.{}.{}.{}", 1 + m, n / 250, 1 + n % 250),
        );
        let pods = collection("v1", namespace, "pods");
        let object = json!({
            "metadata": {"name": pod, "namespace": namespace, "labels": {"app": name},
                "annotations": {"ambient.istio.io/redirection": "enabled"}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        cluster.api.create(&pods, &object).await;
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
        cluster
            .api
            .patch(&format!("{pods}/{pod}/status"), &status)
            .await;
        endpoints.push(json!({"addresses": [ip], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace}}));
    }
    let slice = json!({
        "metadata": {"name": format!("{name}-x"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    let slices = collection("discovery.k8s.io/v1", namespace, "endpointslices");
    cluster.api.create(&slices, &slice).await;
}

/// What so many Services cost.
struct Measured {
    synced: Duration,
    /// Resident, when nothing has changed for a while.
    rss_mib: u64,
    /// One change of a route.
    in_force: Duration,
    /// The last of many changes of Pods.
    last_in_force: Duration,
    /// Resident, at most, after all of them.
    peak_mib: u64,
}

/// What so many Services of ten endpoints with a route each cost, printed.
async fn measure(services: usize) -> Measured {
    let cluster = ApiServer::start().await.expect("an API server");
    let namespace = cluster.namespace("many").await;
    mesh(&cluster, &namespace).await;
    fill(&cluster, &namespace, services).await;
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let cairn = start_ready(folder.path(), &cluster.admin(), &namespace, &[]).await;
    let synced = began.elapsed();
    let memory = || Memory::of(cairn.process.id());
    let ready = memory();
    // Nothing to wait for: what is not used is given back after a second of quiet, and the pause after the first
    // time ends by itself.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let at_rest = memory();
    let version = cairn.metric("cairn_snapshot_version", &[]).await;
    let changed = Instant::now();
    let one = format!("{}/s0", routes(&namespace));
    let patch = json!({"metadata": {"annotations": {"touched": "yes"}}});
    cluster.api.patch(&one, &patch).await;
    cairn
        .metric_reaches("cairn_snapshot_version", &[], version + 1.0)
        .await;
    let in_force = changed.elapsed();

    let after_one = memory();
    let (rate, core) = churn(&cluster, &cairn, &namespace, services).await;
    let after = memory();
    // By the whole configuration as the admin address tells it, which takes memory of its own.
    let last_in_force = marked(&cluster, &cairn, &namespace).await;
    let peak_mib = memory().most.div_ceil(1024);
    println!(
        "{services} services: ready after {synced:?}, {}, at rest {}; one change in force after \
         {in_force:?}, {}; {rate:.0} changes/s cost {:.1} % of a core, {}, the last one in force after \
         {last_in_force:?}; at most {peak_mib} MiB",
        told(ready),
        told(at_rest),
        told(after_one),
        core * 100.0,
        told(after),
    );
    Measured {
        synced,
        rss_mib: (at_rest.own + at_rest.program).div_ceil(1024),
        in_force,
        last_in_force,
        peak_mib,
    }
}

/// How long it takes until a Pod has an address in force that none had before: then all changes before it are, too.
async fn marked(cluster: &ApiServer, cairn: &Cairn, namespace: &str) -> Duration {
    const MARK: &str = "10.250.0.1";
    let path = format!("{}/s0-0/status", collection("v1", namespace, "pods"));
    let status = json!({"status": {"podIP": MARK, "podIPs": [{"ip": MARK}]}});
    cluster.api.patch(&path, &status).await;
    let written = Instant::now();
    in_force(cairn, MARK, true).await;
    written.elapsed()
}

/// Pods that change their address, 200 a second if they can be written so fast: how many a second, and the share of a
/// core that they cost.
async fn churn(cluster: &ApiServer, cairn: &Cairn, namespace: &str, services: usize) -> (f64, f64) {
    let pods = collection("v1", namespace, "pods");
    let before = worked_s(cairn.process.id());
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let ticks = stream::poll_fn(|context| ticks.poll_tick(context).map(Some));
    let changes = ticks.enumerate().map(|(change, _)| {
        let at = change % (services * 10);
        let (n, m) = (at / 10, at % 10);
        let ip = format!("10.{}.{}.{}", 101 + m, n % 250, 1 + change % 200);
        let path = format!("{pods}/s{n}-{m}/status");
        async move {
            let status = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
            cluster.api.patch(&path, &status).await
        }
    });
    let length = Duration::from_secs(20);
    let changes = changes.buffer_unordered(AT_ONCE);
    let written = changes.take_until(tokio::time::sleep(length)).count().await;
    let seconds = began.elapsed().as_secs_f64();
    let after = worked_s(cairn.process.id());
    (written as f64 / seconds, (after - before) / seconds)
}

/// A tenth of the measurement, held to bounds that a shared machine and a debug build keep.
#[tokio::test]
async fn a_hundred_services_are_there_soon_and_a_change_at_once() {
    if ApiServer::shared().await.is_none() {
        return;
    }
    let found = measure(100).await;
    assert!(found.synced < Duration::from_secs(20), "{:?}", found.synced);
    assert!(found.rss_mib < 100, "{} MiB", found.rss_mib);
    assert!(found.peak_mib < 120, "{} MiB at most", found.peak_mib);
    assert!(
        found.in_force < Duration::from_secs(2),
        "{:?}",
        found.in_force
    );
    // Pods wait 10 s at most, and what comes in force takes a moment.
    assert!(
        found.last_in_force < Duration::from_secs(12),
        "{:?}",
        found.last_in_force
    );
}

#[tokio::test]
#[ignore = "a measurement: run it alone, in a release build"]
async fn a_thousand_services_of_ten_endpoints_with_a_route_each() {
    measure(1000).await;
}
