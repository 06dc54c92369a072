//! The load generator against our own backend, no proxy between: what it counts is what happened.

use std::time::Duration;

use cairn_benches::backend::{self, TUNNEL_GRPC_PORT, TUNNEL_HTTP_PORT, TUNNEL_IP};
use cairn_benches::cell::{Exchange, Mode, Pace};
use cairn_benches::load::{self, Order, Outcome};
use cairn_benches::pki::Authority;
use tokio::task::LocalSet;

fn run(exchange: Exchange, mode: Mode, wrong_port: bool) -> anyhow::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new()?;
    authority.write_identity(&folder.path().join("app"), "app")?;
    authority.write_identity(&folder.path().join("client"), "client")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let addresses = backend::listen(&folder.path().join("app")).await?;
        let port = if exchange.is_http2() != wrong_port {
            TUNNEL_GRPC_PORT
        } else {
            TUNNEL_HTTP_PORT
        };
        load::run(&Order {
            to: addresses.tunnel,
            authority: format!("{TUNNEL_IP}:{port}"),
            identity_folder: folder.path().join("client"),
            exchange,
            connections: 2,
            lanes_per_connection: 3,
            mode,
            sheds: false,
            pace: Pace {
                warm_up: Duration::from_millis(50),
                measure: Duration::from_millis(400),
                rate: 200,
            },
            measured: Some(std::process::id()),
        })
        .await
    })
}

#[test]
fn every_exchange_is_answered_as_it_should_be() {
    for exchange in [
        Exchange::Get1k,
        Exchange::Get64k,
        Exchange::Post16k,
        Exchange::Grpc,
    ] {
        let outcome = run(exchange, Mode::Saturated, false).unwrap();
        assert_eq!(outcome.first_error, None, "{exchange}");
        assert!(outcome.requests > 20, "{exchange}: {outcome:?}");
        assert!(outcome.p50_us > 0 && outcome.p50_us <= outcome.p99_us);
        assert!(outcome.cpu_us > 0.0 && outcome.resident_kib > 0);
    }
}

#[test]
fn the_open_loop_keeps_its_rate() {
    let outcome = run(Exchange::Get1k, Mode::Rate, false).unwrap();
    assert_eq!(outcome.errors, 0, "{outcome:?}");
    assert!((100.0..=260.0).contains(&outcome.rps), "{outcome:?}");
}

#[test]
fn fresh_connections_are_counted_once_each() {
    let outcome = run(Exchange::Grpc, Mode::Fresh, false).unwrap();
    assert_eq!(outcome.errors, 0, "{outcome:?}");
    assert!(outcome.requests > 2, "{outcome:?}");
}

#[test]
fn a_wrong_answer_is_an_error_not_a_request() {
    let outcome = run(Exchange::Get1k, Mode::Saturated, true).unwrap();
    assert_eq!(outcome.requests, 0);
    assert!(outcome.errors > 0 && outcome.first_error.is_some());
}
