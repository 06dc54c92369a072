//! What the engine of the data path says to one ask: parse, resolve and `PortChain`, no socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cairn_authz::{Attestation, Question, Verdict, Would, jwt};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::{ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    AppProtocol, Binding, ClusterKey, Service, ServicePort, Snapshot,
};
use cairn_filters::authority::without_trailing_dot;
use cairn_filters::chain::{External, StreamView};
use cairn_filters::fault;
use cairn_filters::outcome::is_grpc;
use cairn_filters::{Answer, Decision, Destination, Outcome, PortChain, RequestView, chain};
use cairn_routing::{Found, FoundStream, ServerName};
use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use super::format::Ask;
use super::tokens;

/// Draws for the shares: the standard deviation of a 50 % share is then 0.35 points.
const DRAWS: u64 = 20_000;

/// What the engine says. Empty where there is nothing to say.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Virtual IP and port that are dialled.
    pub address: Option<SocketAddr>,
    /// What is spoken on the port.
    pub protocol: &'static str,
    /// The CONNECT is answered before it is decided, for what is spoken or the server name has to be read.
    pub opens_first: bool,
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// The policy and rule that decided, `namespace/name#rule`, or `none`.
    pub by: String,
    /// Providers that are asked before it is decided; what follows is what becomes of it if all allow.
    pub asks: Vec<String>,
    /// AUDIT policies that match, `namespace/name#rule`.
    pub audit: Vec<String>,
    /// What policies that are tried say, sorted: `namespace/name#rule allow|deny|ask`.
    pub dry_run: Vec<String>,
    /// What would be with them, `allow|deny namespace/name#rule`. Empty: nothing is tried.
    pub dry_run_verdict: String,
    /// The verdict's reason in words.
    pub reason: String,
    /// `forward` or a status.
    pub answer: String,
    /// gRPC status of a local reply to a gRPC request.
    pub grpc: Option<u8>,
    /// Response code details.
    pub details: String,
    /// Location of a redirect.
    pub location: String,
    /// The route and rule that matched, `namespace/name#rule`, or `none`.
    pub route: String,
    /// Per cent by cluster (`service.namespace:port`, or `500` for a share that goes nowhere, `refused`
    /// for one of TCP).
    pub shares: BTreeMap<String, f64>,
    /// Addresses of the endpoints, by cluster.
    pub endpoints: BTreeMap<String, Vec<SocketAddr>>,
    /// Path and query that the application gets.
    pub path: String,
    /// Headers that the application gets.
    pub request_headers: HeaderMap,
    /// Headers that the client gets, of an answer with `server: app` and `x-set: old`.
    pub response_headers: HeaderMap,
}

/// Judges one ask. `None`: its CONNECT is refused.
pub fn judge(snapshot: &Snapshot, ask: &Ask) -> Option<Judged> {
    let served = Served::find(snapshot, ask.to())?;
    let mut judged = Judged {
        address: Some(served.address),
        protocol: served.protocol,
        opens_first: served.protocol == "sniff"
            || served.chain.asks_for_server_name(Some(&ask.peer())),
        ..Judged::default()
    };
    if ask.is_tcp() {
        judge_tcp(snapshot, &served, ask, &mut judged);
    } else {
        judge_http(snapshot, &served, ask, &mut judged);
    }
    Some(judged)
}

/// What a CONNECT to an address reaches.
struct Served {
    chain: PortChain,
    address: SocketAddr,
    protocol: &'static str,
}

