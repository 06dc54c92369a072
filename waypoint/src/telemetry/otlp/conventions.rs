//! OpenTelemetry's conventions for HTTP and Istio's tags, for what an exchange has: names and values of
//! attributes. Which span gets which of them is in `spans`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use cairn_authz::Verdict;
use cairn_config_schema::snapshot::{HttpRoute, PathMatch, Workload};
use http::Method;

use super::pairs::Pairs;
use crate::telemetry::alike::method;
use crate::telemetry::exchange::{Exchange, HttpExchange};
use crate::telemetry::labels::{cluster_of, type_of};
use crate::telemetry::text;
use crate::telemetry::trace::recording::Attempt;

/// The path of a rule, as it is written.
#[derive(Clone, Copy)]
pub(super) struct Path<'a>(&'a str, &'static str);

impl<'a> Path<'a> {
    /// What it is made of.
    pub(super) fn pieces(self) -> [&'a str; 2] {
        [self.0, self.1]
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)?;
        f.write_str(self.1)
    }
}

/// The path of a route's rule, if it has one: as written, for it is the same for many requests.
pub(super) fn path_of(route: &HttpRoute, rule: usize) -> Option<Path<'_>> {
    let [only] = &*route.rules.get(rule)?.matches else {
        return None;
    };
    Some(match &only.path {
        PathMatch::Exact(path) => Path(path, ""),
        PathMatch::Prefix(path) => Path(path, "/*"),
        PathMatch::Begins { text, .. } => Path(text, "*"),
        PathMatch::Regex(_) => return None,
    })
}

/// Which rule of which route a request went by.
pub(super) fn route_rule(attributes: &mut Pairs, route: &HttpRoute, rule: usize) {
    attributes.display("cairn.route", &route.origin);
    attributes.number("cairn.route.rule", rule);
    if let Some(path) = path_of(route, rule) {
        attributes.display("http.route", path);
    }
}

/// With what it was asked, as many ask.
pub(super) fn request_alike(attributes: &mut Pairs, http: &HttpExchange) {
    request_method(attributes, &http.method);
    attributes.text("url.scheme", "http");
    if let Some(version) = http.protocol.strip_prefix("HTTP/") {
        attributes.text("network.protocol.name", "http");
        attributes.text("network.protocol.version", version);
    }
}

/// What was asked, and by whom. `cut`: shortens what clients may make long.
pub(super) fn request<'t>(
    attributes: &mut Pairs,
    exchange: &Exchange,
    http: &'t HttpExchange,
    cut: impl Fn(&'t str) -> &'t str,
) {
    let (path, query) = match http.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*http.path, None),
    };
    attributes.text("url.path", cut(path));
    attributes.known("url.query", query.map(cut));
    let (host, port) = host_and_port(&http.authority);
    attributes.text("server.address", host);
    attributes.number("server.port", port.unwrap_or(exchange.service_port));
    let agent = http.user_agent.as_ref();
    let agent = agent.map(|agent| text::of_bytes(agent.as_bytes()));
    attributes.known("user_agent.original", agent);
}

/// Where the client of a request is.
pub(super) fn client_address(attributes: &mut Pairs, address: IpAddr) {
    attributes.display_as(["client.address", "network.peer.address"], address);
}

/// From which port it asks.
pub(super) fn client_port(attributes: &mut Pairs, port: u16) {
    attributes.number("client.port", port);
    attributes.number("network.peer.port", port);
}

/// Who dialled what over TCP, and how much was said.
pub(super) fn stream(attributes: &mut Pairs, exchange: &Exchange) {
    let (peer, dialled) = (&exchange.origin.peer, exchange.origin.destination);
    attributes.text("network.transport", "tcp");
    match &exchange.service {
        Some(service) => attributes.text("server.address", &service.hostname),
        None => attributes.display("server.address", dialled.ip()),
    }
    attributes.number("server.port", dialled.port());
    attributes.display("client.address", peer.address.ip());
    attributes.number("client.port", peer.address.port());
    let name = exchange.server_name.as_deref();
    attributes.known("tls.client.server_name", name);
    if let Some(endpoint) = &exchange.endpoint {
        attributes.display("cairn.endpoint", endpoint.address);
    }
    attributes.number("cairn.bytes_received", exchange.bytes_received);
    attributes.number("cairn.bytes_sent", exchange.bytes_sent);
}

