//! Policies of one action in their order, and which of their rules to ask about a request: with a
//! thousand policies on a service few can match (`candidates`). Matches nothing itself.

use std::ops::Deref;
use std::sync::Arc;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{PathPattern, StringMatch, TemplateSegment};

use http::HeaderMap;
use http::header::{HOST, HeaderName};
use ipnet::IpNet;
use rustc_hash::FxHashSet;

use crate::candidates::{ALL_FIELDS, Candidates, Field, Key, Needs, OneOf};
use crate::clause::{Clause, Test, header_pieces};
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
    asked: Asked,
}

/// What rules ask of requests by name. With more names than these rules are not listed under them.
#[derive(Clone, Debug, Default)]
struct Asked {
    headers: FxHashSet<HeaderName>,
    claims: Vec<Arc<[Arc<str>]>>,
}

/// Paths of claims to look up in each token.
const CLAIMS_MAX: usize = 16;

impl Asked {
    fn of<'a>(forms: impl Iterator<Item = &'a Form>) -> Self {
        let mut asked = Self::default();
        for form in forms {
            let Form::Clauses(clauses) = form else {
                continue;
            };
            for clause in clauses.iter().filter(|clause| !clause.negated) {
                match &clause.test {
                    Test::Header(name, _) => {
                        asked.headers.insert(name.clone());
                    }
                    Test::Claim(path, _) if !asked.claims.contains(path) => {
                        asked.claims.push(path.clone());
                    }
                    _ => {}
                }
            }
        }
        asked
    }

    /// The fields that rules may be listed under.
    fn fields(&self) -> Vec<Field> {
        let few = self.claims.len() <= CLAIMS_MAX;
        let fields = ALL_FIELDS.iter().copied();
        fields.filter(|f| few || *f != Field::Claim).collect()
    }
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
        let asked = Asked::of(rules().map(|rule| rule.http()));
        let fields = asked.fields();
        Self {
            places: places.into(),
            http: Candidates::new(&http, &fields),
            tcp: Candidates::new(&tcp, &fields),
            asked,
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
        let first = candidates.first(keys(candidates, &self.asked, facts), matches)?;
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
        Test::SourceIp(blocks) => Some(within(Field::Address, blocks)),
        Test::RemoteIp(blocks) => Some(within(Field::RemoteAddress, blocks)),
        Test::Header(name, values) => {
            let of = |value| {
                let value = exactly(value)?.as_bytes();
                Some(Key::of_header(name.as_str(), std::iter::once(value)))
            };
            values.iter().map(of).collect()
        }
        Test::Claim(path, values) => {
            let of = |value| Some(Key::of_claim(path, exactly(value)?));
            values.iter().map(of).collect()
        }
        Test::TrustDomain(_) | Test::DestinationIp(_) | Test::Audience(_) | Test::Presenter(_) => {
            None
        }
    }
}

fn within(field: Field, blocks: &[IpNet]) -> OneOf {
    let blocks = blocks.iter();
    blocks.map(|block| Key::of_block(field, *block)).collect()
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
fn keys<'a>(
    candidates: &'a Candidates,
    asked: &'a Asked,
    facts: &'a Facts<'_>,
) -> impl Iterator<Item = Key> + 'a {
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
        Field::Port => Some(Key::of_value(field, facts.destination_port)),
        Field::Host => http.map(|h| Key::of_any_case(field, h.host)),
        Field::Method => text(field, http.map(|h| h.method)),
        // These have several keys, below, or are asked by network policies alone.
        Field::Path | Field::Address | Field::RemoteAddress | Field::Header | Field::Claim => None,
        Field::Account | Field::PodLabel | Field::NamespaceLabel => None,
    };
    let path = http.map(|h| h.path.as_bytes()).unwrap_or_default();
    let (source, remote) = (
        facts.source_ip.to_canonical(),
        facts.remote_ip.to_canonical(),
    );
    let keys = ALL_FIELDS.iter().filter_map(move |field| key(*field));
    keys.chain(candidates.of_path(path))
        .chain(candidates.of_address(Field::Address, source))
        .chain(candidates.of_address(Field::RemoteAddress, remote))
        .chain(of_headers(candidates, asked, facts))
        .chain(of_claims(candidates, asked, facts))
}

/// The keys of the headers that rules ask for, each as it is compared.
fn of_headers<'a>(
    candidates: &'a Candidates,
    asked: &'a Asked,
    facts: &'a Facts<'_>,
) -> impl Iterator<Item = Key> + 'a {
    let http = facts
        .http
        .as_ref()
        .filter(|_| candidates.asks(Field::Header));
    let host = http.filter(|_| asked.headers.contains(&HOST));
    let host = host.map(|h| Key::of_header(HOST.as_str(), std::iter::once(h.host.as_bytes())));
    let names = http.into_iter().flat_map(|http| {
        let names = http.headers.keys().filter(|name| **name != HOST);
        names.map(move |name| (name, http.headers))
    });
    let names = names.filter(|(name, _)| asked.headers.contains(*name));
    let of_name = |(name, headers): (&HeaderName, &'a HeaderMap)| {
        Key::of_header(name.as_str(), header_pieces(headers, name))
    };
    host.into_iter().chain(names.map(of_name))
}

/// The keys of the claims that rules ask for.
fn of_claims<'a>(
    candidates: &'a Candidates,
    asked: &'a Asked,
    facts: &'a Facts<'_>,
) -> impl Iterator<Item = Key> + 'a {
    let token = facts.http.as_ref().and_then(|http| http.token);
    let token = token.filter(|_| candidates.asks(Field::Claim));
    token.into_iter().flat_map(|token| {
        asked.claims.iter().flat_map(move |path| {
            let values = token.claim(path);
            values.map(move |value| Key::of_claim(path, value))
        })
    })
}
