//! Requests and policies for the cases, in few words. Holds no case itself.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_authz::{Attestation, Facts, HttpFacts, PolicySet, Token, Verdict};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    Action, CheckProtocol, ClusterKey, Condition, ExternalProvider, HttpCheck, Operation,
    PathPattern, PathTemplate, Policy, PolicyRule, Provider, Source, StringMatch, Values,
};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// A request, or with `tcp` a stream, that owns what [`Facts`] borrow.
#[derive(Clone, Debug)]
pub struct Request {
    pub peer: Option<Identity>,
    pub source_ip: IpAddr,
    pub remote_ip: IpAddr,
    pub destination_ip: IpAddr,
    pub destination_port: u16,
    pub method: String,
    pub host: String,
    pub path: String,
    pub headers: HeaderMap,
    pub token: Option<Token>,
    pub tcp: bool,
}

/// `GET reviews.shop:9080/reviews/1` from `shop/web`.
pub fn request() -> Request {
    Request {
        peer: Some(Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()),
        source_ip: "10.0.0.7".parse().unwrap(),
        remote_ip: "192.0.2.9".parse().unwrap(),
        destination_ip: "240.0.0.5".parse().unwrap(),
        destination_port: 9080,
        method: "GET".to_owned(),
        host: "reviews.shop:9080".to_owned(),
        path: "/reviews/1".to_owned(),
        headers: HeaderMap::new(),
        token: None,
        tcp: false,
    }
}

impl Request {
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            peer: self.peer.as_ref(),
            attested_by: Attestation::Certificate,
            source_ip: self.source_ip,
            remote_ip: self.remote_ip,
            destination_ip: self.destination_ip,
            destination_port: self.destination_port,
            backends: &[],
            http: (!self.tcp).then_some(HttpFacts {
                method: &self.method,
                host: &self.host,
                path: &self.path,
                query: None,
                headers: &self.headers,
                token: self.token.as_ref(),
            }),
        }
    }

    pub fn peer(mut self, uri: &str) -> Self {
        self.peer = Some(Identity::parse(uri).unwrap());
        self
    }

    pub fn no_peer(mut self) -> Self {
        self.peer = None;
        self
    }

    pub fn method(mut self, method: &str) -> Self {
        self.method = method.to_owned();
        self
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    /// Adds a header; a second one of the same name stays a second one.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }
}

pub fn policy(name: &str, action: Action, rules: Vec<PolicyRule>) -> Policy {
    Policy {
        origin: Origin {
            kind: Kind::AuthorizationPolicy,
            key: ObjectKey::new("shop", name),
        },
        action,
        dry_run: false,
        provider: (action == Action::Custom)
            .then(|| Provider::Unusable("there is no extension provider 'x'".into())),
        rules,
        broken: None,
    }
}

/// A provider that can be asked.
pub fn provider(name: &str) -> Provider {
    Provider::Ask(Arc::new(ExternalProvider {
        name: name.into(),
        cluster: ClusterKey::new(ObjectKey::new("auth", name), 80),
        timeout_ms: 600_000,
        fail_open: false,
        status_on_error: 403,
        clear_route_cache: false,
        body: None,
        protocol: CheckProtocol::Http(HttpCheck::default()),
    }))
}

pub fn set(policies: &[Policy]) -> PolicySet {
    let policies: Vec<_> = policies.iter().cloned().map(Arc::new).collect();
    PolicySet::compile(&policies)
}

pub fn decide(policies: &[Policy], request: &Request) -> Verdict {
    set(policies).decide(&request.facts())
}

/// Whether a rule matches: the request is denied by a DENY policy of this rule alone. That an ALLOW
/// policy of the rule agrees is asserted on the way, which holds for HTTP and unbroken rules.
pub fn matches(rule: &PolicyRule, request: &Request) -> bool {
    let denied = decide(&[policy("p", Action::Deny, vec![rule.clone()])], request);
    let allowed = decide(&[policy("p", Action::Allow, vec![rule.clone()])], request);
    assert_eq!(!denied.allowed, allowed.allowed, "{rule:?} {request:?}");
    allowed.allowed
}

/// Asserts each row: values (with `!`: of the `not` twin), and whether the rule matches.
pub fn rows(rule: impl Fn(&[&str]) -> PolicyRule, request: &Request, rows: &[(&[&str], bool)]) {
    for (values, expected) in rows {
        assert_eq!(
            matches(&rule(values), request),
            *expected,
            "{values:?} {request:?}"
        );
    }
}

pub fn source(source: Source) -> PolicyRule {
    PolicyRule {
        from: vec![source],
        ..PolicyRule::default()
    }
}

pub fn operation(operation: Operation) -> PolicyRule {
    PolicyRule {
        to: vec![operation],
        ..PolicyRule::default()
    }
}

pub fn when(condition: Condition) -> PolicyRule {
    PolicyRule {
        when: vec![condition],
        ..PolicyRule::default()
    }
}

pub fn methods(list: &[&str]) -> PolicyRule {
    operation(Operation {
        methods: strings(list),
        ..Operation::default()
    })
}

/// Values; those with a leading `!` are of the `not` twin.
fn values<T>(list: &[&str], parse: impl Fn(&str) -> T) -> Values<T> {
    let (none_of, any_of): (Vec<_>, Vec<_>) = list.iter().partition(|v| v.starts_with('!'));
    Values {
        any_of: any_of.into_iter().map(&parse).collect(),
        none_of: none_of.into_iter().map(|v| parse(&v[1..])).collect(),
    }
}

pub fn strings(list: &[&str]) -> Values<StringMatch> {
    values(list, StringMatch::parse)
}

pub fn globs(list: &[&str]) -> Values<StringMatch> {
    values(list, |v| StringMatch::Glob(v.into()))
}

pub fn blocks(list: &[&str]) -> Values<ipnet::IpNet> {
    values(list, |v| {
        v.parse()
            .unwrap_or_else(|_| ipnet::IpNet::from(v.parse::<IpAddr>().unwrap()))
    })
}

pub fn ports(list: &[&str]) -> Values<u16> {
    values(list, |v| v.parse().unwrap())
}

/// Paths as the policy author writes them: a template if there is `{*}` or `{**}`.
pub fn paths(list: &[&str]) -> Values<PathPattern> {
    values(list, |v| {
        if PathTemplate::is_template(v) {
            PathPattern::Template(PathTemplate::parse(v).unwrap())
        } else {
            PathPattern::Text(StringMatch::parse(v))
        }
    })
}
