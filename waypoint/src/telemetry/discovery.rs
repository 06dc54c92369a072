//! How istiod's telling of workloads is doing, as a scrape shows it. A waypoint that does not ask has none.

use prometheus::proto::MetricFamily;

use super::instruments::{ByLabel, Instrument, Value};
use super::names;

static CONNECTED: Value = Value::new(&names::XDS_CONNECTED);
static RESOURCES: ByLabel = ByLabel::new(&names::XDS_RESOURCES);
static BYTES: Value = Value::new(&names::XDS_BYTES);
static RESPONSES: ByLabel = ByLabel::new(&names::XDS_RESPONSES);
static ERRORS: ByLabel = ByLabel::new(&names::XDS_ERRORS);

/// Shows everything as nothing, from now on.
pub fn preset(reasons: impl IntoIterator<Item = &'static str>) {
    CONNECTED.set(0.0);
    BYTES.set(0.0);
    RESOURCES.preset(["workload", "service", "refused"]);
    RESPONSES.preset(["accepted", "refused"]);
    ERRORS.preset(reasons);
}

/// A stream is open, and has told something.
pub fn connected() {
    CONNECTED.set(1.0);
}

/// A stream ended, or none came to be.
pub fn ended(reason: &'static str) {
    CONNECTED.set(0.0);
    ERRORS.inc(reason);
}

/// An answer was taken, wholly or not.
pub fn answered(wholly: bool) {
    RESPONSES.inc(if wholly { "accepted" } else { "refused" });
}

/// So many resources are known, and refused, of so many bytes.
pub fn known(workloads: usize, services: usize, refused: usize, bytes: usize) {
    let counts = [
        ("workload", workloads),
        ("service", services),
        ("refused", refused),
    ];
    for (kind, count) in counts {
        RESOURCES.set(kind, count as u64);
    }
    BYTES.set(bytes as f64);
}

/// Everything above.
pub fn families() -> Vec<MetricFamily> {
    let all: [&dyn Instrument; 5] = [&CONNECTED, &RESOURCES, &BYTES, &RESPONSES, &ERRORS];
    all.iter().filter_map(|i| i.family()).collect()
}
