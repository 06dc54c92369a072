//! Policies compiled for deciding: rules as clauses, with the form they take on TCP, split by
//! action, in force and as they would be in force in a dry run. The order of decision is in `decide`.

use std::sync::Arc;

use cairn_config_schema::snapshot::{Action, Policy, PolicyRule, World};

use crate::clause::{self, Clause};
use crate::facts::Facts;
use crate::network::Network;
use crate::policy_list::PolicyList;

/// The policies that apply to one service or workload, compiled. Immutable.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    pub(crate) enforced: Group,
    /// `None`: no AuthorizationPolicy is tried.
    pub(crate) trial: Option<Box<Trial>>,
    /// Those of Cilium and Calico. `None`: none applies.
    pub(crate) network: Option<Network>,
}

/// What dry-run policies would do.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// All policies, those in force and those that are tried.
    pub(crate) together: Group,
    /// Those that are tried, each by itself.
    pub(crate) tried: Vec<Tried>,
}

/// A policy that is tried.
#[derive(Clone, Debug)]
pub(crate) enum Tried {
    /// Broken as a whole.
    Broken(Arc<Policy>),
    /// Can be evaluated.
    Whole(CompiledPolicy),
}

/// Policies by action, each in the order of namespace and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Broken as a whole, of whatever action that decides.
    pub(crate) broken: Vec<Arc<Policy>>,
    pub(crate) custom: PolicyList,
    pub(crate) deny: PolicyList,
    pub(crate) allow: PolicyList,
    /// Those that only record, broken ones among them.
    pub(crate) audit: Vec<CompiledPolicy>,
}

/// A policy and its rules, index for index.
#[derive(Clone, Debug)]
pub(crate) struct CompiledPolicy {
    pub(crate) policy: Arc<Policy>,
    pub(crate) rules: Vec<CompiledRule>,
}

/// The forms of one rule.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRule {
    http: Form,
    /// `None`: the same as for HTTP, for no part of it is HTTP-only.
    tcp: Option<Form>,
}

/// A rule as it is evaluated.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// Matches everything, for this reason.
    Always(Arc<str>),
    /// Matches nothing, for this reason.
    Never(Arc<str>),
    /// An ALLOW rule with parts that only HTTP has, on TCP: matches nothing.
    HttpOnly,
    /// (∃ `from` item) ∧ (∃ `to` item) ∧ (∀ `when`); an empty list is true.
    Clauses(Clauses),
}

/// The clauses of a rule: within an item all must match.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clauses {
    pub(crate) from: Vec<Vec<Clause>>,
    pub(crate) to: Vec<Vec<Clause>>,
    pub(crate) when: Vec<Clause>,
}

impl PolicySet {
    /// Compiles the policies that apply: those of the waypoint and those of the service together.
    /// Order and duplicates do not matter. Never fails: what can not be evaluated denies.
    pub fn compile(policies: &[Arc<Policy>]) -> Self {
        let mut policies = policies.to_vec();
        policies.sort_by(|a, b| a.origin.key.cmp(&b.origin.key));
        policies.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let tried: Vec<Tried> = (policies.iter().filter(|p| p.dry_run))
            .map(|policy| match policy.broken {
                Some(_) => Tried::Broken(policy.clone()),
                None => Tried::Whole(CompiledPolicy::compile(policy)),
            })
            .collect();
        let trial = (!tried.is_empty()).then(|| {
            let together = Group::new(policies.clone());
            Box::new(Trial { together, tried })
        });
        policies.retain(|policy| !policy.dry_run);
        Self {
            enforced: Group::new(policies),
            trial,
            network: None,
        }
    }

    /// What is enforced, or what would be.
    pub(crate) fn group(&self, world: World) -> &Group {
        match (&self.trial, world) {
            (Some(trial), World::Trial) => &trial.together,
            _ => &self.enforced,
        }
    }

    /// With the network policies that apply, which are asked after all others have allowed.
    pub fn with_network(mut self, network: Network) -> Self {
        self.network = (!network.is_empty()).then_some(network);
        self
    }

    /// Whether no policy applies at all, dry-run ones included: everything is allowed.
    pub fn is_empty(&self) -> bool {
        self.enforced.is_empty()
            && self.enforced.audit.is_empty()
            && self.trial.is_none()
            && self.network.is_none()
    }
}

