//! Policies and requests at random, from few words, so that they often meet.

use cairn_authz::Token;
use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{
    Action, Condition, Operation, PathPattern, PathTemplate, Policy, PolicyRule, RequestPrincipal,
    Source, StringMatch, Values,
};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use crate::request::{Request, policy, provider};

const PRINCIPALS: &[&str] = &[
    "cluster.local/ns/shop/sa/web",
    "cluster.local/ns/shop/sa/api",
    "cluster.local/ns/shop-eu/sa/web",
    "other.example/ns/web/sa/web",
    "cluster.local/gateway",
    "other.example/team/shop/web",
];
const NAMESPACES: &[&str] = &["shop", "shop-eu", "web"];
const ACCOUNTS: &[&str] = &["shop/web", "shop/api", "shop-eu/web", "web/web"];
const TRUST_DOMAINS: &[&str] = &["cluster.local", "other.example"];
const HOSTS: &[&str] = &["a.shop", "a.shop:80", "A.Shop:80", "b.shop", ""];
const METHODS: &[&str] = &["GET", "POST", "get", ""];
const PATHS: &[&str] = &[
    "/", "/a", "/a/", "/a/b", "/a/b/c", "/a//c", "//", "/b/a/c", "/a/b/b/c", "/A", "*", "",
];
const TEMPLATES: &[&str] = &[
    "/{*}",
    "/{**}",
    "/a/{*}",
    "/a/{**}",
    "/a/{*}/c",
    "/a/{**}/c",
    "/{*}/{**}",
    "/{**}/b/c",
    "/a/{*}/",
    "/{*}/b/{*}",
    "/{*}/a/{**}/c",
];
const HEADERS: &[&str] = &["x-role", "x-other", "host", "cookie"];
const HEADER_VALUES: &[&str] = &["a", "ab", "b", "a,b", "a; b", "", "a.shop:80"];
const ADDRESSES: &[&str] = &[
    "10.0.0.1",
    "10.0.0.2",
    "10.0.1.1",
    "::ffff:10.0.0.1",
    "::ffff:10.0.1.1",
    "fd00::1",
    "fd00::2",
];
const BLOCKS: &[&str] = &[
    "10.0.0.1/32",
    "10.0.0.3/24",
    "0.0.0.0/0",
    "::/0",
    "fd00::1/128",
    "fd00::/16",
    "::ffff:10.0.0.0/120",
    "::ffff:10.0.0.1/128",
    "::ffff:0.0.0.0/96",
    "::ffff:0.0.0.0/90",
];
const PORTS: &[u16] = &[80, 443, 9080];

/// One of the string forms, cut from one of the words.
fn form(words: &'static [&'static str]) -> impl Strategy<Value = StringMatch> {
    (select(words), 0..6_u8, any::<prop::sample::Index>()).prop_map(|(word, form, cut)| {
        let cut = cut.index(word.len() + 1);
        match form {
            0 => StringMatch::Any,
            1 if cut > 0 => StringMatch::Prefix(word[..cut].into()),
            2 if cut < word.len() => StringMatch::Suffix(word[cut..].into()),
            _ => StringMatch::Exact(word.into()),
        }
    })
}

/// A namespace with up to two stretches replaced by a star.
fn glob() -> impl Strategy<Value = StringMatch> {
    let holes = vec((0..8_usize, 0..3_usize), 0..3);
    (select(NAMESPACES), holes).prop_map(|(word, holes)| {
        let mut text = word.to_owned();
        for (start, length) in holes {
            let start = start.min(text.len());
            let end = (start + length).min(text.len());
            text.replace_range(start..end, "*");
        }
        StringMatch::Glob(text.into())
    })
}

fn path() -> impl Strategy<Value = PathPattern> {
    prop_oneof![
        form(PATHS).prop_map(PathPattern::Text),
        select(TEMPLATES)
            .prop_map(|t| PathPattern::Template(PathTemplate::parse(t).expect("a template"))),
    ]
}

