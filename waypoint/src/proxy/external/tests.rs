//! What becomes of a request about which there is no answer that could be used
//! (specs/istio-waypoint.md 4.8, `failOpen`).

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{CheckProtocol, ClusterKey, GrpcCheck};

use super::*;
use crate::upstream::ConnectError;

const GATE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 7), 9000));

fn provider(fail_open: bool) -> ExternalProvider {
    ExternalProvider {
        name: "gate".into(),
        cluster: ClusterKey::new(ObjectKey::new("shop", "gate"), 9000),
        timeout_ms: 1000,
        fail_open,
        status_on_error: 429,
        clear_route_cache: false,
        body: None,
        protocol: CheckProtocol::Grpc(GrpcCheck::default()),
    }
}

/// As at Envoy, whose `failure_mode_allow` is for a service that fails or can not be reached.
fn silences() -> Vec<AskError> {
    vec![
        AskError::NoEndpoint,
        AskError::Connect(ConnectError::tcp(GATE, ErrorKind::ConnectionRefused.into())),
        AskError::Timeout(Duration::from_secs(1)),
        AskError::Status(StatusCode::BAD_GATEWAY),
        AskError::Grpc(2, "broken".to_owned()),
        AskError::Undecided(None),
    ]
}

/// Unlike at Envoy: it said something, and nobody knows what.
fn unusable() -> Vec<AskError> {
    vec![
        AskError::Unreadable("garbage".to_owned()),
        AskError::Contradiction,
        AskError::Header("a b".to_owned()),
        AskError::Forbidden(http::header::HOST),
        AskError::Refused("tls".to_owned()),
    ]
}

/// What is the matter on this side: a limit that is full, a file that can not be read, no descriptor left.
fn ours() -> Vec<AskError> {
    let no_file = std::io::Error::other("/nowhere/ca.pem: no such file");
    let out_of_descriptors = std::io::Error::from_raw_os_error(nix::libc::EMFILE);
    [
        ConnectError::Full(GATE, 100),
        ConnectError::Own(GATE),
        ConnectError::NoTunnel(GATE),
        ConnectError::Here(GATE, no_file),
        ConnectError::tcp(GATE, out_of_descriptors),
    ]
    .map(AskError::Connect)
    .into()
}

/// What clients bring about when they like.
fn limits() -> Vec<AskError> {
    vec![AskError::Full(1024), AskError::FullOfBodies(512)]
}

fn status(error: AskError, fail_open: bool) -> Option<u16> {
    match settle(Err(error), &provider(fail_open)) {
        Settled::Passes(changes, note) => {
            assert_eq!(changes, Changes::default());
            assert!(note.unwrap().starts_with("provider gate fails open: "));
            None
        }
        Settled::Failed(denial, reason) => {
            assert!(reason.starts_with("provider gate gave no usable answer: "));
            Some(denial.status.as_u16())
        }
        Settled::Denied(..) => unreachable!("nobody said no"),
    }
}

#[test]
fn only_silence_passes_and_only_where_the_provider_fails_open() {
    for (fail_open, of_silence) in [(true, None), (false, Some(429))] {
        for error in silences() {
            assert_eq!(status(error, fail_open), of_silence);
        }
        for error in unusable().into_iter().chain(ours()) {
            assert_eq!(status(error, fail_open), Some(429));
        }
        for error in limits() {
            assert_eq!(
                status(error, fail_open),
                Some(503),
                "a limit of Cairn's own"
            );
        }
    }
}

#[test]
fn a_service_that_could_not_decide_names_the_status() {
    let reply = || Box::new(Denial::bare(StatusCode::IM_A_TEAPOT));
    let undecided = || AskError::Undecided(Some(reply()));
    assert_eq!(status(undecided(), false), Some(418));
    assert_eq!(status(undecided(), true), None);
}
