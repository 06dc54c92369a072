//! Slow start: which part of its share a new endpoint gets. Has no clock.

use cairn_config_schema::snapshot::Warmup;

/// The part, from above 0 to 1, for an endpoint that came `age_ms` ago: grows from the minimum to 1 as
/// `(age / duration) ^ (1 / aggression)` (specs/policies.md 2.7).
pub(super) fn part(warmup: &Warmup, age_ms: u64) -> f64 {
    if age_ms >= warmup.duration_ms {
        return 1.0;
    }
    let grown = (age_ms as f64 / warmup.duration_ms as f64).powf(1.0 / warmup.aggression);
    let minimum = f64::from(warmup.minimum_percent.clamp(1, 100)) / 100.0;
    grown.max(minimum).min(1.0)
}
