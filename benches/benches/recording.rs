//! What the one exit costs a request: metrics alone, with the access log, with a flow record, and all of it
//! (issue 6 item 1: under a microsecond for metrics).

#![allow(clippy::unwrap_used)] // a panic is a benchmark that measures nothing

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cairn_authz::Verdict;
use cairn_config_schema::identity::Identity;
use cairn_waypoint::telemetry::exchange::{
    Exchange, Headers, HttpExchange, Peer, Seen, StreamOrigin,
};
use cairn_waypoint::telemetry::flow::{Record, Ring};
use cairn_waypoint::telemetry::{access_log, metrics};
use divan::{Bencher, black_box};
use http::{HeaderValue, StatusCode};

const ELAPSED: Duration = Duration::from_micros(700);

fn main() {
    // Lines are gathered and thrown away by their own thread, as if stdout were fast.
    let _writer = access_log::start(Box::new(std::io::sink())).unwrap();
    divan::main();
}

fn origin() -> Arc<StreamOrigin> {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    Arc::new(StreamOrigin {
        peer: Arc::new(Peer {
            identity: Identity::of_workload("cluster.local", "bench", "client").unwrap(),
            address: address("10.0.0.7:41000"),
        }),
        tunnel_authority: "10.96.1.2:80".into(),
        baggage: None,
        destination: address("10.96.1.2:80"),
        pod: None,
    })
}

/// A GET that was allowed and answered.
fn exchange(origin: &Arc<StreamOrigin>) -> Exchange {
    let mut exchange = Exchange::begin(origin.clone());
    exchange.http = Some(HttpExchange {
        path: "/items/42?page=2".into(),
        protocol: "HTTP/2",
        authority: "web.bench".into(),
        user_agent: Some(HeaderValue::from_static("bench/1")),
        request_id: Some(HeaderValue::from_static(
            "666f6ca3-85f6-4255-9caa-1efb0403ff41",
        )),
        status: Some(StatusCode::OK),
        request_header_bytes: 200,
        response_header_bytes: 150,
        ..HttpExchange::default()
    });
    exchange.verdict = Some(Verdict {
        allowed: true,
        ..Verdict::default()
    });
    exchange.details = "via_upstream".into();
    exchange.bytes_sent = 1_024;
    exchange.attempts = 1;
    exchange.snapshot = 1;
    exchange
}

fn seen(exchange: &Exchange) -> Seen<'_> {
    Seen {
        exchange,
        elapsed: ELAPSED,
        headers: Headers::default(),
    }
}

#[divan::bench]
fn a_metrics(bencher: Bencher<'_, '_>) {
    let exchange = exchange(&origin());
    bencher.bench_local(|| metrics::record(black_box(&seen(&exchange))));
}

#[divan::bench]
fn b_metrics_and_access_log(bencher: Bencher<'_, '_>) {
    let exchange = exchange(&origin());
    bencher.bench_local(|| {
        let seen = seen(&exchange);
        metrics::record(black_box(&seen));
        access_log::write(black_box(&seen));
    });
}

#[divan::bench]
fn c_metrics_and_flow_record(bencher: Bencher<'_, '_>) {
    let (origin, ring) = (origin(), Ring::new(4_096));
    bencher
        .with_inputs(|| exchange(&origin))
        .bench_local_values(|mut exchange| {
            metrics::record(black_box(&seen(&exchange)));
            ring.push(Record::ended(&mut exchange, ELAPSED, false));
        });
}

#[divan::bench]
fn d_all(bencher: Bencher<'_, '_>) {
    let (origin, ring) = (origin(), Ring::new(4_096));
    bencher
        .with_inputs(|| exchange(&origin))
        .bench_local_values(|mut exchange| {
            {
                let seen = seen(&exchange);
                metrics::record(black_box(&seen));
                access_log::write(black_box(&seen));
            }
            ring.push(Record::ended(&mut exchange, ELAPSED, false));
        });
}
