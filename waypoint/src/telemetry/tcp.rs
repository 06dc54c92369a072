//! Istio's TCP metrics: streams opened and closed, and their bytes while they run. HTTP is counted
//! in `metrics`, at its end only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::exchange::Exchange;
use super::series::{Registry, TcpKey, TcpSeries};
use super::{flow, metrics};

/// The metrics of one TCP stream from the moment it is open. Lives in [`Exchange::tcp`]; the end is
/// counted by [`super::finish`].
#[derive(Debug)]
pub struct TcpMeter {
    series: Arc<TcpSeries>,
    received: u64,
    sent: u64,
}

impl TcpMeter {
    /// Counts the stream as opened, and keeps a flow record of it. To be called once the endpoint is known, for it is in the
    /// labels.
    pub fn open(exchange: &Exchange) -> Self {
        flow::opened(exchange);
        Self::open_in(metrics::registry(), metrics::tcp_key(exchange))
    }

    /// As [`Self::open`], in a given registry.
    pub fn open_in(registry: &Registry, key: TcpKey) -> Self {
        let series = series(registry, key);
        series.opened.fetch_add(1, Relaxed);
        Self {
            series,
            received: 0,
            sent: 0,
        }
    }

    /// Counts the bytes since the last report; the arguments are totals of the stream, `received`
    /// from the client and `sent` to it. Due every
    /// [`TCP_REPORT_INTERVAL`](crate::limits::TCP_REPORT_INTERVAL).
    pub fn report(&mut self, received: u64, sent: u64) {
        add_since(&self.series.received_bytes, &mut self.received, received);
        add_since(&self.series.sent_bytes, &mut self.sent, sent);
    }

    /// Counts the stream as closed, with the bytes not yet reported. The label set may differ from
    /// the one at the beginning: flags are known at the end.
    pub fn close_in(mut self, registry: &Registry, key: TcpKey, received: u64, sent: u64) {
        self.series = series(registry, key);
        self.report(received, sent);
        self.series.closed.fetch_add(1, Relaxed);
    }
}

/// Counts the end of a TCP stream, and its beginning too if it never got as far as being open.
pub(super) fn closed(exchange: &mut Exchange) {
    let (registry, key) = (metrics::registry(), metrics::tcp_key(exchange));
    let meter = exchange.tcp.take();
    let meter = meter.unwrap_or_else(|| TcpMeter::open_in(registry, key));
    meter.close_in(registry, key, exchange.bytes_received, exchange.bytes_sent);
}

fn series(registry: &Registry, key: TcpKey) -> Arc<TcpSeries> {
    let shared = |counts: &mut Vec<Arc<TcpSeries>>| match counts.first() {
        Some(series) => series.clone(),
        None => {
            let series = Arc::<TcpSeries>::default();
            counts.push(series.clone());
            series
        }
    };
    let entered = registry.tcp.enter(key, TcpKey::OTHER, shared);
    let entered = entered.or_else(|| {
        registry.overflow.add(1);
        registry.tcp.enter(TcpKey::OTHER, TcpKey::OTHER, shared)
    });
    // It can not be missing: `other` always has room.
    entered.unwrap_or_default()
}

fn add_since(counter: &AtomicU64, reported: &mut u64, total: u64) {
    counter.fetch_add(total.saturating_sub(*reported), Relaxed);
    *reported = total.max(*reported);
}
