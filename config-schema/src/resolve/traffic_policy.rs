//! The traffic policy of a DestinationRule, read into the settings of clusters
//! (specs/policies.md 2.7). Single values are read in `traffic_policy_values`; which clusters they are
//! for is `destination_rules`' business.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::Findings;
use super::traffic_policy_values::Reading;
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::resources::Object;
use crate::resources::destination_rule::{
    ClientTls, ConnectionPool, DestinationRuleSpec, HttpSettings, LoadBalancer, OutlierDetection,
    TcpSettings, TrafficPolicy,
};
use crate::snapshot::{self, ClusterSettings, ConnectionLimits, LoadBalancing};

/// What a rule says for each port.
pub(super) struct ReadPolicy {
    all: Arc<ClusterSettings>,
    ports: BTreeMap<u16, Arc<ClusterSettings>>,
}

impl ReadPolicy {
    pub(super) fn of_port(&self, port: u16) -> &Arc<ClusterSettings> {
        self.ports.get(&port).unwrap_or(&self.all)
    }
}

/// The parts that a port may have of its own.
struct Parts<'w> {
    load_balancer: Option<&'w LoadBalancer>,
    connection_pool: Option<&'w ConnectionPool>,
    outlier_detection: Option<&'w OutlierDetection>,
    tls: Option<&'w ClientTls>,
}

pub(super) fn read(object: &Object<DestinationRuleSpec>, findings: &mut Findings) -> ReadPolicy {
    let mut reading = Reading { object, findings };
    let none = TrafficPolicy::default();
    let written = object.spec.traffic_policy.as_ref().unwrap_or(&none);
    let path = "spec.trafficPolicy";
    let all = Parts {
        load_balancer: written.load_balancer.as_ref(),
        connection_pool: written.connection_pool.as_ref(),
        outlier_detection: written.outlier_detection.as_ref(),
        tls: written.tls.as_ref(),
    };
    let all = settings(&all, path, &mut reading);
    report_unsupported(written, path, &mut reading);
    let mut ports = BTreeMap::new();
    let of_ports = written.port_level_settings.iter().flatten().enumerate();
    for (index, port) in of_ports {
        let path = format!("{path}.portLevelSettings[{index}]");
        // Nothing is inherited: what is omitted is as by default (specs/policies.md 2.7).
        let parts = Parts {
            load_balancer: port.load_balancer.as_ref(),
            connection_pool: port.connection_pool.as_ref(),
            outlier_detection: port.outlier_detection.as_ref(),
            tls: port.tls.as_ref(),
        };
        let settings = settings(&parts, &path, &mut reading);
        match ports.entry(port.port.number) {
            Entry::Vacant(free) => {
                free.insert(settings);
            }
            Entry::Occupied(_) => {
                let message = format!("port {} has settings already", port.port.number);
                let finding = Diagnostic::error(Code::Conflict, message)
                    .with_effect("the first settings are in force");
                reading.find(finding, &format!("{path}.port.number"));
            }
        }
    }
    ReadPolicy { all, ports }
}

fn settings(parts: &Parts<'_>, path: &str, reading: &mut Reading<'_>) -> Arc<ClusterSettings> {
    let mut settings = ClusterSettings {
        origin: Some(reading.object.origin.clone()),
        ..ClusterSettings::default()
    };
    if let Some(written) = parts.load_balancer {
        let path = format!("{path}.loadBalancer");
        settings.balancing = reading.load_balancing(written, &path);
    }
    if let Some(written) = parts.outlier_detection {
        let path = format!("{path}.outlierDetection");
        let rules = outlier_detection(written, &path, reading);
        settings.balancing.panic_threshold_percent = min_health(written, &path, reading);
        settings.outlier_detection = Some(rules);
    }
    if let Some(written) = parts.connection_pool {
        let path = format!("{path}.connectionPool");
        settings.limits = limits(written, &path, reading);
        let timeout = written
            .tcp
            .as_ref()
            .and_then(|t| t.connect_timeout.as_ref());
        settings.connect_timeout_ms = timeout
            .and_then(|text| reading.duration_ms(text, &format!("{path}.tcp.connectTimeout")));
    }
    if let Some(written) = parts.tls {
        settings.refused = tls(written, &format!("{path}.tls"), reading);
    }
    Arc::new(settings)
}

fn outlier_detection(
    written: &OutlierDetection,
    path: &str,
    reading: &mut Reading<'_>,
) -> snapshot::OutlierDetection {
    let codes = written.outlier_detection_http_error_codes.is_some();
    let fields = [
        (
            written.consecutive_errors.is_some(),
            "consecutiveErrors",
            ERRORS,
        ),
        (codes, "outlierDetectionHttpErrorCodes", ERRORS),
    ];
    report(&fields, path, reading);
    let mut duration = |text: &Option<String>, field: &str, default_ms: u64| {
        let path = format!("{path}.{field}");
        let ms = text.as_ref().and_then(|t| reading.duration_ms(t, &path));
        ms.unwrap_or(default_ms)
    };
    let interval_ms = duration(&written.interval, "interval", 10_000);
    let base_ejection_ms = duration(&written.base_ejection_time, "baseEjectionTime", 30_000);
    let percent = written.max_ejection_percent;
    let percent = percent.map(|n| reading.percent(n, &format!("{path}.maxEjectionPercent")));
    snapshot::OutlierDetection {
        consecutive_5xx: written.consecutive_5xx_errors.unwrap_or(5),
        consecutive_gateway_errors: written.consecutive_gateway_errors.unwrap_or(0),
        split_local_origin: written.split_external_local_origin_errors.unwrap_or(false),
        consecutive_local_origin_failures: written.consecutive_local_origin_failures.unwrap_or(5),
        success_rate: None,
        interval_ms,
        base_ejection_ms,
        // Envoy's default, which Istio has no field for.
        ejection_max_ms: base_ejection_ms.max(300_000),
        ejected_percent_max: percent.flatten().unwrap_or(10),
    }
}

