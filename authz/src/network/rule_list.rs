//! Rules of network policies in their order, and which of them to ask about a party and a path
//! (`candidates`). Matches nothing itself.

use std::sync::Arc;

use cairn_config_schema::snapshot::{
    CalicoPath, Criteria, Direction, Entity, HttpRules, LabelExpression, LabelKey, NetworkAction,
    NetworkPolicy, NetworkRule, Peer, Peers,
};

use super::Port;
use super::party::Party;
use crate::candidates::{ALL_FIELDS, Candidates, Field, Key, Needs, OneOf};

/// What is known of every source that has an identity.
const OF_IDENTITY: &[Field] = &[Field::Namespace, Field::Account, Field::Address];

/// What is known of everybody.
const OF_ANYBODY: &[Field] = &[Field::Address];

/// A rule of a policy.
#[derive(Clone, Debug)]
pub(super) struct RuleRef {
    pub(super) policy: Arc<NetworkPolicy>,
    pub(super) at: usize,
}

impl RuleRef {
    pub(super) fn rule(&self) -> Option<&NetworkRule> {
        self.policy.rules.get(self.at)
    }
}

/// The rules of policies in their order: only those for the port, where it is known.
pub(super) fn rules_on(policies: &[Arc<NetworkPolicy>], port: Option<u16>) -> Vec<RuleRef> {
    let mut rules = Vec::new();
    let port = port.map(|number| Port { number, names: &[] });
    for policy in policies {
        for (at, rule) in policy.rules.iter().enumerate() {
            if port.is_none_or(|port| port.is_among(rule.ports.as_deref())) {
                let policy = policy.clone();
                rules.push(RuleRef { policy, at });
            }
        }
    }
    rules
}

/// What is looked for in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seeking {
    /// Rules that are for the source, as far as it is known.
    Certain,
    /// Rules that may be for it: what is not known of it may be what they ask.
    Possible,
}

/// Which part of its rules a list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// All of them: an allow that can not be evaluated is never for anybody, what asks for a path is
    /// only for those that have it.
    Requests,
    /// The source alone.
    Peers,
}

/// Rules in their order. Immutable.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleList {
    rules: Vec<RuleRef>,
    /// By whatever they need.
    exact: Candidates,
    /// By what is known of a source without a Pod, and not by what they need of a request.
    coarse: Candidates,
    /// By their addresses, for sources of which nothing else is known.
    unlisted: Candidates,
    /// All of them, for destinations of which not even the address is known.
    all: Candidates,
}

