//! Ejection and return under a clock that the test holds (specs/policies.md 2.7), and against a naive
//! machine that keeps every answer.

use std::net::Ipv4Addr;
use std::sync::Arc;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    ClusterKey, ClusterSettings, Endpoint, LoadBalancing, OutlierDetection, SuccessRate,
};
use proptest::prelude::*;

use super::*;
use crate::balance::Choice;
use crate::cluster::Cluster;

const BAD: AnswerKind = AnswerKind::Status(500);
const GOOD: AnswerKind = AnswerKind::Status(200);

/// Istio's defaults, with every endpoint allowed out.
fn rules() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 5,
        consecutive_gateway_errors: 0,
        split_local_origin: false,
        consecutive_local_origin_failures: 5,
        success_rate: None,
        interval_ms: 1,
        base_ejection_ms: 30_000,
        ejection_max_ms: 300_000,
        ejected_percent_max: 100,
    }
}

fn cluster(rules: OutlierDetection, count: u8, panic_threshold_percent: u8) -> Cluster {
    let endpoint = |n| Endpoint::new((Ipv4Addr::new(10, 0, 0, n), 80).into(), None);
    let settings = ClusterSettings {
        outlier_detection: Some(rules),
        balancing: LoadBalancing {
            panic_threshold_percent,
            ..LoadBalancing::default()
        },
        ..ClusterSettings::default()
    };
    let key = ClusterKey::new(ObjectKey::new("shop", "web"), 80);
    let endpoints: Vec<_> = (0..count).map(endpoint).collect();
    Cluster::new(key, &endpoints, Arc::new(settings), 0)
}

/// Puts the same answer several times to endpoint `at`; what the last one led to.
fn answer(
    c: &Cluster,
    at: usize,
    kind: AnswerKind,
    times: u32,
    now_ms: u64,
) -> Option<EjectionEvent> {
    let endpoint = c.endpoints()[at].clone();
    (0..times)
        .map(|_| c.record(&endpoint, kind, now_ms))
        .last()?
}

fn cause(event: Option<EjectionEvent>) -> Option<EjectionCause> {
    match event {
        Some(EjectionEvent::Ejected { cause, .. }) => Some(cause),
        _ => None,
    }
}

fn out(cluster: &Cluster) -> Vec<bool> {
    let endpoints = cluster.endpoints();
    endpoints.iter().map(|e| e.health().is_ejected()).collect()
}

#[test]
fn five_bad_answers_in_a_row_eject_and_a_good_one_starts_again() {
    let c = cluster(rules(), 2, 0);
    assert!(answer(&c, 0, BAD, 4, 0).is_none());
    assert!(answer(&c, 0, GOOD, 1, 0).is_none());
    assert!(answer(&c, 0, BAD, 4, 0).is_none());
    let event = answer(&c, 0, BAD, 1, 0);
    assert_eq!(cause(event), Some(EjectionCause::Consecutive5xx));
    assert_eq!(out(&c), [true, false]);
    for random in 0..100 {
        let picked = c.pick(&Choice::new(random << 32, &[], 0)).unwrap();
        assert!(!picked.health().is_ejected());
    }
}

#[test]
fn gateway_errors_have_a_row_of_their_own_that_other_5xx_end() {
    let rules = OutlierDetection {
        consecutive_5xx: 0,
        consecutive_gateway_errors: 3,
        ..rules()
    };
    let c = cluster(rules, 2, 0);
    assert!(answer(&c, 0, AnswerKind::Status(503), 2, 0).is_none());
    assert!(answer(&c, 0, BAD, 1, 0).is_none());
    assert!(answer(&c, 0, AnswerKind::Status(502), 2, 0).is_none());
    let event = answer(&c, 0, AnswerKind::LocalFailure, 1, 0);
    assert_eq!(cause(event), Some(EjectionCause::ConsecutiveGatewayErrors));
}

