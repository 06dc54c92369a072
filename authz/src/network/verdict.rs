//! What network policies decided, and what they change of the request. Decides nothing itself.

use std::sync::Arc;

use cairn_config_schema::origin::{ObjectKey, Origin};
use cairn_config_schema::snapshot::{ClusterKey, NetworkPolicy, NetworkRule};
use http::header::{HeaderName, HeaderValue};

/// What was decided, and by which rule.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkVerdict {
    /// Whether the request or stream may pass.
    pub allowed: bool,
    /// Why.
    pub why: NetworkWhy,
    /// The policy that decided. `None`: decided by default.
    pub policy: Option<Arc<NetworkPolicy>>,
    /// The rule of `policy` that decided, as a position in its rules.
    pub at: Option<usize>,
    /// The workload whose policies decided.
    pub workload: ObjectKey,
    /// Changes to the headers of a request that may pass.
    pub edits: Vec<BackendEdit>,
}

/// Why a network policy decided as it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkWhy {
    /// A rule allows it.
    Allowed,
    /// A rule denies it.
    Denied,
    /// Nothing asks for a denial by default.
    NothingDenies,
    /// No rule allows it, and the policies deny by default.
    NoRule,
    /// A rule would allow it, with an authentication that the peer has not shown.
    Authentication,
    /// The policy could not be understood.
    Broken,
    /// It is not known which policies select the workload, for this reason.
    Unknown(Arc<str>),
}

/// A change to the headers of a request (specs/policies.md 2.1.5, mismatch actions).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Adds a value after those there are.
    Append(HeaderName, HeaderValue),
    /// Replaces all values by one.
    Set(HeaderName, HeaderValue),
    /// Removes all values.
    Remove(HeaderName),
}

/// A change that the policies of the workloads behind one backend ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendEdit {
    /// The backend of the route whose requests are changed. `None`: wherever the request goes.
    pub backend: Option<ClusterKey>,
    /// The change.
    pub edit: HeaderEdit,
}

impl NetworkVerdict {
    pub(super) fn new(why: NetworkWhy, workload: &ObjectKey) -> Self {
        Self {
            allowed: matches!(why, NetworkWhy::Allowed | NetworkWhy::NothingDenies),
            why,
            policy: None,
            at: None,
            workload: workload.clone(),
            edits: Vec::new(),
        }
    }

    pub(super) fn by(mut self, policy: &Arc<NetworkPolicy>, at: Option<usize>) -> Self {
        self.policy = Some(policy.clone());
        self.at = at;
        self
    }

    /// Makes the changes those of one backend alone.
    pub(super) fn for_backend(mut self, backend: Option<&ClusterKey>) -> Self {
        for edit in &mut self.edits {
            edit.backend = backend.cloned();
        }
        self
    }

    /// The changes to a request that goes to this backend of a route, in their order.
    pub fn edits_for(&self, backend: Option<&ClusterKey>) -> impl Iterator<Item = &HeaderEdit> {
        let is_for = move |of: &Option<ClusterKey>| of.is_none() || of.as_ref() == backend;
        self.edits
            .iter()
            .filter(move |e| is_for(&e.backend))
            .map(|e| &e.edit)
    }

    /// Adds the changes that another workload's policies ask for.
    pub(super) fn take_edits(&mut self, other: Self) {
        for edit in other.edits {
            if !self.edits.contains(&edit) {
                self.edits.push(edit);
            }
        }
    }

    /// The object that decided.
    pub fn origin(&self) -> Option<&Origin> {
        self.policy.as_ref().map(|policy| &policy.origin)
    }

    /// The rule that decided.
    pub fn rule(&self) -> Option<&NetworkRule> {
        self.policy.as_ref()?.rules.get(self.at?)
    }

    /// Response code details of a denial, in the form of Istio's:
    /// `network_access_denied_matched_policy[ns[NS]-policy[NAME]-rule[N]]`, or `[none]` by default.
    pub fn response_code_details(&self) -> Option<String> {
        if self.allowed {
            return None;
        }
        let Some(origin) = self.origin() else {
            return Some("network_access_denied_matched_policy[none]".to_owned());
        };
        let rule = self
            .rule()
            .map_or_else(|| "broken".to_owned(), |r| r.index.to_string());
        let key = &origin.key;
        Some(format!(
            "network_access_denied_matched_policy[ns[{}]-policy[{}]-rule[{rule}]]",
            key.namespace, key.name
        ))
    }
}
