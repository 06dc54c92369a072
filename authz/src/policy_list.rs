//! Policies of one action in their order, and which of their rules to ask about a request: with a
//! thousand policies on a service few can match (`candidates`). Matches nothing itself.

use std::ops::Deref;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{PathPattern, StringMatch, TemplateSegment};

use crate::candidates::{ALL_FIELDS, Candidates, Field, Key, Needs, OneOf};
use crate::clause::{Clause, Test};
use crate::facts::Facts;
use crate::policy::{Clauses, CompiledPolicy, Form};

/// Policies of one action.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyList {
    policies: Vec<CompiledPolicy>,
    /// Policy and rule of each candidate.
    places: Box<[(usize, usize)]>,
    http: Candidates,
    tcp: Candidates,
}

impl Deref for PolicyList {
    type Target = [CompiledPolicy];

    fn deref(&self) -> &[CompiledPolicy] {
        &self.policies
    }
}

impl<'a> IntoIterator for &'a PolicyList {
    type Item = &'a CompiledPolicy;
    type IntoIter = std::slice::Iter<'a, CompiledPolicy>;

    fn into_iter(self) -> Self::IntoIter {
        self.policies.iter()
    }
}

impl PolicyList {
    /// Policies in the order in which they are asked.
    pub(crate) fn new(policies: Vec<CompiledPolicy>) -> Self {
        let mut places = Vec::new();
        for (at, policy) in policies.iter().enumerate() {
            places.extend((0..policy.rules.len()).map(|rule| (at, rule)));
        }
        let rules = || policies.iter().flat_map(|policy| &policy.rules);
        let http: Vec<Needs> = rules().map(|rule| needs(rule.http())).collect();
        let tcp: Vec<Needs> = rules().map(|rule| needs(rule.tcp())).collect();
        Self {
            places: places.into(),
            http: Candidates::new(&http, ALL_FIELDS),
            tcp: Candidates::new(&tcp, ALL_FIELDS),
            policies,
        }
    }

    /// The first policy with a rule that matches, and the number of the rule.
    pub(crate) fn first_match(&self, facts: &Facts<'_>) -> Option<(&CompiledPolicy, usize)> {
        let candidates = match facts.http {
            Some(_) => &self.http,
            None => &self.tcp,
        };
        let place = |number: u32| self.places.get(number as usize).copied();
        let matches = |number: u32| {
            let rule = place(number).and_then(|(at, rule)| self.policies.get(at)?.rules.get(rule));
            rule.is_some_and(|rule| rule.form(facts).matches(facts))
        };
        let first = candidates.first(keys(candidates, facts), matches)?;
        let (at, rule) = place(first)?;
        Some((self.policies.get(at)?, rule))
    }
}

/// What must hold for a rule to match.
fn needs(form: &Form) -> Needs {
    let mut needs = Needs::default();
    match form {
        Form::Always(_) => {}
        Form::Never(_) | Form::HttpOnly => return Needs::never(),
        Form::Clauses(Clauses { from, to, when }) => {
            for items in [from, to].into_iter().filter(|items| !items.is_empty()) {
                needs.any_item(items.iter().map(|item| sets(item)).collect());
            }
            needs.all_of(sets(when));
        }
    }
    needs
}

fn sets(clauses: &[Clause]) -> Vec<OneOf> {
    let positive = clauses.iter().filter(|clause| !clause.negated);
    positive.filter_map(|clause| one_of(&clause.test)).collect()
}

