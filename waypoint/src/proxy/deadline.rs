//! When a request, and each attempt of it, must be over (specs/gateway-api.md 1.4, "Timeouts"), and how
//! that reaches the stream of the attempt. Decides nothing about what follows.
//!
//! The engine bounds single reads, never an exchange. So the deadline of an attempt lies in the
//! stream: HTTP/1.1 finds it where the attempt has put it, HTTP/2 gets it as its read timeout, which
//! the session takes for all reads together (`session.rs`).

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cairn_config_schema::snapshot::Timeouts;
use cairn_filters::outcome::Outcome;
use tokio::time::Sleep;

/// What a request may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestTime {
    /// When all of it must be over, and whose wish that is.
    over: Option<(Instant, Wish)>,
    /// How long one attempt may take.
    attempt: Option<Duration>,
    /// When the present attempt must be over; never later than `over`.
    attempt_over: Option<Instant>,
}

/// Whose wish a deadline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// The route's: 504, for gRPC UNAVAILABLE.
    Route,
    /// The client's, by `grpc-timeout`: DEADLINE_EXCEEDED.
    Client,
}

impl RequestTime {
    /// The time of a request that began at `started`. `client` is what its `grpc-timeout` says; the
    /// shorter one counts (specs/istio-waypoint.md 4.6).
    pub fn new(started: Instant, timeouts: Timeouts, client: Option<Duration>) -> Self {
        let route = timeouts.request_ms.map(Duration::from_millis);
        let wish = match (route, client) {
            (Some(route), Some(client)) if client < route => Some((client, Wish::Client)),
            (Some(route), _) => Some((route, Wish::Route)),
            (None, client) => client.map(|client| (client, Wish::Client)),
        };
        Self {
            // Longer than the clock counts is without limit.
            over: wish.and_then(|(time, wish)| Some((started.checked_add(time)?, wish))),
            attempt: timeouts.attempt_ms.map(Duration::from_millis),
            attempt_over: None,
        }
    }

    /// An attempt begins.
    pub fn begin_attempt(&mut self, now: Instant) {
        let request = self.over.map(|(at, _)| at);
        let attempt = self.attempt.and_then(|time| now.checked_add(time));
        self.attempt_over = match (request, attempt) {
            (Some(request), Some(attempt)) => Some(request.min(attempt)),
            (request, attempt) => request.or(attempt),
        };
    }

    /// When the present attempt must be over. `None`: whenever it likes.
    pub fn attempt_over(&self) -> Option<Instant> {
        self.attempt_over
    }

    /// Whether there is less left of the request than `wait`.
    pub fn is_shorter_than(&self, now: Instant, wait: Duration) -> bool {
        self.over.is_some_and(|(at, _)| at <= now + wait)
    }

    /// What is left of the present attempt, at most `limit`.
    pub fn left_of(&self, now: Instant, limit: Duration) -> Duration {
        match self.attempt_over {
            Some(at) => at.saturating_duration_since(now).min(limit),
            None => limit,
        }
    }

    /// What a client may be told that it still has. `None`: as much as it likes.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let at = self.attempt_over?;
        Some(at.saturating_duration_since(now))
    }

    /// What it means that an attempt failed now. `None`: it was not for lack of time.
    pub fn expired(&self, now: Instant) -> Option<Expired> {
        match (self.over, self.attempt_over) {
            (Some((at, Wish::Route)), _) if at <= now => Some(Expired::Request),
            (Some((at, Wish::Client)), _) if at <= now => Some(Expired::Client),
            (_, Some(at)) if at <= now => Some(Expired::Attempt),
            _ => None,
        }
    }
}

/// What there was no more time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// The request, by the route's timeout.
    Request,
    /// The request, by the client's.
    Client,
    /// The attempt; another may be begun.
    Attempt,
}

impl Expired {
    /// The row of the table of outcomes.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Request => Outcome::UpstreamTimeout,
            Self::Client => Outcome::DeadlineExceeded,
            Self::Attempt => Outcome::AttemptTimeout,
        }
    }
}

/// When the exchange on a stream must be over, in nanoseconds of [`nanoseconds`]; 0 for none.
#[derive(Debug, Default)]
pub struct StreamDeadline(AtomicU64);

