//! The one exit of every request and TCP stream: metrics, access log, flow record, spans.

use super::exchange::{Exchange, Headers, Seen};
use super::{access_log, flow, metrics, otlp, tcp};

/// Tells of an exchange that ended and has no headers to tell of. To be called exactly once for each, on
/// the worker that ran it.
pub fn finish(exchange: Exchange) {
    finish_with(exchange, Headers::default());
}

/// The same of a request with its headers.
pub fn finish_with(mut exchange: Exchange, headers: Headers<'_>) {
    let elapsed = exchange.started.elapsed();
    let was_open = exchange.tcp.is_some();
    if exchange.http.is_none() {
        tcp::closed(&mut exchange);
    }
    let seen = Seen {
        exchange: &exchange,
        elapsed,
        headers,
    };
    metrics::record(&seen);
    access_log::write(&seen);
    otlp::tell(&seen);
    // Last, for it takes what it needs out of the exchange.
    flow::ended(&mut exchange, elapsed, was_open);
}
