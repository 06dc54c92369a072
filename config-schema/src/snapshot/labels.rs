//! Labels of workloads, and expressions over them. What can not be known of a workload is neither
//! true nor false: whoever asks decides on the safe side.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Labels of an object.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Whether something holds, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Truth {
    /// It does not.
    No,
    /// What it depends on is not known.
    Unknown,
    /// It does.
    Yes,
}

impl Truth {
    /// Both.
    pub fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// Either.
    pub fn or(self, other: Self) -> Self {
        self.max(other)
    }

    /// The opposite; unknown stays unknown.
    pub fn negated(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }

    /// All of them; yes if there is none.
    pub fn all(truths: impl IntoIterator<Item = Self>) -> Self {
        truths.into_iter().fold(Self::Yes, Self::and)
    }

    /// One of them; no if there is none.
    pub fn any(truths: impl IntoIterator<Item = Self>) -> Self {
        truths.into_iter().fold(Self::No, Self::or)
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// What a label is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label<'a> {
    /// This value.
    Value(&'a str),
    /// Not there.
    Absent,
    /// Nobody knows.
    Unknown,
}

/// A condition on labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // the variants say it: a key, and a value or values
pub enum LabelExpression {
    In(Arc<str>, Vec<Arc<str>>),
    Has(Arc<str>),
    StartsWith(Arc<str>, Arc<str>),
    EndsWith(Arc<str>, Arc<str>),
    Contains(Arc<str>, Arc<str>),
    Not(Box<LabelExpression>),
    /// Empty: everything.
    All(Vec<LabelExpression>),
    /// Empty: nothing.
    Any(Vec<LabelExpression>),
}

impl LabelExpression {
    /// Everything.
    pub fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// The key is there with this value.
    pub fn equals(key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self::In(key.into(), vec![value.into()])
    }

    /// The opposite.
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Whether the labels satisfy it. Allocates nothing.
    pub fn holds<'a>(&self, label: &impl Fn(&str) -> Label<'a>) -> Truth {
        let on = |key: &str, test: &dyn Fn(&str) -> bool| match label(key) {
            Label::Value(value) => test(value).into(),
            Label::Absent => Truth::No,
            Label::Unknown => Truth::Unknown,
        };
        match self {
            Self::In(key, values) => on(key, &|found| values.iter().any(|v| **v == *found)),
            Self::Has(key) => on(key, &|_| true),
            Self::StartsWith(key, text) => on(key, &|found| found.starts_with(&**text)),
            Self::EndsWith(key, text) => on(key, &|found| found.ends_with(&**text)),
            Self::Contains(key, text) => on(key, &|found| found.contains(&**text)),
            Self::Not(inner) => inner.holds(label).negated(),
            Self::All(inner) => Truth::all(inner.iter().map(|e| e.holds(label))),
            Self::Any(inner) => Truth::any(inner.iter().map(|e| e.holds(label))),
        }
    }
}

impl fmt::Display for LabelExpression {
    /// In words: `app=web and tier in (a, b)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(key, values) => match values.as_slice() {
                [value] => write!(f, "{key}={value}"),
                values => write!(f, "{key} in ({})", values.join(", ")),
            },
            Self::Has(key) => write!(f, "label {key}"),
            Self::StartsWith(key, text) => write!(f, "{key}={text}*"),
            Self::EndsWith(key, text) => write!(f, "{key}=*{text}"),
            Self::Contains(key, text) => write!(f, "{key}=*{text}*"),
            Self::Not(inner) => write!(f, "not ({inner})"),
            Self::All(inner) if inner.is_empty() => f.write_str("any labels"),
            Self::Any(inner) if inner.is_empty() => f.write_str("no labels"),
            Self::All(inner) => write_joined(f, inner, " and "),
            Self::Any(inner) => write_joined(f, inner, " or "),
        }
    }
}

fn write_joined(
    f: &mut fmt::Formatter<'_>,
    inner: &[LabelExpression],
    between: &str,
) -> fmt::Result {
    let mut written = false;
    for expression in inner {
        // An empty conjunction inside another says nothing.
        if matches!(expression, LabelExpression::All(e) if e.is_empty()) && inner.len() > 1 {
            continue;
        }
        if written {
            f.write_str(between)?;
        }
        write!(f, "{expression}")?;
        written = true;
    }
    Ok(())
}

const CILIUM_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CILIUM_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
const CILIUM_CLUSTER: &str = "io.cilium.k8s.policy.cluster";
const CILIUM_NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
const CALICO_NAMESPACE: &str = "projectcalico.org/namespace";
const CALICO_ACCOUNT: &str = "projectcalico.org/serviceaccount";
/// Labels that a pod inherits from its namespace and its service account, as Calico's selectors see
/// them.
const CALICO_OF_NAMESPACE: &str = "pcns.";
const CALICO_OF_ACCOUNT: &str = "pcsa.";
const CALICO_ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
const CALICO_NAME: &str = "projectcalico.org/name";

