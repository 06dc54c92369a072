//! Where a client begins, what it gets, where it ends (specs/policies.md 3.3).

use std::time::Duration;

use super::*;
use crate::hubble::Redaction;
use crate::hubble::messages::FlowFilter;
use crate::telemetry::fixtures;
use crate::telemetry::flow::Record;

/// The request of record `n` has the path `/n`; each record is three flows.
fn push(ring: &Ring, n: usize) {
    let mut exchange = fixtures::http();
    exchange.started_at = SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64);
    exchange.http.as_mut().unwrap().path = format!("/{n}");
    ring.push(Record::ended(&mut exchange, Duration::ZERO, false));
}

fn ring(capacity: usize, records: usize) -> Arc<Ring> {
    let ring = Arc::new(Ring::new(capacity));
    (0..records).for_each(|n| push(&ring, n));
    ring
}

fn reader(ring: &Arc<Ring>, request: &GetFlowsRequest) -> Reader {
    let teller = Arc::new(Teller::new(Redaction::default()));
    Reader::new(ring.clone(), teller, request).unwrap()
}

/// Summaries of the flows that come, `lost N` for what did not.
async fn next(reader: &mut Reader) -> Option<String> {
    let response = reader.next().await?;
    Some(match response.response_types.unwrap() {
        ResponseTypes::Flow(flow) => flow.summary,
        ResponseTypes::LostEvents(lost) => format!("lost {}", lost.num_events_lost),
        ResponseTypes::NodeStatus(_) => unreachable!(),
    })
}

async fn all(reader: &mut Reader) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(summary) = next(reader).await {
        all.push(summary);
    }
    all
}

fn requests() -> Vec<FlowFilter> {
    vec![FlowFilter {
        protocol: vec!["http".into()],
        reply: vec![false],
        ..FlowFilter::default()
    }]
}

fn paths(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let path = |n| format!("HTTP/1.1 GET http://httpbin:8000/{n}");
    numbers.into_iter().map(path).collect()
}

#[tokio::test]
async fn the_last_and_the_first_ones_that_match() {
    let ring = ring(8, 20);
    let asked = |number, first| GetFlowsRequest {
        number,
        first,
        whitelist: requests(),
        ..GetFlowsRequest::default()
    };
    assert_eq!(
        all(&mut reader(&ring, &asked(3, false))).await,
        paths(17..20)
    );
    assert_eq!(
        all(&mut reader(&ring, &asked(3, true))).await,
        paths(12..15)
    );
    assert_eq!(
        all(&mut reader(&ring, &asked(100, false))).await,
        paths(12..20)
    );
    assert_eq!(
        all(&mut reader(&ring, &asked(0, false))).await,
        paths(12..20)
    );
}

/// Without a filter the last flow alone is the last response, not its whole exchange.
#[tokio::test]
async fn the_number_is_of_flows() {
    let ring = ring(8, 3);
    let request = GetFlowsRequest {
        number: 1,
        ..GetFlowsRequest::default()
    };
    let all = all(&mut reader(&ring, &request)).await;
    assert_eq!(all, ["HTTP/1.1 200 0ms (GET http://httpbin:8000/2)"]);
}

#[tokio::test]
async fn since_and_until_bound_the_time() {
    let ring = ring(8, 8);
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let request = GetFlowsRequest {
        since: at(2),
        until: at(4),
        whitelist: requests(),
        ..GetFlowsRequest::default()
    };
    assert_eq!(all(&mut reader(&ring, &request)).await, paths(2..5));
}

/// Within the time, too, it is the last ones or the first ones, and no more.
#[tokio::test]
async fn the_number_counts_beside_since() {
    let ring = ring(8, 8);
    let asked = |number, first| GetFlowsRequest {
        number,
        first,
        since: Some(Timestamp {
            seconds: 3,
            nanos: 0,
        }),
        whitelist: requests(),
        ..GetFlowsRequest::default()
    };
    assert_eq!(all(&mut reader(&ring, &asked(2, true))).await, paths(3..5));
    assert_eq!(all(&mut reader(&ring, &asked(2, false))).await, paths(6..8));
    let more = asked(100, false);
    assert_eq!(all(&mut reader(&ring, &more)).await, paths(3..8));
}

