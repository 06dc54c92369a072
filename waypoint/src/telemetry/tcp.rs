//! Istio's TCP metrics: streams opened and closed, and their bytes while they run. HTTP is counted
//! in `metrics`, at its end only.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use cairn_config_schema::snapshot::IstioMetric;

use super::changes::Counted;
use super::exchange::{Exchange, Headers, Seen};
use super::series::{ChangedSeries, Registry, TcpKey, TcpSeries};
use super::{flow, metrics};

/// The metrics of one TCP stream from the moment it is open. Lives in [`Exchange::tcp`]; the end is
/// counted by [`super::finish`].
#[derive(Debug)]
pub struct TcpMeter {
    counts: [Count; 4],
    received: u64,
    sent: u64,
}

/// The metrics, in the order of a meter's counts.
const METRICS: [IstioMetric; 4] = [
    IstioMetric::TcpOpenedConnections,
    IstioMetric::TcpClosedConnections,
    IstioMetric::TcpSentBytes,
    IstioMetric::TcpReceivedBytes,
];

/// Where one of the metrics is counted.
#[derive(Debug)]
enum Count {
    Off,
    Usual(Arc<TcpSeries>),
    Changed(Arc<ChangedSeries>),
}

impl TcpMeter {
    /// Counts the stream as opened, and keeps a flow record of it. To be called once the endpoint is known, for it is in the
    /// labels.
    pub fn open(exchange: &Exchange) -> Self {
        flow::opened(exchange);
        Self::open_in(metrics::registry(), metrics::tcp_key(exchange), exchange)
    }

    /// As [`Self::open`], in a given registry.
    pub fn open_in(registry: &Registry, key: TcpKey, exchange: &Exchange) -> Self {
        let meter = Self {
            counts: counts(registry, key, exchange),
            received: 0,
            sent: 0,
        };
        meter.add(IstioMetric::TcpOpenedConnections, 1);
        meter
    }

    /// Counts the bytes since the last report; the arguments are totals of the stream, `received`
    /// from the client and `sent` to it. Due every
    /// [`TCP_REPORT_INTERVAL`](crate::limits::TCP_REPORT_INTERVAL).
    pub fn report(&mut self, received: u64, sent: u64) {
        let since = received.saturating_sub(self.received);
        self.add(IstioMetric::TcpReceivedBytes, since);
        self.received = received.max(self.received);
        let since = sent.saturating_sub(self.sent);
        self.add(IstioMetric::TcpSentBytes, since);
        self.sent = sent.max(self.sent);
    }

    /// Counts the stream as closed, with the bytes not yet reported. The label set may differ from
    /// the one at the beginning: flags are known at the end.
    pub fn close_in(mut self, registry: &Registry, key: TcpKey, exchange: &Exchange) {
        self.counts = counts(registry, key, exchange);
        self.report(exchange.bytes_received, exchange.bytes_sent);
        self.add(IstioMetric::TcpClosedConnections, 1);
    }

    fn add(&self, metric: IstioMetric, n: u64) {
        let at = METRICS.iter().position(|known| *known == metric);
        match at.and_then(|at| self.counts.get(at)) {
            None | Some(Count::Off) => {}
            Some(Count::Changed(series)) => series.counter.add(n),
            Some(Count::Usual(series)) => {
                let of_series = match metric {
                    IstioMetric::TcpOpenedConnections => &series.opened,
                    IstioMetric::TcpClosedConnections => &series.closed,
                    IstioMetric::TcpSentBytes => &series.sent_bytes,
                    _ => &series.received_bytes,
                };
                of_series.fetch_add(n, Relaxed);
            }
        }
    }
}

/// Counts the end of a TCP stream, and its beginning too if it never got as far as being open.
pub(super) fn closed(exchange: &mut Exchange) {
    let (registry, key) = (metrics::registry(), metrics::tcp_key(exchange));
    let meter = exchange.tcp.take();
    let meter = meter.unwrap_or_else(|| TcpMeter::open_in(registry, key, exchange));
    meter.close_in(registry, key, exchange);
}

/// Where the stream's metrics are counted.
fn counts(registry: &Registry, key: TcpKey, exchange: &Exchange) -> [Count; 4] {
    let changes = exchange.settings.as_ref().and_then(|s| s.metrics.as_ref());
    let Some(changes) = changes else {
        let series = series(registry, key);
        series.whole.store(true, Relaxed);
        return METRICS.map(|_| Count::Usual(series.clone()));
    };
    let seen = Seen {
        exchange,
        elapsed: exchange.started.elapsed(),
        headers: Headers::default(),
    };
    METRICS.map(|metric| match changes.counted(metric) {
        Counted::Off => Count::Off,
        Counted::Usual => Count::Usual(series(registry, key)),
        Counted::Changed => {
            let series = metrics::changed_tcp(&seen, key, changes, metric);
            series.map_or(Count::Off, Count::Changed)
        }
    })
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