#[test]
fn local_failures_are_5xx_unless_they_are_split_off() {
    let c = cluster(rules(), 2, 0);
    let event = answer(&c, 0, AnswerKind::LocalFailure, 5, 0);
    assert_eq!(cause(event), Some(EjectionCause::Consecutive5xx));

    let split = OutlierDetection {
        split_local_origin: true,
        consecutive_local_origin_failures: 7,
        ..rules()
    };
    let c = cluster(split, 2, 0);
    assert!(answer(&c, 0, AnswerKind::LocalFailure, 6, 0).is_none());
    let event = answer(&c, 0, AnswerKind::LocalFailure, 1, 0);
    assert_eq!(
        cause(event),
        Some(EjectionCause::ConsecutiveLocalOriginFailures)
    );
}

#[test]
fn an_endpoint_comes_back_after_its_time_which_grows_and_shrinks_again() {
    let c = cluster(rules(), 2, 0);
    let mut now_ms = 0;
    for times in 1..=3u64 {
        assert!(cause(answer(&c, 0, BAD, 5, now_ms)).is_some());
        assert!(c.sweep(now_ms + 30_000 * times - 2).is_empty());
        now_ms += 30_000 * times;
        let events = c.sweep(now_ms);
        assert!(matches!(&events[..], [EjectionEvent::Returned { .. }]));
        assert_eq!(out(&c), [false, false]);
    }
    // Three quiet intervals, and it is as if it had never been out.
    (1..=3).for_each(|n| assert!(c.sweep(now_ms + n).is_empty()));
    let Some(EjectionEvent::Ejected { for_ms, .. }) = answer(&c, 0, BAD, 5, now_ms + 40_000) else {
        panic!("not ejected");
    };
    assert_eq!(for_ms, 30_000);
}

/// "with 10 % and <10 endpoints Envoy still ejects one host" (specs/policies.md 2.7).
#[test]
fn a_share_of_the_endpoints_and_at_least_one_may_be_out() {
    for (count, percent, most) in [(5, 10, 1), (10, 50, 5), (3, 100, 3), (1, 0, 1)] {
        let rules = OutlierDetection {
            ejected_percent_max: percent,
            ..rules()
        };
        let c = cluster(rules, count, 0);
        for at in 0..count {
            answer(&c, at.into(), BAD, 5, 0);
        }
        assert_eq!(out(&c).iter().filter(|out| **out).count(), most);
    }
}

#[test]
fn with_all_out_nothing_is_picked_unless_a_threshold_allows_panic() {
    for (threshold, picked) in [(0, false), (50, true)] {
        let c = cluster(rules(), 2, threshold);
        answer(&c, 0, BAD, 5, 0);
        answer(&c, 1, BAD, 5, 0);
        assert_eq!(c.pick(&Choice::new(1, &[], 0)).is_some(), picked);
    }
}