/// The connection of a TCP stream to an endpoint. Bytes are seen from here: those sent are the endpoint's to read.
pub(super) fn connection(attributes: &mut Pairs, exchange: &Exchange, attempt: &Attempt) {
    attributes.text("network.transport", "tcp");
    if attempt.connected.is_some() {
        if let Some(local) = exchange.upstream_local {
            attributes.display("network.local.address", local.ip());
            attributes.number("network.local.port", local.port());
        }
        attributes.number("cairn.bytes_sent", exchange.bytes_received);
        attributes.number("cairn.bytes_received", exchange.bytes_sent);
    }
}

/// Where an attempt went.
pub(super) fn endpoint(attributes: &mut Pairs, address: SocketAddr) {
    attributes.display_as(["server.address", "network.peer.address"], address.ip());
    attributes.number("server.port", address.port());
    attributes.number("network.peer.port", address.port());
}

/// Which method of which service was called, and how it went.
pub(super) fn grpc(attributes: &mut Pairs, http: &HttpExchange) {
    attributes.text("rpc.system", "grpc");
    if let Some((service, method)) = grpc_method(&http.path) {
        attributes.text("rpc.service", service);
        attributes.text("rpc.method", method);
    }
    if let Some(status) = http.grpc_status {
        attributes.number("rpc.grpc.status_code", status);
    }
}

/// What policy decided.
pub(super) fn verdict(attributes: &mut Pairs, verdict: &Verdict) {
    attributes.text(
        "cairn.verdict",
        if verdict.allowed { "allow" } else { "deny" },
    );
    if let Some(origin) = verdict.origin() {
        attributes.display("cairn.policy", origin);
    }
    if let Some(rule) = verdict.rule_index() {
        attributes.number("cairn.rule", rule);
    }
    let dry_run = verdict.dry_run.as_ref().map(|run| run.allowed());
    let dry_run = dry_run.map(|allowed| if allowed { "allow" } else { "deny" });
    attributes.known("cairn.dry_run_verdict", dry_run);
}

/// Names of Istio's tags of a workload, in the order in which [`peer`] gives their values.
type Tags = [&'static str; 9];

macro_rules! tags {
    ($side:literal) => {
        [
            concat!("istio.", $side, "_workload"),
            concat!("istio.", $side, "_namespace"),
            concat!("istio.", $side, "_cluster_id"),
            concat!("istio.", $side, "_canonical_service"),
            concat!("istio.", $side, "_canonical_revision"),
            concat!("istio.", $side, "_app"),
            concat!("istio.", $side, "_app_version"),
            concat!("istio.", $side, "_workload_type"),
            concat!("istio.", $side, "_instance_name"),
        ]
    };
}

/// Of who asks.
pub(super) const SOURCE: &Tags = &tags!("source");

/// Of who is asked.
pub(super) const DESTINATION: &Tags = &tags!("destination");

/// Istio's tags of a workload.
pub(super) fn peer(attributes: &mut Pairs, tags: &Tags, workload: &Workload, cluster: &str) {
    let (name, _) = workload.name_and_cluster();
    let values: [&str; 9] = [
        &workload.workload_name,
        &workload.key.namespace,
        cluster_of(workload, cluster),
        &workload.canonical_name,
        &workload.canonical_revision,
        &workload.app,
        &workload.version,
        type_of(workload),
        name,
    ];
    for (tag, value) in tags.iter().zip(values) {
        attributes.text(tag, value);
    }
}

pub(super) fn request_method(attributes: &mut Pairs, of: &Method) {
    let known = method(of);
    attributes.text("http.request.method", known.unwrap_or("_OTHER"));
    if known.is_none() {
        attributes.text("http.request.method_original", of.as_str());
    }
}

fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let split = authority.rsplit_once(':');
    let numbered = split.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match numbered {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

/// `/package.Service/Method`.
fn grpc_method(path: &str) -> Option<(&str, &str)> {
    let path = path.split('?').next()?.strip_prefix('/')?;
    path.split_once('/')
}
