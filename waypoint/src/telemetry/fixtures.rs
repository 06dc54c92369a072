//! Exchanges for tests: one client, one service, one endpoint, to be changed as a test needs.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use cairn_authz::{Audited, DryRun, NetworkVerdict, NetworkWhy, TrialOutcome, Verdict, Would};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    Action, AppProtocol, Binding, Endpoint, HttpRoute, Policy, Service, ServicePort, Workload,
    WorkloadType,
};
use http::{HeaderValue, Method, StatusCode};

use super::exchange::{Exchange, HttpExchange, Peer, StreamOrigin};

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn origin(service_account: &str, baggage: Option<&'static str>) -> Arc<StreamOrigin> {
    Arc::new(StreamOrigin {
        peer: Arc::new(Peer {
            identity: Identity::of_workload("cluster.local", "shop", service_account).unwrap(),
            address: address("10.0.0.7:41000"),
        }),
        tunnel_authority: "10.96.1.2:8000".into(),
        baggage: baggage.map(HeaderValue::from_static),
        destination: address("10.96.1.2:8000"),
        pod: None,
    })
}

/// A pod of a Deployment in `shop` whose service account is its name.
pub fn workload(name: &str, version: &str) -> Arc<Workload> {
    Arc::new(Workload {
        key: ObjectKey::new("shop", format!("{name}-5d4f-x")),
        addresses: vec![address("10.0.0.1:0").ip()],
        identity: Identity::of_workload("cluster.local", "shop", name).unwrap(),
        hbone: true,
        workload_name: name.into(),
        workload_type: WorkloadType::Deployment,
        canonical_name: format!("{name}-canonical").into(),
        canonical_revision: version.into(),
        app: name.into(),
        version: version.into(),
        node: "".into(),
        labels: Default::default(),
        namespace_labels: None,
        host_network: false,
        behind_gateway: false,
        named_ports: Default::default(),
        binding: Binding::Unbound,
    })
}

pub fn service(name: &str) -> Arc<Service> {
    Arc::new(Service {
        key: ObjectKey::new("default", name),
        origin: Origin {
            kind: Kind::Service,
            key: ObjectKey::new("default", name),
        },
        hostname: format!("{name}.default.svc.cluster.local").into(),
        addresses: vec![address("10.96.1.2:0").ip()],
        blocks: vec![],
        exported_to: None,
        alt_names: vec![],
        ports: vec![ServicePort {
            number: 8000,
            name: "http".into(),
            protocol: AppProtocol::Http,
            routes: vec![],
            stream_routes: vec![],
        }],
        binding: Binding::Served,
        policies: vec![],
        redirect_failure: Default::default(),
    })
}

pub fn endpoint(workload: Option<Arc<Workload>>) -> Endpoint {
    Endpoint::new(address("10.0.0.9:8080"), workload)
}

/// `GET /a?b=1` from `web` to `httpbin`, answered with 200.
pub fn http() -> Exchange {
    let mut exchange = tcp();
    exchange.http = Some(HttpExchange {
        method: Method::GET,
        path: "/a?b=1".into(),
        protocol: "HTTP/1.1",
        authority: "httpbin:8000".into(),
        user_agent: Some(HeaderValue::from_static("curl/8")),
        request_id: Some(HeaderValue::from_static("id-1")),
        status: Some(StatusCode::OK),
        upstream_service_time: Some(Duration::from_millis(4)),
        request_header_bytes: 100,
        response_header_bytes: 200,
        ..HttpExchange::default()
    });
    exchange.details = "via_upstream".into();
    exchange
}

/// A stream from `web` to `httpbin`, 10 bytes received, 20 sent.
pub fn tcp() -> Exchange {
    let mut exchange = Exchange::begin(origin("web", None));
    exchange.started_at = UNIX_EPOCH + Duration::from_millis(1_793_795_696_789);
    exchange.source = Some(workload("web", "v1"));
    exchange.service = Some(service("httpbin"));
    exchange.endpoint = Some(endpoint(Some(workload("httpbin", "v2"))));
    exchange.attempts = 1;
    exchange.bytes_received = 10;
    exchange.bytes_sent = 20;
    exchange.snapshot = 3;
    exchange.verdict = Some(Verdict {
        allowed: true,
        ..Verdict::default()
    });
    exchange
}

pub fn policy(name: &str, action: Action) -> Arc<Policy> {
    Arc::new(Policy {
        origin: Origin {
            kind: Kind::AuthorizationPolicy,
            key: ObjectKey::new("default", name),
        },
        action,
        dry_run: false,
        provider: None,
        rules: vec![],
        broken: None,
    })
}

