//! The sharded, number-keyed metrics against the plainest thing that could work: a map from the text
//! of a label set to a count.

use std::collections::BTreeMap;

use cairn_config_schema::snapshot::Workload;
use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::limits::METRIC_BAGGAGE_CLIENTS_MAX;
use crate::telemetry::exchange::StreamOrigin;
use crate::telemetry::exposition::Exposition;
use crate::telemetry::fixtures;
use crate::telemetry::names::BUCKETS;

const BAGGAGE: [Option<&str>; 3] = [
    None,
    Some("k8s.deployment.name=far,service.name=far-svc,k8s.cluster.name=c2,k8s.namespace.name=lie"),
    Some("unheard-of=1"),
];
const STATUS: [Option<u16>; 4] = [None, Some(200), Some(403), Some(503)];
const FLAGS: [&str; 3] = ["", "UH", "NR"];
const NAMES: [&str; 3] = ["web", "api", "db"];

/// One request, by indices into what the test has.
#[derive(Clone, Debug)]
struct Request {
    thread: usize,
    client: usize,
    source: Option<usize>,
    baggage: usize,
    endpoint: Option<usize>,
    service: Option<usize>,
    status: usize,
    grpc: Option<Option<u32>>,
    flags: usize,
    micros: u64,
    bytes: u64,
    /// The configuration changes before it: every object is a new one.
    reload: bool,
    /// This thread lets go of all its series before it, and somebody looks for idle ones.
    lets_go: Option<usize>,
}

prop_compose! {
    fn request()(
        (thread, client, baggage, status, flags) in (0..3usize, 0..3usize, 0..3usize, 0..4usize, 0..3usize),
        (source, endpoint, service) in (any_of_three(), any_of_three(), any_of_three()),
        grpc in proptest::option::of(proptest::option::of(0..20u32)),
        micros in 0..8_000_000_000u64,
        bytes in 0..10_000_000u64,
        reload in proptest::bool::weighted(0.2),
        lets_go in proptest::option::weighted(0.3, 0..3usize),
    ) -> Request {
        Request { lets_go, thread, client, source, baggage, endpoint, service, status, grpc, flags, micros, bytes, reload }
    }
}

fn any_of_three() -> impl Strategy<Value = Option<usize>> {
    proptest::option::weighted(0.7, 0..3usize)
}

/// The objects of one configuration.
struct World {
    version: u64,
    origins: Vec<Arc<StreamOrigin>>,
    workloads: Vec<Arc<Workload>>,
    services: Vec<Arc<Service>>,
}

impl World {
    fn new(version: u64) -> Self {
        let origin =
            |n: usize| fixtures::origin(NAMES[n / BAGGAGE.len()], BAGGAGE[n % BAGGAGE.len()]);
        Self {
            version,
            origins: (0..NAMES.len() * BAGGAGE.len()).map(origin).collect(),
            workloads: NAMES.iter().map(|n| fixtures::workload(n, "v1")).collect(),
            services: NAMES.iter().map(|n| fixtures::service(n)).collect(),
        }
    }

    fn exchange(&self, request: &Request) -> Exchange {
        let mut exchange = fixtures::http();
        exchange.origin = self.origins[request.client * BAGGAGE.len() + request.baggage].clone();
        exchange.source = request.source.map(|n| self.workloads[n].clone());
        let workload = |n: usize| self.workloads[n].clone();
        exchange.endpoint = request
            .endpoint
            .map(|n| fixtures::endpoint(Some(workload(n))));
        exchange.service = request.service.map(|n| self.services[n].clone());
        exchange.flags = FLAGS[request.flags];
        exchange.bytes_received = request.bytes;
        exchange.bytes_sent = request.bytes / 2;
        exchange.snapshot = self.version;
        let http = exchange.http.as_mut().unwrap();
        http.status = STATUS[request.status].map(|s| StatusCode::from_u16(s).unwrap());
        http.grpc = request.grpc.is_some();
        http.grpc_status = request.grpc.flatten();
        exchange
    }
}

/// The oracle: sample lines with their values.
#[derive(Default)]
struct Plain(BTreeMap<String, f64>);

impl Plain {
    fn add(&mut self, series: String, value: f64) {
        *self.0.entry(series).or_default() += value;
    }

    fn record(&mut self, request: &Request) {
        let labels = plain_labels(request);
        self.add(format!("istio_requests_total{{{labels}}}"), 1.0);
        let received = request.bytes + 100;
        let sent = request.bytes / 2 + 200;
        for (name, value, sum) in [
            (
                "istio_request_duration_milliseconds",
                request.micros as f64 / 1e3,
                request.micros as f64 / 1e3,
            ),
            ("istio_request_bytes", received as f64, received as f64),
            ("istio_response_bytes", sent as f64, sent as f64),
        ] {
            for bound in BUCKETS {
                let inside = if value <= bound { 1.0 } else { 0.0 };
                self.add(format!("{name}_bucket{{{labels},le=\"{bound}\"}}"), inside);
            }
            self.add(format!("{name}_bucket{{{labels},le=\"+Inf\"}}"), 1.0);
            self.add(format!("{name}_sum{{{labels}}}"), sum);
            self.add(format!("{name}_count{{{labels}}}"), 1.0);
        }
    }
}

