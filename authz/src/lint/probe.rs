//! Probes of pods that the policies on their Service deny. The kubelet asks the pod itself, past any
//! waypoint; whoever asks through the Service (a load balancer, an uptime check) is denied
//! (specs/policies.md 4, #22).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use cairn_config_schema::diagnostics::{Code, Diagnostic, Severity};
use cairn_config_schema::resources::Object;
use cairn_config_schema::resources::kube::{HttpProbe, PodSpec};
use cairn_config_schema::snapshot::{
    Action, Condition, Policy, PolicyRule, Service, Source, Values,
};
use http::HeaderMap;
use rustc_hash::{FxHashMap, FxHashSet};

use super::budget::Budget;
use super::ground::{Ground, named};
use super::probe_network;
use crate::facts::{Attestation, Facts, HttpFacts};
use crate::policy::PolicySet;

pub(super) fn lint(ground: &Ground<'_>, findings: &mut Vec<Diagnostic>) {
    let mut compiled: FxHashMap<*const Service, Sets> = FxHashMap::default();
    let network = &ground.snapshot.network;
    let mut told = FxHashSet::default();
    let mut budget = Budget::new("probe-denied");
    for (key, endpoints) in &ground.snapshot.clusters {
        let Some(service) = ground.snapshot.services.get(&key.service) else {
            continue;
        };
        let subjects = network.clusters.get(key).map(|subjects| &**subjects);
        let of_network = subjects.map(|subjects| probe_network::Relaxed::of(key, subjects));
        if service.policies.is_empty() && of_network.is_none() {
            continue;
        }
        for endpoint in endpoints.iter() {
            let Some(workload) = &endpoint.workload else {
                continue;
            };
            let pod = ground.resources.pods.get(&workload.key);
            let Some(pod) = pod.and_then(|loaded| loaded.object()) else {
                continue;
            };
            let port = Some(endpoint.address.port());
            for probe in pod.spec.probes.iter().filter(|probe| probe.port == port) {
                if !told.insert((key, &*probe.path)) {
                    continue;
                }
                let rules = service.policies.iter().map(|p| p.rules.len() + 1);
                let of_pods = of_network.as_ref().map_or(0, |relaxed| relaxed.rules);
                if !budget.take(rules.sum::<usize>() + of_pods) {
                    return findings.push(budget.exhausted());
                }
                let address = Arc::as_ptr(service);
                let sets = compiled.entry(address).or_insert_with(|| Sets::of(service));
                let asked = Asked {
                    service,
                    port: key.port,
                    probe,
                    pod,
                };
                findings.extend(sets.judge(&asked));
                findings.extend(
                    of_network
                        .as_ref()
                        .and_then(|relaxed| relaxed.judge(&asked)),
                );
            }
        }
    }
}

/// The policies of a service, as they are and as they would be for the client they like best.
struct Sets {
    written: PolicySet,
    for_the_best: PolicySet,
}

impl Sets {
    fn of(service: &Service) -> Self {
        let best: Vec<Arc<Policy>> = (service.policies.iter())
            .map(|policy| Arc::new(whoever_asks(policy)))
            .collect();
        Self {
            written: PolicySet::compile(&service.policies),
            for_the_best: PolicySet::compile(&best),
        }
    }

    fn judge(&self, asked: &Asked<'_>) -> Option<Diagnostic> {
        let headers = HeaderMap::new();
        let facts = asked.facts(&headers);
        let written = self.written.decide(&facts);
        if written.allowed {
            return None;
        }
        let nobody = !self.for_the_best.decide(&facts).allowed;
        let (severity, who) = match nobody {
            true => (Severity::Warning, "anybody"),
            false => (Severity::Info, "a client without an identity"),
        };
        let by = match (&written.policy, written.rule) {
            (Some(policy), Some(rule)) => named(&policy.origin, rule),
            (Some(policy), None) => policy.origin.to_string(),
            (None, _) => "no rule allows it".to_owned(),
        };
        let path = asked.path();
        let hint = format!("to: [{{operation: {{methods: [GET], paths: [{path}]}}}}]");
        Some(asked.denied(severity, who, &by, &hint))
    }
}

/// A probe, sent through a port of a Service.
pub(super) struct Asked<'a> {
    service: &'a Service,
    port: u16,
    probe: &'a HttpProbe,
    pod: &'a Object<PodSpec>,
}

impl Asked<'_> {
    /// Path without the query.
    pub(super) fn path(&self) -> &str {
        let path = &self.probe.path;
        path.split_once('?').map_or(path, |(path, _)| path)
    }

    /// What policies judge by, of a client of which nothing is known.
    pub(super) fn facts<'f>(&'f self, headers: &'f HeaderMap) -> Facts<'f> {
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let addresses = &self.service.addresses;
        Facts {
            peer: None,
            attested_by: Attestation::Certificate,
            source_ip: unspecified,
            remote_ip: unspecified,
            destination_ip: addresses.first().copied().unwrap_or(unspecified),
            destination_port: self.port,
            backends: &[],
            http: Some(HttpFacts {
                method: "GET",
                host: &self.service.hostname,
                path: self.path(),
                query: self.probe.path.split_once('?').map(|(_, query)| query),
                headers,
                token: None,
            }),
        }
    }

    pub(super) fn denied(&self, severity: Severity, who: &str, by: &str, hint: &str) -> Diagnostic {
        let message = format!(
            "the {} GET {} of Pod {} is denied to {who} who sends it through Service {}:{} ({by})",
            self.probe.kind, self.probe.path, self.pod.origin.key, self.service.key, self.port
        );
        let finding = Diagnostic::new(severity, Code::ProbeDenied, message)
            .with_effect("the kubelet asks the pod itself and is not stopped; a load balancer or uptime check that asks through the Service gets 403")
            .with_hint(format!("if others are to ask, allow it: {hint}"));
        self.pod.mark(finding, "spec.containers")
    }
}

/// The policy with nothing asked of the client: an ALLOW rule allows everybody, and a DENY rule on
/// some clients denies nobody.
fn whoever_asks(policy: &Policy) -> Policy {
    let allows = policy.action == Action::Allow;
    // Which host is asked for is the client's choice, too.
    let of_client = |rule: &PolicyRule| {
        rule.to.iter().any(|operation| !operation.hosts.is_empty())
            || !rule.from.is_empty() && !rule.from.contains(&Source::default())
            || rule
                .when
                .iter()
                .any(|condition| !is_of_destination(condition))
    };
    let rules = policy.rules.iter();
    let rules = rules.filter(|rule| allows || rule.broken.is_some() || !of_client(rule));
    let rules = rules.map(|rule| {
        let mut rule = rule.clone();
        rule.from.clear();
        rule.when.retain(is_of_destination);
        for operation in &mut rule.to {
            operation.hosts = Values::default();
        }
        rule
    });
    Policy {
        rules: rules.collect(),
        ..policy.clone()
    }
}

fn is_of_destination(condition: &Condition) -> bool {
    matches!(
        condition,
        Condition::DestinationIp(_) | Condition::DestinationPort(_)
    )
}
