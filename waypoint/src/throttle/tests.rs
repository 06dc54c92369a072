//! Which limiters a request passes, whose bucket it takes from, and what outlives a snapshot.

use std::net::{IpAddr, Ipv4Addr};

use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::Kind;
use cairn_config_schema::snapshot::{Concurrency, LimitKey};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

fn origin(name: &str) -> Origin {
    Origin {
        kind: Kind::TrafficPolicy,
        key: ObjectKey::new("shop", name),
    }
}

fn limits(name: &str, targets: Vec<LimitTarget>, by: Vec<LimitKey>) -> Arc<TrafficLimits> {
    Arc::new(TrafficLimits {
        origin: origin(name),
        targets,
        rates: vec![RateLimit {
            name: "r".into(),
            requests: 1,
            interval_ms: 1_000,
            burst: 1,
            by,
        }],
        global: None,
        concurrency: None,
        broken: None,
    })
}

fn snapshot(limits: &[Arc<TrafficLimits>]) -> Snapshot {
    Snapshot {
        limits: limits.to_vec(),
        ..Snapshot::default()
    }
}

fn identity(name: &str) -> Identity {
    Identity::parse(&format!("spiffe://cluster.local/ns/{name}/sa/default")).unwrap()
}

fn counted<'r>(peer: &'r Identity, headers: &'r HeaderMap) -> Counted<'r> {
    Counted {
        peer,
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
        service: None,
        headers,
    }
}

#[test]
fn a_request_passes_every_limiter_that_reaches_it_once() {
    let web = ObjectKey::new("shop", "web");
    let route = Origin {
        kind: Kind::HTTPRoute,
        key: ObjectKey::new("shop", "web"),
    };
    let all = [
        limits(
            "everywhere",
            vec![LimitTarget::Waypoint, LimitTarget::Service(web.clone())],
            vec![],
        ),
        limits(
            "service",
            vec![
                LimitTarget::Service(web.clone()),
                LimitTarget::Route(route.clone()),
            ],
            vec![],
        ),
        limits("route", vec![LimitTarget::Route(route.clone())], vec![]),
    ];
    let limiters = Limiters::new(&snapshot(&all), None);
    let names = |service: Option<&ObjectKey>, route: Option<&Origin>| -> Vec<String> {
        let found = limiters.of(service, route);
        found
            .map(|l| l.limits.origin.key.name.to_string())
            .collect()
    };
    assert_eq!(
        names(Some(&web), Some(&route)),
        ["everywhere", "service", "route"]
    );
    assert_eq!(names(Some(&web), None), ["everywhere", "service"]);
    assert_eq!(
        names(None, Some(&route)),
        ["everywhere", "service", "route"]
    );
    assert_eq!(
        names(Some(&ObjectKey::new("shop", "api")), None),
        ["everywhere"]
    );
}

#[test]
fn everybody_has_a_bucket_of_their_own_by_what_the_key_is_made_of() {
    let tenant = HeaderName::from_static("x-tenant");
    let by = vec![LimitKey::PeerNamespace, LimitKey::Header(tenant.clone())];
    let policy = limits("p", vec![LimitTarget::Waypoint], by);
    let limiters = Limiters::new(&snapshot(&[policy]), None);
    let limiter = limiters.iter().next().unwrap();
    let (shop, cart) = (identity("shop"), identity("cart"));
    let headers = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(tenant.clone(), HeaderValue::from_static(value));
        }
        headers
    };
    let (none, one, other, both) = (
        headers(&[]),
        headers(&["a"]),
        headers(&["b"]),
        headers(&["a", "b"]),
    );
    let passes = |peer, headers| limiter.take(&counted(peer, headers), 1).is_ok();
    for headers in [&none, &one, &other, &both] {
        for peer in [&shop, &cart] {
            assert!(passes(peer, headers));
            assert!(!passes(peer, headers));
        }
    }
    assert_eq!(limiter.counters[0].tally(), (8, 8));
    assert_eq!(limiter.counters[0].keys(), (8, 0));
}

#[test]
fn what_was_counted_goes_on_in_the_next_snapshot_unless_the_limit_changed() {
    let policy = limits("p", vec![LimitTarget::Waypoint], vec![]);
    let first = Limiters::new(&snapshot(std::slice::from_ref(&policy)), None);
    let (shop, headers) = (identity("shop"), HeaderMap::new());
    let take = |limiters: &Limiters| {
        let limiter = limiters.iter().next().unwrap();
        limiter.take(&counted(&shop, &headers), 1)
    };
    assert_eq!(take(&first), Ok(()));
    let second = Limiters::new(&snapshot(std::slice::from_ref(&policy)), Some(&first));
    let refused = Refusal::Rate {
        name: "r".into(),
        wait_ns: 1_000_000_000,
    };
    assert_eq!(take(&second), Err(refused));
    let mut changed = TrafficLimits::clone(&policy);
    changed.rates[0].burst = 2;
    let third = Limiters::new(&snapshot(&[Arc::new(changed)]), Some(&second));
    assert_eq!(take(&third), Ok(()));
}

#[test]
fn places_are_kept_over_snapshots_and_a_broken_policy_lets_nothing_pass() {
    let mut policy = TrafficLimits::clone(&limits("p", vec![LimitTarget::Waypoint], vec![]));
    policy.concurrency = Some(Concurrency {
        requests_max: 1,
        fair_share: false,
    });
    let policy = Arc::new(policy);
    let first = Limiters::new(&snapshot(std::slice::from_ref(&policy)), None);
    let place = first.iter().next().unwrap().enter(None).unwrap();
    let second = Limiters::new(&snapshot(std::slice::from_ref(&policy)), Some(&first));
    let limiter = second.iter().next().unwrap();
    assert_eq!(limiter.enter(None).unwrap_err(), Refusal::Places(1));
    drop(place);
    assert!(limiter.enter(None).unwrap().is_some());

    let mut broken = TrafficLimits::clone(&policy);
    broken.broken = Some("no requests".into());
    let third = Limiters::new(&snapshot(&[Arc::new(broken)]), Some(&second));
    let (shop, headers) = (identity("shop"), HeaderMap::new());
    let refused = third
        .iter()
        .next()
        .unwrap()
        .take(&counted(&shop, &headers), 1);
    assert_eq!(refused, Err(Refusal::Broken("no requests".into())));
}
