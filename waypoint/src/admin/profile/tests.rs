//! Both profiles as pprof would read them, and what is refused.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::BodyExt;

use super::messages::read;
use super::*;

async fn body(response: Response<Body>) -> Vec<u8> {
    assert_eq!(response.status(), StatusCode::OK);
    response
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .to_vec()
}

#[inline(never)]
fn burns(stop: &AtomicBool) -> u64 {
    let mut sum = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        sum = black_box(sum.wrapping_mul(31).wrapping_add(1));
    }
    sum
}

/// One test, for one profile at a time is all a process can take.
#[tokio::test]
async fn a_profile_has_the_function_that_burns_and_there_is_one_at_a_time() {
    let stop = Arc::new(AtomicBool::new(false));
    let burning = stop.clone();
    let thread = std::thread::Builder::new()
        .name("burner".into())
        .spawn(move || burns(&burning))
        .unwrap();
    let Answered::Later(first) = cpu("seconds=1") else {
        panic!("refused");
    };
    // Refused as often as it is asked for: a refusal does not end the turn of the first.
    for _ in 0..2 {
        let Answered::Now(second) = cpu("seconds=1") else {
            panic!("two at once");
        };
        assert_eq!(second.status(), StatusCode::CONFLICT);
    }
    let (profile, stacks) = read(&body(first.await).await);
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    let burnt: i64 = stacks
        .iter()
        .filter(|(stack, _)| stack.iter().any(|f| f.contains("burns")))
        .map(|(_, values)| values[0])
        .sum();
    assert!(burnt > 5, "{burnt} samples of {}", stacks.len());
    assert_eq!(profile.period, 10_101_010);
    assert!(profile.duration_nanos >= 1_000_000_000);
    assert!(profile.string_table.iter().any(|text| text == "burner"));

    // A client that leaves ends its profile, and the next one may have its turn.
    let Answered::Later(left) = cpu("seconds=60") else {
        panic!("the first one is over");
    };
    drop(left);
    let turn = async || loop {
        match cpu("seconds=1") {
            Answered::Later(taken) => return taken,
            Answered::Now(_) => tokio::task::yield_now().await,
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(30), turn()).await;
    assert_eq!(again.unwrap().await.status(), StatusCode::OK);
}

#[test]
fn only_bounded_times_are_taken() {
    assert_eq!(seconds(""), Ok(SECONDS_DEFAULT));
    assert_eq!(seconds("seconds=60"), Ok(60));
    for wrong in ["seconds=0", "seconds=61", "seconds=x", "second=1", "hz=1"] {
        assert!(seconds(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn memory_is_told_by_owner_and_adds_up_to_what_is_resident() {
    use crate::telemetry::fixtures;
    use crate::telemetry::metrics::Shard;
    use crate::telemetry::series::HttpSeries;

    let state = super::super::tests::state();
    let mut shard = Shard::new(state.registry.clone());
    shard.record(&fixtures::http(), Duration::ZERO);
    let (_, stacks) = read(&memory::profile(&state).unwrap());
    let of = |name: &str| {
        let named = |(stack, _): &&(Vec<String>, _)| stack[0] == name;
        let (_, values) = stacks.iter().find(named).unwrap();
        (values[0], values[1])
    };
    let (sets, bytes) = of("http");
    assert_eq!(sets, 1);
    assert!(bytes >= size_of::<HttpSeries>() as i64);
    assert!(of("(rest)").1 > 1_000_000);
    let all: i64 = stacks.iter().map(|(_, values)| values[1]).sum();
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: i64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    // Other tests take and give back memory meanwhile.
    assert!(all > pages * 4_096 / 2 && all < pages * 4_096 * 2, "{all}");
}
