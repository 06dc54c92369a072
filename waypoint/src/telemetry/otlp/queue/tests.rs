//! What is taken, when it leaves, and what is dropped.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::super::fixtures::{self, batching, drained, seen};
use super::super::pack::Parcel;
use super::worker::WORKER;
use super::*;
use crate::limits::{OTLP_MESSAGE_BYTES_MAX, OTLP_QUEUE_BYTES_MAX};
use crate::telemetry::exchange::Exchange;
use crate::telemetry::{fixtures as exchanges, metrics};

/// What a gRPC receiver takes unless it is told otherwise.
const GRPC_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

fn queue(queue_max: usize, batch_max: usize, logs: bool) -> Queue {
    Queue::new(Process::default(), batching(queue_max, batch_max), logs)
}

fn tell(queue: &Queue, worker: &mut Worker, exchange: &Exchange) {
    queue.tell(worker, &seen(exchange, Duration::ZERO));
}

/// Records of a signal in each message.
fn records(queue: &Queue, signal: Signal) -> Vec<u64> {
    let of = drained(queue).into_iter().filter(|(of, _)| *of == signal);
    of.flat_map(|(_, parcels)| parcels.into_iter().map(|p| p.records))
        .collect()
}

/// The messages that have to leave at a moment, and when to come again.
fn leaving(queue: &Queue, now: Instant) -> (Vec<usize>, Option<Instant>) {
    let mut left = Vec::new();
    let next = queue.drain(now, |batch| {
        for parcel in batch.pack.finish() {
            batch.to.left(parcel.exchanges);
            left.push(parcel.exchanges);
        }
    });
    (left, next)
}

#[test]
fn only_what_is_wanted_is_taken() {
    let told = |exchange: &Exchange, logs| {
        let queue = queue(8, 8, logs);
        let wanted = queue.is_wanted(&seen(exchange, Duration::ZERO));
        tell(&queue, &mut queue.join(), exchange);
        (wanted, drained(&queue).len())
    };
    let unsampled = exchanges::http();
    assert_eq!(told(&unsampled, false), (false, 0));
    assert_eq!(told(&unsampled, true), (true, 1));
    assert_eq!(told(&fixtures::sampled(), false), (true, 1));
    assert_eq!(told(&fixtures::sampled(), true), (true, 2));
}

#[test]
fn what_does_not_fit_is_dropped_and_counted_until_there_is_room() {
    let before = counters::OTLP_DROPPED.value("traces");
    let (queue, exchange) = (queue(2, 2, false), fixtures::sampled());
    let mut workers = [queue.join(), queue.join()];
    // The room is for all workers.
    for worker in [0, 1, 0, 1, 0] {
        tell(&queue, &mut workers[worker], &exchange);
    }
    assert!(counters::OTLP_DROPPED.value("traces") >= before + 3);
    // Together they are a message.
    assert_eq!(leaving(&queue, exchange.started).0, [1, 1]);
    tell(&queue, &mut workers[0], &exchange);
    let later = exchange.started + Duration::from_secs(60);
    assert_eq!(leaving(&queue, later).0, [1]);
}

/// The room is for all workers: however many they are, a receiver that keeps up loses nothing.
#[test]
fn what_many_workers_have_leaves_as_soon_as_it_is_a_message_together() {
    let (queue, exchange) = (queue(2_048, 512, false), fixtures::sampled());
    let mut workers: Vec<Worker> = (0..8).map(|_| queue.join()).collect();
    let mut left = 0;
    for told in 0..4_096 {
        tell(&queue, &mut workers[told % 8], &exchange);
        if told % 256 == 255 {
            let (leaving, _) = leaving(&queue, exchange.started);
            left += leaving.iter().sum::<usize>();
        }
    }
    assert_eq!(left, 4_096);
    let channels = lock(&queue.channels);
    assert_eq!(channels[0].under_way.load(Relaxed), 0);
    assert_eq!(channels[0].under_way_bytes.load(Relaxed), 0);
}

