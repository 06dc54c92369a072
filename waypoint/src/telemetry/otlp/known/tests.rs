//! What is kept of objects, for how long, and that it is said of no other.

use super::*;
use crate::telemetry::access_log::upstream_cluster;
use crate::telemetry::fixtures;

fn bytes(write: impl FnOnce(&mut Pairs)) -> Vec<u8> {
    let mut pairs = Pairs::default();
    write(&mut pairs);
    pairs.bytes().to_vec()
}

fn workload(name: &str) -> Arc<Workload> {
    let endpoint = fixtures::http().endpoint.unwrap();
    let mut workload = Arc::unwrap_or_clone(endpoint.workload.unwrap());
    workload.workload_name = name.into();
    Arc::new(workload)
}

fn tags(known: &mut Known, workload: &Arc<Workload>) -> Vec<u8> {
    bytes(|to| known.destination(workload, "Kubernetes", to))
}

fn written(workload: &Workload) -> Vec<u8> {
    bytes(|to| conventions::peer(to, DESTINATION, workload, "Kubernetes"))
}

/// Were an object not held, the next one would be put where it was, and be taken for it.
#[test]
fn what_is_said_is_the_objects_own_whatever_was_in_its_place() {
    let mut known = Known::default();
    for n in 0..100 {
        let workload = workload(&format!("w-{n}"));
        let expected = written(&workload);
        assert_eq!(tags(&mut known, &workload), expected, "the first time");
        assert_eq!(tags(&mut known, &workload), expected, "from memory");
    }
}

#[test]
fn both_sides_of_a_workload_are_told_apart() {
    let (mut known, workload) = (Known::default(), workload("w"));
    let asked = bytes(|to| known.destination(&workload, "Kubernetes", to));
    let asks = bytes(|to| known.source(&workload, "Kubernetes", to));
    assert_ne!(asked, asks);
}

/// Also of events, whose attributes have another number.
#[test]
fn verdicts_are_told_apart_by_all_that_is_said_of_them() {
    let mut known = Known::default();
    let mut denied = fixtures::denied();
    denied.dry_run = None;
    let mut other_rule = denied.clone();
    other_rule.rule = Some(1);
    let allowed = Verdict {
        allowed: true,
        ..denied.clone()
    };
    let by_default = Verdict {
        policy: None,
        rule: None,
        ..denied.clone()
    };
    let tried = fixtures::denied();
    for _ in 0..2 {
        for verdict in [&denied, &other_rule, &allowed, &by_default, &tried] {
            let expected = bytes(|to| conventions::verdict(to, verdict));
            assert_eq!(bytes(|to| known.verdict(verdict, to)), expected);
            let expected = bytes(|to| {
                to.event(1, "e", |to| conventions::verdict(to, verdict));
            });
            let found = bytes(|to| {
                to.event(1, "e", |to| known.verdict_of_event(verdict, to));
            });
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn no_more_is_kept_than_the_limit_and_nothing_of_an_older_snapshot() {
    let mut known = Known::default();
    known.of_snapshot(7);
    let first = workload("first");
    tags(&mut known, &first);
    let others: Vec<_> = (0..OTLP_KNOWN_MAX).map(|_| workload("other")).collect();
    for other in &others {
        tags(&mut known, other);
        assert!(known.destinations.0.len() <= OTLP_KNOWN_MAX);
    }
    let last = others.last().unwrap();
    assert_eq!(Arc::strong_count(&first), 1);
    assert_eq!(Arc::strong_count(last), 2);
    // A stream that began under an older one ends.
    known.of_snapshot(6);
    assert_eq!(Arc::strong_count(last), 2);
    known.of_snapshot(8);
    assert_eq!(Arc::strong_count(last), 1);
}

/// Each of its connections has another port.
#[test]
fn a_client_is_kept_once_whatever_its_port() {
    let mut known = Known::default();
    for port in [1_025, 1_026, 65_535] {
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        let mut expected = Pairs::default();
        let names = ["client.address", "network.peer.address"];
        expected.display_as(names, address.ip());
        expected.number("client.port", port);
        expected.number("network.peer.port", port);
        assert_eq!(bytes(|to| known.client(address, to)), expected.bytes());
    }
    assert_eq!(known.clients.0.len(), 1);
}

/// Not the whole service with all its endpoints.
#[test]
fn of_a_service_its_name_is_kept() {
    let mut known = Known::default();
    let exchange = fixtures::http();
    let service = exchange.service.clone().unwrap();
    let before = Arc::strong_count(&service);
    let cluster = upstream_cluster(&exchange).unwrap();
    let names = Arc::strong_count(&service.hostname);
    let expected = bytes(|to| to.display("upstream_cluster", &cluster));
    for _ in 0..2 {
        assert_eq!(bytes(|to| known.cluster(&cluster, to)), expected);
    }
    assert_eq!(Arc::strong_count(&service), before);
    assert_eq!(Arc::strong_count(&service.hostname), names + 1);
}

#[test]
fn what_is_kept_is_counted_until_it_is_let_go() {
    let size = Arc::<Size>::default();
    let mut workers = [(); 2].map(|()| Known::new(size.clone()));
    let (asked, mut denied) = (workload("w"), fixtures::denied());
    denied.dry_run = None;
    for known in &mut workers {
        tags(known, &asked);
        tags(known, &asked);
        bytes(|to| known.verdict(&denied, to));
    }
    let (objects, bytes) = size.get();
    assert_eq!((objects, Arc::strong_count(&asked)), (4, 3));
    assert!(bytes > 2 * written(&asked).len());
    workers[0].let_go();
    assert_eq!((size.get().0, Arc::strong_count(&asked)), (2, 2));
    workers[1].of_snapshot(1);
    assert_eq!((size.get(), Arc::strong_count(&asked)), ((0, 0), 1));
}
