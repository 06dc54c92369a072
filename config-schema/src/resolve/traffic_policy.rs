//! The traffic policy of a DestinationRule, read into the settings of clusters
//! (specs/policies.md 2.7). Single values are read in `traffic_policy_values`; which clusters they are
//! for is `destination_rules`' business.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::client_tls::Asked;
use super::traffic_policy_values::Reading;
use super::{Findings, client_tls, traffic_localities};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::resources::Object;
use crate::resources::destination_rule::{
    ClientTls, ConnectionPool, DestinationRuleSpec, HttpSettings, LoadBalancer, OutlierDetection,
    PortTrafficPolicy, ProxyProtocol, RetryBudget, Subset, TcpSettings, TrafficPolicy,
};
use crate::snapshot::{self, ClusterSettings, ConnectionLimits, LoadBalancing};

/// What a rule says for each port.
pub(super) struct ReadPolicy {
    all: Arc<ClusterSettings>,
    ports: BTreeMap<u16, Arc<ClusterSettings>>,
    /// By name.
    subsets: BTreeMap<Arc<str>, ReadSubset>,
}

/// A subset of a rule.
pub(super) struct ReadSubset {
    /// Labels of the pods it is made of.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    all: Arc<ClusterSettings>,
    ports: BTreeMap<u16, Arc<ClusterSettings>>,
}

impl ReadPolicy {
    pub(super) fn of_port(&self, port: u16) -> &Arc<ClusterSettings> {
        self.ports.get(&port).unwrap_or(&self.all)
    }

    /// Whether TLS is asked for anywhere in it, or it closes something.
    pub(super) fn guards(&self) -> bool {
        let own = self.ports.values().chain([&self.all]);
        let subsets = self.subsets.values();
        let of_subsets = subsets.flat_map(|subset| subset.ports.values().chain([&subset.all]));
        own.chain(of_subsets).any(|settings| guards(settings))
    }

    pub(super) fn subsets(&self) -> impl Iterator<Item = (&Arc<str>, &ReadSubset)> {
        self.subsets.iter()
    }
}

impl ReadSubset {
    pub(super) fn of_port(&self, port: u16) -> &Arc<ClusterSettings> {
        self.ports.get(&port).unwrap_or(&self.all)
    }

    /// As [`close_unlike`], for each port.
    fn close_unlike(&mut self, other: &Self, why: &str) -> bool {
        for port in other.ports.keys() {
            let all = &self.all;
            self.ports.entry(*port).or_insert_with(|| all.clone());
        }
        let mut closed = close_unlike(&mut self.all, &other.all, why);
        for (port, settings) in &mut self.ports {
            closed |= close_unlike(settings, other.of_port(*port), why);
        }
        closed
    }
}

/// Whether TLS is asked for, or nothing is to be sent: what must not give way to plain text.
fn guards(settings: &ClusterSettings) -> bool {
    settings.tls.is_some() || settings.tunnel_only || settings.refused.is_some()
}

/// Of two that are for the same the first is in force, but for TLS that the other asks for and it does not: that
/// must not give way, and nothing is sent. True: this is so.
fn close_unlike(first: &mut Arc<ClusterSettings>, other: &ClusterSettings, why: &str) -> bool {
    let same = first.tls == other.tls
        && first.tunnel_only == other.tunnel_only
        && first.refused == other.refused;
    let closes = guards(other) && !same;
    if closes {
        Arc::make_mut(first).refused.get_or_insert(why.into());
    }
    closes
}

/// What becomes of something that is there already.
fn effect(closed: bool) -> &'static str {
    match closed {
        true => "it asks for TLS: nothing is sent there, requests are answered 503",
        false => "the first one is in force",
    }
}

/// The parts that a port may have of its own.
#[derive(Clone, Copy, Default)]
struct Parts<'w> {
    load_balancer: Option<&'w LoadBalancer>,
    connection_pool: Option<&'w ConnectionPool>,
    outlier_detection: Option<&'w OutlierDetection>,
    tls: Option<&'w ClientTls>,
    retry_budget: Option<&'w RetryBudget>,
    proxy_protocol: Option<&'w ProxyProtocol>,
}