#[test]
fn the_one_far_below_the_others_is_ejected_by_success_rate() {
    let rules = OutlierDetection {
        consecutive_5xx: 0,
        success_rate: Some(SuccessRate {
            hosts_min: 5,
            requests_min: 100,
            stdev_factor_thousandths: 1_900,
        }),
        ..rules()
    };
    let c = cluster(rules, 6, 0);
    let round = |bad: u32, now_ms| {
        for at in 0..6 {
            answer(&c, at, GOOD, 98, 0);
            answer(&c, at, BAD, if at == 3 { bad } else { 2 }, 0);
        }
        c.sweep(now_ms)
    };
    assert!(round(2, 10_000).is_empty(), "all alike");
    let events = round(60, 20_000);
    let [
        EjectionEvent::Ejected {
            endpoint, cause, ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(endpoint.endpoint.address.to_string(), "10.0.0.3:80");
    assert_eq!(*cause, EjectionCause::SuccessRate);
    assert!(c.sweep(30_000).is_empty(), "each answer counts once");
}

#[test]
fn switched_off_everybody_comes_back() {
    let c = cluster(rules(), 2, 0);
    answer(&c, 0, BAD, 5, 0);
    let endpoints: Vec<_> = c.endpoints().iter().map(|e| e.endpoint.clone()).collect();
    c.update(&endpoints, Arc::default(), 1);
    assert_eq!(c.sweep(2).len(), 1);
    assert_eq!(out(&c), [false, false]);
}

/// An ejection that the endpoints in force were not told of lasts until all are looked through.
#[test]
fn who_is_ejected_untold_while_detection_is_off_comes_back_a_little_later() {
    let c = cluster(rules(), 2, 0);
    let endpoint = c.endpoints()[0].clone();
    let endpoints: Vec<_> = c.endpoints().iter().map(|e| e.endpoint.clone()).collect();
    c.update(&endpoints, Arc::default(), 1);
    for _ in 0..5 {
        record(&rules(), std::slice::from_ref(&endpoint), &endpoint, BAD, 2);
    }
    assert_eq!(out(&c), [true, false]);
    assert!(c.sweep(9_999).is_empty(), "nobody looks yet");
    assert_eq!(c.sweep(10_000).len(), 1);
    assert_eq!(out(&c), [false, false]);
}

/// The naive machine: every answer of an endpoint since it was last ejected, good or back.
#[derive(Clone, Default)]
struct Naive {
    answers: Vec<u16>,
    out_since: Option<u64>,
    times: u64,
}

proptest! {
    #[test]
    fn the_machine_agrees_with_one_that_keeps_every_answer(
        percent in prop::sample::select(vec![0u8, 34, 100]),
        gateway in 0..4u32,
        steps in prop::collection::vec((0..3usize, prop::sample::select(vec![200u16, 404, 500, 503]), 0..8_000u64), 1..120),
    ) {
        let rules = OutlierDetection {
            consecutive_5xx: 3,
            consecutive_gateway_errors: gateway,
            ejected_percent_max: percent,
            base_ejection_ms: 5_000,
            ..rules()
        };
        let c = cluster(rules, 3, 0);
        let mut naive = vec![Naive::default(); 3];
        let mut now_ms = 0;
        let mut swept_ms = 0;
        for (at, status, later_ms) in steps {
            now_ms += later_ms;
            if now_ms - swept_ms >= 10_000 {
                swept_ms = now_ms;
                c.sweep(now_ms);
                naive.iter_mut().for_each(|n| n.sweep(now_ms));
            }
            let event = answer(&c, at, AnswerKind::Status(status), 1, now_ms);
            let room = naive.iter().filter(|n| n.out_since.is_some()).count();
            let room = room == 0 || room < 3 * usize::from(percent) / 100;
            let ejected = naive[at].put(status, gateway as usize, room, now_ms);
            prop_assert_eq!(cause(event).is_some(), ejected);
            let naive_out: Vec<_> = naive.iter().map(|n| n.out_since.is_some()).collect();
            prop_assert_eq!(out(&c), naive_out);
        }
    }
}

impl Naive {
    /// Whether it is ejected by this answer.
    fn put(&mut self, status: u16, gateway: usize, room: bool, now_ms: u64) -> bool {
        self.answers.push(status);
        let row = |bad: fn(u16) -> bool| self.answers.iter().rev().take_while(|s| bad(**s)).count();
        let (errors, gateways) = (row(|s| s >= 500), row(|s| s == 503));
        let by_gateway = gateway > 0 && gateways > 0 && gateways.is_multiple_of(gateway);
        let guilty = by_gateway || (errors > 0 && errors.is_multiple_of(3));
        let ejected = guilty && room && self.out_since.is_none();
        if ejected {
            self.out_since = Some(now_ms);
            self.times += 1;
        }
        ejected
    }

    fn sweep(&mut self, now_ms: u64) {
        match self.out_since {
            Some(since) if now_ms - since >= (5_000 * self.times).min(300_000) => {
                self.out_since = None;
                self.answers.clear();
            }
            Some(_) => {}
            None => self.times = self.times.saturating_sub(1),
        }
    }
}
