//! The one exit of every request and TCP stream: metrics, access log, spans.

use super::exchange::Exchange;
use super::{access_log, metrics, otlp, tcp};

/// Tells of an exchange that ended. To be called exactly once for each, on the worker that ran it.
pub fn finish(mut exchange: Exchange) {
    let elapsed = exchange.started.elapsed();
    metrics::record(&exchange, elapsed);
    if exchange.http.is_none() {
        tcp::closed(&mut exchange);
    }
    access_log::write(&exchange, elapsed);
    // Last, for it takes the exchange as it is.
    otlp::take(exchange, elapsed);
}
