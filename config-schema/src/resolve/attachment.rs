//! Who serves a service or a workload: labels of the object, then of its namespace
//! (specs/istio-waypoint.md 1.3), and whether the Gateway lets that namespace in (1.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_api::apis::experimental::gateways::{
    GatewayListenersAllowedRoutesNamespacesFrom as From,
    GatewayListenersAllowedRoutesNamespacesSelector as Selector,
};
use rustc_hash::FxHashMap;

use super::waypoint::Chosen;
use super::{Findings, unreadable};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::ObjectKey;
use crate::resources::gateway_api::GatewaySpec;
use crate::resources::kube::NamespaceSpec;
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::Binding;

const USE_WAYPOINT: &str = "istio.io/use-waypoint";
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
const LABEL_PATH: &str = "metadata.labels[istio.io/use-waypoint]";
const MANAGED: &str = "gateway.istio.io/managed";
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const EFFECT_BYPASS: &str = "its addresses are not served here; what clients send to it meets no policy and no route of this waypoint";

type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// What is being attached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    /// A Service.
    Service,
    /// A Pod.
    Workload,
}

/// Answers, for every object, who serves it.
pub(super) struct Attachment<'a> {
    namespaces: FxHashMap<&'a str, &'a Loaded<NamespaceSpec>>,
    gateways: &'a BTreeMap<ObjectKey, Loaded<GatewaySpec>>,
    chosen: Option<&'a Chosen<'a>>,
    admits: Admits<'a>,
}

/// `allowedRoutes.namespaces` of the HBONE listener.
enum Admits<'a> {
    Same,
    All,
    Selected(&'a Selector),
    Nobody,
}

/// What the labels of one object ask for.
enum Asked {
    /// Nothing: look further up.
    Nothing,
    /// `none`.
    OptOut,
    /// A Gateway.
    Gateway(ObjectKey),
    /// The label is there and empty.
    Empty,
}

impl<'a> Attachment<'a> {
    /// Looks up what every object needs once.
    pub fn new(resources: &'a Resources, chosen: Option<&'a Chosen<'a>>) -> Self {
        Self {
            namespaces: resources
                .namespaces
                .iter()
                .map(|(key, loaded)| (&*key.name, loaded))
                .collect(),
            gateways: &resources.gateways,
            chosen,
            admits: chosen.map_or(Admits::Nobody, admits),
        }
    }

    /// Who serves this object, as its labels and those of its namespace ask.
    pub fn bind<T>(
        &self,
        object: &Object<T>,
        traffic: Traffic,
        findings: &mut Findings,
    ) -> Binding {
        let namespace = &object.origin.key.namespace;
        if self.is_gateway(&object.meta.labels, namespace) {
            return Binding::Unbound;
        }
        warn_of_lone_namespace(object, findings);
        match asked(&object.meta.labels, namespace) {
            Asked::Nothing => self.inherit(namespace, traffic, findings),
            Asked::OptOut => Binding::Unbound,
            asked => {
                let (binding, finding) = self.judge(asked, namespace, traffic);
                findings.extend(finding.map(|f| object.mark(f, LABEL_PATH)));
                binding
            }
        }
    }

    /// A waypoint never serves itself or another gateway, or its own traffic would loop
    /// (specs/istio-waypoint.md 1.3 and 1.9, self-capture).
    fn is_gateway(&self, labels: &Labels, namespace: &str) -> bool {
        labels.contains_key(MANAGED)
            || self.chosen.is_some_and(|chosen| {
                let own = chosen.key();
                &*own.namespace == namespace && labels.get(GATEWAY_NAME) == Some(&own.name)
            })
    }

    fn inherit(&self, namespace: &Arc<str>, traffic: Traffic, findings: &mut Findings) -> Binding {
        let object = match self.namespaces.get(&**namespace) {
            None => return Binding::Unbound,
            Some(Loaded::Good(object) | Loaded::KeptLastGood(object)) => object,
            Some(Loaded::Broken(broken)) => {
                let finding = unreadable(
                    broken,
                    format!(
                        "services and pods of {namespace} without a label of their own are not served"
                    ),
                );
                let reason = finding.message.as_str().into();
                findings.push(finding);
                return Binding::Refused(reason);
            }
        };
        warn_of_lone_namespace(object, findings);
        match asked(&object.meta.labels, namespace) {
            Asked::Nothing | Asked::OptOut => Binding::Unbound,
            asked => {
                let (binding, finding) = self.judge(asked, namespace, traffic);
                // A pod that inherits the label of a service waypoint is simply not meant (1.3).
                if traffic == Traffic::Workload {
                    return match binding {
                        Binding::Refused(_) => Binding::Unbound,
                        binding => binding,
                    };
                }
                // The same for every service of the namespace: said once, repetitions are dropped.
                findings.extend(finding.map(|f| object.mark(f, LABEL_PATH)));
                binding
            }
        }
    }

