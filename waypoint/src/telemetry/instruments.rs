//! The kinds of values a scrape reads: gauges, counters by a label, plain values. They know how they
//! appear in a scrape; which ones exist is in `counters`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use super::names::Metric;

/// Workers that write without sharing a cache line; beyond, two of them share a slot.
const SLOTS: usize = 32;

static NEXT_SLOT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static SLOT: usize = (NEXT_SLOT.fetch_add(1, Relaxed) % SLOTS as u64) as usize;
}

/// Something a scrape reads.
pub trait Instrument: Sync {
    /// What a scrape shows now; `None` when there is nothing to show.
    fn family(&self) -> Option<MetricFamily>;
}

/// One cache line per worker, so that counting a stream costs no other worker anything.
#[repr(align(64))]
struct Slot(AtomicI64);

/// A number that goes up and down, or only up. Adding is one uncontended atomic operation.
pub struct Gauge {
    metric: &'static Metric,
    slots: [Slot; SLOTS],
}

impl Gauge {
    /// A gauge (or counter without labels) that is 0.
    pub const fn new(metric: &'static Metric) -> Self {
        Self {
            metric,
            slots: [const { Slot(AtomicI64::new(0)) }; SLOTS],
        }
    }

    /// Adds `n`, which may be negative. Any thread may take away what another one added.
    pub fn add(&self, n: i64) {
        // The slot is below SLOTS by construction. At thread exit the thread-local may be gone;
        // slot 0 is as good as any other then.
        let slot = SLOT.try_with(|s| *s).unwrap_or_default();
        if let Some(slot) = self.slots.get(slot) {
            slot.0.fetch_add(n, Relaxed);
        }
    }

    /// Counts one until the returned guard is dropped.
    pub fn track(&'static self) -> Tracked {
        self.add(1);
        Tracked(self)
    }

    /// The sum over all workers.
    pub fn value(&self) -> i64 {
        self.slots.iter().map(|s| s.0.load(Relaxed)).sum()
    }
}

impl Instrument for Gauge {
    fn family(&self) -> Option<MetricFamily> {
        Some(family(
            self.metric,
            vec![sample(self.metric, &[], self.value() as f64)],
        ))
    }
}

/// One thing that a gauge counts as long as this lives.
pub struct Tracked(&'static Gauge);

impl Drop for Tracked {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

impl std::fmt::Debug for Tracked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tracked({})", self.0.metric.name)
    }
}

/// A value per value of one label. Behind a lock, so not for what happens in every request.
pub struct ByLabel {
    metric: &'static Metric,
    values: Mutex<BTreeMap<&'static str, u64>>,
}

impl ByLabel {
    /// Without any label value yet.
    pub const fn new(metric: &'static Metric) -> Self {
        Self {
            metric,
            values: Mutex::new(BTreeMap::new()),
        }
    }

    /// Makes the label values appear as 0 from the first scrape on: an alert on an increase needs
    /// the value before the first event.
    pub fn preset(&self, labels: impl IntoIterator<Item = &'static str>) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        for label in labels {
            values.entry(label).or_insert(0);
        }
    }

    /// Adds one.
    pub fn inc(&self, label: &'static str) {
        self.add(label, 1);
    }

    /// Adds `n`.
    pub fn add(&self, label: &'static str, n: u64) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        *values.entry(label).or_insert(0) += n;
    }

    /// Sets the value, for a gauge.
    pub fn set(&self, label: &'static str, value: u64) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.insert(label, value);
    }

    /// The value, 0 for an unknown label.
    pub fn value(&self, label: &str) -> u64 {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(label).copied().unwrap_or_default()
    }
}

impl Instrument for ByLabel {
    fn family(&self) -> Option<MetricFamily> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let samples: Vec<_> = values
            .iter()
            .map(|(label, value)| sample(self.metric, &[label], *value as f64))
            .collect();
        (!samples.is_empty()).then(|| family(self.metric, samples))
    }
}

/// A number set from time to time; not shown before it was set.
pub struct Value {
    metric: &'static Metric,
    bits: AtomicU64,
}

/// The bits of one of the many NaNs: never a value that is set.
const UNSET: u64 = u64::MAX;

impl Value {
    /// Not set.
    pub const fn new(metric: &'static Metric) -> Self {
        Self {
            metric,
            bits: AtomicU64::new(UNSET),
        }
    }

    /// Sets it.
    pub fn set(&self, value: f64) {
        self.bits.store(value.to_bits(), Relaxed);
    }
}

impl Instrument for Value {
    fn family(&self) -> Option<MetricFamily> {
        let bits = self.bits.load(Relaxed);
        (bits != UNSET).then(|| {
            family(
                self.metric,
                vec![sample(self.metric, &[], f64::from_bits(bits))],
            )
        })
    }
}

/// A family in the form the encoder takes.
pub fn family(metric: &Metric, samples: Vec<proto::Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(metric.kind);
    family.set_metric(samples);
    family
}

/// One counter or gauge sample; `values` in the order of the metric's labels.
pub fn sample(metric: &Metric, values: &[&str], value: f64) -> proto::Metric {
    let labels = label_pairs(metric.labels, values);
    if metric.kind == MetricType::COUNTER {
        return counter_sample(labels, value);
    }
    let mut sample = proto::Metric::from_label(labels);
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    sample.set_gauge(gauge);
    sample
}

/// One sample of a counter with these labels.
pub fn counter_sample(labels: Vec<LabelPair>, value: f64) -> proto::Metric {
    let mut sample = proto::Metric::from_label(labels);
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    sample.set_counter(counter);
    sample
}

/// Label names with their values.
pub fn label_pairs(names: &[&str], values: &[&str]) -> Vec<LabelPair> {
    debug_assert_eq!(names.len(), values.len(), "every label has a value");
    names
        .iter()
        .zip(values)
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names;

    #[test]
    fn a_gauge_counts_what_lives_even_across_threads() {
        static GAUGE: Gauge = Gauge::new(&names::STREAMS);
        let here = GAUGE.track();
        let there = std::thread::spawn(|| GAUGE.track()).join().unwrap();
        assert_eq!(GAUGE.value(), 2);
        drop(there);
        assert_eq!(GAUGE.value(), 1);
        drop(here);
        assert_eq!(GAUGE.value(), 0);
    }

    #[test]
    fn preset_labels_are_shown_as_zero_and_never_reset() {
        let refused = ByLabel::new(&names::TUNNEL_REFUSED);
        assert!(refused.family().is_none());
        refused.inc("not_served");
        refused.preset(["not_served", "draining"]);
        assert_eq!(
            (refused.value("not_served"), refused.value("draining")),
            (1, 0)
        );
        assert_eq!(refused.family().unwrap().get_metric().len(), 2);
    }

    #[test]
    fn a_value_is_shown_once_it_is_set() {
        let version = Value::new(&names::SNAPSHOT_VERSION);
        assert!(version.family().is_none());
        version.set(0.0);
        assert!(version.family().is_some());
    }
}
