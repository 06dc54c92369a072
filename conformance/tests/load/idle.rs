//! Ten thousand applications that have connected and say nothing: each is a TCP connection to the
//! client pod's Envoy, and a CONNECT stream in Cairn. What they cost, that they work, that they go.

use std::net::SocketAddr;

use cairn_conformance::cairn::{Cairn, sum};
use cairn_conformance::client::Connection;
use cairn_conformance::memory::Memory;
use cairn_conformance::process;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpStream;

use crate::{ALONE, lab};

const STREAMS: usize = 10_000;

/// How many connect before the waypoint is waited for: fewer than a backlog holds, so that no
/// connection is dropped and tried again a second later.
const BATCH: usize = 1_000;

/// What Cairn's own memory may grow by for each stream, as built for tests.
const STREAM_BYTES_MAX: f64 = 16.0 * 1024.0;

/// A descriptor for each stream here and, by inheritance, in Envoy; the rest is for everything else.
const DESCRIPTORS: u64 = STREAMS as u64 + 2_000;

const OPEN: &str = "cairn_downstream_streams";

#[tokio::test]
async fn ten_thousand_idle_streams_are_held_and_work_and_go() {
    let _alone = ALONE.lock().await;
    allow_descriptors(DESCRIPTORS);
    let (lab, _apps) = lab(&[]).await;
    let client = lab.client("shop/viewer").await;
    let (cairn, to) = (lab.cairn(), client.to("web", 80));
    // What the first request costs is not the price of a stream.
    wake(TcpStream::connect(to).await.unwrap()).await;
    streams_are(cairn, 0).await;
    let before = own_bytes(cairn);
    let refused_before = refused(cairn).await;

    let mut applications = Vec::new();
    while applications.len() < STREAMS {
        connect(to, &mut applications).await;
        streams_are(cairn, applications.len()).await;
    }
    let held = own_bytes(cairn);
    let each = (held - before) / STREAMS as f64;
    let tunnels = cairn.metric("cairn_downstream_tunnels", &[]).await;
    println!(
        "{STREAMS} idle streams in {tunnels} tunnels: {:.1} MB, {each:.0} bytes each",
        held / 1e6
    );
    assert!(each < STREAM_BYTES_MAX, "{each} bytes a stream");
    // As many as Cairn's 1,000 streams a tunnel ask for, and not one for every stream.
    assert!((10.0..=50.0).contains(&tunnels), "{tunnels} tunnels");

    // Every hundredth has something to say after all.
    let (talking, silent): (Vec<_>, Vec<_>) = applications
        .into_iter()
        .enumerate()
        .partition(|(at, _)| at % 100 == 0);
    for (_, application) in talking {
        wake(application).await;
    }
    streams_are(cairn, silent.len()).await;

    drop(silent);
    streams_are(cairn, 0).await;
    assert_eq!(refused(cairn).await, refused_before);
    wake(TcpStream::connect(to).await.unwrap()).await;
}

/// Raises the limit on open files of this process, and so of what it starts.
pub fn allow_descriptors(wanted: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < wanted {
        // Beyond the hard limit only root can go.
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .unwrap_or_else(|e| panic!("{wanted} open files needed, {hard} allowed: {e}"));
    }
}

async fn connect(to: SocketAddr, applications: &mut Vec<TcpStream>) {
    for _ in 0..BATCH {
        applications.push(TcpStream::connect(to).await.unwrap());
    }
}

/// Sends a request over the stream, and closes it.
async fn wake(application: TcpStream) {
    let mut connection = Connection::http1_over(application).await;
    let answer = connection.get("/woken/x").await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// Waits until that many streams are open in Cairn.
async fn streams_are(cairn: &Cairn, streams: usize) {
    process::until(&format!("{streams} streams are open"), async || {
        cairn.metric(OPEN, &[]).await == streams as f64
    })
    .await;
}

fn own_bytes(cairn: &Cairn) -> f64 {
    Memory::of(cairn.process.id()).own_bytes()
}

/// Streams and connections that Cairn has turned away: the laboratory's look whether it listens is
/// one.
async fn refused(cairn: &Cairn) -> f64 {
    let page = cairn.metrics().await;
    let count = |name| sum(&page, name, &[]);
    count("cairn_tunnel_refused_total") + count("cairn_handshake_failed_total")
}
