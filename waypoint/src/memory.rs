//! Has given back to the system what reading or telling a configuration left unused: memory of the allocator, and the
//! mapping of code. Allocates and frees nothing that anybody uses.
//!
//! mimalloc gives back what was free for a second, but looks for it only when somebody frees a page of memory, or
//! when a thread ends. A waypoint that has read ten thousand Pods and then is quiet would keep a third of its memory
//! for nothing.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairn_allocator::give_back_code;

/// Longer than mimalloc's delay (`purge_delay`, 1 s).
const QUIET: Duration = Duration::from_millis(1_200);

/// How often it was asked for; odd while a thread waits for quiet.
#[derive(Debug, Default)]
struct Asked(AtomicU64);

static ASKED: Asked = Asked(AtomicU64::new(0));

/// What a count is raised by.
const ONCE: u64 = 2;

impl Asked {
    /// Asks once more; whether somebody has to begin to wait.
    fn ask(&self) -> bool {
        self.0.fetch_add(ONCE, Ordering::Relaxed);
        self.0.fetch_or(1, Ordering::Relaxed) & 1 == 0
    }

    fn seen(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Ends the wait, unless somebody asked since.
    fn end(&self, seen: u64) -> bool {
        let (now, ended) = (seen, seen & !1);
        let order = Ordering::Relaxed;
        self.0.compare_exchange(now, ended, order, order).is_ok()
    }
}

/// Gives back what is unused once nobody has asked for that for a while: while changes never end, the memory of one
/// is the next one's.
pub fn give_back_when_quiet() {
    if !ASKED.ask() {
        return;
    }
    let wait = || {
        // The allocator's share is given back as this thread ends. One that never allocated has nothing that could
        // end.
        drop(black_box(vec![0_u8; 64]));
        loop {
            let seen = ASKED.seen();
            std::thread::sleep(QUIET);
            if ASKED.end(seen) {
                break;
            }
        }
        if let Err(error) = give_back_code() {
            tracing::debug!(%error, "code that does not run stays mapped");
        }
    };
    let thread = std::thread::Builder::new().name("give-back".to_owned());
    if let Err(error) = thread.spawn(wait) {
        // The next one tries again.
        ASKED.end(ASKED.seen());
        tracing::debug!(%error, "memory that is not used can not be given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_waits_and_until_nobody_asks_any_more() {
        let asked = Asked::default();
        assert!(asked.ask(), "the first begins to wait");
        assert!(!asked.ask(), "somebody waits already");
        let seen = asked.seen();
        assert!(!asked.ask());
        assert!(!asked.end(seen), "it was asked for meanwhile");
        assert!(asked.end(asked.seen()));
        assert!(asked.ask(), "and again");
    }
}
