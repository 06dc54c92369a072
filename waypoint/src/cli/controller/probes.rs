//! The controller's probes and metrics over HTTP. A replica that stands by is ready: it is there to take over.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use cairn_kubernetes::controller::Standing;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::limits::{ADMIN_CONNECTION_TIMEOUT, ADMIN_CONNECTIONS_MAX, ADMIN_HEADER_TIMEOUT};
use crate::telemetry::instruments::{family, sample};
use crate::telemetry::names;

/// Opens an address and answers there for as long as the runtime runs.
pub(super) async fn serve(address: SocketAddr, standing: Arc<Standing>) -> std::io::Result<()> {
    let listener = match TcpListener::bind(address).await {
        // A machine without IPv6.
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await?
        }
        listener => listener?,
    };
    tokio::spawn(accept(listener, standing));
    Ok(())
}

async fn accept(listener: TcpListener, standing: Arc<Standing>) {
    let room = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    while let Ok(permit) = room.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: trying again at once would spin.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let standing = standing.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                let response = answer(request.uri().path(), &standing);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(ADMIN_HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // Cut without a word: it is slow, or keeps a connection that it does not use.
            let _ = timeout(ADMIN_CONNECTION_TIMEOUT, connection).await;
            drop(permit);
        });
    }
}

fn answer(path: &str, standing: &Standing) -> Response<Full<Bytes>> {
    match path {
        "/healthz/live" => text(StatusCode::OK, "live\n"),
        "/healthz/ready" => {
            let leading = standing.is_leading.load(Relaxed);
            match (leading, standing.is_synced.load(Relaxed)) {
                (false, _) => text(StatusCode::OK, "ready, standing by\n"),
                (true, true) => text(StatusCode::OK, "ready, leading\n"),
                (true, false) => text(StatusCode::SERVICE_UNAVAILABLE, waiting(standing)),
            }
        }
        "/metrics" | "/stats/prometheus" => {
            let mut response = text(StatusCode::OK, metrics(standing));
            let content_type = HeaderValue::from_static(prometheus::TEXT_FORMAT);
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            response
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /healthz/live, /healthz/ready, /metrics\n",
        ),
    }
}

fn waiting(standing: &Standing) -> String {
    let waiting = standing.watch().map(|watch| watch.waiting());
    let waiting = waiting.unwrap_or_default().join("\n");
    format!("not ready: objects are being read\n{waiting}\n")
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

fn metrics(standing: &Standing) -> String {
    let mut families = own(standing);
    families.extend(ProcessCollector::for_self().collect());
    let mut text = String::new();
    // Names and labels are constants, so that there is nothing it could stumble over.
    let _ = TextEncoder::new().encode_utf8(&families, &mut text);
    text
}

fn own(standing: &Standing) -> Vec<MetricFamily> {
    let number = |metric, value: f64| family(metric, vec![sample(metric, &[], value)]);
    let sent = &standing.sent;
    let (conflicts, failed) = (sent.conflicts.load(Relaxed), sent.failures.load(Relaxed));
    let done = sent.writes.load(Relaxed).saturating_sub(conflicts + failed);
    let writes = &names::CONTROLLER_WRITES;
    let outcomes = [("done", done), ("conflict", conflicts), ("failed", failed)];
    let outcomes = outcomes.map(|(outcome, n)| sample(writes, &[outcome], n as f64));
    vec![
        number(
            &names::CONTROLLER_LEADING,
            f64::from(u8::from(standing.is_leading.load(Relaxed))),
        ),
        number(
            &names::CONTROLLER_ELECTIONS,
            standing.elections.load(Relaxed) as f64,
        ),
        number(
            &names::CONTROLLER_GATEWAYS,
            standing.gateways.load(Relaxed) as f64,
        ),
        number(
            &names::CONTROLLER_QUEUE,
            standing.queued.load(Relaxed) as f64,
        ),
        number(
            &names::CONTROLLER_FAILURES,
            standing.failed.load(Relaxed) as f64,
        ),
        family(writes, outcomes.into()),
        number(
            &names::CONTROLLER_READS,
            standing.reads.load(Relaxed) as f64,
        ),
        number(
            &names::CONTROLLER_READ_SECONDS,
            standing.read_us.load(Relaxed) as f64 / 1e6,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_by_is_ready_and_who_leads_is_once_it_has_seen_everything() {
        let standing = Standing::default();
        let status = |standing: &Standing| answer("/healthz/ready", standing).status();
        assert_eq!(status(&standing), StatusCode::OK);
        standing.is_leading.store(true, Relaxed);
        assert_eq!(status(&standing), StatusCode::SERVICE_UNAVAILABLE);
        standing.is_synced.store(true, Relaxed);
        assert_eq!(status(&standing), StatusCode::OK);
        assert_eq!(answer("/healthz/live", &standing).status(), StatusCode::OK);
        assert_eq!(answer("/", &standing).status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_scrape_has_every_metric() {
        let standing = Standing::default();
        standing.sent.writes.store(5, Relaxed);
        standing.sent.conflicts.store(2, Relaxed);
        let text = metrics(&standing);
        assert!(
            text.contains("cairn_controller_writes_total{outcome=\"done\"} 3"),
            "{text}"
        );
        assert!(text.contains("cairn_controller_leading 0"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