fn min_health(written: &OutlierDetection, path: &str, reading: &mut Reading<'_>) -> u8 {
    let percent = written.min_health_percent;
    let percent = percent.map(|n| reading.percent(n, &format!("{path}.minHealthPercent")));
    percent
        .flatten()
        .unwrap_or(LoadBalancing::default().panic_threshold_percent)
}

fn limits(written: &ConnectionPool, path: &str, reading: &mut Reading<'_>) -> ConnectionLimits {
    let mut limits = ConnectionLimits::default();
    if let Some(tcp) = &written.tcp {
        let path = format!("{path}.tcp");
        let limit = tcp.max_connections;
        limits.connections_max = reading.limit(limit, &format!("{path}.maxConnections"));
        if limits.connections_max.is_some() {
            let message = "maxConnections limits TCP services";
            let finding = Diagnostic::new(Severity::Info, Code::Unsupported, message)
                .with_effect("requests have no limit on connections")
                .with_hint("http2MaxRequests limits requests, over HTTP/1.1 too");
            reading.find(finding, &format!("{path}.maxConnections"));
        }
        report(&tcp_fields(tcp), &path, reading);
    }
    if let Some(http) = &written.http {
        let path = format!("{path}.http");
        let mut limit = |number, field: &str| reading.limit(number, &format!("{path}.{field}"));
        limits.requests_max = limit(http.http2_max_requests, "http2MaxRequests");
        limits.retries_max = limit(http.max_retries, "maxRetries");
        report(&http_fields(http), &path, reading);
    }
    limits
}

/// Whether a field without effect is set, its name, and what holds instead.
type Field = (bool, &'static str, &'static str);

fn report(fields: &[Field], path: &str, reading: &mut Reading<'_>) {
    for (_, field, effect) in fields.iter().filter(|(set, _, _)| *set) {
        reading.unsupported(&format!("{path}.{field}"), effect);
    }
}

const ERRORS: &str = "consecutive5xxErrors and consecutiveGatewayErrors hold";
const PINGED: &str = "tunnels are kept alive by HTTP/2 PING every 10 s";
const AS_DECLARED: &str = "the port's protocol decides";

fn tcp_fields(tcp: &TcpSettings) -> [Field; 3] {
    let duration = tcp.max_connection_duration.is_some();
    let idle = tcp.idle_timeout.is_some();
    [
        (tcp.tcp_keepalive.is_some(), "tcpKeepalive", PINGED),
        (duration, "maxConnectionDuration", "connections may last"),
        (
            idle,
            "idleTimeout",
            "idle connections are closed after an hour",
        ),
    ]
}

fn http_fields(http: &HttpSettings) -> [Field; 7] {
    let per_connection = http.max_requests_per_connection.is_some_and(|n| n != 0);
    let unlimited = "connections are used again without limit";
    let idle = http.idle_timeout.is_some();
    let upgrade = http.h2_upgrade_policy.as_deref();
    let upgrade = upgrade.is_some_and(|p| !matches!(p, "DEFAULT" | "DO_NOT_UPGRADE"));
    let client = http.use_client_protocol == Some(true);
    let streams = http.max_concurrent_streams.is_some();
    let pending = http.http1_max_pending_requests.is_some_and(|n| n != 0);
    [
        (
            pending,
            "http1MaxPendingRequests",
            "no request waits for another",
        ),
        (per_connection, "maxRequestsPerConnection", unlimited),
        (
            idle,
            "idleTimeout",
            "kept connections are closed with their tunnel",
        ),
        (upgrade, "h2UpgradePolicy", AS_DECLARED),
        (client, "useClientProtocol", AS_DECLARED),
        (
            streams,
            "maxConcurrentStreams",
            "a tunnel carries at most 100 streams",
        ),
        (http.http2_keep_alive.is_some(), "http2KeepAlive", PINGED),
    ]
}

/// Why nothing may be sent. HBONE stays whatever the mode is (specs/istio-waypoint.md 4.7); TLS to the
/// application inside of it is not there yet, and plain text where TLS was asked for must not be.
fn tls(written: &ClientTls, path: &str, reading: &mut Reading<'_>) -> Option<Arc<str>> {
    match written.mode.as_deref().unwrap_or("DISABLE") {
        "DISABLE" | "ISTIO_MUTUAL" => None,
        mode => {
            let message = format!("tls.mode {mode} is not supported yet");
            let finding = Diagnostic::error(Code::Unsupported, message.clone())
                .with_effect("nothing is sent to this host: requests are answered 503")
                .with_hint(
                    "DISABLE or ISTIO_MUTUAL: the tunnel to the endpoint is mTLS in any case",
                );
            reading.find(finding, &format!("{path}.mode"));
            Some(message.into())
        }
    }
}

fn report_unsupported(written: &TrafficPolicy, path: &str, reading: &mut Reading<'_>) {
    let (tunnel, proxy) = (&written.tunnel, &written.proxy_protocol);
    let fields = [
        (
            tunnel.is_some(),
            "tunnel",
            "connections go to the endpoint itself",
        ),
        (
            proxy.is_some(),
            "proxyProtocol",
            "no PROXY header is written",
        ),
        (
            written.retry_budget.is_some(),
            "retryBudget",
            "the default holds",
        ),
    ];
    report(&fields, path, reading);
    let subsets = &reading.object.spec.subsets;
    if subsets.as_ref().is_some_and(|s| !s.is_empty()) {
        let effect = "no route can name a subset: requests go to all endpoints";
        reading.unsupported("spec.subsets", effect);
    }
}
