//! Makes requests fail as their rule says: waits, and counts. The answer to one that is aborted is sent by
//! `http`.

use std::time::{Duration, Instant};

use cairn_filters::fault::Faults;

use crate::telemetry::counters;
use crate::telemetry::exchange::Exchange;

/// Holds a request back if it is to be delayed. Gives when its time begins: timeouts of the route do not
/// count the delay (specs/policies.md 2.6).
pub(super) async fn inject(faults: Faults, exchange: &mut Exchange) -> Instant {
    if faults.abort.is_some() {
        counters::FAULTS.inc("abort");
    }
    let Some(delay_ms) = faults.delay_ms else {
        return exchange.started;
    };
    counters::FAULTS.inc("delay");
    exchange.flags = "DI";
    // Boxed: requests that are not delayed are not to carry its state.
    Box::pin(tokio::time::sleep(Duration::from_millis(delay_ms))).await;
    Instant::now()
}
