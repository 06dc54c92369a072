//! When a line begins.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Formats wall-clock times as `2026-11-04T12:34:56.789Z`. The date part changes once a second, so
/// it is kept.
#[derive(Default)]
pub struct TimeText {
    second: Option<i64>,
    text: Vec<u8>,
}

/// Length of `2026-11-04T12:34:56`.
const SECONDS_LEN: usize = 19;

impl TimeText {
    /// The text of a time, until the next call.
    pub fn text(&mut self, at: SystemTime) -> &str {
        let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
        if self.second != Some(second) {
            let timestamp = jiff::Timestamp::from_second(second).unwrap_or_default();
            self.text.clear();
            // Writing to a Vec can not fail.
            let _ = write!(self.text, "{timestamp:.0}");
            self.second = Some(second);
        }
        self.text.truncate(SECONDS_LEN);
        // By hand: for each line, and `write!` takes five times as long.
        let millis = since_1970.subsec_millis();
        let digit = |n: u32| b'0' + u8::try_from(n % 10).unwrap_or_default();
        let digits = [millis / 100, millis / 10, millis].map(digit);
        self.text.push(b'.');
        self.text.extend_from_slice(&digits);
        self.text.push(b'Z');
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}
