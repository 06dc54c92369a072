//! A service that is sent ten times what its rate limit lets pass, and the requests of the one beside it
//! meanwhile (issue 3, Proof: under 20 % worse). Prints what it measures; the clients are on the same
//! processors, so that it judges loosely. `benches/results/` has a run with its conditions.

use std::time::{Duration, Instant};

use cairn_conformance::app::App;
use cairn_conformance::client::Connection;
use cairn_conformance::hbone::{Tls, Tunnel};
use cairn_conformance::lab::{Lab, Port, Reach};

use crate::ALONE;

/// Requests a second of the calm service, and of the other one when it is not overloaded: what its limit
/// lets pass.
const PER_SECOND: u32 = 200;
const ROUND: Duration = Duration::from_secs(6);
const ROUNDS: usize = 5;

const LIMITED: &str = "\
apiVersion: cairn.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: busy, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: busy}]
  rateLimits: [{name: all, requests: 200, interval: 1s, burst: 50}]
";

/// What a round has seen.
#[derive(Default)]
struct Round {
    /// From when a request was due to its answer.
    times: Vec<Duration>,
    served: usize,
    shed: usize,
}

impl Round {
    fn add(mut self, other: Self) -> Self {
        self.times.extend(other.times);
        self.served += other.served;
        self.shed += other.shed;
        self
    }

    fn percentile(&mut self, percent: usize) -> Duration {
        self.times.sort_unstable();
        self.times[(self.times.len() - 1) * percent / 100]
    }
}

/// One connection that sends a request at each multiple of an interval.
async fn lane(lab: &Lab, authority: &str, interval: Duration, first: Instant) -> Round {
    let tls = Tls::of(&lab.identities.folder_of("shop/viewer"));
    let tunnel = Tunnel::connect(&tls, lab.cairn().hbone, lab.client_address());
    let mut tunnel = tunnel.await.unwrap();
    let stream = tunnel.open(authority).await.unwrap();
    let mut connection = Connection::http2_over(stream).await;
    let mut round = Round::default();
    let mut due = first;
    while due < first + ROUND {
        tokio::time::sleep_until(due.into()).await;
        let answer = connection.get("/status/204").await.unwrap();
        round.times.push(due.elapsed());
        match answer.status().as_u16() {
            204 => round.served += 1,
            429 => round.shed += 1,
            other => panic!("{other}"),
        }
        due += interval;
    }
    round
}

/// So many requests a second, from so many connections that begin one after the other.
async fn load(lab: &Lab, authority: &str, per_second: u32, lanes: u32) -> Round {
    let interval = Duration::from_secs(1) * lanes / per_second;
    // Time for the handshakes, which are not measured.
    let begin = Instant::now() + Duration::from_millis(500);
    let lanes = (0..lanes).map(|at| {
        let first = begin + interval * at / lanes;
        lane(lab, authority, interval, first)
    });
    let all = futures::future::join_all(lanes).await;
    all.into_iter().fold(Round::default(), Round::add)
}

#[tokio::test]
async fn tenfold_load_on_a_service_and_the_one_beside_it() {
    let _alone = ALONE.lock().await;
    let mut lab = Lab::new();
    for service in ["calm", "busy"] {
        lab.service(service, &[Port::new("http", 80)]);
        let pod = format!("{service}-a");
        let app = lab.pod(service, &pod, Reach::Plain, |at| App::http(service, at));
        // An application lives as long as the process here.
        std::mem::forget(app);
    }
    lab.write("limited", LIMITED);
    lab.start_with(&["--workers", "1"]).await;
    let mut p99 = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (at, times) in [1, 10].into_iter().enumerate() {
            let calm = load(&lab, "10.96.1.1:80", PER_SECOND, 4);
            let busy = load(&lab, "10.96.1.2:80", PER_SECOND * times, 4 * times);
            let (mut calm, busy) = futures::future::join(calm, busy).await;
            assert_eq!(calm.shed, 0, "the limit is the other service's");
            println!(
                "round {round}, {times}x on the neighbour ({} served, {} shed): calm p50 {:?}, p99 {:?}",
                busy.served,
                busy.shed,
                calm.percentile(50),
                calm.percentile(99)
            );
            p99[at].push(calm.percentile(99));
            assert!(times == 1 || busy.shed > busy.served * 4, "{}", busy.shed);
        }
    }
    let [before, after] = p99.map(|mut all| {
        all.sort_unstable();
        all[all.len() / 2]
    });
    let worse = after.as_secs_f64() / before.as_secs_f64();
    println!("median of the rounds' p99: {before:?} and {after:?}, {worse:.2} times");
    assert!(after < before * 5 + Duration::from_millis(50), "{worse}");
}
