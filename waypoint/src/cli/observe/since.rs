//! Times on the command line: how long ago, or when.

use std::time::{Duration, SystemTime};

use crate::hubble::messages::Timestamp;

/// Reads `90s`, `5m`, `2h`, `1d` as that long ago, anything else as RFC 3339.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    if let Some(ago) = ago(text) {
        let time = SystemTime::now().checked_sub(ago);
        return time
            .map(Timestamp::from)
            .ok_or_else(|| "longer ago than there is time".to_owned());
    }
    let time = text.parse::<jiff::Timestamp>();
    let time = time.map_err(|_| "expected 10s, 5m, 2h, 1d or 2026-11-04T12:00:00Z".to_owned())?;
    Ok(Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    })
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}
