//! NetworkSet and GlobalNetworkSet of Calico: addresses that selectors select by the labels of a set, as
//! they do pods (specs/policies.md 2.5).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Findings, unreadable};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::ObjectKey;
use crate::resources::calico::NetworkSetSpec;
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{Label, LabelExpression, LabelKey, Labels, NetSets, Truth};

/// One set.
struct Set {
    /// `None`: of no namespace.
    namespace: Option<Arc<str>>,
    labels: Labels,
    namespace_labels: Option<Labels>,
    nets: Vec<IpNet>,
    has_names: bool,
    /// What is in it is not known: it may be any address.
    is_broken: bool,
}

/// Every set of the configuration.
#[derive(Default)]
pub(super) struct Sets(Vec<Set>);

impl Sets {
    /// Reads them all. One that can not be read may have any labels and addresses in its namespace.
    pub(super) fn read(resources: &Resources, findings: &mut Findings) -> Self {
        let mut sets = Vec::new();
        read(&resources.calico_sets, |spec| spec, &mut sets, findings);
        let global = &resources.calico_global_sets;
        read(global, |spec| &spec.0, &mut sets, findings);
        for set in &mut sets {
            let key = set
                .namespace
                .as_ref()
                .map(|n| ObjectKey::new("", n.clone()));
            let namespace = key.and_then(|key| resources.namespaces.get(&key)?.object());
            set.namespace_labels = namespace.map(|n| (*n.meta.labels).clone());
        }
        Self(sets)
    }

    /// What is in the sets that selectors on labels and on namespaces select together.
    pub(super) fn selected(
        &self,
        labels: Option<&LabelExpression>,
        namespaces: Option<&LabelExpression>,
    ) -> NetSets {
        let mut selected = NetSets::default();
        if labels.is_none() && namespaces.is_none() {
            return selected;
        }
        for set in &self.0 {
            let holds = |e: Option<&LabelExpression>, of_namespace| {
                let label = |key: &str| set.label(key, of_namespace);
                e.map_or(Truth::Yes, |e| e.holds(&label))
            };
            match holds(labels, false).and(holds(namespaces, true)) {
                Truth::No => {}
                Truth::Yes if !set.is_broken => {
                    selected.nets.extend(&set.nets);
                    selected.has_names |= set.has_names;
                }
                Truth::Yes | Truth::Unknown => selected.is_unknown = true,
            }
        }
        selected
    }
}

impl Set {
    fn label(&self, key: &str, of_namespace: bool) -> Label<'_> {
        let meaning = match of_namespace {
            true => LabelKey::of_namespace(key),
            false => LabelKey::of_pod(key),
        };
        match meaning {
            LabelKey::Pod(_) if self.is_broken => Label::Unknown,
            LabelKey::Pod(key) => self
                .labels
                .get(key)
                .map_or(Label::Absent, |v| Label::Value(v)),
            LabelKey::NamespaceName => match &self.namespace {
                Some(name) => Label::Value(name),
                None => Label::Absent,
            },
            LabelKey::Namespace(key) => match (&self.namespace, &self.namespace_labels) {
                (None, _) => Label::Absent,
                (Some(_), None) => Label::Unknown,
                (Some(_), Some(labels)) => {
                    labels.get(key).map_or(Label::Absent, |v| Label::Value(v))
                }
            },
            LabelKey::ServiceAccount | LabelKey::Orchestrator | LabelKey::Unknowable => {
                Label::Absent
            }
        }
    }
}

fn read<T>(
    objects: &BTreeMap<ObjectKey, Loaded<T>>,
    spec: impl Fn(&T) -> &NetworkSetSpec,
    sets: &mut Vec<Set>,
    findings: &mut Findings,
) {
    for (key, loaded) in objects {
        let namespace = Some(key.namespace.clone()).filter(|n| !n.is_empty());
        let mut set = Set {
            namespace,
            labels: Labels::default(),
            namespace_labels: None,
            nets: Vec::new(),
            has_names: false,
            is_broken: false,
        };
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                set.labels = (*object.meta.labels).clone();
                fill(&mut set, object, spec(&object.spec), findings);
            }
            Loaded::Broken(broken) => {
                let effect = "rules that may select it allow nobody by it, and deny everybody";
                findings.push(unreadable(broken, effect));
                set.is_broken = true;
            }
        }
        sets.push(set);
    }
}

fn fill<T>(set: &mut Set, object: &Object<T>, spec: &NetworkSetSpec, findings: &mut Findings) {
    for (index, text) in spec.nets.iter().flatten().enumerate() {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        match text.parse().ok().or_else(address) {
            Some(net) => set.nets.push(net),
            None => {
                let message = format!("'{text}' is no block of addresses");
                let finding = Diagnostic::error(Code::BadValue, message)
                    .with_effect("rules that select the set allow nobody by it, and deny everybody")
                    .with_hint("10.0.0.0/8");
                findings.push(object.mark(finding, &format!("spec.nets[{index}]")));
                set.is_broken = true;
            }
        }
    }
    if spec
        .allowed_egress_domains
        .as_ref()
        .is_some_and(|d| !d.is_empty())
    {
        let message = "a waypoint does not know which addresses these names have";
        let finding = Diagnostic::warning(Code::Unsupported, message).with_effect(
            "an allow by them allows nothing; a deny denies what is outside the cluster",
        );
        findings.push(object.mark(finding, "spec.allowedEgressDomains"));
        set.has_names = true;
    }
}