/// The keys of which one must be there for a clause to match. `None`: there is no saying.
fn one_of(test: &Test) -> Option<OneOf> {
    let exact = |field: Field, values: &[StringMatch]| -> Option<OneOf> {
        let of = |text| Some(Key::of(field, &[text]));
        values.iter().map(|v| exactly(v).and_then(of)).collect()
    };
    match test {
        Test::Principal(values) => exact(Field::Principal, values),
        Test::Namespace(values) => exact(Field::Namespace, values),
        Test::Method(values) => exact(Field::Method, values),
        Test::ServiceAccount(values) => {
            let of = |value| {
                let (namespace, name) = exactly(value)?.split_once('/')?;
                Some(Key::of(Field::QualifiedAccount, &[namespace, name]))
            };
            values.iter().map(of).collect()
        }
        Test::Host(values) => {
            let of = |value| Some(Key::of_any_case(Field::Host, exactly(value)?));
            values.iter().map(of).collect()
        }
        Test::RequestPrincipal(values) => {
            let of = |issuer, subject| Key::of(Field::RequestPrincipal, &[issuer, subject]);
            let all = values.iter();
            all.map(|v| Some(of(exactly(&v.issuer)?, exactly(&v.subject)?)))
                .collect()
        }
        Test::Path(values) => values.iter().map(beginning).collect(),
        Test::DestinationPort(ports) => {
            let of = |port| Key::of_value(Field::Port, port);
            Some(ports.iter().map(of).collect())
        }
        Test::SourceIp(blocks) => {
            let is_one = |block: &ipnet::IpNet| block.prefix_len() == block.max_prefix_len();
            let of = |b| is_one(b).then(|| Key::of_value(Field::Address, b.addr()));
            blocks.iter().map(of).collect()
        }
        Test::TrustDomain(_)
        | Test::RemoteIp(_)
        | Test::DestinationIp(_)
        | Test::Header(..)
        | Test::Audience(_)
        | Test::Presenter(_)
        | Test::Claim(..) => None,
    }
}

fn exactly(value: &StringMatch) -> Option<&str> {
    match value {
        StringMatch::Exact(text) => Some(text),
        _ => None,
    }
}

/// What every path that matches begins with.
fn beginning(pattern: &PathPattern) -> Option<Key> {
    match pattern {
        PathPattern::Text(StringMatch::Exact(text) | StringMatch::Prefix(text)) => {
            Key::of_beginning(text.as_bytes())
        }
        PathPattern::Text(_) => None,
        PathPattern::Template(template) => {
            let mut text = String::new();
            for segment in template.segments() {
                text.push('/');
                let TemplateSegment::Literal(literal) = segment else {
                    break;
                };
                text.push_str(literal);
            }
            Key::of_beginning(text.as_bytes())
        }
    }
}

/// The keys of a request or stream, of the fields that rules are listed under.
fn keys<'a>(candidates: &'a Candidates, facts: &'a Facts<'_>) -> impl Iterator<Item = Key> + 'a {
    let (peer, http) = (facts.peer, facts.http.as_ref());
    let text = |field, text: Option<&str>| Some(Key::of(field, &[text?]));
    let key = move |field: Field| match field {
        _ if !candidates.asks(field) => None,
        Field::Principal => text(field, peer.map(Identity::principal)),
        Field::Namespace => text(field, peer.and_then(Identity::namespace)),
        Field::QualifiedAccount => {
            let account = peer.and_then(|p| Some([p.namespace()?, p.service_account()?]));
            account.map(|both| Key::of(field, &both))
        }
        Field::RequestPrincipal => {
            let token = http.and_then(|h| h.token);
            let both = token.and_then(|t| Some([&*t.issuer, t.subject.as_deref()?]));
            both.map(|both| Key::of(field, &both))
        }
        Field::Address => Some(Key::of_value(field, facts.source_ip.to_canonical())),
        Field::Port => Some(Key::of_value(field, facts.destination_port)),
        Field::Host => http.map(|h| Key::of_any_case(field, h.host)),
        Field::Method => text(field, http.map(|h| h.method)),
        Field::Path | Field::Account | Field::PodLabel | Field::NamespaceLabel => None,
    };
    let path = http.map(|h| h.path.as_bytes()).unwrap_or_default();
    let keys = ALL_FIELDS.iter().filter_map(move |field| key(*field));
    keys.chain(candidates.of_path(path))
}
