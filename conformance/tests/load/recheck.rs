//! Ten thousand TCP streams while policy changes: those it denies are reset, the others go on, and
//! requests go on being answered. How long they take beside it is printed and not judged: on a machine with
//! other work a request took seconds, and one that begins and ends within the pass is rare.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cairn_conformance::app::{App, read_exactly};
use cairn_conformance::cairn;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::hbone::{Stream, Tls, Tunnel};
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::process::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ALONE;
use crate::idle::allow_descriptors;

/// Of each of two clients.
const STREAMS: usize = 5_000;
const STREAMS_PER_TUNNEL: usize = 500;

const QUIET: &str = "10.96.1.2:7";

const JUDGED: &str = "cairn_rechecked_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_streams_are_judged_again_while_requests_are_answered() {
    let _alone = ALONE.lock().await;
    allow_descriptors(2 * STREAMS as u64 + 4_000);
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("quiet", &[Port::new("tcp", 7)]);
    let _web = lab.pod("web", "web-a", Reach::Plain, |at| App::http("web", at));
    let _quiet = lab.pod("quiet", "quiet-a", Reach::Plain, App::tcp_echo);
    lab.start_with(&["--workers", "1"]).await;
    let mut allowed = streams(&lab, "shop/viewer").await;
    let denied = streams(&lab, "shop/thief").await;

    let asking = Arc::new(AtomicBool::new(true));
    let before = lab.cairn().metric(JUDGED, &[]).await;
    let all = before..before + 2.0 * STREAMS as f64;
    let requests = tokio::spawn(ask(&lab, asking.clone(), all.clone()).await);
    lab.write(
        "only-quiet",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: only-quiet, namespace: shop}\nspec:\n  \
         targetRefs: [{group: \"\", kind: Service, name: quiet}]\n  \
         rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/viewer]}}]}]\n",
    );
    let ended = Arc::new(AtomicUsize::new(0));
    for mut stream in denied {
        let ended = ended.clone();
        tokio::spawn(async move {
            if stream.read_to_end(&mut Vec::new()).await.is_err() {
                ended.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    until("every denied stream is reset", async || {
        ended.load(Ordering::Relaxed) == STREAMS
    })
    .await;
    // Those that stay open may be judged after the last that is not.
    until("every stream is judged", async || {
        lab.cairn().metric(JUDGED, &[]).await >= all.end
    })
    .await;
    asking.store(false, Ordering::Relaxed);
    let (meanwhile, slowest) = requests.await.unwrap();
    let cairn = lab.cairn();
    let took = cairn.metric("cairn_recheck_duration_seconds", &[]).await;
    println!(
        "10,000 streams judged in {took:.3} s; {meanwhile} requests began and ended meanwhile, the slowest of \
         all took {slowest:?}"
    );
    let closed = "cairn_closed_by_policy_total";
    assert_eq!(
        cairn.metric(closed, &["kind=\"tcp\""]).await,
        STREAMS as f64
    );
    for stream in &mut allowed {
        stream.write_all(b"still").await.unwrap();
        assert_eq!(read_exactly(stream, 5).await, b"still");
    }
}

async fn tunnel(lab: &Lab, workload: &str) -> Tunnel {
    let tls = Tls::of(&lab.identities.folder_of(workload));
    let from = lab.client_address();
    Tunnel::connect(&tls, lab.cairn().hbone, from)
        .await
        .unwrap()
}

/// Opens a client's streams.
async fn streams(lab: &Lab, workload: &str) -> Vec<Stream> {
    let mut streams = Vec::with_capacity(STREAMS);
    while streams.len() < STREAMS {
        let mut tunnel = tunnel(lab, workload).await;
        for _ in 0..STREAMS_PER_TUNNEL {
            streams.push(tunnel.open(QUIET).await.unwrap());
        }
    }
    streams
}

/// How many times a stream or tunnel was judged again.
async fn judged(metrics: SocketAddr) -> f64 {
    let page = client::text(&client::get(metrics, "/metrics").await);
    cairn::sum(&page, JUDGED, &[])
}

/// Asks until it is told to stop. Gives how many requests were sent and answered while the streams were being
/// judged, some of them already and some not yet, and the longest that an answer took.
async fn ask(
    lab: &Lab,
    asking: Arc<AtomicBool>,
    all: Range<f64>,
) -> impl Future<Output = (usize, Duration)> + use<> {
    let mut tunnel = tunnel(lab, "shop/viewer").await;
    let stream = tunnel.open("10.96.1.1:80").await.unwrap();
    let mut connection = Connection::http1_over(stream).await;
    let metrics = lab.cairn().metrics;
    async move {
        let (mut meanwhile, mut slowest) = (0, Duration::ZERO);
        while asking.load(Ordering::Relaxed) {
            let some_were = judged(metrics).await > all.start;
            let began = Instant::now();
            let answer = connection.get("/status/204").await.unwrap();
            assert_eq!(answer.status(), 204);
            slowest = slowest.max(began.elapsed());
            if some_were && judged(metrics).await < all.end {
                meanwhile += 1;
            }
        }
        (meanwhile, slowest)
    }
}