/// Denied by the first rule of `no-writes`; a dry-run policy would have allowed it.
pub fn denied() -> Verdict {
    Verdict {
        allowed: false,
        policy: Some(policy("no-writes", Action::Deny)),
        rule: Some(0),
        audit: vec![Audited {
            policy: policy("watch", Action::Audit),
            rule: Some(1),
        }],
        dry_run: Some(Box::new(DryRun {
            verdict: Verdict {
                allowed: true,
                policy: Some(policy("readers", Action::Allow)),
                rule: Some(1),
                ..Verdict::default()
            },
            refused: None,
            outcomes: vec![TrialOutcome {
                policy: policy("readers", Action::Allow).origin.clone(),
                rule: Some(1),
                would: Would::Allow,
            }],
        })),
        ..Verdict::default()
    }
}

/// Makes an exchange another one.
pub type Change = fn(&mut Exchange);

/// Of all exchanges that are changed, as objects are of all requests in a snapshot: what differs then is the rule alone.
static ROUTE: LazyLock<Arc<HttpRoute>> = LazyLock::new(|| route("r"));
static READERS: LazyLock<Arc<Policy>> = LazyLock::new(|| policy("readers", Action::Allow));

/// Each makes what is told of a request another one, by one thing alone.
pub const CHANGES: &[Change] = &[
    |_| {},
    |e| e.http.as_mut().unwrap().method = Method::POST,
    |e| e.http.as_mut().unwrap().method = "BREW".parse().unwrap(),
    |e| e.http.as_mut().unwrap().path = "/b".into(),
    |e| e.http.as_mut().unwrap().path = String::new(),
    |e| e.http.as_mut().unwrap().authority = "other".into(),
    |e| e.http.as_mut().unwrap().protocol = "HTTP/2",
    |e| e.http.as_mut().unwrap().status = Some(StatusCode::NOT_FOUND),
    |e| e.http.as_mut().unwrap().status = Some(StatusCode::BAD_GATEWAY),
    |e| e.http.as_mut().unwrap().status = None,
    |e| e.http.as_mut().unwrap().request_id = None,
    |e| e.http.as_mut().unwrap().upstream_service_time = None,
    |e| {
        (
            e.http.as_mut().unwrap().grpc,
            e.http.as_mut().unwrap().grpc_status,
        ) = (true, Some(5))
    },
    |e| e.flags = "UF",
    |e| e.details = "direct_response".into(),
    |e| e.details = String::from("via_upstream: of its own").into(),
    |e| e.reason = Some("a reason".into()),
    |e| e.upstream_failure = Some("refused".into()),
    |e| e.server_name = Some("name".into()),
    |e| e.attempts = 2,
    |e| e.retry_denied = Some("budget"),
    |e| e.snapshot = 4,
    |e| e.snapshot = 2,
    |e| (e.bytes_sent, e.bytes_received) = (2_000, 1_000),
    |e| e.service = Some(service("other")),
    |e| e.service = None,
    |e| e.service_port = 8_001,
    |e| e.endpoint = Some(endpoint(Some(workload("other", "v2")))),
    |e| e.endpoint = Some(endpoint(None)),
    |e| e.endpoint.as_mut().unwrap().address = address("10.0.0.10:8080"),
    |e| e.endpoint = None,
    |e| e.upstream_local = Some(address("10.0.0.1:40000")),
    |e| e.source = Some(workload("web", "v9")),
    |e| e.source = Some(workload("not-the-certificates", "v1")),
    |e| e.source = None,
    |e| e.origin = origin("other", None),
    |e| e.route = Some((ROUTE.clone(), 0)),
    |e| e.route = Some((ROUTE.clone(), 1)),
    |e| e.route = Some((route("other"), 0)),
    |e| e.verdict = None,
    |e| e.verdict = Some(denied()),
    |e| e.verdict.as_mut().unwrap().allowed = false,
    |e| e.verdict.as_mut().unwrap().policy = Some(READERS.clone()),
    |e| e.verdict.as_mut().unwrap().policy = Some(policy("others", Action::Allow)),
    |e| e.verdict.as_mut().unwrap().audit = denied().audit,
    |e| e.verdict.as_mut().unwrap().dry_run = denied().dry_run,
    |e| {
        let verdict = e.verdict.as_mut().unwrap();
        (verdict.policy, verdict.rule) = (Some(READERS.clone()), Some(1));
    },
    |e| {
        let verdict = e.verdict.as_mut().unwrap();
        (verdict.policy, verdict.rule) = (Some(READERS.clone()), Some(1));
        verdict.network = Some(denied_by_network());
    },
];

/// By default, so that the policy that allowed it is no longer what decided.
fn denied_by_network() -> NetworkVerdict {
    NetworkVerdict {
        allowed: false,
        why: NetworkWhy::NoRule,
        policy: None,
        at: None,
        workload: ObjectKey::new("shop", "httpbin"),
        edits: vec![],
    }
}

/// Without rules.
pub fn route(name: &str) -> Arc<HttpRoute> {
    Arc::new(HttpRoute {
        origin: Origin {
            kind: Kind::HTTPRoute,
            key: ObjectKey::new("default", name),
        },
        created_s: None,
        rules: vec![],
        broken: false,
    })
}
