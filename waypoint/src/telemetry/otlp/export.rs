//! One message to one receiver: sent, tried again while the receiver is only busy or away, given up in the
//! end. Counts what became of its records.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::sleep;

use super::endpoint::{Protocol, Signal};
use super::transport::{Failure, Partial, Transport};
use crate::limits::{OTLP_ATTEMPTS_MAX, OTLP_BACK_OFF, OTLP_BACK_OFF_MAX};
use crate::telemetry::counters;

/// The wait before another attempt: as long as the receiver asks for, to the limit, and not less than usual.
fn until_again(asked: Option<Duration>, usual: Duration) -> Duration {
    let asked = asked.map(|asked| asked.min(OTLP_BACK_OFF_MAX));
    asked.map_or(usual, |asked| asked.max(usual))
}

/// Sends messages of one signal to one receiver.
pub(super) struct Exporter {
    signal: Signal,
    transport: Transport,
    /// Becomes true when the process ends: nothing is waited for any more.
    closing: watch::Receiver<bool>,
    /// The last message was given up: the log has been told.
    failing: bool,
}

impl Exporter {
    pub(super) fn new(
        signal: Signal,
        transport: Transport,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            signal,
            transport,
            closing,
            failing: false,
        }
    }

    /// In which form messages are to be.
    pub(super) fn protocol(&self) -> Protocol {
        self.transport.protocol()
    }

    /// Sends a message of `records` records, or gives it up.
    pub(super) async fn export(&mut self, message: Bytes, records: u64) {
        let signal = self.signal.as_str();
        let mut wait = OTLP_BACK_OFF;
        for attempt in 1..=OTLP_ATTEMPTS_MAX {
            let failure = match self.transport.send(message.clone()).await {
                Ok(partial) => return self.accepted(records, &partial),
                Err(failure) => failure,
            };
            let last = attempt == OTLP_ATTEMPTS_MAX;
            let again = match &failure {
                Failure::Again(_, asked) if !last => until_again(*asked, wait),
                Failure::Again(words, _) | Failure::Final(words) => {
                    counters::OTLP_FAILED.add(signal, records);
                    return self.gave_up(words);
                }
            };
            if !self.paused(again).await {
                counters::OTLP_FAILED.add(signal, records);
                return;
            }
            wait = (wait * 2).min(OTLP_BACK_OFF_MAX);
        }
    }

    /// There is nothing more to send.
    pub(super) async fn finish(self) {
        self.transport.finish().await;
    }

    /// Waits, with up to a quarter more so that receivers are not asked by all at once; `false` when the
    /// process ends meanwhile.
    async fn paused(&mut self, wait: Duration) -> bool {
        let more = wait.mul_f64(fastrand::f64() / 4.0);
        if *self.closing.borrow() {
            return false;
        }
        tokio::select! {
            () = sleep(wait + more) => true,
            _ = self.closing.changed() => false,
        }
    }

    fn accepted(&mut self, records: u64, partial: &Partial) {
        let (signal, rejected) = (self.signal.as_str(), partial.rejected.min(records));
        let counter = match partial.is_unanswered {
            true => &counters::OTLP_STREAMED,
            false => &counters::OTLP_EXPORTED,
        };
        counter.add(signal, records - rejected);
        if rejected > 0 {
            counters::OTLP_FAILED.add(signal, rejected);
            return self.gave_up(&format!(
                "it rejected {rejected} of {records} records: {}",
                partial.words
            ));
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!(signal, receiver = %self.transport, "exports succeed again");
        }
    }

    fn gave_up(&mut self, words: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                signal = self.signal.as_str(), receiver = %self.transport, error = words,
                "an export failed and was given up; told once until one succeeds, counted always"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is overloaded for longer than the limit is not asked sooner for that.
    #[test]
    fn a_receiver_gets_the_pause_that_it_asks_for_up_to_the_limit() {
        let seconds = Duration::from_secs;
        for (asked, expected) in [
            (None, 2),
            (Some(1), 2),
            (Some(7), 7),
            (Some(30), 30),
            (Some(60), 30),
        ] {
            let found = until_again(asked.map(seconds), seconds(2));
            assert_eq!(found, seconds(expected), "{asked:?}");
        }
    }
}