impl Served {
    fn find(snapshot: &Snapshot, to: &str) -> Option<Self> {
        let waypoint = snapshot.waypoint.as_ref()?;
        let served = match to.parse::<SocketAddr>() {
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
        served.filter(|s| waypoint.blocked.is_none() && s.chain.refused().is_none())
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
    let services = || snapshot.services.values();
    let own = services().find(|service| service.addresses.contains(&ip));
    own.or_else(|| services().find(|service| service.blocks.iter().any(|b| b.contains(&ip))))
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

fn judge_tcp(snapshot: &Snapshot, served: &Served, ask: &Ask, judged: &mut Judged) {
    let (peer, chain) = (ask.peer(), &served.chain);
    let view = StreamView {
        peer: Some(&peer),
        attested_by: Attestation::Certificate,
        source_ip: ask.source_ip(),
        destination: served.address,
        found: None,
    };
    let name = match ask.server_name() {
        Some(name) => ServerName::Named(name.into()),
        None => ServerName::NotTls,
    };
    let found = chain.route_stream(&view, &name);
    let view = StreamView {
        found: Some(&found),
        ..view
    };
    let verdict = match chain.consult_tcp(&view) {
        Err(question) => question.denied(),
        Ok(questions) => {
            judged.asks = names(&questions);
            chain.decide_tcp_settled(&view)
        }
    };
    let reason = verdict.reason(chain.policies(), &chain::tcp_facts(&view));
    tell_verdict(&verdict, reason, judged);
    judged.route = match &found {
        FoundStream::Rule(rule) => format!("{}#{}", rule.route.origin.key, rule.rule),
        _ => "none".into(),
    };
    if verdict.allowed {
        tell_shares(snapshot, judged, |random| {
            match chain.stream_backend(&found, random) {
                Ok(Destination::Cluster { key, .. }) => shown(key),
                Ok(Destination::Dialled) => "dialled".into(),
                Err(_) => "refused".into(),
            }
        });
    }
}

/// Draws, and counts where they lead.
fn tell_shares(snapshot: &Snapshot, judged: &mut Judged, draw: impl Fn(u64) -> String) {
    let mut state = 1;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..DRAWS {
        *counts.entry(draw(splitmix(&mut state))).or_default() += 1;
    }
    let per_cent = |n: u64| n as f64 * 100.0 / DRAWS as f64;
    judged.shares = counts
        .into_iter()
        .map(|(to, n)| (to, per_cent(n)))
        .collect();
    for (key, endpoints) in &snapshot.clusters {
        let addresses = endpoints.iter().map(|e| e.address).collect();
        judged.endpoints.insert(shown(key), addresses);
    }
}

fn judge_http(snapshot: &Snapshot, served: &Served, ask: &Ask, judged: &mut Judged) {
    let peer = ask.peer();
    let own = Identity::of_workload("cluster.local", "shop", "waypoint").expect("an identity");
    let (method, target) = ask.method_and_target();
    let mut headers = ask.header_map();
    let request_id = || HeaderValue::from_static("an-id");
    served
        .chain
        .clean(&mut headers, Some(&own), Some(&peer), request_id);
    let authority = without_trailing_dot(ask.authority());
    // As the waypoint does: what is forwarded is what was judged.
    headers.insert(HOST, HeaderValue::from_str(&authority).expect("host"));
    let asked = jwt::Request {
        method: &method,
        headers: &headers,
        query: target.split_once('?').map(|(_, query)| query),
    };
    let (keys, mut memory) = (jwt::KeySets::default(), jwt::Memory::new());
    let now_s = tokens::NOW_S;
    let login = (served.chain).authenticate(&asked, &keys, &mut memory, now_s);
    let trial = (served.chain).try_token(&asked, &keys, &mut memory, now_s);
    let view = RequestView {
        peer: Some(&peer),
        attested_by: Attestation::Certificate,
        source_ip: ask.source_ip(),
        destination: served.address,
        method: &method,
        target,
        authority: &authority,
        headers: &headers,
        login: Some(&login),
        trial: trial.as_ref(),
        external: External::Unasked,
    };
    let consultation = served.chain.consult(&view);
    judged.asks = names(&consultation.questions);
    let mut without_token = headers.clone();
    served.chain.take_token(&login, &mut without_token);
    let headers = without_token;
    // Everybody who is asked allows it, and changes nothing.
    let view = RequestView {
        headers: &headers,
        external: External::Settled(consultation.route.as_ref()),
        ..view
    };
    let allowed_by: Vec<_> = (consultation.questions.iter())
        .map(|question| question.provider.clone())
        .collect();
    if let Some(question) = served.chain.unasked(&view, &allowed_by) {
        let verdict = question.denied();
        judged.details = verdict.response_code_details().unwrap_or_default();
        judged.answer = "403".to_owned();
        judged.grpc = Outcome::Denied.reply(is_grpc(&headers)).grpc_status;
        return tell_verdict(&verdict, question.too_late(), judged);
    }
    let decision = served.chain.decide(&view);
    if let (Some(verdict), Some(target)) = (&decision.verdict, &decision.target) {
        let facts = chain::facts(&view, target, decision.found.as_ref());
        let reason = verdict.reason(served.chain.policies(), &facts);
        tell_verdict(verdict, reason, judged);
        let denied = decision.answer.is_denial();
        assert_eq!(denied, !verdict.allowed, "verdict and answer agree");
    }
    judged.route = match &decision.found {
        Some(Found::Rule(rule)) => format!("{}#{}", rule.route.origin.key, rule.rule),
        _ => "none".into(),
    };
    let filter = decision.external_auth();
    judged.asks.extend(filter.map(|p| p.name.to_string()));
    let first = served.chain.backend(&decision, 0);
    let backend = first.as_ref().ok().and_then(Destination::backend);
    let filter = decision.external_auth_of(backend);
    judged.asks.extend(filter.map(|p| p.name.to_string()));
    tell_answer(&decision, is_grpc(&headers), judged);
    tell_forwarding(snapshot, served, &decision, &headers, judged);
}

fn names(questions: &[Question]) -> Vec<String> {
    let names = questions.iter().map(|q| q.provider.name.to_string());
    names.collect()
}

fn tell_verdict(verdict: &Verdict, reason: String, judged: &mut Judged) {
    judged.verdict = allow_or_deny(verdict.allowed);
    judged.by = by(verdict.origin(), verdict.rule_index());
    judged.reason = reason;
    let audit = verdict.audit.iter();
    let audit = audit.map(|a| by(Some(&a.policy.origin), a.rule));
    judged.audit = audit.collect();
    let Some(run) = &verdict.dry_run else { return };
    let told = run.outcomes.iter().filter(|o| o.would != Would::Nothing);
    let told = told.map(|o| format!("{} {}", by(Some(&o.policy), o.rule), o.would.as_str()));
    judged.dry_run = told.collect();
    judged.dry_run.sort();
    let would = allow_or_deny(run.allowed());
    judged.dry_run_verdict = format!("{would} {}", by(run.origin(), run.rule_index()));
}

fn tell_answer(decision: &Decision<'_>, grpc: bool, judged: &mut Judged) {
    judged.details = decision.details().unwrap_or_default().into_owned();
    judged.answer = match &decision.answer {
        Answer::Forward => "forward".to_owned(),
        Answer::Redirect { status, location } => {
            location
                .to_str()
                .expect("a location")
                .clone_into(&mut judged.location);
            status.as_u16().to_string()
        }
        Answer::Direct(direct) => direct.status.as_u16().to_string(),
        Answer::Preflight(headers) => {
            judged.response_headers = headers.clone();
            "200".to_owned()
        }
        other => {
            let outcome = other.outcome().unwrap_or(Outcome::Internal);
            judged.grpc = outcome.reply(grpc).grpc_status;
            outcome.row().status.as_u16().to_string()
        }
    };
}

fn tell_forwarding(
    snapshot: &Snapshot,
    served: &Served,
    decision: &Decision<'_>,
    headers: &HeaderMap,
    judged: &mut Judged,
) {
    if decision.answer != Answer::Forward && decision.answer != Answer::NoBackend {
        return;
    }
    tell_shares(snapshot, judged, |random| {
        // What is drawn first must not decide what is drawn next.
        let mut other = random;
        if let Some(answer) = decision.faults(|| splitmix(&mut other)).abort {
            return fault::status(answer).as_u16().to_string();
        }
        let refused = |key| {
            let settings = snapshot.cluster_settings.get(key);
            settings.is_some_and(|settings| settings.refused.is_some())
        };
        match served.chain.backend(decision, random) {
            // What its traffic policy asks for can not be had, so that nothing is sent there.
            Ok(Destination::Cluster { key, .. }) if refused(key) => "503".into(),
            Ok(Destination::Cluster { key, .. }) => shown(key),
            Ok(Destination::Dialled) => "dialled".into(),
            Err(failure) => failure.outcome().row().status.as_u16().to_string(),
        }
    });
    let destination = served.chain.backend(decision, 0);
    let backend = destination.as_ref().ok().and_then(Destination::backend);
    judged.request_headers = headers.clone();
    judged.path = decision
        .change_request(backend, &mut judged.request_headers)
        .into_owned();
    judged.response_headers = HeaderMap::from_iter([
        (
            HeaderName::from_static("server"),
            HeaderValue::from_static("app"),
        ),
        (
            HeaderName::from_static("x-set"),
            HeaderValue::from_static("old"),
        ),
    ]);
    decision.change_response(backend, &mut judged.response_headers);
}

fn by(policy: Option<&Origin>, rule: Option<usize>) -> String {
    match (policy, rule) {
        (None, _) => "none".into(),
        (Some(policy), None) => policy.key.to_string(),
        (Some(policy), Some(rule)) => format!("{}#{rule}", policy.key),
    }
}

fn allow_or_deny(allowed: bool) -> &'static str {
    if allowed { "allow" } else { "deny" }
}

fn shown(key: &ClusterKey) -> String {
    let subset = key.subset.as_ref().map(|subset| format!("/{subset}"));
    format!(
        "{}.{}:{}{}",
        key.service.name,
        key.service.namespace,
        key.port,
        subset.unwrap_or_default()
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

impl Ask {
    /// What is dialled.
    pub fn to(&self) -> &str {
        self.to.as_deref().unwrap_or("web.shop:80")
    }

    /// A TCP stream rather than a request.
    pub fn is_tcp(&self) -> bool {
        self.send.as_deref() == Some("tcp") || self.server_name().is_some()
    }

    /// The server name of a TCP stream that carries TLS.
    pub fn server_name(&self) -> Option<&str> {
        self.send.as_deref()?.strip_prefix("tls ")
    }

    /// The client.
    pub fn peer(&self) -> Identity {
        let from = self.from.as_deref().expect("an ask without from");
        let identity = match from.split_once('/') {
            Some((namespace, account)) if !from.starts_with("spiffe://") => {
                Identity::of_workload("cluster.local", namespace, account)
            }
            _ => Identity::parse(from),
        };
        identity.expect(from)
    }

    /// Address of the TCP peer.
    pub fn source_ip(&self) -> IpAddr {
        let ip = self.ip.as_deref().unwrap_or("10.0.9.9");
        ip.parse().expect(ip)
    }

    /// Method and request target.
    pub fn method_and_target(&self) -> (Method, &str) {
        let send = self.send.as_deref().and_then(|send| send.split_once(' '));
        let (method, target) = send.expect("send: METHOD TARGET, or tcp");
        (
            Method::from_bytes(method.as_bytes()).expect("a method"),
            target,
        )
    }

    /// Host.
    pub fn authority(&self) -> &str {
        self.host.as_deref().unwrap_or("web.shop")
    }

    /// Headers, Host among them.
    pub fn header_map(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let host = HeaderValue::from_str(self.authority()).expect("host");
        headers.insert(HOST, host);
        for (name, values) in self.headers.iter().flatten() {
            let name: HeaderName = name.parse().expect("a header name");
            for value in values.iter() {
                headers.append(&name, HeaderValue::from_str(value).expect("a value"));
            }
        }
        headers
    }
}
