//! Records come out as they went in, or are known to be gone.

use std::time::Duration;

use super::*;
use crate::telemetry::fixtures;

fn record(bytes: u64) -> Record {
    let mut exchange = fixtures::http();
    exchange.bytes_sent = bytes;
    Record::ended(&mut exchange, Duration::ZERO, false)
}

#[test]
fn the_oldest_is_overwritten() {
    let ring = Ring::new(4);
    assert!(matches!(ring.read(0), Read::NotYet));
    (0..6).for_each(|n| ring.push(record(n)));
    assert_eq!((ring.oldest(), ring.next(), ring.flows_seen()), (2, 6, 18));
    assert!(matches!(ring.read(1), Read::Overwritten));
    for number in 2..6 {
        let Read::Record(kept) = ring.read(number) else {
            panic!("{number}");
        };
        assert_eq!((kept.number, kept.flows_before), (number, 3 * number));
        assert_eq!(kept.record.bytes_sent, number);
    }
    assert!(matches!(ring.read(6), Read::NotYet));
}

/// Several writers, one reader: what it reads is whole and in order, and what it did not read it knows of.
#[test]
fn writers_and_a_reader_at_once() {
    const EACH: u64 = 2_000;
    let ring = Arc::new(Ring::new(64));
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let ring = ring.clone();
            std::thread::spawn(move || (0..EACH).for_each(|n| ring.push(record(n))))
        })
        .collect();
    let (mut at, mut read, mut lost) = (0, 0_u64, 0_u64);
    while at < 3 * EACH {
        match ring.read(at) {
            Read::Record(kept) => {
                assert_eq!(kept.number, at);
                (at, read) = (at + 1, read + 1);
            }
            Read::Overwritten => {
                let oldest = ring.oldest().max(at + 1);
                (at, lost) = (oldest, lost + oldest - at);
            }
            Read::NotYet => std::thread::yield_now(),
        }
    }
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
    assert_eq!(read + lost, 3 * EACH);
    assert_eq!(ring.flows_seen(), 9 * EACH);
}

/// A reader that waits is woken by the next record, whichever thread adds it.
#[tokio::test]
async fn a_waiting_reader_is_woken() {
    let ring = Arc::new(Ring::new(4));
    for number in 0..50 {
        let writer = ring.clone();
        let writer = std::thread::spawn(move || writer.push(record(0)));
        ring.added(number).await;
        writer.join().unwrap();
        assert!(matches!(ring.read(number), Read::Record(_)));
    }
}

fn path(kept: &Kept) -> &str {
    kept.record.http.as_ref().unwrap().path()
}

/// The memory of a record that was overwritten is not that of a later one while somebody reads it.
#[test]
fn a_record_that_a_reader_holds_stays_as_it_is() {
    let ring = Ring::new(2);
    let mut held = Vec::new();
    for n in 0..40 {
        let mut exchange = fixtures::http();
        exchange.http.as_mut().unwrap().path = format!("/{n}");
        ring.push_in(|room| Record::ended_in(room, &mut exchange, Duration::ZERO, false));
        let Read::Record(kept) = ring.read(n) else {
            panic!("{n}");
        };
        assert_eq!(path(&kept), format!("/{n}"));
        if n % 10 == 0 {
            held.push((n, kept));
        }
    }
    for (n, kept) in &held {
        assert_eq!((kept.number, path(kept)), (*n, &*format!("/{n}")));
    }
}

/// Once the ring has gone round there is memory of records that were overwritten, and room for their texts.
#[test]
fn a_record_is_put_where_an_overwritten_one_was_without_allocating() {
    let ring = Ring::new(2);
    for n in 0..10 {
        let mut exchange = fixtures::http();
        let of = allocation_counter::measure(|| {
            ring.push_in(|room| Record::ended_in(room, &mut exchange, Duration::ZERO, false));
        });
        if n > 2 {
            assert_eq!(of.count_total, 0, "{n}");
        }
    }
}

#[test]
fn a_writer_that_is_a_round_late_hides_nothing() {
    let slot = ArcSwapOption::empty();
    let kept = |number| {
        Arc::new(Kept {
            number,
            flows_before: 0,
            record: record(number),
        })
    };
    let put = |number| put(&slot, kept(number)).map(|before| before.number);
    assert_eq!(put(4), None);
    assert_eq!(put(8), Some(4));
    assert_eq!(put(0), None);
    assert_eq!(slot.load().as_ref().unwrap().number, 8);
    assert_eq!(put(12), Some(8));
}
