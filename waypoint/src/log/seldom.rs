//! Keeps a client from filling the log: of lines that say the same, one a second is written, with
//! the number of those that were not. The metrics count all of them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::limits::LOG_REPEAT_INTERVAL;

/// One line that any client can cause as often as it likes.
#[derive(Debug, Default)]
pub struct Seldom {
    /// When the next may be written, milliseconds of this process.
    next: AtomicU64,
    kept_back: AtomicU64,
}

impl Seldom {
    /// None written yet.
    pub const fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
            kept_back: AtomicU64::new(0),
        }
    }

    /// Whether to write the line now: then, how many were kept back since the last.
    pub fn due(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        self.due_at(START.get_or_init(Instant::now).elapsed())
    }

    fn due_at(&self, now: Duration) -> Option<u64> {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Relaxed);
        let after = millis(now.saturating_add(LOG_REPEAT_INTERVAL));
        let due = millis(now) >= next
            && self
                .next
                .compare_exchange(next, after, Relaxed, Relaxed)
                .is_ok();
        if due {
            return Some(self.kept_back.swap(0, Relaxed));
        }
        self.kept_back.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_were_kept_back() {
        let line = Seldom::new();
        let at = |millis| line.due_at(Duration::from_millis(millis));
        assert_eq!(at(5), Some(0));
        assert_eq!((at(6), at(1_004)), (None, None));
        assert_eq!(at(1_005), Some(2));
        assert_eq!(at(9_000), Some(0));
    }
}