#[test]
fn what_is_a_message_by_its_bytes_leaves_too() {
    let (queue, long) = (queue(2_048, 512, false), long());
    let mut workers: Vec<Worker> = (0..8).map(|_| queue.join()).collect();
    for told in 0..8 {
        tell(&queue, &mut workers[told % 8], &long);
    }
    assert!(queue.bytes() < OTLP_MESSAGE_BYTES_MAX);
    assert!(leaving(&queue, long.started).0.is_empty());
    for told in 8..40 {
        tell(&queue, &mut workers[told % 8], &long);
    }
    assert!(queue.bytes() > OTLP_MESSAGE_BYTES_MAX);
    assert_eq!(leaving(&queue, long.started).0, [5; 8]);
}

/// A receiver that keeps up gets what there is, however little room others leave: nothing waits for a whole message for
/// which there is no room.
#[test]
fn what_fills_the_room_that_others_leave_leaves_too() {
    let (queue, long) = (queue(2_048, 512, false), long());
    let others = OTLP_QUEUE_BYTES_MAX - 512 * 1024;
    queue.bytes.fetch_add(others, Relaxed);
    let mut worker = queue.join();
    (0..10).for_each(|_| tell(&queue, &mut worker, &long));
    let left: usize = leaving(&queue, long.started).0.iter().sum();
    assert!((1..10).contains(&left), "{left}");
    assert_eq!(queue.bytes(), others);
    tell(&queue, &mut worker, &long);
    assert!(queue.bytes() > others);
}

/// One that takes nothing leaves room to the others.
#[test]
fn a_receiver_with_long_records_that_wait_takes_no_others_room() {
    let mut queue = queue(1_000_000, 8, false);
    let (long, mut worker) = (long(), queue.join());
    let fit = OTLP_QUEUE_BYTES_MAX / 60_000 + 10;
    (0..fit).for_each(|_| tell(&queue, &mut worker, &long));
    queue.logs = true;
    tell(&queue, &mut worker, &exchanges::http());
    assert_eq!(records(&queue, Signal::Logs), [1]);
}

#[test]
fn a_whole_message_leaves_at_once_and_the_rest_when_it_waited_for_its_time() {
    let (queue, exchange) = (queue(8, 2, false), fixtures::sampled());
    let mut worker = queue.join();
    let now = exchange.started;
    assert_eq!(leaving(&queue, now), (vec![], None));
    (0..3).for_each(|_| tell(&queue, &mut worker, &exchange));
    let due = now + Duration::from_secs(5);
    assert_eq!(leaving(&queue, now), (vec![2], Some(due)));
    assert_eq!(leaving(&queue, now), (vec![], Some(due)));
    assert_eq!(leaving(&queue, due), (vec![1], None));
}

/// What another signal, whose records wait for less, may get meanwhile is not to be late.
#[test]
fn nobody_sleeps_longer_than_the_shorter_of_the_two_delays() {
    let [mut spans, mut logs] = batching(8, 8);
    (spans.delay, logs.delay) = (Duration::from_secs(5), Duration::from_secs(1));
    let queue = Queue::new(Process::default(), [spans, logs], false);
    let exchange = fixtures::sampled();
    tell(&queue, &mut queue.join(), &exchange);
    let (_, next) = leaving(&queue, exchange.started);
    assert_eq!(next, Some(exchange.started + Duration::from_secs(1)));
}

#[tokio::test]
async fn who_waits_is_told_of_the_first_record_and_of_a_whole_message() {
    let (queue, exchange) = (queue(8, 2, false), fixtures::sampled());
    let mut worker = queue.join();
    tell(&queue, &mut worker, &exchange);
    queue.stirred().await;
    tell(&queue, &mut worker, &exchange);
    queue.filled().await;
    // It is known that there is something until it was looked at.
    assert!(queue.pending.load(Relaxed));
    leaving(&queue, exchange.started);
    tell(&queue, &mut worker, &exchange);
    queue.stirred().await;
    // Together with another worker's.
    tell(&queue, &mut queue.join(), &exchange);
    queue.filled().await;
}

#[test]
fn after_the_end_everything_is_dropped_and_counted() {
    let queue = queue(8, 8, false);
    queue.close();
    let before = counters::OTLP_DROPPED.value("traces");
    tell(&queue, &mut queue.join(), &fixtures::sampled());
    assert!(counters::OTLP_DROPPED.value("traces") > before);
    assert!(records(&queue, Signal::Traces).is_empty());
}

