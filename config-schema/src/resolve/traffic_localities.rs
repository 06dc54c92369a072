//! `localityLbSetting` of a DestinationRule (specs/policies.md 2.7), read. What it makes of endpoints is in
//! `placement`.

use std::sync::Arc;

use super::traffic_policy_values::Reading;
use crate::diagnostics::{Code, Diagnostic};
use crate::resources::destination_rule::{Distribute, LocalityLbSetting};
use crate::snapshot::{LocalityPattern, LocalityPreference, LocalityShares};

/// Labels of a waypoint that are known.
const KNOWN: [&str; 4] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    "kubernetes.io/hostname",
];

/// What is preferred. `detects`: there is outlier detection. `None`: what is written can not be honoured.
pub(super) fn read(
    written: &LocalityLbSetting,
    detects: bool,
    path: &str,
    reading: &mut Reading<'_>,
) -> Option<LocalityPreference> {
    if written.enabled == Some(false) {
        return Some(LocalityPreference::Off);
    }
    let set = |list: bool| usize::from(list);
    let distribute = written.distribute.as_deref().unwrap_or_default();
    let failover = written.failover.as_deref().unwrap_or_default();
    let labels = written.failover_priority.as_deref().unwrap_or_default();
    if set(!distribute.is_empty()) + set(!failover.is_empty()) > 1 {
        let message = "localityLbSetting has either distribute or failover";
        let finding =
            Diagnostic::error(Code::Conflict, message).with_effect("distribute is in force");
        reading.find(finding, &format!("{path}.failover"));
    }
    if !distribute.is_empty() {
        return shares(distribute, path, reading);
    }
    if !detects {
        // As in Istio: without it nobody knows when to look further, and one far endpoint would
        // never be tried.
        let message = "failing over by place needs outlierDetection";
        let finding = Diagnostic::warning(Code::MissingField, message)
            .with_effect("endpoints of all places receive traffic")
            .with_hint("add outlierDetection to the trafficPolicy");
        reading.find(finding, path);
        return Some(LocalityPreference::Off);
    }
    if !labels.is_empty() {
        return by_labels(labels, path, reading);
    }
    let fail_over = failover
        .iter()
        .map(|item| (item.from.as_str().into(), item.to.as_str().into()));
    Some(LocalityPreference::Nearest {
        fail_over: fail_over.collect(),
    })
}

fn by_labels(
    labels: &[String],
    path: &str,
    reading: &mut Reading<'_>,
) -> Option<LocalityPreference> {
    let mut read = Vec::with_capacity(labels.len());
    for (index, label) in labels.iter().enumerate() {
        let (key, value) = match label.split_once('=') {
            Some((key, value)) => (key, Some(Arc::from(value))),
            None => (label.as_str(), None),
        };
        if key.is_empty() || value.is_none() && !KNOWN.contains(&key) {
            let message = format!("what label '{label}' this waypoint has is not known");
            let finding = Diagnostic::error(Code::BadValue, message)
                .with_effect("endpoints of all places receive traffic")
                .with_hint(format!(
                    "write a value ({label}=...), or one of {}",
                    KNOWN.join(", ")
                ));
            reading.find(finding, &format!("{path}.failoverPriority[{index}]"));
            return None;
        }
        read.push((key.into(), value));
    }
    Some(LocalityPreference::Labels(read))
}

fn shares(
    written: &[Distribute],
    path: &str,
    reading: &mut Reading<'_>,
) -> Option<LocalityPreference> {
    let mut shares = Vec::with_capacity(written.len());
    for (index, item) in written.iter().enumerate() {
        let path = format!("{path}.distribute[{index}]");
        let mut wrong = |message: String, field: &str| {
            let finding = Diagnostic::error(Code::BadValue, message)
                .with_effect("endpoints of all places receive traffic");
            reading.find(finding, &format!("{path}.{field}"));
        };
        let Some(from) = LocalityPattern::parse(&item.from) else {
            wrong(
                format!("'{}' is no place like region/zone/*", item.from),
                "from",
            );
            return None;
        };
        let mut to = Vec::with_capacity(item.to.len());
        for (place, share) in &item.to {
            let Some(pattern) = LocalityPattern::parse(place) else {
                wrong(format!("'{place}' is no place like region/zone/*"), "to");
                return None;
            };
            to.push((pattern, *share));
        }
        let sum: u64 = to.iter().map(|(_, share)| u64::from(*share)).sum();
        if sum != 100 {
            wrong(format!("the shares make {sum} percent, not 100"), "to");
            return None;
        }
        to.sort_by_key(|(place, _)| std::cmp::Reverse(place.depth()));
        shares.push(LocalityShares { from, to });
    }
    Some(LocalityPreference::Shares(shares))
}
