//! NetworkPolicies of Kubernetes (specs/policies.md 2.3), read for `explain` and lints. A waypoint
//! enforces nothing of them, so that a mistake in one changes no verdict here.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Findings, unreadable};
use crate::diagnostics::{Code, Diagnostic};
use crate::resources::kube::NetworkPolicySpec;
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{
    KubeNetworkPolicy, KubePeer, KubePort, KubeRule, LabelExpression, PortSet, Transport,
};

const EFFECT: &str =
    "the cluster keeps the version it has; `explain` and lints can not tell what it lets through";

/// Every NetworkPolicy, those that can not be read among them.
pub(super) fn resolve(
    resources: &Resources,
    findings: &mut Findings,
) -> Vec<Arc<KubeNetworkPolicy>> {
    let read = |loaded: &Loaded<NetworkPolicySpec>| match loaded {
        Loaded::Good(object) | Loaded::KeptLastGood(object) => {
            let mut reading = Reading {
                object,
                findings: &mut *findings,
                broken: None,
            };
            reading.policy()
        }
        Loaded::Broken(broken) => {
            findings.push(unreadable(broken, EFFECT));
            KubeNetworkPolicy {
                origin: broken.origin.clone(),
                selector: LabelExpression::everything(),
                ingress: None,
                egress: None,
                broken: Some(broken.reason.clone()),
            }
        }
    };
    let policies = resources.kube_network_policies.values();
    policies.map(read).map(Arc::new).collect()
}

struct Reading<'a> {
    object: &'a Object<NetworkPolicySpec>,
    findings: &'a mut Findings,
    broken: Option<Arc<str>>,
}