#[test]
fn what_is_dropped_on_its_way_is_counted_and_waits_no_longer() {
    let (queue, exchange) = (queue(8, 2, false), fixtures::sampled());
    let mut worker = queue.join();
    (0..3).for_each(|_| tell(&queue, &mut worker, &exchange));
    let before = counters::OTLP_DROPPED.value("traces");
    queue.close();
    queue.drain(exchange.started, Batch::give_up);
    assert!(counters::OTLP_DROPPED.value("traces") >= before + 3);
    assert!(
        lock(&queue.channels)
            .iter()
            .all(|channel| channel.is_idle())
    );
    assert_eq!(queue.bytes(), 0);
}

fn long() -> Exchange {
    let mut exchange = fixtures::sampled();
    exchange.http.as_mut().unwrap().path = format!("/{}", "x".repeat(60_000));
    exchange
}

#[test]
fn long_paths_fill_the_queue_by_their_bytes_and_leave_it_with_their_message() {
    let (queue, long) = (queue(1_000_000, 8, false), long());
    let mut worker = queue.join();
    let fit = OTLP_QUEUE_BYTES_MAX / 60_000 + 10;
    (0..fit).for_each(|_| tell(&queue, &mut worker, &long));
    // The last one may lie across the border.
    assert!(queue.bytes() < OTLP_QUEUE_BYTES_MAX + 2 * 60_000);
    let parcels: Vec<Parcel> = drained(&queue).into_iter().flat_map(|(_, p)| p).collect();
    let exchanges: usize = parcels.iter().map(|p| p.exchanges).sum();
    assert!(exchanges < fit, "{exchanges}");
    drop(parcels);
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn long_paths_become_messages_that_receivers_take() {
    let (queue, long) = (queue(1_000, 1_000, true), long());
    let mut worker = queue.join();
    // Of the bytes of all, three quarters are for one collector.
    (0..72).for_each(|_| tell(&queue, &mut worker, &long));
    for (signal, parcels) in drained(&queue) {
        assert!(parcels.len() > 2, "{}", parcels.len());
        let mut found = 0;
        for parcel in &parcels {
            let message = parcel.message.clone();
            assert!(message.len() < GRPC_MESSAGE_BYTES_MAX, "{}", message.len());
            let held = match signal {
                Signal::Traces => {
                    let read = ExportTraceServiceRequest::decode(message).unwrap();
                    read.resource_spans[0].scope_spans[0].spans.len()
                }
                _ => {
                    let read = ExportLogsServiceRequest::decode(message).unwrap();
                    read.resource_logs[0].scope_logs[0].log_records.len()
                }
            };
            assert_eq!(held as u64, parcel.records);
            found += held;
        }
        assert_eq!(found, 72, "each record is in one message");
    }
}

/// A configuration may name others again and again: those that nobody uses make room.
#[test]
fn receivers_beyond_the_limit_get_nothing_until_others_are_gone() {
    let queue = queue(8, 8, false);
    let receiver = |n: usize| {
        Receiver::Collector(Arc::new(cairn_config_schema::snapshot::Collector {
            name: format!("collector {n}").into(),
            cluster: cairn_config_schema::snapshot::ClusterKey::new(
                cairn_config_schema::origin::ObjectKey::new("shop", "otel"),
                4317,
            ),
            protocol: cairn_config_schema::snapshot::OtlpProtocol::Grpc,
            timeout_ms: 1,
            headers: vec![],
            tag_bytes_max: 256,
        }))
    };
    let channel = |n| queue.channel(Signal::Traces, &receiver(n));
    let mut held: Vec<_> = (0..OTLP_RECEIVERS_MAX)
        .map(|n| channel(n).unwrap())
        .collect();
    assert!(Arc::ptr_eq(&channel(3).unwrap(), &held[3]), "an equal one");
    assert!(channel(OTLP_RECEIVERS_MAX).is_none());
    held.pop();
    assert!(channel(OTLP_RECEIVERS_MAX).is_some());
}

/// A worker writes into memory that is there already: what a span or a record says is written once, where it is sent
/// from.
#[test]
fn an_exchange_is_told_of_without_allocating() {
    let queue = queue(10_000, 10_000, true);
    let mut worker = queue.join();
    let exchange = fixtures::sampled();
    (0..200).for_each(|_| tell(&queue, &mut worker, &exchange));
    // The buffers grow seldom: of so many exchanges at most one each.
    let least = (0..8).map(|_| {
        let of = allocation_counter::measure(|| tell(&queue, &mut worker, &exchange));
        of.count_total
    });
    assert_eq!(least.min(), Some(0));
}

#[test]
fn what_waits_and_what_workers_keep_is_counted() {
    let (queue, exchange) = (queue(8, 8, false), fixtures::sampled());
    let mut workers = [queue.join(), queue.join()];
    assert_eq!((queue.waiting(), queue.known.get()), ((0, 0), (0, 0)));
    for worker in [0, 1, 1] {
        tell(&queue, &mut workers[worker], &exchange);
    }
    let (told, bytes) = queue.waiting();
    assert_eq!(told, 3);
    let all = [0, 1].map(|n| lock(&workers[n].buffer)[0].pack.under_way().bytes);
    assert_eq!((bytes, bytes > 0), (all.iter().sum::<usize>(), true));
    assert!(queue.known.get().0 > 0);
    leaving(&queue, exchange.started + Duration::from_secs(60));
    assert_eq!(queue.waiting(), (0, 0));
}

/// No snapshot comes that a worker without requests would hear of.
#[tokio::test(start_paused = true)]
async fn what_an_idle_worker_keeps_of_objects_is_let_go_after_a_while() {
    let (queue, exchange) = (queue(8, 8, false), fixtures::sampled());
    let mut worker = queue.join();
    tell(&queue, &mut worker, &exchange);
    assert!(queue.known.get().0 > 0);
    WORKER.set(Some(worker));
    let idle = Duration::from_secs(60);
    let timer = metrics::let_go(idle);
    assert!(tokio::time::timeout(idle, timer).await.is_err());
    assert_eq!(queue.known.get(), (0, 0));
}

/// Whatever `--metrics-idle-minutes` says.
#[test]
fn what_an_idle_worker_keeps_of_objects_is_let_go_with_its_snapshot() {
    let (queue, exchange) = (queue(8, 8, false), fixtures::sampled());
    let mut worker = queue.join();
    tell(&queue, &mut worker, &exchange);
    let kept = queue.known.get();
    assert!(kept.0 > 0);
    WORKER.set(Some(worker));
    of_snapshot(exchange.snapshot);
    assert_eq!(queue.known.get(), kept, "it is still in force");
    of_snapshot(exchange.snapshot + 1);
    assert_eq!(queue.known.get(), (0, 0));
}

/// Nothing else sends metrics this way: the counter is this test's.
#[test]
fn each_message_of_a_long_exchange_is_counted_when_it_is_dropped() {
    let queue = queue(8, 8, false);
    let channel = queue.channel(Signal::Metrics, &Receiver::Environment);
    let to = channel.unwrap();
    to.waiting.fetch_add(1, Relaxed);
    let mut pack = Pack::new(to.head.clone(), to.bytes.clone(), 0);
    let record = vec![b'x'; OTLP_MESSAGE_BYTES_MAX / 2 + 1];
    (0..2).for_each(|_| pack.add(&record));
    pack.end_exchange(8);
    let before = counters::OTLP_DROPPED.value("metrics");
    let batch = Batch {
        to: to.clone(),
        pack,
        began: None,
    };
    batch.give_up();
    assert_eq!(counters::OTLP_DROPPED.value("metrics"), before + 2);
    assert!(to.is_idle());
}

/// Nothing is under way just then, and the next message would grow from nothing.
#[test]
fn who_comes_when_a_message_is_whole_leaves_room_for_the_next_one() {
    let (queue, exchange) = (queue(64, 8, false), fixtures::sampled());
    let mut worker = queue.join();
    let mut places = std::collections::HashSet::new();
    for _ in 0..10 {
        for _ in 0..8 {
            tell(&queue, &mut worker, &exchange);
        }
        queue.drain(exchange.started, |batch| {
            let to = batch.to.clone();
            for parcel in batch.pack.finish() {
                assert!(to.expected.load(Relaxed) >= parcel.message.len());
                places.insert(parcel.message.as_ptr().addr());
                to.left(parcel.exchanges);
            }
        });
    }
    // The first one grew; the others were written where one was that was sent.
    assert!(places.len() <= 3, "{places:?}");
}
