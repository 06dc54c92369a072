//! Runs one ask through the engine of the data path and says what differs from what is expected.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cairn_authz::Verdict;
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    AppProtocol, Binding, ClusterKey, Policy, Service, ServicePort, Snapshot,
};
use cairn_filters::chain;
use cairn_filters::outcome::is_grpc;
use cairn_filters::{Answer, Decision, Destination, Outcome, PortChain, RequestView};
use cairn_routing::Found;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use crate::format::{self, Ask, Full};

/// Draws for `shares`: the standard deviation of a 50 % share is then 0.35 points.
const DRAWS: u64 = 20_000;
const SHARE_TOLERANCE_POINTS: f64 = 1.5;

/// What differs; empty when all is as expected.
pub fn run(snapshot: &Snapshot, ask: &Ask) -> Vec<String> {
    let expected = ask.expected();
    let found = Served::find(snapshot, ask.to.as_deref().unwrap_or("web.shop:80"));
    let mut wrong = Wrong::default();
    let Some(served) = found else {
        match &expected.answer {
            Some(format::Answer::Word(word)) if word == "refused" => {}
            _ => wrong.push(format!("refused, expected {expected:?}")),
        }
        return wrong.list;
    };
    wrong.compare("protocol", &expected.protocol, served.protocol);
    if ask.send.as_deref() == Some("tcp") {
        judge_tcp(&served, ask, &expected, &mut wrong);
    } else {
        judge_http(snapshot, &served, ask, &expected, &mut wrong);
    }
    wrong.list
}

#[derive(Default)]
struct Wrong {
    list: Vec<String>,
}

impl Wrong {
    fn push(&mut self, text: String) {
        self.list.push(text);
    }

    fn compare(&mut self, what: &str, expected: &Option<String>, found: impl Into<String>) {
        let found = found.into();
        if let Some(expected) = expected
            && *expected != found
        {
            self.push(format!("{what} is {found:?}, expected {expected:?}"));
        }
    }
}

/// What a CONNECT to an address reaches.
struct Served {
    chain: PortChain,
    address: SocketAddr,
    protocol: &'static str,
}

impl Served {
    /// `None`: the tunnel is refused.
    fn find(snapshot: &Snapshot, to: &str) -> Option<Self> {
        let waypoint = snapshot.waypoint.as_ref()?;
        let chain = match to.parse::<SocketAddr>() {
            Ok(address) => match service_at(snapshot, address.ip()) {
                Some(service) => Self::service(snapshot, service, address),
                None => Self::workload(snapshot, address),
            },
            Err(_) => {
                let (host, port) = to.rsplit_once(':').expect("to: host:port");
                let (name, namespace) = host.split_once('.').expect("to: name.namespace:port");
                let service = snapshot.services.get(&ObjectKey::new(namespace, name));
                service.and_then(|service| {
                    let ip = *service.addresses.first()?;
                    let address = SocketAddr::new(ip, port.parse().expect("to: port"));
                    Self::service(snapshot, service, address)
                })
            }
        };
        chain.filter(|served| waypoint.blocked.is_none() && served.chain.refused().is_none())
    }

    fn service(snapshot: &Snapshot, service: &Arc<Service>, address: SocketAddr) -> Option<Self> {
        if service.binding != Binding::Served {
            return None;
        }
        let port = service.ports.iter().find(|p| p.number == address.port())?;
        Some(Self {
            chain: PortChain::compile(snapshot, service, port),
            address,
            protocol: protocol(port),
        })
    }

    fn workload(snapshot: &Snapshot, address: SocketAddr) -> Option<Self> {
        let workload = snapshot.workloads.get(&address.ip())?;
        (workload.binding == Binding::Served).then(|| Self {
            chain: PortChain::for_workload(snapshot),
            address,
            protocol: "sniff",
        })
    }
}

fn service_at(snapshot: &Snapshot, ip: IpAddr) -> Option<&Arc<Service>> {
    snapshot
        .services
        .values()
        .find(|service| service.addresses.contains(&ip))
}

fn protocol(port: &ServicePort) -> &'static str {
    match port.protocol {
        AppProtocol::Http => "http",
        AppProtocol::Http2 => "http2",
        AppProtocol::Grpc => "grpc",
        AppProtocol::Tcp => "tcp",
        AppProtocol::Sniff => "sniff",
    }
}

fn peer(ask: &Ask) -> (Identity, IpAddr) {
    let from = ask.from.as_deref().expect("an ask without from");
    let identity = match from.split_once('/') {
        Some((namespace, account)) if !from.starts_with("spiffe://") => {
            Identity::of_workload("cluster.local", namespace, account)
        }
        _ => Identity::parse(from),
    };
    let ip = ask.ip.as_deref().unwrap_or("10.0.9.9");
    (identity.expect(from), ip.parse().expect(ip))
}

