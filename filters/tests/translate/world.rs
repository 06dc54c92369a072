//! A mesh with two Services, and all that its routes make of a request, as text. Holds no case itself.

use std::collections::BTreeMap;

use cairn_authz::Attestation;
use cairn_config_schema::diagnostics::{Diagnostic, Severity};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::resources::Resources;
use cairn_config_schema::snapshot::{Filter, HttpRule, RuleTraffic, Snapshot};
use cairn_config_schema::store::{SourceFile, Store};
use cairn_config_schema::translate::{Source, Target, Translation, translate};
use cairn_filters::chain::External;
use cairn_filters::{Answer, Decision, Destination, PortChain, RequestView};
use cairn_routing::Found;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

/// Service `api` (80 and 9090) and `orders` (8080) of namespace `shop`, and a waypoint.
const MESH: &str = include_str!("../../../config-schema/tests/translate/services.yaml");

/// Ports of Services.
pub const PORTS: [(&str, u16); 3] = [("api", 80), ("api", 9090), ("orders", 8080)];

/// A route that callers of the namespace `other` have for a Service of `shop`.
pub fn consumer() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "consumer", "namespace": "other", "creationTimestamp": "2021-06-01T00:00:00Z"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "namespace": "shop", "name": "api", "port": 9090}],
            "rules": [{"filters": [{
                "type": "RequestRedirect",
                "requestRedirect": {"hostname": "consumer.example", "statusCode": 302},
            }]}],
        },
    })
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Of [`PORTS`].
    pub port: usize,
    /// Namespace of the caller.
    pub from: &'static str,
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    pub host: &'static str,
    pub headers: Vec<(&'static str, &'static str)>,
}

/// A configuration, as written, as resolved, and as the data path asks it.
pub struct World {
    pub resources: Resources,
    pub snapshot: Snapshot,
    chains: Vec<PortChain>,
}

impl World {
    /// The mesh with these objects.
    pub fn with(objects: &[Value]) -> Self {
        let mut parts = vec![MESH.to_owned()];
        parts.extend(objects.iter().map(ToString::to_string));
        let file = SourceFile {
            path: "mesh.yaml".into(),
            content: Ok(parts.join("\n---\n").into_bytes().into()),
        };
        Self::of(Store::default().update(&[file]).resources)
    }

    fn of(resources: Resources) -> Self {
        let snapshot = resolve(&resources, &Options::default());
        let chain = |(service, number): &(&str, u16)| {
            let service = &snapshot.services[&ObjectKey::new("shop", *service)];
            let port = service.ports.iter().find(|port| port.number == *number);
            PortChain::compile(&snapshot, service, port.unwrap())
        };
        Self {
            chains: PORTS.iter().map(chain).collect(),
            resources,
            snapshot,
        }
    }

    pub fn translate(&self, target: Target) -> Translation {
        let source = Source {
            resources: &self.resources,
            snapshot: &self.snapshot,
            options: &Options::default(),
            waypoint: None,
        };
        translate(source, target, false)
    }

    /// With what was written in place of the original. An error is what is wrong with that, if only that it is
    /// warned of.
    pub fn after(&self, translation: &Translation) -> Result<Self, String> {
        let (resources, wrong) = translation.applied_to(&self.resources);
        let after = Self::of(resources);
        let names: Vec<&str> = (translation.objects.iter())
            .map(|object| object["metadata"]["name"].as_str().unwrap())
            .collect();
        let of_written = |diagnostic: &&Diagnostic| {
            let object = diagnostic.object.as_ref();
            diagnostic.severity > Severity::Info
                && object.is_some_and(|object| names.contains(&&*object.key.name))
        };
        let found = after.snapshot.diagnostics.iter().find(of_written);
        match (wrong.as_slice(), found) {
            ([], None) => Ok(after),
            _ => Err(format!("{wrong:?} {found:?} {translation:#?}")),
        }
    }