impl RuleList {
    pub(super) fn new(rules: Vec<RuleRef>, about: About) -> Self {
        let needs = |known: Known| -> Vec<Needs> {
            let of = |reference: &RuleRef| {
                let rule = reference.rule();
                let direction = reference.policy.direction;
                rule.map_or_else(Needs::never, |rule| needs(rule, direction, about, known))
            };
            rules.iter().map(of).collect()
        };
        Self {
            exact: Candidates::new(&needs(Known::Everything), ALL_FIELDS),
            coarse: Candidates::new(&needs(Known::Identity), OF_IDENTITY),
            unlisted: Candidates::new(&needs(Known::Identity), OF_ANYBODY),
            all: Candidates::new(&needs(Known::Identity), &[]),
            rules,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The first rule that passes the test, which only what is sought does. `path` is that of the
    /// request in the form that the rules compare; `None`: it has none.
    pub(super) fn first(
        &self,
        party: &Party<'_>,
        path: Option<&str>,
        seeking: Seeking,
        mut test: impl FnMut(&NetworkRule) -> bool,
    ) -> Option<&RuleRef> {
        let candidates = self.candidates(party, path, seeking);
        let keys = party.keys(candidates, path);
        let first = candidates.first(keys, |number| {
            let reference = self.rules.get(number as usize);
            reference.and_then(RuleRef::rule).is_some_and(&mut test)
        });
        self.rules.get(first? as usize)
    }

    /// Everything that may be what is sought, in order. Allocates.
    pub(super) fn all(
        &self,
        party: &Party<'_>,
        path: Option<&str>,
        seeking: Seeking,
    ) -> impl Iterator<Item = &RuleRef> {
        let candidates = self.candidates(party, path, seeking);
        let all = candidates.all(party.keys(candidates, path)).into_iter();
        all.filter_map(|number| self.rules.get(number as usize))
    }

    /// A list may be looked up by what is known; what is not known may be what a rule needs. For
    /// those rules that are certainly for a source it must be known.
    fn candidates(&self, party: &Party<'_>, path: Option<&str>, seeking: Seeking) -> &Candidates {
        let whole = party.is_wholly_known() && (path.is_some() || !self.exact.asks(Field::Path));
        match seeking {
            Seeking::Certain => &self.exact,
            Seeking::Possible if !party.has_address() => &self.all,
            Seeking::Possible if whole => &self.exact,
            Seeking::Possible if party.has_account() => &self.coarse,
            Seeking::Possible => &self.unlisted,
        }
    }
}

/// Of which sources what a rule needs is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Those of which everything is known, or for which a rule is certainly.
    Everything,
    /// Those of which the identity is known.
    Identity,
}

/// What must hold for a rule to be what is sought.
fn needs(rule: &NetworkRule, direction: Direction, about: About, known: Known) -> Needs {
    let mut needs = Needs::default();
    let never = match rule.action {
        NetworkAction::Log => true,
        NetworkAction::Allow => rule.broken.is_some() && about == About::Requests,
        NetworkAction::Deny | NetworkAction::Pass => false,
    };
    if never {
        return Needs::never();
    }
    // A deny that can not be evaluated is for everybody.
    if rule.broken.is_none() || rule.action == NetworkAction::Allow {
        peers(&rule.peers, direction, known, &mut needs);
    }
    if about == About::Requests && known == Known::Everything {
        paths(&rule.http, &mut needs);
    }
    needs
}

fn peers(peers: &Peers, direction: Direction, known: Known, needs: &mut Needs) {
    match peers {
        Peers::Anybody => {}
        Peers::AnyOf(peers) => {
            let item = |peer: &Peer| match peer {
                Peer::Endpoints(labels) => Some(sets(labels, LabelKey::of_pod)),
                Peer::Entity(Entity::All | Entity::Cluster) => Some(Vec::new()),
                // No known workload is one of these, and nobody else that may be a source certainly is.
                Peer::Entity(_) | Peer::Cidr { .. } | Peer::Unknowable(_)
                    if known == Known::Everything && direction == Direction::Ingress =>
                {
                    None
                }
                Peer::Cidr { block, .. } => Some(vec![vec![Key::of_block(Field::Address, *block)]]),
                Peer::Entity(_) | Peer::Unknowable(_) => Some(Vec::new()),
                Peer::Name(_) | Peer::Services(_) => Some(Vec::new()),
            };
            needs.any_item(peers.iter().filter_map(item).collect());
        }
        // An address in a set needs no labels.
        Peers::Criteria(criteria) if !criteria.sets.is_empty() => {
            needs.all_of(
                accounts(criteria)
                    .into_iter()
                    .chain(nets(criteria))
                    .collect(),
            );
        }
        Peers::Criteria(criteria) => {
            let labels = criteria.selector.iter();
            let mut all: Vec<OneOf> = labels.flat_map(|l| sets(l, LabelKey::of_pod)).collect();
            let namespaces = criteria.namespace_selector.iter();
            all.extend(namespaces.flat_map(|l| sets(l, LabelKey::of_namespace)));
            all.extend(accounts(criteria));
            all.extend(nets(criteria));
            needs.all_of(all);
        }
    }
}

fn nets(criteria: &Criteria) -> Option<OneOf> {
    let nets = criteria.nets.as_ref()?.iter();
    Some(
        nets.map(|net| Key::of_block(Field::Address, *net))
            .collect(),
    )
}

fn accounts(criteria: &Criteria) -> Option<OneOf> {
    let names = criteria.service_accounts.as_ref()?.iter();
    Some(names.map(|n| Key::of(Field::Account, &[&**n])).collect())
}

/// Sets of labels of each of which one must be there for an expression to hold.
fn sets(labels: &LabelExpression, meaning: fn(&str) -> LabelKey<'_>) -> Vec<OneOf> {
    match labels {
        // No values say nothing where the label is not known.
        LabelExpression::In(key, values) if !values.is_empty() => {
            let key = |value: &Arc<str>| match meaning(key) {
                LabelKey::Pod(key) => Some(Key::of(Field::PodLabel, &[key, &**value])),
                LabelKey::Namespace(key) => Some(Key::of(Field::NamespaceLabel, &[key, &**value])),
                LabelKey::NamespaceName => Some(Key::of(Field::Namespace, &[&**value])),
                LabelKey::ServiceAccount => Some(Key::of(Field::Account, &[&**value])),
                LabelKey::Orchestrator | LabelKey::Unknowable => None,
            };
            let keys: Option<OneOf> = values.iter().map(key).collect();
            keys.into_iter().collect()
        }
        LabelExpression::All(inner) => inner.iter().flat_map(|e| sets(e, meaning)).collect(),
        LabelExpression::Any(inner) => {
            // The last says most: a namespace that is implied comes first.
            let last = |e: &LabelExpression| sets(e, meaning).pop();
            let all: Option<Vec<OneOf>> = inner.iter().map(last).collect();
            all.map(|all| all.concat()).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// What the paths of requests begin with that HTTP rules match.
fn paths(http: &HttpRules, needs: &mut Needs) {
    match http {
        HttpRules::NotAsked => {}
        HttpRules::Cilium(rules) => {
            let possible = rules.iter().filter(|rule| rule.never.is_none());
            let item = |beginnings: Option<Vec<Vec<u8>>>| -> Vec<OneOf> {
                let keys = |all: Vec<Vec<u8>>| all.iter().map(|b| Key::of_beginning(b)).collect();
                beginnings.and_then(keys).into_iter().collect()
            };
            let items = possible.map(|rule| item(rule.path.as_ref().and_then(|p| p.beginnings())));
            needs.any_item(items.collect());
        }
        HttpRules::Calico(http) if http.paths.is_empty() => {}
        HttpRules::Calico(http) => {
            let item = |path: &CalicoPath| -> Vec<OneOf> {
                let (CalicoPath::Exact(text) | CalicoPath::Prefix(text)) = path;
                let key = Key::of_beginning(text.as_bytes());
                key.into_iter().map(|key| vec![key]).collect()
            };
            needs.any_item(http.paths.iter().map(item).collect());
        }
    }
}
