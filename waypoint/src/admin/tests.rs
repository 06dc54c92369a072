//! What each address answers, without sockets; with them in `served`.

mod asked;
mod served;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use cairn_config_schema::diagnostics::{Code, Diagnostic};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    Binding, ClusterKey, ClusterSettings, Endpoint, OutlierDetection, Service, Snapshot, Workload,
    WorkloadType,
};
use cairn_routing::{AnswerKind, Cluster, Limited};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;

use super::answer::{Answered, Body, answer};
use super::*;
use crate::clock::now_ms;
use crate::telemetry::series::Registry;

/// A page as a client sees it.
#[derive(Debug)]
struct Seen {
    status: StatusCode,
    content_type: String,
    text: String,
}

impl Seen {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

pub(super) fn state() -> AdminState {
    let snapshot = Arc::new(snapshot());
    AdminState {
        readiness: Arc::default(),
        snapshot: Box::new(move || Some(snapshot.clone())),
        last_reload: Arc::default(),
        acknowledged: Arc::default(),
        jwks: Arc::default(),
        live_cluster: Box::new(|key| (key.port == 80).then(|| busy_cluster(key))),
        limiters: Box::new(Vec::new),
        flows: None,
        explain: Box::new(|_| anyhow::bail!("nobody to ask")),
        set_log_filter: Box::new(|filter| match filter {
            "info" => Ok(()),
            _ => Err("no such level".to_owned()),
        }),
        quit: Box::new(|| {}),
        registry: Arc::new(Registry::new(10, "Kubernetes")),
        metrics_idle: None,
    }
}

/// The cluster of the only endpoint, which has seven requests and was ejected for five bad answers.
fn busy_cluster(key: &ClusterKey) -> Arc<Cluster> {
    let snapshot = snapshot();
    let settings = snapshot.cluster_settings.get(key).cloned();
    let endpoints = &snapshot.clusters[key];
    let cluster = Arc::new(Cluster::new(
        key.clone(),
        endpoints,
        settings.unwrap(),
        now_ms(),
    ));
    let endpoint = cluster.endpoints()[0].clone();
    (0..7).for_each(|_| std::mem::forget(endpoint.begin()));
    (0..5).for_each(|_| drop(cluster.record(&endpoint, AnswerKind::Status(503), now_ms())));
    std::mem::forget(cluster.admit(Limited::Requests));
    assert!(cluster.admit(Limited::Requests).is_none());
    cluster
}

fn limits_and_outliers() -> ClusterSettings {
    let mut settings = ClusterSettings {
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: 5,
            consecutive_gateway_errors: 0,
            split_local_origin: false,
            consecutive_local_origin_failures: 5,
            success_rate: None,
            interval_ms: 10_000,
            base_ejection_ms: 30_000,
            ejection_max_ms: 300_000,
            ejected_percent_max: 10,
        }),
        ..ClusterSettings::default()
    };
    settings.limits.requests_max = Some(1);
    settings
}

/// A service with one pod that has two addresses.
fn snapshot() -> Snapshot {
    let pod = Arc::new(Workload {
        key: ObjectKey::new("shop", "web-1"),
        addresses: vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
        identity: Identity::of_workload("cluster.local", "shop", "web").unwrap(),
        hbone: true,
        workload_name: "web".into(),
        workload_type: WorkloadType::Pod,
        canonical_name: "web".into(),
        canonical_revision: "latest".into(),
        app: "".into(),
        version: "".into(),
        node: "".into(),
        labels: Default::default(),
        namespace_labels: None,
        host_network: false,
        behind_gateway: false,
        named_ports: Default::default(),
        binding: Binding::Unbound,
    });
    let key = ObjectKey::new("shop", "web");
    let service = Service {
        key: key.clone(),
        origin: Origin {
            kind: Kind::Service,
            key: key.clone(),
        },
        hostname: "web.shop.svc.cluster.local".into(),
        addresses: vec![],
        blocks: vec![],
        exported_to: None,
        alt_names: vec![],
        ports: vec![],
        binding: Binding::Served,
        policies: vec![],
        redirect_failure: Default::default(),
    };
    let endpoint = |workload| Endpoint::new("10.0.0.9:8080".parse().unwrap(), workload);
    let mut snapshot = Snapshot {
        version: 4,
        diagnostics: vec![
            Diagnostic::error(Code::KeptLastGood, "kept as it was"),
            Diagnostic::warning(Code::NoEndpoints, "no endpoints"),
        ],
        ..Snapshot::default()
    };
    snapshot.services.insert(key.clone(), Arc::new(service));
    for address in &pod.addresses {
        snapshot.workloads.insert(*address, pod.clone());
    }
    for (port, workload) in [(80, Some(pod.clone())), (81, None)] {
        let cluster = ClusterKey::new(key.clone(), port);
        snapshot
            .clusters
            .insert(cluster, Arc::from([endpoint(workload)]));
    }
    let limited = ClusterKey::new(key, 80);
    let settings = Arc::new(limits_and_outliers());
    snapshot.cluster_settings.insert(limited, settings);
    snapshot
}