fn plain_labels(request: &Request) -> String {
    let client = NAMES[request.client];
    let known = request.source.map(|n| NAMES[n]) == Some(client);
    let canonical = format!("{client}-canonical");
    let source = match (known, request.baggage) {
        (true, _) => [client, &canonical, "v1", client, "v1", "Kubernetes"],
        (false, 1) => ["far", "far-svc", "latest", "unknown", "unknown", "c2"],
        (false, _) => [
            "unknown", "unknown", "latest", "unknown", "unknown", "unknown",
        ],
    };
    let [workload, service, revision, app, version, cluster] = source;
    let mut labels = format!(
        "reporter=\"waypoint\",source_workload=\"{workload}\",source_canonical_service=\"{service}\",source_canonical_revision=\"{revision}\",source_workload_namespace=\"shop\",source_principal=\"spiffe://cluster.local/ns/shop/sa/{client}\",source_app=\"{app}\",source_version=\"{version}\",source_cluster=\"{cluster}\","
    );
    let endpoint = request.endpoint.map(|n| NAMES[n]);
    let of_endpoint = |text: &str| endpoint.map_or("unknown".to_owned(), |e| text.replace('*', e));
    let service = request.service.map(|n| NAMES[n]);
    let of_service = |text: &str| service.map_or("unknown".to_owned(), |s| text.replace('*', s));
    for (label, value) in [
        ("destination_workload", of_endpoint("*")),
        ("destination_workload_namespace", of_endpoint("shop")),
        (
            "destination_principal",
            of_endpoint("spiffe://cluster.local/ns/shop/sa/*"),
        ),
        ("destination_app", of_endpoint("*")),
        ("destination_version", of_endpoint("v1")),
        (
            "destination_service",
            of_service("*.default.svc.cluster.local"),
        ),
        ("destination_canonical_service", of_endpoint("*-canonical")),
        ("destination_canonical_revision", of_endpoint("v1")),
        ("destination_service_name", of_service("*")),
        ("destination_service_namespace", of_service("default")),
        ("destination_cluster", of_endpoint("Kubernetes")),
    ] {
        labels += &format!("{label}=\"{value}\",");
    }
    let protocol = if request.grpc.is_some() {
        "grpc"
    } else {
        "http"
    };
    let status = STATUS[request.status].unwrap_or(0);
    let grpc = match request.grpc.flatten() {
        Some(code) if code > 16 => "2".to_owned(),
        Some(code) => code.to_string(),
        None => String::new(),
    };
    let flags = ["-", "UH", "NR"][request.flags];
    labels
        + &format!(
            "request_protocol=\"{protocol}\",response_code=\"{status}\",grpc_response_status=\"{grpc}\",response_flags=\"{flags}\",connection_security_policy=\"mutual_tls\""
        )
}

fn scrape(registry: &Arc<Registry>) -> BTreeMap<String, f64> {
    let text: Vec<_> = Exposition::of_series(registry.clone()).flatten().collect();
    let text = String::from_utf8(text).unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn shards_count_as_a_plain_map_does_and_never_backwards(
        requests in proptest::collection::vec(request(), 1..40)
    ) {
        let registry = Arc::new(Registry::new(1_000, "Kubernetes"));
        let mut shards: Vec<_> = (0..3).map(|_| Shard::new(registry.clone())).collect();
        let (mut plain, mut world) = (Plain::default(), World::new(1));
        let mut before = BTreeMap::new();
        for (n, request) in requests.iter().enumerate() {
            if request.reload {
                world = World::new(world.version + 1);
            }
            if let Some(thread) = request.lets_go {
                shards[thread].let_go();
                // Less than a second passes in this test.
                let (now, idle) = (Instant::now(), Duration::from_secs(3_600));
                registry.forget(now, idle);
                registry.forget_policies(now, idle, &FxHashSet::default());
            }
            let elapsed = Duration::from_micros(request.micros);
            shards[request.thread].record(&world.exchange(request), elapsed);
            plain.record(request);
            if n % 8 == 0 {
                let now = scrape(&registry);
                for (series, value) in &before {
                    prop_assert!(now.get(series) >= Some(value), "{series} went backwards");
                }
                before = now;
            }
        }
        let counted = scrape(&registry);
        prop_assert_eq!(counted.keys().collect::<Vec<_>>(), plain.0.keys().collect::<Vec<_>>());
        for (series, value) in &plain.0 {
            // Sums of milliseconds are added in another order.
            let close = (counted[series] - value).abs() <= value.abs() * 1e-9;
            prop_assert!(close, "{} is {}, not {}", series, counted[series], value);
        }
    }
}

