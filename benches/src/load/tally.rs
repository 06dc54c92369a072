//! Counts of one run. One thread, no locks.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in microseconds; anything longer counts as this.
const LATENCY_MAX_US: u64 = 60_000_000;

/// What is counted while the measured part lasts.
pub struct Tally {
    counting: Cell<bool>,
    requests: Cell<u64>,
    shed: Cell<u64>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    latency_us: RefCell<Histogram<u64>>,
    late_us: RefCell<Histogram<u64>>,
}

impl Tally {
    /// Counts nothing but errors yet.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            counting: Cell::new(false),
            requests: Cell::new(0),
            shed: Cell::new(0),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
            latency_us: RefCell::new(Histogram::new_with_max(LATENCY_MAX_US, 3)?),
            late_us: RefCell::new(Histogram::new_with_max(LATENCY_MAX_US, 3)?),
        })
    }

    /// The measured part begins.
    pub fn start(&self) {
        self.counting.set(true);
    }

    /// The measured part ends.
    pub fn stop(&self) {
        self.counting.set(false);
    }

    /// An exchange ended that should have been sent at `intended`, or was if that is the same.
    pub fn ended<T>(&self, intended: Instant, outcome: anyhow::Result<T>) {
        match outcome {
            Ok(_) if self.counting.get() => {
                self.requests.set(self.requests.get() + 1);
                let latency = microseconds(intended.elapsed());
                self.latency_us.borrow_mut().saturating_record(latency);
            }
            Ok(_) => {}
            Err(error) => {
                self.errors.set(self.errors.get() + 1);
                self.first_error
                    .borrow_mut()
                    .get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    /// A request was answered 429.
    pub fn turned_away(&self) {
        if self.counting.get() {
            self.shed.set(self.shed.get() + 1);
        }
    }

    /// A request is written now that should have been at `intended`.
    pub fn written(&self, intended: Instant) {
        if self.counting.get() {
            let late = microseconds(intended.elapsed());
            self.late_us.borrow_mut().saturating_record(late);
        }
    }

    /// Requests counted.
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Of them those that were turned away.
    pub fn shed(&self) -> u64 {
        self.shed.get()
    }

    /// Errors, warm-up included.
    pub fn errors(&self) -> u64 {
        self.errors.get()
    }

    /// The first error.
    pub fn first_error(&self) -> Option<String> {
        self.first_error.borrow().clone()
    }

    /// Latency at a quantile, in microseconds.
    pub fn latency_us(&self, quantile: f64) -> u64 {
        self.latency_us.borrow().value_at_quantile(quantile)
    }

    /// Lateness at a quantile, in microseconds.
    pub fn late_us(&self, quantile: f64) -> u64 {
        self.late_us.borrow().value_at_quantile(quantile)
    }
}

fn microseconds(duration: Duration) -> u64 {
    duration.as_micros() as u64
}