    /// Everything that becomes of a request: the answer, or where its shares go, as what, after what it is
    /// tried again, who gets copies.
    pub fn outcome(&self, request: &Request) -> String {
        let chain = &self.chains[request.port];
        let mut headers = HeaderMap::new();
        headers.append("host", request.host.parse().unwrap());
        for (name, value) in &request.headers {
            headers.append(*name, value.parse().unwrap());
        }
        let peer = Identity::of_workload("cluster.local", request.from, "web").unwrap();
        let method: Method = request.method.parse().unwrap();
        let decision = chain.decide(&RequestView {
            peer: Some(&peer),
            attested_by: Attestation::Certificate,
            source_ip: "10.0.2.1".parse().unwrap(),
            destination: ([10, 96, 2, 1], PORTS[request.port].1).into(),
            method: &method,
            target: &request.target,
            authority: request.host,
            headers: &headers,
            login: None,
            external: External::Unasked,
            trial: None,
        });
        if decision.answer != Answer::Forward {
            return format!("{:?}", decision.answer);
        }
        let rule = match &decision.found {
            Some(Found::Rule(found)) => found.rule(),
            _ => None,
        };
        format!(
            "{} copies {:?} {}",
            shares(chain, &decision, rule, &headers),
            rule.map_or_else(Vec::new, copies),
            patience(&rule.map(|rule| rule.traffic.clone()).unwrap_or_default()),
        )
    }
}

/// Where a request may go, as what, and its share of all.
fn shares(
    chain: &PortChain,
    decision: &Decision<'_>,
    rule: Option<&HttpRule>,
    headers: &HeaderMap,
) -> String {
    let backends = rule.map_or(&[][..], |rule| &rule.backends);
    let mut tickets: Vec<(u64, u64)> = Vec::new();
    let mut total = 0;
    for backend in backends {
        tickets.push((total, u64::from(backend.weight)));
        total += u64::from(backend.weight);
    }
    if tickets.is_empty() {
        (tickets, total) = (vec![(0, 1)], 1);
    }
    let mut shares: BTreeMap<String, u64> = BTreeMap::new();
    for (first, weight) in tickets {
        let mut sent = headers.clone();
        let mut answered = HeaderMap::new();
        answered.append("x-old", "there".parse().unwrap());
        let went = match chain.backend(decision, first) {
            Ok(destination) => {
                let backend = destination.backend();
                let path = decision.change_request(backend, &mut sent).into_owned();
                decision.change_response(backend, &mut answered);
                let Destination::Cluster { key, .. } = destination else {
                    panic!("a Service's port leads to a cluster");
                };
                format!("{key} {path} {} {}", sorted(&sent), sorted(&answered))
            }
            Err(failure) => format!("{failure:?}"),
        };
        *shares.entry(went).or_default() += weight;
    }
    let parts = shares.iter();
    let parts: Vec<String> = parts
        .map(|(went, weight)| format!("{:.6} of {went}", *weight as f64 / total as f64))
        .collect();
    parts.join("; ")
}

/// Headers by name; values of one name in their order.
fn sorted(headers: &HeaderMap) -> String {
    let mut pairs: Vec<_> = headers.iter().collect();
    pairs.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    format!("{pairs:?}")
}

/// Who gets copies, of which share.
fn copies(rule: &HttpRule) -> Vec<String> {
    let of_backends = rule.backends.iter().flat_map(|backend| &backend.filters);
    let filters = rule.filters.iter().chain(of_backends);
    let mut copies: Vec<String> = filters
        .filter_map(|filter| match filter {
            Filter::Mirror(mirror) => {
                let share = f64::from(mirror.numerator) / f64::from(mirror.denominator);
                Some(format!("{share:.6} for {}", mirror.target))
            }
            _ => None,
        })
        .collect();
    copies.sort();
    copies
}

/// How long is waited, and after what a request is tried again.
fn patience(traffic: &RuleTraffic) -> String {
    let retry = traffic.retry.as_ref().map(|policy| {
        let statuses = (100..600).filter(|status| policy.on.status(*status));
        let statuses: Vec<u16> = statuses.collect();
        let on = &policy.on;
        format!(
            "{} after {statuses:?} {} {} {} {:?}",
            policy.retries_max, on.reset, on.timeout, on.any_method, policy.back_off
        )
    });
    format!(
        "{:?} {retry:?} {:?} {:?}",
        traffic.timeouts, traffic.fault, traffic.session
    )
}