fn judge_tcp(served: &Served, ask: &Ask, expected: &Full, wrong: &mut Wrong) {
    let (peer, ip) = peer(ask);
    let facts = chain::tcp_facts(Some(&peer), ip, served.address);
    let verdict = served.chain.decide_tcp(Some(&peer), ip, served.address);
    let reason = verdict.reason(served.chain.policies(), &facts);
    compare_verdict(&verdict, &reason, expected, wrong);
}

fn judge_http(snapshot: &Snapshot, served: &Served, ask: &Ask, expected: &Full, wrong: &mut Wrong) {
    let (peer, source_ip) = peer(ask);
    let own = Identity::of_workload("cluster.local", "shop", "waypoint").unwrap();
    let (method, target) = ask
        .send
        .as_deref()
        .and_then(|send| send.split_once(' '))
        .expect("send: METHOD TARGET, or tcp");
    let authority = ask.host.as_deref().unwrap_or("web.shop");
    let mut headers = headers(ask, authority);
    let request_id = || HeaderValue::from_static("an-id");
    served
        .chain
        .clean(&mut headers, Some(&own), Some(&peer), request_id);
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let view = RequestView {
        peer: Some(&peer),
        source_ip,
        destination: served.address,
        method: &method,
        target,
        authority,
        headers: &headers,
    };
    let decision = served.chain.decide(&view);
    if let (Some(verdict), Some(target)) = (&decision.verdict, &decision.target) {
        let facts = chain::facts(&view, target);
        let reason = verdict.reason(served.chain.policies(), &facts);
        compare_verdict(verdict, &reason, expected, wrong);
        let answered_403 = decision.answer == Answer::Deny;
        if verdict.allowed == answered_403 {
            wrong.push(format!("verdict and answer differ: {:?}", decision.answer));
        }
    } else if expected.verdict.is_some() {
        wrong.push(format!("no verdict: {:?}", decision.answer));
    }
    compare_answer(&decision, is_grpc(&headers), expected, wrong);
    compare_route(&decision, expected, wrong);
    compare_forwarding(snapshot, served, &decision, &headers, expected, wrong);
}

fn headers(ask: &Ask, authority: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_str(authority).expect("host"));
    for (name, values) in ask.headers.iter().flatten() {
        let name: HeaderName = name.parse().expect("a header name");
        for value in values.iter() {
            headers.append(&name, HeaderValue::from_str(value).expect("a value"));
        }
    }
    headers
}

fn by(policy: Option<&Arc<Policy>>, rule: Option<usize>) -> String {
    match (policy, rule) {
        (None, _) => "none".into(),
        (Some(policy), None) => policy.origin.key.to_string(),
        (Some(policy), Some(rule)) => format!("{}#{rule}", policy.origin.key),
    }
}

fn allow_or_deny(allowed: bool) -> &'static str {
    if allowed { "allow" } else { "deny" }
}

fn compare_verdict(verdict: &Verdict, reason: &str, expected: &Full, wrong: &mut Wrong) {
    wrong.compare("verdict", &expected.verdict, allow_or_deny(verdict.allowed));
    let decided_by = by(verdict.policy.as_ref(), verdict.rule);
    wrong.compare("by", &expected.by, decided_by);
    if let Some(part) = &expected.reason
        && !reason.contains(part.as_str())
    {
        wrong.push(format!("reason is {reason:?}, expected {part:?} in it"));
    }
    if let Some(shadow) = &expected.shadow {
        let mut found: Vec<String> = verdict
            .shadow
            .iter()
            .map(|s| {
                let action = serde_json::to_value(s.action).unwrap();
                format!(
                    "{} {} {}",
                    action.as_str().unwrap(),
                    allow_or_deny(s.would),
                    by(s.policy.as_ref(), s.rule)
                )
            })
            .collect();
        found.sort();
        if found != *shadow {
            wrong.push(format!("shadow is {found:?}, expected {shadow:?}"));
        }
    }
}