pub(super) fn read(object: &Object<DestinationRuleSpec>, findings: &mut Findings) -> ReadPolicy {
    let mut reading = Reading { object, findings };
    let none = TrafficPolicy::default();
    let written = object.spec.traffic_policy.as_ref().unwrap_or(&none);
    let path = "spec.trafficPolicy";
    let all = Parts::of(written);
    let settings_of_all = settings(&all, path, &mut reading);
    report_fields(written, path, &mut reading);
    let ports = of_ports(written, path, &mut reading);
    let subsets = subsets(&all, written, &ports, &mut reading);
    ReadPolicy {
        all: settings_of_all,
        ports,
        subsets,
    }
}

impl<'w> Parts<'w> {
    fn of(written: &'w TrafficPolicy) -> Self {
        Self {
            load_balancer: written.load_balancer.as_ref(),
            connection_pool: written.connection_pool.as_ref(),
            outlier_detection: written.outlier_detection.as_ref(),
            tls: written.tls.as_ref(),
            retry_budget: written.retry_budget.as_ref(),
            proxy_protocol: written.proxy_protocol.as_ref(),
        }
    }

    /// Nothing is inherited: what is omitted is as by default (specs/policies.md 2.7). But for the
    /// budget and the PROXY protocol, which a port can not have of its own.
    fn of_port(written: &'w PortTrafficPolicy, of_host: &'w TrafficPolicy) -> Self {
        Self {
            load_balancer: written.load_balancer.as_ref(),
            connection_pool: written.connection_pool.as_ref(),
            outlier_detection: written.outlier_detection.as_ref(),
            tls: written.tls.as_ref(),
            retry_budget: of_host.retry_budget.as_ref(),
            proxy_protocol: of_host.proxy_protocol.as_ref(),
        }
    }

    /// What a subset says, field by field before what holds for all.
    fn or(self, other: Self) -> Self {
        Self {
            load_balancer: self.load_balancer.or(other.load_balancer),
            connection_pool: self.connection_pool.or(other.connection_pool),
            outlier_detection: self.outlier_detection.or(other.outlier_detection),
            tls: self.tls.or(other.tls),
            retry_budget: self.retry_budget.or(other.retry_budget),
            proxy_protocol: self.proxy_protocol.or(other.proxy_protocol),
        }
    }
}

fn of_ports(
    written: &TrafficPolicy,
    path: &str,
    reading: &mut Reading<'_>,
) -> BTreeMap<u16, Arc<ClusterSettings>> {
    let mut ports = BTreeMap::new();
    let of_ports = written.port_level_settings.iter().flatten().enumerate();
    for (index, port) in of_ports {
        let path = format!("{path}.portLevelSettings[{index}]");
        let settings = settings(&Parts::of_port(port, written), &path, reading);
        match ports.entry(port.port.number) {
            Entry::Vacant(free) => {
                free.insert(settings);
            }
            Entry::Occupied(mut first) => {
                let message = format!("port {} has settings already", port.port.number);
                let closed = close_unlike(first.get_mut(), &settings, &message);
                let finding =
                    Diagnostic::error(Code::Conflict, message).with_effect(effect(closed));
                reading.find(finding, &format!("{path}.port.number"));
            }
        }
    }
    ports
}

/// A subset overrides what holds for all of the host field by field, what holds for a port too; what it
/// says of a port itself comes before both and inherits nothing (specs/policies.md 2.7).
fn subsets(
    all: &Parts<'_>,
    written: &TrafficPolicy,
    of_host: &BTreeMap<u16, Arc<ClusterSettings>>,
    reading: &mut Reading<'_>,
) -> BTreeMap<Arc<str>, ReadSubset> {
    let mut found: BTreeMap<Arc<str>, ReadSubset> = BTreeMap::new();
    let object = reading.object;
    for (index, subset) in object.spec.subsets.iter().flatten().enumerate() {
        let at = format!("spec.subsets[{index}]");
        let path = format!("{at}.name");
        if subset.name.is_empty() {
            let finding = Diagnostic::error(Code::MissingField, "a subset needs a name")
                .with_effect("this one is not in force");
            reading.find(finding, &path);
            continue;
        }
        let read = subset_of(subset, all, written, of_host, &at, reading);
        let Some(first) = found.get_mut(&*subset.name) else {
            found.insert(subset.name.as_str().into(), read);
            continue;
        };
        let message = format!("there is a subset '{}' already", subset.name);
        let closed = first.close_unlike(&read, &message);
        let finding = Diagnostic::error(Code::Conflict, message).with_effect(effect(closed));
        reading.find(finding, &path);
    }
    found
}

