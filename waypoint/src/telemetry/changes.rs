//! What a Telemetry changes of Istio's metrics, made ready: which are counted, and with which labels
//! (specs/istio-waypoint.md 5.1). Counts nothing.

use std::sync::Arc;

use cairn_config_schema::snapshot::{IstioMetric, MetricSettings, TagChange};

use super::exchange::Seen;
use super::expression::Compiled;
use super::labels::UNKNOWN;
use crate::limits::METRIC_TAG_BYTES_MAX;

/// Labels of one series, in the order of exposition.
pub type LabelSet = Arc<[(Arc<str>, Arc<str>)]>;

/// What is other than usual with the metrics of a service.
#[derive(Debug)]
pub struct Changes {
    of: [Change; IstioMetric::ALL.len()],
    values: Vec<Compiled>,
}

/// What is other than usual with one metric.
#[derive(Debug, Default)]
enum Change {
    #[default]
    Usual,
    Off,
    Labels {
        removed: Vec<Arc<str>>,
        /// With the place of the value's expression.
        set: Vec<(Arc<str>, usize)>,
    },
}

/// How a metric is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// As usual.
    Usual,
    /// Not at all.
    Off,
    /// With other labels.
    Changed,
}

impl Changes {
    /// `None`: everything is as usual. What is wrong with an expression is told elsewhere; its label is as
    /// without it.
    pub fn compile(settings: &MetricSettings) -> Option<Self> {
        if settings.enabled && settings.overrides.is_empty() {
            return None;
        }
        let mut texts: Vec<Arc<str>> = Vec::new();
        let mut values = Vec::new();
        let of = IstioMetric::ALL.map(|(metric, ..)| {
            let change = settings.overrides.get(&metric);
            if !settings.enabled || change.is_some_and(|change| change.disabled) {
                return Change::Off;
            }
            let (mut removed, mut set) = (Vec::new(), Vec::new());
            for (label, tag) in change.iter().flat_map(|change| &change.tags) {
                match tag {
                    TagChange::Remove => removed.push(label.clone()),
                    TagChange::Set(value) => {
                        let known = texts.iter().position(|text| *text == value.text);
                        let at = known.or_else(|| {
                            values.push(Compiled::value(&value.text).ok()?);
                            texts.push(value.text.clone());
                            Some(texts.len() - 1)
                        });
                        set.extend(at.map(|at| (label.clone(), at)));
                    }
                }
            }
            match removed.is_empty() && set.is_empty() {
                true => Change::Usual,
                false => Change::Labels { removed, set },
            }
        });
        Some(Self { of, values })
    }

    /// How a metric is counted.
    pub fn counted(&self, metric: IstioMetric) -> Counted {
        match self.of.get(metric as usize) {
            None | Some(Change::Usual) => Counted::Usual,
            Some(Change::Off) => Counted::Off,
            Some(Change::Labels { .. }) => Counted::Changed,
        }
    }

    /// The values of all expressions for an exchange; what can not be evaluated is `unknown`, as at Istio.
    pub fn values(&self, seen: &Seen<'_>) -> Vec<Arc<str>> {
        let value = |compiled: &Compiled| {
            let mut text = compiled.text(seen).unwrap_or_else(|| UNKNOWN.to_owned());
            let end = text.floor_char_boundary(METRIC_TAG_BYTES_MAX);
            text.truncate(end);
            Arc::from(text)
        };
        self.values.iter().map(value).collect()
    }

    /// The labels of a metric: those it usually has, changed.
    pub fn labels(
        &self,
        metric: IstioMetric,
        usual: impl Iterator<Item = (&'static str, Arc<str>)>,
        values: &[Arc<str>],
    ) -> LabelSet {
        let Some(Change::Labels { removed, set }) = self.of.get(metric as usize) else {
            return usual.map(|(name, value)| (name.into(), value)).collect();
        };
        let value_of = |name: &str| {
            let (_, at) = set.iter().find(|(label, _)| **label == *name)?;
            values.get(*at).cloned()
        };
        let mut labels: Vec<(Arc<str>, Arc<str>)> = usual
            .filter(|(name, _)| !removed.iter().any(|label| **label == **name))
            .map(|(name, value)| (name.into(), value_of(name).unwrap_or(value)))
            .collect();
        for (label, at) in set {
            if !labels.iter().any(|(name, _)| name == label) {
                labels.extend(values.get(*at).map(|value| (label.clone(), value.clone())));
            }
        }
        labels.into()
    }
}

#[cfg(test)]
mod tests;