impl Reading<'_> {
    fn refuse(&mut self, path: &str, message: String, hint: &str) {
        self.broken.get_or_insert_with(|| message.as_str().into());
        let finding = Diagnostic::error(Code::BadValue, message).with_effect(EFFECT);
        let finding = finding.with_hint(hint);
        self.findings.push(self.object.mark(finding, path));
    }

    fn policy(&mut self) -> KubeNetworkPolicy {
        let spec = &self.object.spec;
        let (ingress, egress) = self.directions(spec);
        let selector = spec.pod_selector.as_ref();
        KubeNetworkPolicy {
            origin: self.object.origin.clone(),
            selector: selector.map_or_else(LabelExpression::everything, |selector| {
                self.labels(selector, "spec.podSelector")
            }),
            ingress: ingress.then(|| self.ingress(spec)),
            egress: egress.then(|| self.egress(spec)),
            broken: self.broken.take(),
        }
    }

    /// `policyTypes`: without it ingress always, egress if there are rules for it.
    fn directions(&mut self, spec: &NetworkPolicySpec) -> (bool, bool) {
        let written = spec.policy_types.as_deref().unwrap_or_default();
        if written.is_empty() {
            let egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
            return (true, egress);
        }
        for (index, text) in written.iter().enumerate() {
            if !matches!(text.as_str(), "Ingress" | "Egress") {
                let message = format!("unknown policy type '{text}'");
                let path = format!("spec.policyTypes[{index}]");
                self.refuse(&path, message, "Ingress or Egress");
            }
        }
        let has = |name: &str| written.iter().any(|text| text == name);
        (has("Ingress"), has("Egress"))
    }

    fn ingress(&mut self, spec: &NetworkPolicySpec) -> Vec<KubeRule> {
        let rules = spec.ingress.iter().flatten().enumerate();
        let rule = |(index, rule): (usize, &api::NetworkPolicyIngressRule)| {
            let path = format!("spec.ingress[{index}]");
            let peers = self.peers(rule.from.as_deref(), &format!("{path}.from"));
            let ports = self.ports(rule.ports.as_deref(), &format!("{path}.ports"));
            let path = path.into();
            KubeRule { path, peers, ports }
        };
        rules.map(rule).collect()
    }

    fn egress(&mut self, spec: &NetworkPolicySpec) -> Vec<KubeRule> {
        let rules = spec.egress.iter().flatten().enumerate();
        let rule = |(index, rule): (usize, &api::NetworkPolicyEgressRule)| {
            let path = format!("spec.egress[{index}]");
            let peers = self.peers(rule.to.as_deref(), &format!("{path}.to"));
            let ports = self.ports(rule.ports.as_deref(), &format!("{path}.ports"));
            let path = path.into();
            KubeRule { path, peers, ports }
        };
        rules.map(rule).collect()
    }

    /// An absent list and an empty one both are anybody.
    fn peers(
        &mut self,
        peers: Option<&[api::NetworkPolicyPeer]>,
        path: &str,
    ) -> Option<Vec<KubePeer>> {
        let peers = peers.filter(|peers| !peers.is_empty())?;
        let peer = |(index, peer): (usize, &api::NetworkPolicyPeer)| {
            self.peer(peer, &format!("{path}[{index}]"))
        };
        Some(peers.iter().enumerate().filter_map(peer).collect())
    }

    fn peer(&mut self, peer: &api::NetworkPolicyPeer, path: &str) -> Option<KubePeer> {
        let pods = peer.pod_selector.as_ref();
        let namespaces = peer.namespace_selector.as_ref();
        let Some(written) = &peer.ip_block else {
            if pods.is_none() && namespaces.is_none() {
                let message = "a peer without a selector or an ipBlock is nobody".to_owned();
                self.refuse(path, message, "podSelector, namespaceSelector or ipBlock");
                return None;
            }
            return Some(KubePeer::Pods {
                namespaces: namespaces
                    .map(|s| self.labels(s, &format!("{path}.namespaceSelector"))),
                pods: pods.map_or_else(LabelExpression::everything, |s| {
                    self.labels(s, &format!("{path}.podSelector"))
                }),
            });
        };
        if pods.is_some() || namespaces.is_some() {
            let message = "an ipBlock stands alone, without selectors".to_owned();
            self.refuse(path, message, "write it as an item of its own");
            return None;
        }
        let block = self.block(&written.cidr, &format!("{path}.ipBlock.cidr"))?;
        let mut except = Vec::new();
        for (index, text) in written.except.iter().flatten().enumerate() {
            let path = format!("{path}.ipBlock.except[{index}]");
            let inner = self.block(text, &path)?;
            if !block.contains(&inner) {
                let message = format!("{inner} is not inside {block}");
                self.refuse(&path, message, "a block inside `cidr`");
            }
            except.push(inner);
        }
        Some(KubePeer::Block { block, except })
    }

    fn block(&mut self, text: &str, path: &str) -> Option<IpNet> {
        let block = text.parse().ok();
        if block.is_none() {
            let message = format!("'{text}' is no CIDR block");
            self.refuse(path, message, "an address and a mask, 10.0.0.0/8");
        }
        block
    }

    /// An absent list and an empty one both are every port.
    fn ports(
        &mut self,
        ports: Option<&[api::NetworkPolicyPort]>,
        path: &str,
    ) -> Option<Vec<KubePort>> {
        let ports = ports.filter(|ports| !ports.is_empty())?;
        let port = |(index, port): (usize, &api::NetworkPolicyPort)| {
            self.port(port, &format!("{path}[{index}]"))
        };
        Some(ports.iter().enumerate().filter_map(port).collect())
    }

    fn port(&mut self, port: &api::NetworkPolicyPort, path: &str) -> Option<KubePort> {
        let protocol = match port.protocol.as_deref() {
            None | Some("" | "TCP") => Transport::Tcp,
            Some("UDP") => Transport::Udp,
            Some("SCTP") => Transport::Sctp,
            Some(other) => {
                let message = format!("unknown protocol '{other}'");
                self.refuse(&format!("{path}.protocol"), message, "TCP, UDP or SCTP");
                return None;
            }
        };
        let first = match &port.port {
            None => None,
            Some(IntOrString::String(name)) => {
                Some(PortSet::Named(name.to_ascii_lowercase().into()))
            }
            Some(IntOrString::Int(number)) => {
                let number = self.number(*number, &format!("{path}.port"))?;
                Some(PortSet::Range(number, number))
            }
        };
        let port = match (first, port.end_port) {
            (first, None) => first,
            (Some(PortSet::Range(first, _)), Some(last)) => {
                let path = format!("{path}.endPort");
                let last = self.number(last, &path)?;
                if last < first {
                    let message = format!("endPort {last} is below port {first}");
                    self.refuse(&path, message, "at least `port`");
                }
                Some(PortSet::Range(first, last))
            }
            (_, Some(_)) => {
                let message = "endPort needs a `port` that is a number".to_owned();
                self.refuse(&format!("{path}.endPort"), message, "port: 8000");
                return None;
            }
        };
        Some(KubePort { protocol, port })
    }

    fn number(&mut self, number: i32, path: &str) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        if port.is_none() {
            let message = format!("{number} is no port number");
            self.refuse(path, message, "a number from 1 to 65535");
        }
        port
    }

    fn labels(&mut self, selector: &LabelSelector, path: &str) -> LabelExpression {
        let labels = selector.match_labels.iter().flatten();
        let mut all: Vec<LabelExpression> = labels
            .map(|(key, value)| LabelExpression::equals(key.as_str(), value.as_str()))
            .collect();
        for (index, written) in selector.match_expressions.iter().flatten().enumerate() {
            let key: Arc<str> = written.key.as_str().into();
            let values = written.values.iter().flatten().map(|v| v.as_str().into());
            let one_of = LabelExpression::In(key.clone(), values.collect());
            all.push(match written.operator.as_str() {
                "In" => one_of,
                "NotIn" => one_of.negated(),
                "Exists" => LabelExpression::Has(key),
                "DoesNotExist" => LabelExpression::Has(key).negated(),
                other => {
                    let message = format!("unknown operator '{other}'");
                    let path = format!("{path}.matchExpressions[{index}].operator");
                    self.refuse(&path, message, "In, NotIn, Exists or DoesNotExist");
                    continue;
                }
            });
        }
        LabelExpression::All(all)
    }
}
