//! The `tls` and `tcp` rules of a VirtualService (specs/policies.md 2.6, specs/istio-waypoint.md 4.4,
//! 4.5): those for TLS are asked first, then those for connections, each in the order written. What
//! no rule takes goes to the service itself. To which ports the object applies is found in
//! `virtual_services`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Findings;
use super::stream_routes::server_name;
use super::virtual_destinations::Destinations;
use super::virtual_matches::caller_labels;
use super::virtual_rules::{WEIGHT_MAX, Written};
use super::virtual_services::MESH;
use crate::diagnostics::{Code, Diagnostic};
use crate::resources::virtual_service::{ConnectionMatch, RouteDestination};
use crate::snapshot::{
    Backend, BackendTarget, ClusterKey, HostPattern, ServerNames, StreamMatch, StreamRoute,
    StreamRule,
};

/// What its rules are read with.
pub(super) struct StreamRules<'a> {
    /// The VirtualService.
    pub object: &'a Written,
    /// Services it is for, in words.
    pub scope: &'a str,
    /// The service port that was dialled.
    pub port: u16,
    /// For destinations.
    pub destinations: &'a Destinations<'a>,
}

impl StreamRules<'_> {
    /// Whether it has any.
    pub fn are_in(object: &Written) -> bool {
        let tls = object.spec.tls.iter().flatten().next();
        let tcp = object.spec.tcp.iter().flatten().next();
        tls.is_some() || tcp.is_some()
    }

    /// Reads them all. Subsets they lead to are put to `used`.
    pub fn read(
        &self,
        used: &mut BTreeSet<ClusterKey>,
        findings: &mut Findings,
    ) -> Arc<StreamRoute> {
        let spec = &self.object.spec;
        let tls = spec.tls.iter().flatten();
        let tls = tls.map(|rule| (rule.r#match.as_deref(), rule.route.as_deref()));
        let tcp = spec.tcp.iter().flatten();
        let tcp = tcp.map(|rule| (rule.r#match.as_deref(), rule.route.as_deref()));
        let tls = tls.enumerate().map(|(at, rule)| (Some(at), at, rule));
        let tcp = tcp.enumerate().map(|(at, rule)| (None, at, rule));
        let mut rules = Vec::new();
        for (of_tls, index, (matches, route)) in tls.chain(tcp) {
            let is_tls = of_tls.is_some();
            let field = if is_tls { "tls" } else { "tcp" };
            let mut reading = Reading {
                object: self.object,
                path: format!("spec.{field}[{index}]"),
                scope: self.scope,
                broken: None,
                findings: &mut *findings,
            };
            let matches = reading.matches(matches.unwrap_or_default(), self.port, is_tls);
            let backends = self.backends(route.unwrap_or_default(), used, &mut reading);
            rules.push(StreamRule {
                name: Some(format!("{field}[{index}]").into()),
                matches,
                backends,
                broken: reading.broken,
            });
        }
        Arc::new(StreamRoute {
            origin: self.object.origin.clone(),
            created_s: self.object.meta.created_s,
            rules,
            broken: false,
        })
    }

    /// The weighted destinations. One alone gets everything, whatever its weight.
    fn backends(
        &self,
        destinations: &[RouteDestination],
        used: &mut BTreeSet<ClusterKey>,
        reading: &mut Reading<'_>,
    ) -> Vec<Backend> {
        let base = format!("{}.route", reading.path);
        if destinations.is_empty() {
            let message = "a rule for connections needs a route";
            reading.fail(Code::MissingField, &base, message);
        }
        let mut backends = Vec::with_capacity(destinations.len());
        for (index, destination) in destinations.iter().enumerate() {
            let at = format!("{base}[{index}]");
            let weight = match (destinations, destination.weight.unwrap_or(0)) {
                ([_], _) => 1,
                (_, 0) => continue,
                (_, weight) if (1..=WEIGHT_MAX).contains(&weight) => weight as u32,
                (_, weight) => {
                    let message = format!("weight {weight} is not between 0 and {WEIGHT_MAX}");
                    reading.fail(Code::BadValue, &format!("{at}.weight"), message);
                    continue;
                }
            };
            let namespace = &self.object.origin.key.namespace;
            let found = (self.destinations).find(&destination.destination, namespace, self.port);
            let target = match found {
                Ok(cluster) => {
                    if cluster.subset.is_some() {
                        used.insert(cluster.clone());
                    }
                    BackendTarget::Cluster(cluster)
                }
                Err(nowhere) => {
                    let effect = format!("its share of {} is refused", reading.connections());
                    let finding = Diagnostic::error(Code::BackendNotFound, &*nowhere.reason)
                        .with_effect(effect)
                        .with_hint(&*nowhere.hint);
                    let path = format!("{at}.destination.{}", nowhere.field);
                    (reading.findings).push(self.object.mark(finding, &path));
                    BackendTarget::Unknown(nowhere.reason.into())
                }
            };
            backends.push(Backend {
                weight,
                target,
                filters: Vec::new(),
            });
        }
        if backends.is_empty() && !destinations.is_empty() {
            let message = "every destination of the rule has weight 0";
            reading.fail(Code::BadValue, &base, message);
        }
        backends
    }
}

/// A rule being read: where it stands and what breaks it.
struct Reading<'a> {
    object: &'a Written,
    /// `spec.tls[i]` or `spec.tcp[i]`.
    path: String,
    scope: &'a str,
    broken: Option<Arc<str>>,
    findings: &'a mut Findings,
}

impl Reading<'_> {
    /// Something that Cairn can not honour: the rule refuses what it matches.
    fn fail(&mut self, code: Code, path: &str, message: impl Into<String>) {
        let message = message.into();
        self.broken.get_or_insert_with(|| message.as_str().into());
        let effect = format!("{} are refused", self.connections());
        let finding = Diagnostic::error(code, message).with_effect(effect);
        self.findings.push(self.object.mark(finding, path));
    }

    /// Connections of the rule, for effects.
    fn connections(&self) -> String {
        format!("connections to {} that this rule matches", self.scope)
    }

    /// A match that can not be understood breaks its rule, and then matches as widely as could have
    /// been meant.
    fn matches(&mut self, written: &[ConnectionMatch], port: u16, tls: bool) -> Vec<StreamMatch> {
        if written.is_empty() {
            if tls {
                let at = format!("{}.match", self.path);
                self.fail(Code::MissingField, &at, "a rule for TLS needs sniHosts");
            }
            return vec![StreamMatch {
                server_names: tls.then_some(ServerNames::Any),
                ..StreamMatch::default()
            }];
        }
        let mut matches = Vec::with_capacity(written.len());
        for (index, one) in written.iter().enumerate() {
            let at = format!("{}.match[{index}]", self.path);
            matches.extend(self.one(one, &at, port, tls));
        }
        matches
    }

    /// `None`: it is for other connections than those that come to this port of the mesh.
    fn one(
        &mut self,
        written: &ConnectionMatch,
        at: &str,
        port: u16,
        tls: bool,
    ) -> Option<StreamMatch> {
        let gateways = written.gateways.as_deref().unwrap_or_default();
        let of_others = !gateways.is_empty() && !gateways.iter().any(|g| g == MESH);
        if of_others || written.port.is_some_and(|wanted| wanted != port) {
            return None;
        }
        if written.source_subnet.is_some() {
            let message = "sourceSubnet is not supported; Istio has never honoured it";
            self.fail(Code::Unsupported, &format!("{at}.sourceSubnet"), message);
        }
        let caller = (written.source_namespace.as_deref()).filter(|n| !n.is_empty());
        Some(StreamMatch {
            server_names: self.server_names(written, at, tls),
            destinations: self.subnets(written, at),
            caller_namespace: caller.map(Arc::from),
            caller_labels: caller_labels(written.source_labels.as_ref()),
        })
    }

    fn server_names(
        &mut self,
        written: &ConnectionMatch,
        at: &str,
        tls: bool,
    ) -> Option<ServerNames> {
        let hosts = written.sni_hosts.as_deref().unwrap_or_default();
        let at = format!("{at}.sniHosts");
        match (tls, hosts) {
            (false, []) => return None,
            (false, _) => {
                let message = "sniHosts are for rules of tls";
                self.fail(Code::Conflict, &at, message);
                return None;
            }
            (true, []) => {
                self.fail(Code::MissingField, &at, "a rule for TLS needs sniHosts");
                return Some(ServerNames::Any);
            }
            (true, _) => {}
        }
        let mut names = Vec::with_capacity(hosts.len());
        for (index, host) in hosts.iter().enumerate() {
            // A star alone is every name.
            let found = match host.as_str() {
                "*" => Some(HostPattern::EndsWith("".into())),
                host => server_name(host),
            };
            match found {
                Some(pattern) => names.push(pattern),
                None => {
                    let message = format!("'{host}' is not a host name, nor one after '*.'");
                    self.fail(Code::BadValue, &format!("{at}[{index}]"), message);
                    return Some(ServerNames::Any);
                }
            }
        }
        Some(ServerNames::Of(names))
    }

    fn subnets(&mut self, written: &ConnectionMatch, at: &str) -> Vec<IpNet> {
        let subnets = written.destination_subnets.as_deref().unwrap_or_default();
        let mut found = Vec::with_capacity(subnets.len());
        for (index, text) in subnets.iter().enumerate() {
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            match text.parse().ok().or_else(address) {
                Some(net) => found.push(net),
                None => {
                    let message = format!("'{text}' is neither an address nor a network");
                    let at = format!("{at}.destinationSubnets[{index}]");
                    self.fail(Code::BadValue, &at, message);
                    return Vec::new();
                }
            }
        }
        found
    }
}
