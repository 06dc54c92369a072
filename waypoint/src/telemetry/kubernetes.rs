//! How the watch of the API server is doing, as a scrape shows it. A waypoint on files has none.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use cairn_kubernetes::watch::{Health, Observer};
use prometheus::proto::MetricFamily;

use super::instruments::{ByLabel, Instrument, Value, family, sample};
use super::names;

static WATCH: OnceLock<Observer> = OnceLock::new();
static PACE: Value = Value::new(&names::KUBE_PACE);
static STORED: ByLabel = ByLabel::new(&names::KUBE_STATE_STORED);
/// When the state that is in force was stored.
static STATE: ArcSwapOption<SystemTime> = ArcSwapOption::const_empty();

/// Shows this watch from now on; a process has one.
pub fn show(watch: Observer) {
    // Set already: the first one stays.
    let _ = WATCH.set(watch);
    PACE.set(0.0);
}

/// Changes of endpoints wait for so long now.
pub fn paced(pause: Duration) {
    PACE.set(pause.as_secs_f64());
}

/// What is in force was stored then; `None`: it is what the API server says.
pub fn state_of(stored: Option<SystemTime>) {
    STATE.store(stored.map(std::sync::Arc::new));
}

/// The state was stored, or could not be.
pub fn stored(succeeded: bool) {
    STORED.preset(["success", "failure"]);
    STORED.inc(if succeeded { "success" } else { "failure" });
}

/// Everything above.
pub fn families() -> Vec<MetricFamily> {
    let Some(watch) = WATCH.get() else {
        return Vec::new();
    };
    let kinds = by_kind(watch.health());
    let there = || kinds.iter().filter(|(_, health)| !health.is_absent);
    let by_kind = |metric, value: fn(&Health) -> f64| {
        let samples = there().map(|(kind, health)| sample(metric, &[kind], value(health)));
        family(metric, samples.collect())
    };
    let mut errors: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (reason, count) in kinds.values().flat_map(|health| &health.errors) {
        *errors.entry(reason.as_str()).or_default() += count;
    }
    let errors = errors.into_iter();
    let errors = errors.map(|(r, n)| sample(&names::KUBE_ERRORS, &[r], n as f64));
    let age = STATE.load();
    let age = age.as_ref().map(|at| at.elapsed().unwrap_or_default());
    let age = sample(
        &names::KUBE_STATE_AGE,
        &[],
        age.unwrap_or_default().as_secs_f64(),
    );
    let mut families = vec![
        by_kind(&names::KUBE_CONNECTED, |h| {
            f64::from(u8::from(h.is_connected))
        }),
        by_kind(&names::KUBE_OBJECTS, |h| h.objects as f64),
        by_kind(&names::KUBE_RELISTS, |h| h.relists as f64),
        by_kind(&names::KUBE_QUIET, |h| {
            h.quiet_for.unwrap_or_default().as_secs_f64()
        }),
        family(&names::KUBE_ERRORS, errors.collect()),
        family(&names::KUBE_STATE_AGE, vec![age]),
    ];
    families.extend(
        [&PACE as &dyn Instrument, &STORED]
            .iter()
            .filter_map(|i| i.family()),
    );
    families
}

/// One entry a kind: single objects that are followed for others count with their kind.
fn by_kind(all: Vec<Health>) -> BTreeMap<String, Health> {
    let mut kinds: BTreeMap<String, Health> = BTreeMap::new();
    for health in all {
        let Some(sum) = kinds.get_mut(&health.kind) else {
            kinds.insert(health.kind.clone(), health);
            continue;
        };
        sum.is_connected &= health.is_connected;
        sum.is_absent &= health.is_absent;
        sum.objects += health.objects;
        sum.relists += health.relists;
        sum.quiet_for = sum.quiet_for.max(health.quiet_for);
        for (reason, count) in health.errors {
            *sum.errors.entry(reason).or_default() += count;
        }
    }
    kinds
}
