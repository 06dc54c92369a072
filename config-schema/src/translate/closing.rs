//! The policy of the pods themselves: the waypoint alone may reach them, where the policies of their Services
//! are asked. ztunnel enforces it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::ground::Ground;
use super::report::{Draft, Outcome, Writing};
use super::who::NAMESPACE_LABEL;
use crate::origin::{Kind, Origin};
use crate::snapshot::{LabelExpression, Selecting, Workload};

/// The policy of the pods: the waypoint alone may reach them, where the Services' policies are asked.
pub(super) fn close(
    ground: &Ground<'_>,
    origin: &Origin,
    halves: &[&Selecting],
    pods: &[&Arc<Workload>],
    draft: &mut Draft,
    out: &mut Writing<'_, '_>,
) {
    let Some(waypoint) = ground.waypoint else {
        let why = "it is not known who the waypoint is, whom alone the pods should let in";
        return draft.note(origin, "", Outcome::NotTranslated, why);
    };
    if let Some(other) = ground.let_in_by_ztunnel(pods) {
        let why = format!("{other} lets clients past the waypoint, to pods that it selects");
        return draft.note(origin, "", Outcome::NotTranslated, why);
    }
    let gateway = ground.snapshot.waypoint.as_ref();
    if gateway.is_some_and(|waypoint| waypoint.serves_workloads) {
        let why =
            "the waypoint serves addresses of pods, too, where policies of Services are not asked";
        draft.note(origin, "", Outcome::Wider, why);
    }
    if let Some(pod) = pods.iter().find(|pod| !pod.hbone) {
        let why = format!(
            "Pod {} has no ztunnel, so that clients which call it by its own address are not asked for anything",
            pod.key
        );
        draft.note(origin, "", Outcome::Wider, why);
    }
    for half in halves {
        let labels = Labels::of(&half.selector);
        let at = "spec.endpointSelector";
        if !labels.is_whole {
            let why = "a selector of Istio has labels and values alone: other pods may be closed, too, or not these";
            draft.note(origin, at, Outcome::NotTranslated, why);
            continue;
        }
        let mut namespaces: BTreeSet<Arc<str>> = labels.namespace.iter().cloned().collect();
        if namespaces.is_empty() {
            let why = "an AuthorizationPolicy is for one namespace: those without a pod of it now would not be closed";
            draft.note(origin, at, Outcome::Wider, why);
            namespaces.extend(pods.iter().map(|pod| pod.key.namespace.clone()));
        }
        for namespace in namespaces {
            if labels.pod.is_empty() && namespace == ground.snapshot.mesh.root_namespace {
                let why = "in the root namespace a policy without a selector is for the whole mesh";
                draft.note(origin, at, Outcome::NotTranslated, why);
            }
            let base = format!("{}-by-waypoint", origin.key.name);
            let name = out.fresh_name(Kind::AuthorizationPolicy, &namespace, &base);
            draft.objects.push(closing(
                &name,
                &namespace,
                &labels.pod,
                waypoint.principal(),
            ));
        }
    }
}

fn closing(name: &str, namespace: &str, labels: &Map<String, Value>, waypoint: &str) -> Value {
    let mut spec = Map::new();
    if !labels.is_empty() {
        spec.insert("selector".into(), json!({"matchLabels": labels}));
    }
    spec.insert("action".into(), json!("ALLOW"));
    let source = json!({"source": {"principals": [waypoint]}});
    spec.insert("rules".into(), json!([{"from": [source]}]));
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

/// The labels of a selector that asks for values alone.
struct Labels {
    namespace: Option<Arc<str>>,
    pod: Map<String, Value>,
    is_whole: bool,
}

impl Labels {
    fn of(selector: &LabelExpression) -> Self {
        let mut labels = Self {
            namespace: None,
            pod: Map::new(),
            is_whole: true,
        };
        labels.read(selector);
        labels
    }

    fn read(&mut self, selector: &LabelExpression) {
        match selector {
            LabelExpression::All(all) => all.iter().for_each(|labels| self.read(labels)),
            LabelExpression::In(key, values) => match (values.as_slice(), &**key) {
                ([value], NAMESPACE_LABEL) => {
                    let new = self.namespace.as_ref().is_none_or(|there| there == value);
                    self.is_whole &= new;
                    self.namespace = Some(value.clone());
                }
                // Labels that Cilium adds to those of the pod, or that are not from Kubernetes.
                ([_], key) if key.starts_with("io.cilium.") || key.contains(':') => {
                    self.is_whole = false;
                }
                ([value], key) => {
                    let before = self.pod.insert(key.to_owned(), json!(value));
                    self.is_whole &= before.is_none_or(|before| before == json!(value));
                }
                _ => self.is_whole = false,
            },
            _ => self.is_whole = false,
        }
    }
}
