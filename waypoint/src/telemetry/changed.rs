//! Series whose labels a Telemetry changed: what one thread counts of them. They are few, for only
//! services with overrides have any; all others are counted in `metrics`.

use std::sync::Arc;

use cairn_config_schema::snapshot::IstioMetric;
use rustc_hash::FxHashMap;

use super::changes::{Changes, LabelSet};
use super::labels::OTHER;
use super::series::{ChangedSeries, Registry, Table};

/// Label sets by metric, base label set, settings and values of expressions.
type Remembered =
    FxHashMap<(usize, usize, Vec<Arc<str>>, Vec<Arc<str>>), (Arc<ChangedSeries>, Arc<Changes>)>;

/// What a thread remembers of them; beyond, it starts over, and nothing is lost.
const REMEMBERED_MAX: usize = 4_096;

/// What one thread counts.
#[derive(Default)]
pub struct ChangedCounts {
    by_labels: FxHashMap<(usize, LabelSet), Arc<ChangedSeries>>,
    remembered: Remembered,
}

impl ChangedCounts {
    /// This thread's series of a metric. `names` and `usual` are the labels that it usually has.
    pub fn series(
        &mut self,
        registry: &Registry,
        changes: &Arc<Changes>,
        metric: IstioMetric,
        (names, usual): (&'static [&'static str], &[Arc<str>]),
        values: &[Arc<str>],
    ) -> Arc<ChangedSeries> {
        let at = metric as usize;
        let key = (
            at,
            Arc::as_ptr(changes).addr(),
            usual.to_vec(),
            values.to_vec(),
        );
        if let Some((series, _)) = self.remembered.get(&key) {
            return series.clone();
        }
        let pairs = names.iter().copied().zip(usual.iter().cloned());
        let labels = changes.labels(metric, pairs, values);
        let series = match registry.changed.get(at) {
            Some(table) => self.enter(registry, table, at, labels),
            None => Arc::default(),
        };
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
        }
        // The address is a key only as long as it is held.
        let held = (series.clone(), changes.clone());
        self.remembered.insert(key, held);
        series
    }

    fn enter(
        &mut self,
        registry: &Registry,
        table: &Table<LabelSet, ChangedSeries>,
        at: usize,
        labels: LabelSet,
    ) -> Arc<ChangedSeries> {
        if let Some(series) = self.by_labels.get(&(at, labels.clone())) {
            return series.clone();
        }
        // Too many of them: one with the same names, and `other` throughout.
        let other: LabelSet = labels
            .iter()
            .map(|(name, _)| (name.clone(), OTHER.into()))
            .collect();
        let join = |counts: &mut Vec<Arc<ChangedSeries>>| {
            let series = Arc::new(ChangedSeries::default());
            counts.push(series.clone());
            series
        };
        if let Some(series) = table.enter(labels.clone(), other.clone(), join) {
            self.by_labels.insert((at, labels), series.clone());
            return series;
        }
        registry.overflow.add(1);
        if let Some(series) = self.by_labels.get(&(at, other.clone())) {
            return series.clone();
        }
        let series = table
            .enter(other.clone(), other.clone(), join)
            .unwrap_or_default();
        self.by_labels.insert((at, other), series.clone());
        series
    }
}