fn subset_of(
    subset: &Subset,
    all: &Parts<'_>,
    written: &TrafficPolicy,
    of_host: &BTreeMap<u16, Arc<ClusterSettings>>,
    at: &str,
    reading: &mut Reading<'_>,
) -> ReadSubset {
    let none = TrafficPolicy::default();
    let own = subset.traffic_policy.as_ref().unwrap_or(&none);
    let path = format!("{at}.trafficPolicy");
    let parts = Parts::of(own);
    // What is wrong is told once and where it stands: of what is inherited by whoever read that.
    settings(&parts, &path, reading);
    report_fields(own, &path, reading);
    let own_ports = of_ports(own, &path, reading);
    let mut told = Findings::new();
    let mut quiet = Reading {
        object: reading.object,
        findings: &mut told,
    };
    let mut ports = BTreeMap::new();
    for port in written.port_level_settings.iter().flatten() {
        let number = port.port.number;
        let mut merged = settings(&parts.or(Parts::of_port(port, written)), &path, &mut quiet);
        let closed = of_host.get(&number).and_then(|own| own.refused.clone());
        if let Some(why) = closed.filter(|_| parts.tls.is_none()) {
            Arc::make_mut(&mut merged).refused.get_or_insert(why);
        }
        ports.entry(number).or_insert(merged);
    }
    ports.extend(own_ports);
    let labels = subset.labels.iter();
    ReadSubset {
        labels: labels
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect(),
        all: settings(&parts.or(*all), &path, &mut quiet),
        ports,
    }
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
    let locality = parts
        .load_balancer
        .and_then(|b| b.locality_lb_setting.as_ref());
    if let Some(written) = locality {
        let path = format!("{path}.loadBalancer.localityLbSetting");
        let detects = parts.outlier_detection.is_some();
        settings.balancing.locality = traffic_localities::read(written, detects, &path, reading);
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
    if let Some(written) = parts.retry_budget {
        settings.retry_budget = reading.retry_budget(written, &format!("{path}.retryBudget"));
    }
    if let Some(written) = parts.tls {
        match client_tls::read(written, &format!("{path}.tls"), reading) {
            Ok(Asked::Nothing) => {}
            Ok(Asked::Tunnel) => settings.tunnel_only = true,
            Ok(Asked::Own(tls)) => settings.tls = Some(tls),
            Err(reason) => settings.refused = Some(reason),
        }
    }
    if let Some(written) = parts.proxy_protocol {
        settings.proxy_protocol = match written.version.as_deref().unwrap_or("V1") {
            "V1" => Some(snapshot::ProxyProtocol::V1),
            "V2" => Some(snapshot::ProxyProtocol::V2),
            other => {
                let message = format!("proxyProtocol.version {other} is not known");
                let finding = Diagnostic::error(Code::BadValue, message.clone())
                    .with_effect("nothing is sent to this host: requests are answered 503")
                    .with_hint("V1 or V2");
                reading.find(finding, &format!("{path}.proxyProtocol.version"));
                settings.refused.get_or_insert(message.into());
                None
            }
        };
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

fn report_fields(written: &TrafficPolicy, path: &str, reading: &mut Reading<'_>) {
    let tunnel = &written.tunnel;
    let fields = [(
        tunnel.is_some(),
        "tunnel",
        "connections go to the endpoint itself",
    )];
    report(&fields, path, reading);
}
