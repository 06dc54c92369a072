//! Endpoints whose share of good answers is far below the others'. Judges; ejects nobody.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_config_schema::snapshot::{OutlierDetection, SuccessRate};

use super::Health;
use crate::endpoint::LiveEndpoint;

/// Those to be ejected by what was counted since the last time; counting starts again.
pub(super) fn outliers<'a>(
    rules: &OutlierDetection,
    endpoints: &'a [Arc<LiveEndpoint>],
) -> Vec<&'a Arc<LiveEndpoint>> {
    let counts = endpoints.iter().map(|e| (e, e.health().take_counts()));
    let Some(rule) = rules.success_rate else {
        // Taken all the same, so that switching it on does not judge by ancient history.
        counts.for_each(drop);
        return Vec::new();
    };
    let rates: Vec<_> = counts
        .filter(|(_, (_, seen))| *seen >= rule.requests_min.max(1))
        .map(|(e, (good, seen))| (e, f64::from(good) / f64::from(seen)))
        .collect();
    if rates.len() < rule.hosts_min as usize {
        return Vec::new();
    }
    let threshold = threshold(&rule, rates.iter().map(|(_, rate)| *rate));
    rates
        .into_iter()
        .filter(|(_, rate)| *rate < threshold)
        .map(|(endpoint, _)| endpoint)
        .collect()
}

/// Mean minus so many standard deviations, as Envoy has it.
fn threshold(rule: &SuccessRate, rates: impl ExactSizeIterator<Item = f64> + Clone) -> f64 {
    let count = rates.len().max(1) as f64;
    let mean = rates.clone().sum::<f64>() / count;
    let variance = rates.map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    mean - variance.sqrt() * f64::from(rule.stdev_factor_thousandths) / 1_000.0
}

impl Health {
    /// Good answers and all answers since the last call.
    fn take_counts(&self) -> (u32, u32) {
        let seen = self.seen.swap(0, Ordering::Relaxed);
        // An answer counted between the two swaps may be good and not seen.
        (self.good.swap(0, Ordering::Relaxed).min(seen), seen)
    }

    /// One interval passed without an ejection.
    pub(super) fn forgive(&self) {
        let times = self.times.load(Ordering::Relaxed);
        if times > 0 {
            self.times.store(times - 1, Ordering::Relaxed);
        }
    }
}