impl StreamDeadline {
    /// Sets it until the guard is dropped.
    pub fn arm(self: &Arc<Self>, at: Instant) -> Armed {
        let value = nanoseconds(at);
        self.0.store(value, Relaxed);
        Armed {
            deadline: self.clone(),
            value,
        }
    }
}

/// A deadline of a stream while an attempt uses it.
#[derive(Debug)]
pub struct Armed {
    deadline: Arc<StreamDeadline>,
    value: u64,
}

impl Drop for Armed {
    fn drop(&mut self) {
        // The stream may have been given to another request, whose deadline is none of ours.
        let _ = (self.deadline.0).compare_exchange(self.value, 0, Relaxed, Relaxed);
    }
}

/// Since the first deadline of this process; never 0.
fn nanoseconds(at: Instant) -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = at.saturating_duration_since(*FIRST).as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX).max(1)
}

/// Watches a stream's deadline. Costs nothing while there is none.
#[derive(Debug)]
pub struct Timer {
    deadline: Arc<StreamDeadline>,
    /// The deadline it sleeps for, and the sleep; kept, because the next is likely to come.
    sleep: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Timer {
    /// A timer of this deadline.
    pub fn new(deadline: Arc<StreamDeadline>) -> Self {
        Self {
            deadline,
            sleep: None,
        }
    }

    /// Ready when the deadline has passed.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.deadline.0.load(Relaxed);
        if at == 0 {
            return Poll::Pending;
        }
        let now = tokio::time::Instant::now();
        let wake = now + Duration::from_nanos(at.saturating_sub(nanoseconds(now.into_std())));
        let (slept_for, sleep) = self
            .sleep
            .get_or_insert_with(|| (at, Box::pin(tokio::time::sleep_until(wake))));
        if *slept_for != at {
            *slept_for = at;
            sleep.as_mut().reset(wake);
        }
        sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn timeouts(request_ms: Option<u64>, attempt_ms: Option<u64>) -> Timeouts {
        Timeouts {
            request_ms,
            attempt_ms,
        }
    }

    #[test]
    fn the_shorter_of_route_and_client_counts_and_says_whose_it_was() {
        let start = Instant::now();
        let later = start + Duration::from_millis(60);
        for (route, client, expected) in [
            (Some(50), None, Some(Expired::Request)),
            (Some(50), Some(40), Some(Expired::Client)),
            (Some(40), Some(50), Some(Expired::Request)),
            (None, Some(50), Some(Expired::Client)),
            (Some(70), Some(80), None),
            (None, None, None),
        ] {
            let client = client.map(Duration::from_millis);
            let time = RequestTime::new(start, timeouts(route, None), client);
            assert_eq!(time.expired(later), expected, "{route:?} {client:?}");
        }
    }

    #[test]
    fn an_attempt_has_its_own_time_and_never_more_than_the_request() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut time = RequestTime::new(start, timeouts(Some(100), Some(60)), None);
        time.begin_attempt(ms(0));
        assert_eq!(time.attempt_over(), Some(ms(60)));
        assert_eq!(time.expired(ms(59)), None);
        assert_eq!(time.expired(ms(60)), Some(Expired::Attempt));
        time.begin_attempt(ms(70));
        assert_eq!(time.attempt_over(), Some(ms(100)));
        assert_eq!(time.expired(ms(100)), Some(Expired::Request));
        assert!(time.is_shorter_than(ms(70), Duration::from_millis(30)));
        assert!(!time.is_shorter_than(ms(70), Duration::from_millis(29)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_follows_its_deadline_and_forgets_the_last_one() {
        let deadline = Arc::<StreamDeadline>::default();
        let mut timer = Timer::new(deadline.clone());
        let mut expired = || {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            timer.poll_expired(&mut cx).is_ready()
        };
        assert!(!expired());
        let in_secs = |secs| tokio::time::Instant::now().into_std() + Duration::from_secs(secs);
        let armed = deadline.arm(in_secs(5));
        assert!(!expired());
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(expired());
        drop(armed);
        assert!(!expired());
        // What another request has set since stays.
        let old = deadline.arm(in_secs(7));
        let _new = deadline.arm(in_secs(8));
        drop(old);
        assert!(!expired());
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(expired());
    }
}