fn compare_answer(decision: &Decision<'_>, grpc: bool, expected: &Full, wrong: &mut Wrong) {
    let (answer, location) = match &decision.answer {
        Answer::Forward => ("forward".to_owned(), None),
        Answer::Redirect { status, location } => (
            status.as_u16().to_string(),
            Some(location.to_str().unwrap().to_owned()),
        ),
        other => {
            let outcome = other.outcome().unwrap_or(Outcome::Internal);
            if let Some(status) = expected.grpc {
                let reply = outcome.reply(grpc);
                if reply.grpc_status != Some(status) {
                    let found = reply.grpc_status;
                    wrong.push(format!("grpc status is {found:?}, expected {status}"));
                }
            }
            (outcome.row().status.as_u16().to_string(), None)
        }
    };
    let word = match &expected.answer {
        Some(format::Answer::Status(status)) => Some(status.to_string()),
        // Whether the tunnel is accepted at all.
        Some(format::Answer::Word(word)) if word == "served" => None,
        Some(format::Answer::Word(word)) => Some(word.clone()),
        None => None,
    };
    wrong.compare("answer", &word, answer);
    wrong.compare("location", &expected.location, location.unwrap_or_default());
    let details = decision.details().unwrap_or_default();
    wrong.compare("details", &expected.details, details);
}

fn compare_route(decision: &Decision<'_>, expected: &Full, wrong: &mut Wrong) {
    let route = match &decision.found {
        Some(Found::Rule(rule)) => format!("{}#{}", rule.route.origin.key, rule.rule),
        _ => "none".into(),
    };
    wrong.compare("route", &expected.route, route);
}

fn compare_forwarding(
    snapshot: &Snapshot,
    served: &Served,
    decision: &Decision<'_>,
    headers: &HeaderMap,
    expected: &Full,
    wrong: &mut Wrong,
) {
    if let Some(expected) = &expected.shares {
        compare_shares(served, decision, expected, wrong);
    }
    let Ok(destination) = served.chain.backend(decision, 0) else {
        if expected.backend.is_some() || expected.path.is_some() || expected.endpoints.is_some() {
            wrong.push(format!("not forwarded: {:?}", decision.answer));
        }
        return;
    };
    let cluster = match destination {
        Destination::Cluster { key, .. } => shown(key),
        Destination::Dialled => "dialled".into(),
    };
    wrong.compare("backend", &expected.backend, cluster);
    if let (Some(expected), Destination::Cluster { key, .. }) = (&expected.endpoints, destination) {
        let endpoints = snapshot.clusters.get(key);
        let found: Vec<String> = endpoints
            .iter()
            .flat_map(|list| list.iter())
            .map(|endpoint| endpoint.address.to_string())
            .collect();
        if found != *expected {
            wrong.push(format!("endpoints are {found:?}, expected {expected:?}"));
        }
    }
    let mut request = headers.clone();
    let path = decision.change_request(destination.backend(), &mut request);
    wrong.compare("path", &expected.path, path);
    compare_headers("request", &request, &expected.request_headers, wrong);
    let mut response = HeaderMap::new();
    response.insert("server", HeaderValue::from_static("app"));
    response.insert("x-set", HeaderValue::from_static("old"));
    decision.change_response(destination.backend(), &mut response);
    compare_headers("response", &response, &expected.response_headers, wrong);
}

fn compare_shares(
    served: &Served,
    decision: &Decision<'_>,
    expected: &BTreeMap<String, f64>,
    wrong: &mut Wrong,
) {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut state = 1;
    for _ in 0..DRAWS {
        let to = match served.chain.backend(decision, splitmix(&mut state)) {
            Ok(Destination::Cluster { key, .. }) => shown(key),
            Ok(Destination::Dialled) => "dialled".into(),
            Err(_) => "500".into(),
        };
        *counts.entry(to).or_default() += 1;
    }
    let found: BTreeMap<String, f64> = counts
        .into_iter()
        .map(|(to, n)| (to, n as f64 * 100.0 / DRAWS as f64))
        .collect();
    let close = |(to, share): (&String, &f64)| {
        let found = found.get(to).copied().unwrap_or_default();
        (found - share).abs() <= SHARE_TOLERANCE_POINTS
    };
    if found.len() != expected.len() || !expected.iter().all(close) {
        wrong.push(format!("shares are {found:?}, expected {expected:?}"));
    }
}

fn compare_headers(
    what: &str,
    found: &HeaderMap,
    expected: &BTreeMap<String, Option<String>>,
    wrong: &mut Wrong,
) {
    for (name, expected) in expected {
        let values: Vec<_> = found
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        let found = (!values.is_empty()).then(|| values.join(","));
        if found != *expected {
            wrong.push(format!(
                "{what} header {name} is {found:?}, expected {expected:?}"
            ));
        }
    }
}

fn shown(key: &ClusterKey) -> String {
    format!(
        "{}.{}:{}",
        key.service.name, key.service.namespace, key.port
    )
}

/// SplitMix64, so that the draws are the same on every run.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
