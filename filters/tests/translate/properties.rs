//! Routes of one language at random, translated, and both asked by requests at random: whatever was written, every
//! request is treated as before. What the report calls a loss stays as it was, so that it makes no difference either.

use std::cell::Cell;

use cairn_config_schema::translate::Target;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::envoy::envoy_configs;
use crate::istio::virtual_services;
use crate::requests::request;
use crate::world::{Request, World, consumer};

const REQUESTS_PER_SET: usize = 250;

/// What was seen, so that a property that holds of nothing does not pass.
#[derive(Debug, Default)]
struct Seen {
    /// Something was written.
    written: Cell<usize>,
    /// Every part was replaced.
    whole: Cell<usize>,
    /// Something was written on the way back.
    back: Cell<usize>,
    /// Requests that a rule of what was written takes.
    routed: Cell<usize>,
}

fn add(cell: &Cell<usize>, number: usize) {
    cell.set(cell.get() + number);
}

fn alike(
    before: &World,
    after: &World,
    requests: &[Request],
    said: &str,
) -> Result<(), TestCaseError> {
    for request in requests {
        let (old, new) = (before.outcome(request), after.outcome(request));
        prop_assert!(
            old == new,
            "{request:?}\nbefore {old}\nafter  {new}\n{said}"
        );
    }
    Ok(())
}

fn there_and_back(
    objects: &[Value],
    requests: &[Request],
    (target, back): (Target, Option<Target>),
    seen: &Seen,
) -> Result<(), TestCaseError> {
    let before = World::with(objects);
    let there = before.translate(target);
    if there.objects.is_empty() {
        return Ok(());
    }
    add(&seen.written, 1);
    add(&seen.whole, usize::from(there.is_whole()));
    let after = before.after(&there).map_err(TestCaseError::fail)?;
    alike(&before, &after, requests, &format!("{there:#?}"))?;
    let untouched = World::with(&[]);
    let routed = requests
        .iter()
        .filter(|r| after.outcome(r) != untouched.outcome(r));
    add(&seen.routed, routed.count());
    let Some(back) = back else {
        return Ok(());
    };
    let back = after.translate(back);
    let again = after.after(&back).map_err(TestCaseError::fail)?;
    add(&seen.back, usize::from(!back.objects.is_empty()));
    alike(&after, &again, requests, &format!("{back:#?}"))
}

/// Where routes are translated to, and what has to be seen of it.
struct Way {
    target: Target,
    /// Where what was written is translated to again.
    back: Option<Target>,
    /// How many sets of routes are tried. Few of them can be written for some targets.
    sets: u32,
    /// How many of them have to be written whole, and to come back where there is a way back: half of what is seen
    /// on average, four standard deviations away.
    least: usize,
}

/// For sets of which the other side can say all, three in four of them, or most.
fn assert_alike<S: Strategy<Value = Vec<Value>>>(objects: fn(f64) -> S, way: &Way) {
    let seen = Seen::default();
    let config = ProptestConfig {
        cases: way.sets,
        ..ProptestConfig::default()
    };
    let objects = prop_oneof![3 => objects(1.0), 1 => objects(0.8)];
    // Beside them a route of another language, for callers of another namespace.
    let objects = (objects, prop::bool::weighted(0.2));
    let objects = objects.prop_map(|(mut objects, beside)| {
        objects.extend(beside.then(consumer));
        objects
    });
    let pairs = (objects, vec(request(), REQUESTS_PER_SET));
    let outcome = TestRunner::new(config).run(&pairs, |(objects, requests)| {
        there_and_back(&objects, &requests, (way.target, way.back), &seen)
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let back = way.back.is_none() || seen.back.get() >= way.least;
    assert!(seen.whole.get() >= way.least && back, "{seen:?}");
    assert!(seen.routed.get() > 10 * seen.written.get(), "{seen:?}");
}

#[test]
fn a_virtual_service_is_the_same_at_cilium() {
    assert_alike(
        virtual_services,
        &Way {
            target: Target::Cilium,
            back: Some(Target::Istio),
            sets: 400,
            least: 60,
        },
    );
}

#[test]
fn a_virtual_service_is_the_same_as_an_http_route() {
    assert_alike(
        virtual_services,
        &Way {
            target: Target::Gateway,
            back: None,
            sets: 1600,
            least: 30,
        },
    );
}

#[test]
fn a_cilium_envoy_config_is_the_same_at_istio() {
    assert_alike(
        envoy_configs,
        &Way {
            target: Target::Istio,
            back: Some(Target::Cilium),
            sets: 400,
            least: 110,
        },
    );
}

#[test]
fn a_cilium_envoy_config_is_the_same_as_an_http_route() {
    assert_alike(
        envoy_configs,
        &Way {
            target: Target::Gateway,
            back: None,
            sets: 1600,
            least: 30,
        },
    );
}
