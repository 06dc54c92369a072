//! NetworkPolicies that shut out the mesh: port 15008 closed on a pod that speaks HBONE, or open and not
//! to the waypoint (specs/policies.md 2.3, 2.4). The CNI enforces them, and Cairn's requests fail.

use std::sync::Arc;

use cairn_config_schema::diagnostics::{Code, Diagnostic};
use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{KubeNetworkPolicy, LabelView, Transport, Truth, Workload};
use rustc_hash::{FxHashMap, FxHashSet};

use super::budget::Budget;
use super::ground::Ground;
use crate::cni::{Connection, Direction, End, Passage};
use crate::waypoint;

/// Where ztunnel and waypoints take tunnels (specs/istio-waypoint.md 1.6).
const HBONE: u16 = 15008;

pub(super) fn lint(ground: &Ground<'_>, findings: &mut Vec<Diagnostic>) {
    let mut by_namespace: FxHashMap<&str, Vec<&KubeNetworkPolicy>> = FxHashMap::default();
    for policy in &ground.snapshot.kube_network {
        let namespace = &*policy.origin.key.namespace;
        by_namespace.entry(namespace).or_default().push(policy);
    }
    if by_namespace.is_empty() {
        return;
    }
    let mut lint = Lint {
        ground,
        by_namespace,
        told: FxHashSet::default(),
        findings,
    };
    lint.pods_behind();
    lint.waypoint_itself();
}

struct Lint<'a, 'f> {
    ground: &'a Ground<'a>,
    by_namespace: FxHashMap<&'a str, Vec<&'a KubeNetworkPolicy>>,
    told: FxHashSet<(Code, Origin)>,
    findings: &'f mut Vec<Diagnostic>,
}

impl Lint<'_, '_> {
    /// From the waypoint to the pods that it sends to.
    fn pods_behind(&mut self) {
        let own = waypoint::pods(self.ground.snapshot);
        let namespace = self.ground.snapshot.waypoint.as_ref();
        let unknown = End {
            view: LabelView {
                namespace: namespace.map(|w| &*w.origin.key.namespace),
                ..LabelView::default()
            },
            ..End::default()
        };
        let from = own.first().map_or(unknown, |pod| End::of(pod));
        let mut budget = Budget::new("hbone-port-closed");
        let mut seen = FxHashSet::default();
        for (endpoint, workload) in self.ground.endpoints() {
            let port = match workload.hbone {
                true => HBONE,
                false => endpoint.address.port(),
            };
            let namespace = &*workload.key.namespace;
            let labels = workload.labels.as_ref().map(Arc::as_ptr);
            let policies = self.by_namespace.get(namespace).map_or(0, Vec::len);
            if policies == 0 || !seen.insert((namespace, labels, port)) {
                continue;
            }
            if !budget.take(policies) {
                return self.findings.push(budget.exhausted());
            }
            self.judge(from, workload, port);
        }
    }

    /// From anybody to the waypoint.
    fn waypoint_itself(&mut self) {
        for pod in waypoint::pods(self.ground.snapshot) {
            let passage = self.passage(End::default(), pod, HBONE);
            if passage.passes == Truth::No {
                let message = format!(
                    "no client reaches the waypoint: port {HBONE} of Pod {} is closed to all",
                    pod.key
                );
                let effect = "the CNI drops every tunnel to the waypoint, so that its services can not be reached";
                self.tell(Code::HbonePortClosed, &passage, message, effect);
            }
        }
    }

    fn passage(&self, from: End<'_>, to: &Workload, port: u16) -> Passage {
        let connection = Connection {
            from,
            to: End::of(to),
            port,
            transport: Transport::Tcp,
        };
        let policies = self.by_namespace.get(&*to.key.namespace);
        let policies = policies.map_or(&[][..], Vec::as_slice);
        connection.passage(policies.iter().copied(), Direction::Ingress)
    }

    fn judge(&mut self, from: End<'_>, workload: &Workload, port: u16) {
        let passage = self.passage(from, workload, port);
        if passage.passes != Truth::No {
            return;
        }
        // Whether anybody may come to this port; then it is the waypoint that is not among them.
        let to_anybody = self.passage(End::default(), workload, port).passes;
        let pod = &workload.key;
        let effect = "the CNI drops what the waypoint sends there: requests fail with 503";
        match (to_anybody, workload.hbone) {
            (Truth::No, true) => {
                let message =
                    format!("port {HBONE} of Pod {pod} is closed, through which the mesh comes");
                self.tell(Code::HbonePortClosed, &passage, message, effect);
            }
            _ => {
                let message = format!(
                    "port {port} of Pod {pod} is closed to the waypoint, through which its clients come"
                );
                self.tell(Code::WaypointShutOut, &passage, message, effect);
            }
        }
    }

    /// Once for each set of policies, by the first of them.
    fn tell(&mut self, code: Code, passage: &Passage, message: String, effect: &str) {
        let Some(origin) = passage.policies.first() else {
            return;
        };
        if !self.told.insert((code, origin.clone())) {
            return;
        }
        let others = passage.policies.len() - 1;
        let message = match others {
            0 => message,
            others => format!("{message} ({others} more policies select it, and none opens it)"),
        };
        let snapshot = self.ground.snapshot;
        let namespace = snapshot.waypoint.as_ref().map(|w| &w.origin.key);
        let hint = match (code, namespace) {
            (Code::WaypointShutOut, Some(own)) => format!(
                "add an ingress rule from the pods labelled gateway.networking.k8s.io/gateway-name: {} of namespace {}",
                own.name, own.namespace
            ),
            _ => format!(
                "add an ingress rule for TCP port {HBONE}; who may call is said by AuthorizationPolicy"
            ),
        };
        let finding = Diagnostic::warning(code, message)
            .with_effect(effect)
            .with_hint(hint);
        let object = self.ground.resources.kube_network_policies.get(&origin.key);
        let path = "spec.ingress";
        self.findings.push(match object.and_then(|o| o.object()) {
            Some(object) => object.mark(finding, path),
            None => finding.of(origin.clone(), path),
        });
    }
}
