//! What telemetry takes from the heap for a request: nothing for tracing where it is not sampled, nothing for
//! metrics where its label set is known.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use cairn_authz::Verdict;
use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::Endpoint;
use cairn_waypoint::telemetry::exchange::{Exchange, HttpExchange, Peer, StreamOrigin};
use cairn_waypoint::telemetry::metrics::Shard;
use cairn_waypoint::telemetry::series::Registry;
use cairn_waypoint::telemetry::trace::Trace;
use cairn_waypoint::telemetry::trace::propagate::Propagation;
use cairn_waypoint::telemetry::trace::recording::What;
use cairn_waypoint::telemetry::trace::sampler::Sampler;
use cairn_waypoint::telemetry::trace::settings::{Receiver, Tag, TagValue, Tracing};
use http::{HeaderMap, HeaderValue, StatusCode};

/// Everything a request does with its trace while it runs.
fn run(headers: &HeaderMap, tracing: &Arc<Tracing>, endpoint: &Endpoint) -> Trace {
    let mut trace = Trace::begin(headers, tracing, || 7);
    trace.event(|| What::Verdict);
    trace.begin_attempt(endpoint, || 8);
    trace.note_attempt(|attempt| attempt.url = Some("http://web.shop/a".into()));
    trace.event(|| What::Retry {
        cause: "reset",
        wait: Duration::from_millis(25),
    });
    trace.end_attempt(|attempt| attempt.fail("reset", "connection reset"));
    trace
}

fn tracing(share: f64) -> Arc<Tracing> {
    Arc::new(Tracing {
        sampler: Sampler::parent_or(share),
        propagation: Propagation::default(),
        tags: vec![Tag {
            name: "user".into(),
            value: TagValue::Header {
                name: http::header::USER_AGENT,
                default: Some("nobody".into()),
            },
        }],
        reports: true,
        istio_tags: true,
        receiver: Receiver::Environment,
    })
}

#[test]
fn a_request_that_is_not_sampled_allocates_nothing_for_tracing() {
    let endpoint = Endpoint::new("10.0.0.9:8080".parse().unwrap(), None);
    let mut decided = HeaderMap::new();
    let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    decided.insert("traceparent", HeaderValue::from_static(unsampled));
    let undecided = HeaderMap::new();
    let (never, always) = (tracing(0.0), tracing(1.0));
    for (what, headers, tracing) in [
        ("by its client", &decided, &always),
        ("by the ratio", &undecided, &never),
    ] {
        let taken = measure(|| drop(run(headers, tracing, &endpoint)));
        assert_eq!(taken.count_total, 0, "not sampled {what}");
    }
    let taken = measure(|| drop(run(&undecided, &always, &endpoint)));
    assert!(taken.count_total > 0, "what is sampled is noted");
}

#[test]
fn a_request_of_a_known_label_set_allocates_nothing_for_metrics() {
    let identity = Identity::of_workload("cluster.local", "shop", "web").unwrap();
    let mut exchange = Exchange::begin(Arc::new(StreamOrigin {
        peer: Arc::new(Peer {
            identity,
            address: "10.0.0.7:41000".parse().unwrap(),
        }),
        tunnel_authority: "10.96.1.2:80".into(),
        baggage: None,
        destination: "10.96.1.2:80".parse().unwrap(),
        pod: None,
    }));
    exchange.verdict = Some(Verdict {
        allowed: true,
        ..Verdict::default()
    });
    exchange.http = Some(HttpExchange {
        status: Some(StatusCode::OK),
        ..HttpExchange::default()
    });
    let mut shard = Shard::new(Arc::new(Registry::new(100, "Kubernetes")));
    shard.record(&exchange, Duration::from_millis(1));
    let taken = measure(|| shard.record(&exchange, Duration::from_millis(1)));
    assert_eq!(taken.count_total, 0);
    // After it let go of everything it has to look again, and finds the same counts.
    shard.let_go();
    shard.record(&exchange, Duration::from_millis(1));
    let taken = measure(|| shard.record(&exchange, Duration::from_millis(1)));
    assert_eq!(taken.count_total, 0);
}