/// What a registry holds of label sets and labels, `unknown` and `other` among the latter.
fn held(registry: &Registry) -> [usize; 4] {
    [
        registry.http.rows(0, 100).0.len(),
        registry.sources.count(),
        registry.destinations.count(),
        registry.services.count(),
    ]
}

#[test]
fn an_idle_label_set_goes_with_its_labels_and_one_in_use_keeps_its_count() {
    let registry = Arc::new(Registry::new(100, "Kubernetes"));
    let mut shards = [Shard::new(registry.clone()), Shard::new(registry.clone())];
    let (began, idle) = (Instant::now(), Duration::from_secs(60));
    let at = |seconds| began + Duration::from_secs(seconds);
    let client = |name: &str, baggage| {
        let mut exchange = fixtures::http();
        exchange.source = None;
        exchange.origin = fixtures::origin(name, baggage);
        exchange
    };
    let (gone, stays) = (client("gone", BAGGAGE[1]), client("stays", None));
    for shard in &mut shards {
        shard.record(&gone, Duration::ZERO);
        shard.record(&stays, Duration::ZERO);
    }
    assert_eq!(held(&registry), [2, 4, 3, 3]);
    for minute in 0..10 {
        // One thread does not look at its series for a while, and they are as good as in use.
        shards[0].let_go();
        shards[0].record(&stays, Duration::ZERO);
        registry.forget(at(minute * 60), idle);
    }
    assert_eq!(held(&registry), [2, 4, 3, 3], "the other thread holds it");
    for minute in 10..14 {
        shards.iter_mut().for_each(Shard::let_go);
        shards[1].record(&stays, Duration::ZERO);
        registry.forget(at(minute * 60), idle);
    }
    assert_eq!(held(&registry), [1, 3, 3, 3]);
    assert_eq!(registry.expired.value(), 2, "Hubble's, too");
    assert!(registry.baggage_clients.lock().unwrap().is_empty());
    let requests = |registry: &Arc<Registry>| -> Vec<f64> {
        let counted = scrape(registry).into_iter();
        let requests = counted.filter(|(s, _)| s.starts_with("istio_requests_total"));
        requests.map(|(_, n)| n).collect()
    };
    assert_eq!(requests(&registry), [16.0], "2, then 10, then 4");
    shards[0].record(&gone, Duration::ZERO);
    assert_eq!(requests(&registry), [1.0, 16.0], "it begins anew");
}

#[test]
fn the_label_sets_that_did_not_fit_get_a_series_once_there_is_room() {
    let registry = Arc::new(Registry::new(1, "Kubernetes"));
    let mut shard = Shard::new(registry.clone());
    let status = |code: u16| {
        let mut exchange = fixtures::http();
        exchange.http.as_mut().unwrap().status = StatusCode::from_u16(code).ok();
        exchange
    };
    shard.record(&status(200), Duration::ZERO);
    shard.record(&status(201), Duration::ZERO);
    assert_eq!(registry.overflow.value(), 1);
    shard.let_go();
    let began = Instant::now();
    for second in 0..2 {
        registry.forget(began + Duration::from_secs(second), Duration::from_secs(1));
    }
    shard.record(&status(201), Duration::ZERO);
    assert_eq!(registry.overflow.value(), 1, "it has one of its own");
}

#[test]
fn too_many_label_sets_share_one_series_and_nothing_is_lost() {
    let registry = Arc::new(Registry::new(2, "Kubernetes"));
    let mut shards = [Shard::new(registry.clone()), Shard::new(registry.clone())];
    for n in 0..10 {
        for shard in &mut shards {
            let mut exchange = fixtures::http();
            let status = StatusCode::from_u16(200 + n % 5).unwrap();
            exchange.http.as_mut().unwrap().status = Some(status);
            shard.record(&exchange, Duration::ZERO);
        }
    }
    let counted = scrape(&registry);
    let requests: Vec<_> = counted
        .iter()
        .filter(|(s, _)| s.starts_with("istio_requests_total"))
        .collect();
    assert_eq!(requests.len(), 3, "two label sets, and the rest together");
    assert_eq!(requests.iter().map(|(_, n)| **n).sum::<f64>(), 20.0);
    let (_, other) = requests
        .iter()
        .find(|(s, _)| {
            s.contains("destination_service=\"other\"") && s.contains("response_code=\"other\"")
        })
        .unwrap();
    assert_eq!(**other, 12.0);
    assert_eq!(registry.overflow.value(), 12);
    for shard in &shards {
        // 202, 203 and 204 do not fit, and of those no more than the limit is remembered.
        assert_eq!((shard.http.len(), shard.overflowed.len()), (2, 2));
    }
    let (rows, _) = registry.http.rows(2, 1);
    assert_eq!(rows[0].1.len(), 2, "one part of `other` per thread");
}