impl Group {
    fn new(policies: Vec<Arc<Policy>>) -> Self {
        let (audit, decides): (Vec<_>, Vec<_>) = policies
            .into_iter()
            .partition(|p| p.action == Action::Audit);
        let (broken, whole): (Vec<_>, Vec<_>) =
            decides.into_iter().partition(|p| p.broken.is_some());
        let of = |action: Action| {
            let policies = whole.iter().filter(|policy| policy.action == action);
            PolicyList::new(policies.map(CompiledPolicy::compile).collect())
        };
        Self {
            custom: of(Action::Custom),
            deny: of(Action::Deny),
            allow: of(Action::Allow),
            audit: audit.iter().map(CompiledPolicy::compile).collect(),
            broken,
        }
    }

    /// Whether nothing decides. What only records does not count.
    pub(crate) fn is_empty(&self) -> bool {
        self.broken.is_empty()
            && self.custom.is_empty()
            && self.deny.is_empty()
            && self.allow.is_empty()
    }
}

impl CompiledPolicy {
    fn compile(policy: &Arc<Policy>) -> Self {
        let rules = policy.rules.iter();
        Self {
            rules: rules
                .map(|rule| CompiledRule::compile(rule, policy.action))
                .collect(),
            policy: policy.clone(),
        }
    }

    /// The first rule that matches.
    pub(crate) fn first_match(&self, facts: &Facts<'_>) -> Option<usize> {
        self.rules.iter().position(|r| r.form(facts).matches(facts))
    }
}

impl CompiledRule {
    fn compile(rule: &PolicyRule, action: Action) -> Self {
        if let Some(reason) = &rule.broken {
            let form = match action {
                Action::Allow => Form::Never(Arc::clone(reason)),
                Action::Deny | Action::Custom | Action::Audit => Form::Always(Arc::clone(reason)),
            };
            return Self {
                http: form,
                tcp: None,
            };
        }
        let clauses = Clauses {
            from: items(&rule.from, clause::of_source),
            to: items(&rule.to, clause::of_operation),
            when: items(&rule.when, clause::of_condition).concat(),
        };
        Self {
            tcp: clauses.tcp(action),
            http: Form::Clauses(clauses),
        }
    }

    /// The form for HTTP requests.
    pub(crate) fn http(&self) -> &Form {
        &self.http
    }

    /// The form for TCP streams.
    pub(crate) fn tcp(&self) -> &Form {
        self.tcp.as_ref().unwrap_or(&self.http)
    }

    /// The form for an HTTP request or a TCP stream, whichever the facts are of.
    pub(crate) fn form(&self, facts: &Facts<'_>) -> &Form {
        match facts.http {
            Some(_) => self.http(),
            None => self.tcp(),
        }
    }

    /// Whether parts of the rule were left out because the facts are of a TCP stream.
    pub(crate) fn reduced(&self, facts: &Facts<'_>) -> bool {
        self.tcp.is_some() && facts.http.is_none()
    }
}

fn items<T>(written: &[T], clauses: impl Fn(&T, usize) -> Vec<Clause>) -> Vec<Vec<Clause>> {
    written
        .iter()
        .enumerate()
        .map(|(index, item)| clauses(item, index))
        .collect()
}

impl Form {
    /// Whether the rule matches.
    pub(crate) fn matches(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Always(_) => true,
            Self::Never(_) | Self::HttpOnly => false,
            Self::Clauses(clauses) => clauses.matches(facts),
        }
    }
}

impl Clauses {
    /// All clauses in the order they are written.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Clause> {
        let items = self.from.iter().chain(&self.to);
        items.flatten().chain(&self.when)
    }

    fn matches(&self, facts: &Facts<'_>) -> bool {
        any_item(&self.from, facts) && any_item(&self.to, facts) && all(&self.when, facts)
    }

    /// The form on TCP, if it differs: an ALLOW rule with HTTP-only parts is dropped whole; from
    /// any other rule only these parts are, and an item left empty is any
    /// (specs/istio-waypoint.md 4.8, "HTTP-only fields on TCP").
    fn tcp(&self, action: Action) -> Option<Form> {
        if !self.iter().any(|clause| clause.test.http_only()) {
            return None;
        }
        if action == Action::Allow {
            return Some(Form::HttpOnly);
        }
        let mut tcp = self.clone();
        let items = tcp.from.iter_mut().chain(&mut tcp.to);
        for clauses in items.chain([&mut tcp.when]) {
            clauses.retain(|clause| !clause.test.http_only());
        }
        Some(Form::Clauses(tcp))
    }
}

fn any_item(items: &[Vec<Clause>], facts: &Facts<'_>) -> bool {
    items.is_empty() || items.iter().any(|clauses| all(clauses, facts))
}

/// Whether all clauses of an item match; none is any.
pub(crate) fn all(clauses: &[Clause], facts: &Facts<'_>) -> bool {
    clauses.iter().all(|clause| clause.matches(facts))
}
