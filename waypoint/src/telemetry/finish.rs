//! The one exit of every request and TCP stream: metrics, access log and flow record.

use super::exchange::Exchange;
use super::{access_log, flow, metrics, tcp};

/// Tells of an exchange that ended. To be called exactly once for each, on the worker that ran it.
pub fn finish(mut exchange: Exchange) {
    let elapsed = exchange.started.elapsed();
    metrics::record(&exchange, elapsed);
    let was_open = exchange.tcp.is_some();
    if exchange.http.is_none() {
        tcp::closed(&mut exchange);
    }
    access_log::write(&exchange, elapsed);
    flow::ended(exchange, elapsed, was_open);
}