#[test]
fn made_up_names_in_baggage_are_taken_only_so_often() {
    let registry = Arc::new(Registry::new(METRIC_SERIES_MAX, "Kubernetes"));
    let mut shard = Shard::new(registry.clone());
    for n in 0..METRIC_BAGGAGE_CLIENTS_MAX + 5 {
        let mut exchange = fixtures::http();
        exchange.source = None;
        let mut origin = Arc::into_inner(fixtures::origin("web", None)).unwrap();
        origin.baggage = Some(format!("service.name=made-up-{n}").parse().unwrap());
        exchange.origin = Arc::new(origin);
        shard.record(&exchange, Duration::ZERO);
    }
    let counted = scrape(&registry);
    let requests: Vec<_> = counted
        .iter()
        .filter(|(s, _)| s.starts_with("istio_requests_total"))
        .collect();
    assert_eq!(requests.len(), METRIC_BAGGAGE_CLIENTS_MAX + 1);
    let unnamed = requests
        .iter()
        .find(|(s, _)| s.contains("source_canonical_service=\"unknown\""));
    assert_eq!(unnamed.map(|(_, n)| **n), Some(5.0));
    assert_eq!(registry.baggage_overflow.value(), 5);
}

#[test]
fn the_old_configuration_is_let_go_once_a_new_one_is_seen() {
    let mut shard = Shard::new(Arc::new(Registry::new(10, "Kubernetes")));
    let mut old = fixtures::http();
    old.snapshot = 1;
    shard.record(&old, Duration::ZERO);
    let service = Arc::downgrade(old.service.as_ref().unwrap());
    drop(old);
    assert!(service.upgrade().is_some());
    let mut new = fixtures::http();
    new.snapshot = 2;
    shard.record(&new, Duration::ZERO);
    assert!(service.upgrade().is_none());
}

/// specs/policies.md 3.5: one for each answer, by workloads and status.
#[test]
fn hubbles_metrics_have_the_labels_of_its_dashboard() {
    let registry = Arc::new(Registry::new(10, "Kubernetes"));
    let mut shard = Shard::new(registry.clone());
    let mut unanswered = fixtures::http();
    unanswered.http.as_mut().unwrap().status = None;
    shard.record(&unanswered, Duration::from_millis(7));
    let mut odd = fixtures::http();
    odd.http.as_mut().unwrap().method = http::Method::from_bytes(b"BREW").unwrap();
    shard.record(&fixtures::http(), Duration::from_millis(7));
    shard.record(&odd, Duration::from_millis(7));
    let bytes: Vec<u8> = Exposition::new(registry).flatten().collect();
    let text = String::from_utf8(bytes).unwrap();
    let labels = |method: &str| {
        format!(
            "{{cluster=\"Kubernetes\",reporter=\"server\",method=\"{method}\",status=\"200\",\
             source_namespace=\"shop\",source_workload=\"web\",destination_namespace=\"shop\",\
             destination_workload=\"httpbin\""
        )
    };
    for method in ["GET", "other"] {
        let of = labels(method);
        assert!(
            text.contains(&format!("hubble_http_requests_total{of}}} 1\n")),
            "{text}"
        );
        let bucket = format!("hubble_http_request_duration_seconds_bucket{of},le=\"0.01\"}} 1\n");
        assert!(text.contains(&bucket), "{text}");
    }
    assert_eq!(
        text.matches("\nhubble_http_requests_total{").count(),
        2,
        "the unanswered one is in none"
    );
}

#[test]
fn messages_are_counted_of_grpc_alone() {
    let registry = Arc::new(Registry::new(10, "Kubernetes"));
    let mut shard = Shard::new(registry.clone());
    let mut call = fixtures::http();
    let http = call.http.as_mut().unwrap();
    (http.grpc, http.messages) = (true, (1, 3));
    shard.record(&call, Duration::from_millis(7));
    shard.record(&fixtures::http(), Duration::from_millis(7));
    let bytes: Vec<u8> = Exposition::of_series(registry).flatten().collect();
    let text = String::from_utf8(bytes).unwrap();
    let of = |name: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(str::to_owned).collect()
    };
    let sent = of("istio_request_messages_total{");
    assert!(
        sent.len() == 1 && sent[0].contains("request_protocol=\"grpc\"") && sent[0].ends_with(" 1")
    );
    assert!(of("istio_response_messages_total{")[0].ends_with(" 3"));
}
