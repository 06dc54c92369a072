//! How far long work has come: one line on stderr that is written over, on a terminal only.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between two looks of the line; and what takes less shows nothing.
const INTERVAL: Duration = Duration::from_millis(200);

/// Steps between two looks at the clock.
const STEPS: usize = 64;

/// Work under way.
pub(super) struct Progress {
    what: &'static str,
    total: Option<usize>,
    done: usize,
    shown: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    /// Work of `total` steps, if that is known.
    pub fn new(what: &'static str, total: Option<usize>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            what,
            total,
            done: 0,
            shown: terminal.then(Instant::now),
            is_shown: false,
        }
    }

    /// One step is done.
    pub fn step(&mut self) {
        self.done += 1;
        let Some(shown) = &mut self.shown else { return };
        if !self.done.is_multiple_of(STEPS) || shown.elapsed() < INTERVAL {
            return;
        }
        *shown = Instant::now();
        self.is_shown = true;
        let (what, done) = (self.what, self.done);
        let mut stderr = std::io::stderr();
        // A terminal that has gone is no reason to stop.
        let _ = match self.total {
            Some(total) => write!(stderr, "\r{done} of {total} {what}\x1b[K"),
            None => write!(stderr, "\r{done} {what}\x1b[K"),
        };
    }

    /// Takes the line away.
    pub fn end(self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