#[tokio::test(start_paused = true)]
async fn a_follower_gets_what_comes_after_it() {
    let ring = ring(8, 3);
    let request = GetFlowsRequest {
        follow: true,
        whitelist: requests(),
        ..GetFlowsRequest::default()
    };
    let mut reader = reader(&ring, &request);
    push(&ring, 3);
    assert_eq!(next(&mut reader).await.as_ref(), paths([3]).first());
    // It waits, and is woken.
    let (woken, ()) = tokio::join!(next(&mut reader), async {
        tokio::task::yield_now().await;
        push(&ring, 4);
    });
    assert_eq!(woken.as_ref(), paths([4]).first());
}

/// Who is too slow is told how many flows it did not get, and goes on with what there is.
#[tokio::test(start_paused = true)]
async fn what_was_overwritten_is_told() {
    let ring = ring(4, 0);
    let request = GetFlowsRequest {
        follow: true,
        whitelist: requests(),
        ..GetFlowsRequest::default()
    };
    let mut reader = reader(&ring, &request);
    (0..10).for_each(|n| push(&ring, n));
    assert_eq!(next(&mut reader).await.as_deref(), Some("lost 18"));
    assert_eq!(next(&mut reader).await.as_ref(), paths([6]).first());
}

/// All clients are served from one thread.
#[tokio::test]
async fn others_get_their_turn_while_a_reader_goes_back() {
    let ring = ring(256, 200);
    let request = GetFlowsRequest {
        number: 1,
        whitelist: vec![FlowFilter {
            http_path: vec!["^/0$".into()],
            reply: vec![false],
            ..FlowFilter::default()
        }],
        ..GetFlowsRequest::default()
    };
    let mut reader = reader(&ring, &request);
    assert!(futures::poll!(Box::pin(next(&mut reader))).is_pending());
}

/// Going back to what is far is right in spite of the turns of others.
#[tokio::test]
async fn a_reader_goes_back_over_many_records() {
    let ring = ring(256, 200);
    let request = GetFlowsRequest {
        number: 190,
        whitelist: requests(),
        ..GetFlowsRequest::default()
    };
    assert_eq!(all(&mut reader(&ring, &request)).await, paths(10..200));
}

#[test]
fn contradictions_are_refused() {
    let ring = ring(4, 0);
    let refused = |request: &GetFlowsRequest| {
        let teller = Arc::new(Teller::new(Redaction::default()));
        Reader::new(ring.clone(), teller, request).is_err()
    };
    assert!(refused(&GetFlowsRequest {
        first: true,
        follow: true,
        ..GetFlowsRequest::default()
    }));
    let mask = |path: &str| GetFlowsRequest {
        field_mask: Some(crate::hubble::messages::FieldMask {
            paths: vec![path.to_owned()],
        }),
        ..GetFlowsRequest::default()
    };
    assert!(refused(&mask("colour")));
    assert!(!refused(&mask("source.pod_name")));
}

/// specs/policies.md 3.4: the mask is a hint; what the stock command prints policy names by always comes.
#[tokio::test]
async fn a_mask_leaves_out_and_keeps_policies() {
    let ring = Arc::new(Ring::new(4));
    let mut exchange = fixtures::http();
    exchange.verdict = Some(fixtures::denied());
    ring.push(Record::ended(&mut exchange, Duration::ZERO, false));
    let request = GetFlowsRequest {
        field_mask: Some(crate::hubble::messages::FieldMask {
            paths: vec!["verdict".into(), "Summary".into()],
        }),
        ..GetFlowsRequest::default()
    };
    let response = reader(&ring, &request).next().await.unwrap();
    let Some(ResponseTypes::Flow(flow)) = response.response_types else {
        panic!();
    };
    assert!(flow.source.is_none() && flow.uuid.is_empty() && !flow.summary.is_empty());
    assert_eq!(flow.ingress_denied_by[0].name, "no-writes");
    assert!(flow.traffic_direction != 0 && response.time.is_some());
}