fn ask(state: &Arc<AdminState>, surface: Surface, method: &str, target: &str) -> Seen {
    let request = Request::builder()
        .method(method)
        .uri(target)
        .body(())
        .unwrap();
    seen(now(answer(&request, surface, true, state)))
}

fn now(answered: Answered) -> http::Response<Body> {
    match answered {
        Answered::Now(response) => response,
        Answered::Later(_) => panic!("no page of these takes a while"),
    }
}

fn seen(response: http::Response<Body>) -> Seen {
    let (head, body) = response.into_parts();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let body = runtime.block_on(body.collect()).unwrap().to_bytes();
    Seen {
        status: head.status,
        content_type: head.headers["content-type"].to_str().unwrap().to_owned(),
        text: String::from_utf8(body.to_vec()).unwrap(),
    }
}

#[test]
fn readiness_is_answered_at_every_address_with_reasons() {
    let state = Arc::new(state());
    for surface in [Surface::Metrics, Surface::Ready, Surface::Admin] {
        assert_eq!(
            ask(&state, surface, "GET", "/healthz/ready").status,
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
    for reason in [
        NotReady::NoConfiguration,
        NotReady::NoIdentity,
        NotReady::NotListening,
    ] {
        state.readiness.remove(reason);
    }
    assert_eq!(
        ask(&state, Surface::Ready, "GET", "/healthz/ready").text,
        "not ready:\nthe configuration has no Gateway for this waypoint\n"
    );
    state.readiness.remove(NotReady::NoGateway);
    let ready = ask(&state, Surface::Ready, "GET", "/healthz/ready");
    assert_eq!((ready.status, &*ready.text), (StatusCode::OK, "ready\n"));
    state.readiness.add(NotReady::Draining);
    assert_eq!(
        ask(&state, Surface::Ready, "HEAD", "/healthz/ready").status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[test]
fn each_address_serves_its_own_pages_and_names_them_otherwise() {
    let state = Arc::new(state());
    let status = |surface, method, target| ask(&state, surface, method, target).status.as_u16();
    for target in ["/metrics", "/stats/prometheus"] {
        assert_eq!(status(Surface::Metrics, "GET", target), 200);
        assert_eq!(status(Surface::Admin, "GET", target), 200);
        assert_eq!(status(Surface::Ready, "GET", target), 404);
    }
    for target in ["/config_dump", "/clusters"] {
        assert_eq!(status(Surface::Admin, "GET", target), 200);
        assert_eq!(status(Surface::Metrics, "GET", target), 404);
        assert_eq!(status(Surface::Ready, "GET", target), 404);
    }
    assert_eq!(status(Surface::Metrics, "POST", "/quitquitquit"), 404);
    assert_eq!(status(Surface::Admin, "GET", "/quitquitquit"), 405);
    assert_eq!(status(Surface::Admin, "POST", "/metrics"), 405);
    assert_eq!(status(Surface::Admin, "GET", "/help"), 200);

    let unknown = ask(&state, Surface::Ready, "GET", "/nothing");
    assert_eq!(
        unknown.text,
        "no such page; there are:\n  GET  /healthz/ready: 200 when ready, else 503 and the reasons\n  GET  /acknowledged: which generation of each object is in force, as JSON; 503 before the first\n  GET  /help, /: this list\n"
    );
}

#[test]
fn metrics_are_prometheus_text() {
    let state = Arc::new(state());
    let seen = ask(&state, Surface::Metrics, "GET", "/metrics");
    assert!(seen.content_type.starts_with("text/plain; version=0.0.4"));
    assert!(
        seen.text
            .contains("\n# TYPE cairn_policy_verdicts_total counter\n")
    );
}

#[test]
fn the_dump_tells_of_a_failed_reload_and_what_was_kept() {
    let state = Arc::new(state());
    assert!(ask(&state, Surface::Admin, "GET", "/config_dump").json()["last_reload"].is_null());
    state.last_reload.store(Some(Arc::new(Reload {
        at: UNIX_EPOCH + Duration::from_millis(1_500),
        took: Duration::from_millis(12),
        outcome: Err("no such folder".to_owned()),
    })));
    let dump = ask(&state, Surface::Admin, "GET", "/config_dump").json();
    assert_eq!(
        dump["last_reload"],
        serde_json::json!({
            "at": "1970-01-01T00:00:01.500Z",
            "duration_ms": 12,
            "result": "failure",
            "error": "no such folder",
        })
    );
    assert_eq!(dump["snapshot"], 4);
    assert_eq!(dump["kept_last_good"][0]["message"], "kept as it was");
    assert_eq!(dump["kept_last_good"].as_array().unwrap().len(), 1);
    assert_eq!(dump["diagnostics"].as_array().unwrap().len(), 2);
    assert_eq!(dump["mesh"]["trust_domain"], "cluster.local");
    assert_eq!(
        dump["services"][0]["hostname"],
        "web.shop.svc.cluster.local"
    );
    assert_eq!(
        dump["workloads"].as_array().unwrap().len(),
        1,
        "once, not once per address"
    );
    assert_eq!(dump["clusters"][0]["cluster"], "shop/web:80");
}

#[test]
fn clusters_show_endpoints_and_what_they_do() {
    let mut clusters = ask(&Arc::new(state()), Surface::Admin, "GET", "/clusters").json();
    let settings = clusters[0].as_object_mut().unwrap().remove("settings");
    assert_eq!(settings.unwrap()["limits"]["requests_max"], 1);
    assert_eq!(
        clusters,
        serde_json::json!([
            {
                "cluster": "shop/web:80",
                "hostname": "web.shop.svc.cluster.local",
                "limits": {"requests": {"taken": 1, "max": 1, "overflows": 1}},
                "endpoints": [{
                    "address": "10.0.0.9:8080",
                    "pod": "shop/web-1",
                    "workload": "web",
                    "hbone_identity": "spiffe://cluster.local/ns/shop/sa/web",
                    "active_requests": 7,
                    "ejected": {"since_s": 0, "times": 1},
                }],
            },
            {
                "cluster": "shop/web:81",
                "hostname": "web.shop.svc.cluster.local",
                "endpoints": [{
                    "address": "10.0.0.9:8080",
                    "pod": null,
                    "workload": null,
                    "hbone_identity": null,
                    "active_requests": null,
                }],
            },
        ])
    );
}

#[test]
fn a_scrape_shows_ejections_and_limits_of_destinations_that_have_them() {
    let text = ask(&Arc::new(state()), Surface::Metrics, "GET", "/metrics").text;
    for line in [
        "cairn_endpoints_ejected{destination=\"shop/web:80\"} 1",
        "cairn_endpoint_ejections_total{destination=\"shop/web:80\",cause=\"consecutive_5xx\"} 1",
        "cairn_endpoint_ejections_total{destination=\"shop/web:80\",cause=\"success_rate\"} 0",
        "cairn_destination_limit_taken{destination=\"shop/web:80\",limit=\"requests\"} 1",
        "cairn_destination_limit_max{destination=\"shop/web:80\",limit=\"requests\"} 1",
        "cairn_destination_limit_overflows_total{destination=\"shop/web:80\",limit=\"requests\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(!text.contains("shop/web:81"), "nothing is limited there");
}