/// A field with at least one value.
fn set_values<T: Clone + std::fmt::Debug>(
    value: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = Values<T>> {
    (vec(value.clone(), 0..3), vec(value, 0..2))
        .prop_map(|(any_of, none_of)| Values { any_of, none_of })
}

/// A field, mostly not set.
fn values<T: Clone + std::fmt::Debug>(
    value: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = Values<T>> {
    weighted(0.3, set_values(value)).prop_map(Option::unwrap_or_default)
}

fn block() -> impl Strategy<Value = ipnet::IpNet> + Clone {
    select(BLOCKS).prop_map(|b| b.parse().expect("a block"))
}

fn source() -> impl Strategy<Value = Source> {
    (
        values(form(PRINCIPALS).boxed()),
        values(glob().boxed()),
        values(form(ACCOUNTS).boxed()),
        values(form(TRUST_DOMAINS).boxed()),
        values(block()),
        values(block()),
        values(request_principal().boxed()),
    )
        .prop_map(
            |(
                principals,
                namespaces,
                service_accounts,
                trust_domains,
                ip_blocks,
                remote,
                login,
            )| Source {
                principals,
                namespaces,
                service_accounts,
                trust_domains,
                request_principals: login,
                ip_blocks,
                remote_ip_blocks: remote,
            },
        )
}

const ISSUERS: &[&str] = &["https://a", "https://a/b", "b"];
const SUBJECTS: &[&str] = &["c", "b/c", "cc", ""];
const WORDS: &[&str] = &["a", "ab", "b", ""];
const CLAIMS: &[&[&str]] = &[
    &["groups"],
    &["nested", "role"],
    &["aud"],
    &["missing", "role"],
];
const REQUEST_PRINCIPALS: &[&str] = &[
    "*",
    "https://a/c",
    "https://a/b/c",
    "https://a/b/*",
    "https://a/c*",
    "*/c",
    "*b/c",
    "b/b/c",
];

fn request_principal() -> impl Strategy<Value = RequestPrincipal> + Clone {
    select(REQUEST_PRINCIPALS).prop_map(RequestPrincipal::parse)
}

fn token() -> impl Strategy<Value = Token> {
    let words = || vec(select(WORDS), 0..3);
    let claims = (
        words(),
        select(WORDS),
        prop::bool::ANY,
        weighted(0.5, select(WORDS)),
    );
    (select(ISSUERS), weighted(0.9, select(SUBJECTS)), claims).prop_map(
        |(issuer, subject, (groups, role, one, azp))| {
            let groups = match one {
                true => serde_json::json!(role),
                false => serde_json::json!(groups),
            };
            let claims = serde_json::json!({
                "aud": groups, "groups": groups, "nested": {"role": role}, "azp": azp, "n": 1,
            });
            Token {
                issuer: issuer.to_owned(),
                subject: subject.map(str::to_owned),
                claims: claims.as_object().cloned().unwrap_or_default(),
            }
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    (
        values(form(HOSTS).boxed()),
        values(form(METHODS).boxed()),
        values(path().boxed()),
        values(select(PORTS)),
    )
        .prop_map(|(hosts, methods, paths, ports)| Operation {
            hosts,
            methods,
            paths,
            ports,
        })
}

fn condition() -> impl Strategy<Value = Condition> {
    let header = (select(HEADERS), set_values(form(HEADER_VALUES).boxed()));
    prop_oneof![
        3 => header.prop_map(|(name, values)| Condition::RequestHeader {
            name: HeaderName::from_static(name),
            values,
        }),
        1 => set_values(block()).prop_map(Condition::SourceIp),
        1 => set_values(block()).prop_map(Condition::RemoteIp),
        1 => set_values(block()).prop_map(Condition::DestinationIp),
        1 => set_values(select(PORTS)).prop_map(Condition::DestinationPort),
        1 => set_values(glob().boxed()).prop_map(Condition::SourceNamespace),
        1 => set_values(form(PRINCIPALS).boxed()).prop_map(Condition::SourcePrincipal),
        1 => set_values(form(ACCOUNTS).boxed()).prop_map(Condition::SourceServiceAccount),
        1 => set_values(form(TRUST_DOMAINS).boxed()).prop_map(Condition::SourceTrustDomain),
        1 => set_values(request_principal().boxed()).prop_map(Condition::RequestPrincipal),
        1 => set_values(form(WORDS).boxed()).prop_map(Condition::Audience),
        1 => set_values(form(WORDS).boxed()).prop_map(Condition::Presenter),
        2 => (select(CLAIMS), set_values(form(WORDS).boxed())).prop_map(|(path, values)| {
            let path = path.iter().map(|name| (*name).into()).collect();
            Condition::Claim { path, values }
        }),
    ]
}

pub fn rule() -> impl Strategy<Value = PolicyRule> {
    (
        vec(source(), 0..3),
        vec(operation(), 0..3),
        vec(condition(), 0..2),
        prop::bool::weighted(0.05),
    )
        .prop_map(|(from, to, when, broken)| PolicyRule {
            from,
            to,
            when,
            broken: broken.then(|| "broken rule".into()),
        })
}

/// A rule of one part only, so that its outcome hangs on few clauses.
pub fn small_rule() -> impl Strategy<Value = PolicyRule> {
    let part = prop_oneof![
        source().prop_map(|s| (vec![s], vec![], vec![])),
        operation().prop_map(|o| (vec![], vec![o], vec![])),
        condition().prop_map(|c| (vec![], vec![], vec![c])),
    ];
    part.prop_map(|(from, to, when)| PolicyRule {
        from,
        to,
        when,
        broken: None,
    })
}

pub fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Allow),
        3 => Just(Action::Deny),
        1 => Just(Action::Custom),
        1 => Just(Action::Audit),
    ]
}

/// Up to five policies, each with a name of its own.
pub fn policies() -> impl Strategy<Value = Vec<Policy>> {
    named_policies(action(), 3, 0.03, 0..5)
}

/// So many rules of one action that not all of them are asked about each request.
pub fn many_policies() -> impl Strategy<Value = Vec<Policy>> {
    prop_oneof![
        4 => named_policies(Just(Action::Allow), 6, 0.003, 5..10),
        1 => named_policies(Just(Action::Deny), 3, 0.003, 8..12),
        1 => named_policies(Just(Action::Custom), 3, 0.003, 8..12),
    ]
}

/// Policies with less than `rules` rules each.
fn named_policies(
    action: impl Strategy<Value = Action>,
    rules: usize,
    broken: f64,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Policy>> {
    let one = (
        action,
        vec(rule(), 0..rules),
        prop::bool::weighted(0.25),
        prop::bool::weighted(broken),
        select(&[None, Some("first"), Some("second")]),
    );
    vec(one, count).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        let named = numbered.map(|(n, (action, rules, dry_run, broken, asked))| {
            let base = policy(&format!("p{n:02}"), action, rules);
            Policy {
                // AUDIT is never tried: resolving sees to it.
                dry_run: dry_run && action != Action::Audit,
                provider: match asked {
                    Some(name) if action == Action::Custom => Some(provider(name)),
                    _ => base.provider.clone(),
                },
                broken: broken.then(|| "broken policy".into()),
                ..base
            }
        });
        named.collect()
    })
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    vec((select(HEADERS), select(HEADER_VALUES)), 0..5).prop_map(|pairs| {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        map
    })
}

pub fn request() -> impl Strategy<Value = Request> {
    let address = || select(ADDRESSES).prop_map(|a| a.parse().expect("an address"));
    let peer = select(PRINCIPALS)
        .prop_map(|p| Identity::parse(&format!("spiffe://{p}")).expect("an identity"));
    let network = (
        weighted(0.85, peer),
        address(),
        address(),
        address(),
        select(PORTS),
        prop::bool::weighted(0.25),
    );
    let token = weighted(0.6, token());
    let http = (
        select(METHODS),
        select(HOSTS),
        select(PATHS),
        headers(),
        token,
    );
    (network, http).prop_map(|(network, (method, host, path, headers, token))| {
        let (peer, source_ip, remote_ip, destination_ip, destination_port, tcp) = network;
        Request {
            peer,
            source_ip,
            remote_ip,
            destination_ip,
            destination_port,
            method: method.to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            headers,
            token,
            tcp,
        }
    })
}