    fn judge(
        &self,
        asked: Asked,
        namespace: &str,
        traffic: Traffic,
    ) -> (Binding, Option<Diagnostic>) {
        let Asked::Gateway(key) = asked else {
            let reason = format!("the label {USE_WAYPOINT} is empty");
            let finding = Diagnostic::error(Code::BadValue, reason.clone())
                .with_effect(EFFECT_BYPASS)
                .with_hint(format!("{USE_WAYPOINT} is the name of a Gateway or none"));
            return (Binding::Refused(reason.into()), Some(finding));
        };
        let Some(chosen) = self.chosen.filter(|chosen| *chosen.key() == key) else {
            let finding = (!self.gateways.contains_key(&key)).then(|| {
                Diagnostic::warning(
                    Code::NotAttached,
                    format!("{USE_WAYPOINT} names the Gateway {key}, which does not exist"),
                )
                .with_effect("this waypoint does not serve it, and the namespace's waypoint does not take its place")
            });
            return (Binding::Other(key), finding);
        };
        let (served, what) = match traffic {
            Traffic::Service => (chosen.waypoint.serves_services, "services"),
            Traffic::Workload => (chosen.waypoint.serves_workloads, "workloads"),
        };
        if !served {
            let reason =
                format!("Gateway {key} does not serve {what} (label istio.io/waypoint-for)");
            let finding = Diagnostic::error(Code::UnsupportedTrafficType, reason.clone())
                .with_effect(EFFECT_BYPASS)
                .with_hint("label the Gateway istio.io/waypoint-for: all");
            return (Binding::Refused(reason.into()), Some(finding));
        }
        if !self.admits(chosen.key(), namespace) {
            let reason = format!("Gateway {key} does not allow the namespace {namespace}");
            let finding = Diagnostic::error(Code::AttachmentDenied, reason.clone())
                .with_effect(EFFECT_BYPASS)
                .with_hint("see allowedRoutes.namespaces of the Gateway's HBONE listener");
            return (Binding::Refused(reason.into()), Some(finding));
        }
        (Binding::Served, None)
    }

    fn admits(&self, gateway: &ObjectKey, namespace: &str) -> bool {
        match &self.admits {
            Admits::All => true,
            Admits::Same => &*gateway.namespace == namespace,
            Admits::Nobody => false,
            Admits::Selected(selector) => match self.namespaces.get(namespace) {
                None => selects(selector, namespace, None),
                Some(Loaded::Good(object) | Loaded::KeptLastGood(object)) => {
                    selects(selector, namespace, Some(&object.meta.labels))
                }
                // Its labels are unknown, and NotIn or DoesNotExist would take that for a yes.
                Some(Loaded::Broken(_)) => false,
            },
        }
    }
}

fn admits<'a>(chosen: &'a Chosen<'a>) -> Admits<'a> {
    let listener = chosen.object.spec.listeners.get(chosen.listener);
    let Some(namespaces) = listener
        .and_then(|listener| listener.allowed_routes.as_ref())
        .and_then(|allowed| allowed.namespaces.as_ref())
    else {
        return Admits::Same;
    };
    match (&namespaces.from, &namespaces.selector) {
        (None | Some(From::Same), _) => Admits::Same,
        (Some(From::All), _) => Admits::All,
        (Some(From::Selector), Some(selector)) => Admits::Selected(selector),
        // As Kubernetes has it: no selector selects nothing.
        (Some(From::Selector), None) => Admits::Nobody,
    }
}

fn asked(labels: &Labels, own_namespace: &Arc<str>) -> Asked {
    let other_namespace = labels.get(USE_WAYPOINT_NAMESPACE);
    match labels.get(USE_WAYPOINT).map(|value| &**value) {
        None => Asked::Nothing,
        Some("none") => Asked::OptOut,
        Some("") => Asked::Empty,
        Some(name) => Asked::Gateway(ObjectKey {
            namespace: other_namespace.unwrap_or(own_namespace).clone(),
            name: name.into(),
        }),
    }
}

fn warn_of_lone_namespace<T>(object: &Object<T>, findings: &mut Findings) {
    let labels = &object.meta.labels;
    if labels.contains_key(USE_WAYPOINT_NAMESPACE) && !labels.contains_key(USE_WAYPOINT) {
        let finding = Diagnostic::warning(
            Code::BadValue,
            format!("label {USE_WAYPOINT_NAMESPACE} means nothing without {USE_WAYPOINT}"),
        )
        .with_effect("it changes nothing");
        findings.push(object.mark(finding, "metadata.labels[istio.io/use-waypoint-namespace]"));
    }
}

/// A label selector of Kubernetes. An operator it does not know selects nothing.
fn selects(selector: &Selector, namespace: &str, labels: Option<&Labels>) -> bool {
    // Kubernetes sets this label on every namespace; files may lack it, or lack the Namespace.
    let value = |key: &str| match key {
        "kubernetes.io/metadata.name" => Some(namespace),
        key => labels.and_then(|labels| labels.get(key)).map(|v| &**v),
    };
    let by_label = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, wanted)| value(key) == Some(wanted.as_str()));
    let by_expression = selector
        .match_expressions
        .iter()
        .flatten()
        .all(|expression| {
            let mut values = expression.values.iter().flatten();
            match (expression.operator.as_str(), value(&expression.key)) {
                ("In", Some(actual)) => values.any(|v| v == actual),
                ("NotIn", Some(actual)) => values.all(|v| v != actual),
                ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
                _ => false,
            }
        });
    by_label && by_expression
}