/// What the key of a label means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKey<'k> {
    /// A label of the pod.
    Pod(&'k str),
    /// A label of its namespace.
    Namespace(&'k str),
    /// The name of its namespace.
    NamespaceName,
    /// The name of its service account.
    ServiceAccount,
    /// Who runs it: Kubernetes.
    Orchestrator,
    /// Something that is in no object a waypoint reads: the name of the cluster, labels of the service
    /// account.
    Unknowable,
}

impl LabelKey<'_> {
    /// In a selector of pods. What is inherited is never taken from the pod's own labels: whoever may
    /// write those could choose.
    pub fn of_pod(key: &str) -> LabelKey<'_> {
        let inherited = key.strip_prefix(CILIUM_NAMESPACE_LABELS);
        if let Some(key) = inherited.or_else(|| key.strip_prefix(CALICO_OF_NAMESPACE)) {
            return LabelKey::of_namespace(key);
        }
        match (key.strip_prefix(CALICO_OF_ACCOUNT), key) {
            (Some(CALICO_NAME), _) => LabelKey::ServiceAccount,
            (Some(_), _) => LabelKey::Unknowable,
            (_, CILIUM_NAMESPACE | CALICO_NAMESPACE) => LabelKey::NamespaceName,
            (_, CILIUM_ACCOUNT | CALICO_ACCOUNT) => LabelKey::ServiceAccount,
            (_, CILIUM_CLUSTER) => LabelKey::Unknowable,
            (_, CALICO_ORCHESTRATOR) => LabelKey::Orchestrator,
            (_, key) => LabelKey::Pod(key),
        }
    }

    /// In a selector of namespaces.
    pub fn of_namespace(key: &str) -> LabelKey<'_> {
        match key {
            NAMESPACE_NAME | CALICO_NAME | CALICO_NAMESPACE => LabelKey::NamespaceName,
            key => LabelKey::Namespace(key),
        }
    }
}

/// What is known of one end of a connection, for selectors of Cilium and Calico. `None`: not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelView<'a> {
    /// Labels of the pod.
    pub pod: Option<&'a Labels>,
    /// Its namespace.
    pub namespace: Option<&'a str>,
    /// Labels of the namespace.
    pub namespace_labels: Option<&'a Labels>,
    /// Its service account.
    pub service_account: Option<&'a str>,
}

impl<'a> LabelView<'a> {
    /// A label of the pod, with those that Cilium and Calico add to it (specs/policies.md 2.1.1, 2.5).
    pub fn of_pod(&self, key: &str) -> Label<'a> {
        self.get(LabelKey::of_pod(key))
    }

    /// A label of the namespace, with those that Kubernetes and Calico add to it.
    pub fn of_namespace(&self, key: &str) -> Label<'a> {
        self.get(LabelKey::of_namespace(key))
    }

    fn get(&self, key: LabelKey<'_>) -> Label<'a> {
        match key {
            LabelKey::Pod(key) => in_labels(self.pod, key),
            LabelKey::Namespace(key) => in_labels(self.namespace_labels, key),
            LabelKey::NamespaceName => known(self.namespace),
            LabelKey::ServiceAccount => known(self.service_account),
            LabelKey::Orchestrator => Label::Value("k8s"),
            LabelKey::Unknowable => Label::Unknown,
        }
    }
}

fn known(value: Option<&str>) -> Label<'_> {
    value.map_or(Label::Unknown, Label::Value)
}

fn in_labels<'a>(labels: Option<&'a Labels>, key: &str) -> Label<'a> {
    match labels {
        None => Label::Unknown,
        Some(labels) => labels.get(key).map_or(Label::Absent, |v| Label::Value(v)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pairs = pairs.iter();
        pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn what_is_not_known_is_neither_true_nor_false() {
        let web = LabelExpression::equals("app", "web");
        let of = |view: LabelView<'_>| web.holds(&|key| view.of_pod(key));
        let (yes, no) = (labels(&[("app", "web")]), labels(&[]));
        let view = |pod| LabelView {
            pod,
            ..LabelView::default()
        };
        assert_eq!(of(view(Some(&yes))), Truth::Yes);
        assert_eq!(of(view(Some(&no))), Truth::No);
        assert_eq!(of(view(None)), Truth::Unknown);
        let not = web.clone().negated();
        assert_eq!(not.holds(&|key| view(None).of_pod(key)), Truth::Unknown);
        assert_eq!(not.holds(&|key| view(Some(&no)).of_pod(key)), Truth::Yes);
        let all = LabelExpression::everything();
        assert_eq!(all.holds(&|key| view(None).of_pod(key)), Truth::Yes);
    }

    #[test]
    fn cilium_and_calico_add_labels() {
        let of_namespace = labels(&[("team", "a")]);
        let view = LabelView {
            namespace: Some("shop"),
            namespace_labels: Some(&of_namespace),
            service_account: Some("web"),
            ..LabelView::default()
        };
        for (key, value) in [
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.cilium.k8s.policy.serviceaccount", "web"),
            ("io.cilium.k8s.namespace.labels.team", "a"),
            (
                "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
                "shop",
            ),
            ("projectcalico.org/namespace", "shop"),
            ("pcns.team", "a"),
            ("pcns.projectcalico.org/name", "shop"),
            ("pcsa.projectcalico.org/name", "web"),
        ] {
            assert_eq!(view.of_pod(key), Label::Value(value), "{key}");
        }
        assert_eq!(view.of_pod("app"), Label::Unknown);
        assert_eq!(view.of_namespace("other"), Label::Absent);
        assert_eq!(view.of_pod("pcns.other"), Label::Absent);
        assert_eq!(view.of_pod("pcsa.team"), Label::Unknown);
        assert_eq!(view.of_pod("reserved:host"), Label::Unknown);
        let own = labels(&[("pcns.team", "b"), ("pcsa.team", "b")]);
        let liar = LabelView {
            pod: Some(&own),
            ..view
        };
        assert_eq!(liar.of_pod("pcns.team"), Label::Value("a"));
        assert_eq!(liar.of_pod("pcsa.team"), Label::Unknown);
    }
}
