//! A naive reading of specs/istio-waypoint.md 4.8, sentence by sentence, on the resolved policies.
//! Slow on purpose: it builds strings and regular expressions, and rewrites rules for TCP before it
//! evaluates them. It shares no code with the crate.

use std::net::IpAddr;

use cairn_config_schema::snapshot::{
    Action, Condition, Operation, PathPattern, Policy, PolicyRule, Provider, RequestPrincipal,
    Source, StringMatch, TemplateSegment, Values,
};
use ipnet::IpNet;
use regex::bytes::Regex;

use crate::request::Request;

/// "1. Any CUSTOM rule matches: call provider [nobody was: deny]. 4. Any DENY rule matches: deny.
/// 5. No ALLOW policy attached: allow. Else any ALLOW rule matches: allow; otherwise deny."
pub fn allowed(policies: &[Policy], request: &Request) -> bool {
    decided(&in_force(policies), request, |_| true)
}

/// The same, when all providers were asked that can be, and allowed it.
pub fn allowed_when_asked(policies: &[Policy], request: &Request) -> bool {
    decided(&in_force(policies), request, |p| asked(p).is_none())
}

/// What would be if the dry-run policies were enforced, and their providers allowed it.
pub fn would_allow(policies: &[Policy], request: &Request) -> bool {
    decided(policies, request, |p| !p.dry_run || asked(p).is_none())
}

/// Providers to ask: of every CUSTOM policy that matches, unless it is denied whatever they say.
pub fn questions(policies: &[Policy], request: &Request) -> Vec<String> {
    let policies = in_force(policies);
    let custom = policies.iter().filter(|p| p.action == Action::Custom);
    let matching: Vec<&Policy> = custom.filter(|p| policy_matches(p, request)).collect();
    let broken = policies.iter().any(|p| p.broken.is_some());
    if broken || matching.iter().any(|p| asked(p).is_none()) {
        return Vec::new();
    }
    let mut names: Vec<String> = Vec::new();
    for name in matching.into_iter().filter_map(asked) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The provider of a policy that can be asked.
fn asked(policy: &Policy) -> Option<String> {
    match &policy.provider {
        Some(Provider::Ask(provider)) => Some(provider.name.to_string()),
        Some(Provider::Unusable(_)) | None => None,
    }
}

fn in_force(policies: &[Policy]) -> Vec<Policy> {
    let mut policies = policies.to_vec();
    policies.retain(|p| !p.dry_run && p.action != Action::Audit);
    policies
}

fn decided(policies: &[Policy], request: &Request, custom: impl Fn(&Policy) -> bool) -> bool {
    let decides = |p: &&Policy| p.action != Action::Audit;
    let policies: Vec<&Policy> = policies.iter().filter(decides).collect();
    let of = |action| -> Vec<&Policy> {
        let same = policies.iter().filter(|p| p.action == action);
        same.copied().collect()
    };
    let matches = |action| of(action).iter().any(|p| policy_matches(p, request));
    if policies.iter().any(|p| p.broken.is_some()) {
        return false;
    }
    let mut denying = of(Action::Custom).into_iter().filter(|p| custom(p));
    if denying.any(|p| policy_matches(p, request)) || matches(Action::Deny) {
        return false;
    }
    of(Action::Allow).is_empty() || matches(Action::Allow)
}

/// Whether any rule matches.
pub fn policy_matches(policy: &Policy, request: &Request) -> bool {
    let mut rules = policy.rules.iter();
    rules.any(|r| rule_matches(r, policy.action, request))
}

/// Whether one rule of a policy of this action matches.
pub fn rule_matches(rule: &PolicyRule, action: Action, request: &Request) -> bool {
    if rule.broken.is_some() {
        return action != Action::Allow;
    }
    let mut rule = rule.clone();
    if request.tcp {
        let has_http = rule.to.iter().any(Operation::has_http_fields)
            || rule.from.iter().any(|s| !s.request_principals.is_empty())
            || rule.when.iter().any(is_http_condition);
        if action == Action::Allow && has_http {
            return false;
        }
        for operation in &mut rule.to {
            operation.hosts = Values::default();
            operation.methods = Values::default();
            operation.paths = Values::default();
        }
        for source in &mut rule.from {
            source.request_principals = Values::default();
        }
        rule.when.retain(|c| !is_http_condition(c));
    }
    let from = rule.from.is_empty() || rule.from.iter().any(|s| source_matches(s, request));
    let to = rule.to.is_empty() || rule.to.iter().any(|o| operation_matches(o, request));
    let when = rule.when.iter().all(|c| condition_matches(c, request));
    from && to && when
}

/// Conditions with no values at all are absent from a rule, not HTTP-only parts of it.
fn is_http_condition(condition: &Condition) -> bool {
    match condition {
        Condition::RequestHeader { values, .. }
        | Condition::Audience(values)
        | Condition::Presenter(values)
        | Condition::Claim { values, .. } => !values.is_empty(),
        Condition::RequestPrincipal(values) => !values.is_empty(),
        _ => false,
    }
}

/// "values in a list ∨; `notX` = ¬∨"; a field without values is not set.
fn field<T>(values: &Values<T>, matches: impl Fn(&T) -> bool) -> bool {
    (values.any_of.is_empty() || values.any_of.iter().any(&matches))
        && !values.none_of.iter().any(&matches)
}

fn source_matches(source: &Source, request: &Request) -> bool {
    field(&source.principals, |v| principal(v, request))
        && field(&source.namespaces, |v| namespace(v, request))
        && field(&source.service_accounts, |v| service_account(v, request))
        && field(&source.trust_domains, |v| trust_domain(v, request))
        && field(&source.request_principals, |v| {
            request_principal(v, request)
        })
        && field(&source.ip_blocks, |v| in_block(v, request.source_ip))
        && field(&source.remote_ip_blocks, |v| in_block(v, request.remote_ip))
}

fn operation_matches(operation: &Operation, request: &Request) -> bool {
    field(&operation.hosts, |v| {
        string("(?i)", v, ".*", request.host.as_bytes())
    }) && field(&operation.methods, |v| {
        string("", v, ".*", request.method.as_bytes())
    }) && field(&operation.paths, |v| path(v, &request.path))
        && field(&operation.ports, |v| *v == request.destination_port)
}

fn condition_matches(condition: &Condition, request: &Request) -> bool {
    match condition {
        Condition::RequestHeader { name, values } => {
            let sent = joined_header(name.as_str(), request);
            field(values, |v| {
                sent.as_ref().is_some_and(|s| string("", v, ".*", s))
            })
        }
        Condition::SourceIp(values) => field(values, |v| in_block(v, request.source_ip)),
        Condition::RemoteIp(values) => field(values, |v| in_block(v, request.remote_ip)),
        Condition::DestinationIp(values) => field(values, |v| in_block(v, request.destination_ip)),
        Condition::DestinationPort(values) => field(values, |v| *v == request.destination_port),
        Condition::SourceNamespace(values) => field(values, |v| namespace(v, request)),
        Condition::SourcePrincipal(values) => field(values, |v| principal(v, request)),
        Condition::SourceServiceAccount(values) => field(values, |v| service_account(v, request)),
        Condition::SourceTrustDomain(values) => field(values, |v| trust_domain(v, request)),
        Condition::RequestPrincipal(values) => field(values, |v| request_principal(v, request)),
        Condition::Audience(values) => field(values, |v| claim(&["aud"], v, request)),
        Condition::Presenter(values) => field(values, |v| claim(&["azp"], v, request)),
        Condition::Claim { path, values } => {
            let path: Vec<&str> = path.iter().map(|name| &**name).collect();
            field(values, |v| claim(&path, v, request))
        }
    }
}

/// `iss/sub` as it is written, cut at its last slash, each half a string form of its own.
fn request_principal(value: &RequestPrincipal, request: &Request) -> bool {
    let Some(token) = &request.token else {
        return false;
    };
    let (issuer, subject) = (&token.issuer, token.subject.clone().unwrap_or_default());
    let written = value.to_string();
    let half = |written: &str, text: &str| {
        let any = if written == "*" { ".+" } else { ".*" };
        let pattern = regex::escape(written).replace("\\*", any);
        regex::Regex::new(&format!("^(?s:{pattern})$"))
            .unwrap()
            .is_match(text)
            && !text.is_empty()
    };
    match written.rsplit_once('/') {
        Some((i, s)) => half(i, issuer) && half(s, &subject),
        None if written == "*" => !issuer.is_empty() && !subject.is_empty(),
        None => panic!("the generator makes no such value"),
    }
}

/// A claim that is a string, or a list with it.
fn claim(path: &[&str], value: &StringMatch, request: &Request) -> bool {
    let Some(token) = &request.token else {
        return false;
    };
    let mut found = &serde_json::Value::Object(token.claims.clone());
    for name in path {
        found = &found[*name];
    }
    let texts = match found {
        serde_json::Value::Array(items) => items.clone(),
        one => vec![one.clone()],
    };
    let texts = texts.iter().filter_map(|text| text.as_str());
    texts
        .into_iter()
        .any(|text| string("", value, ".+", text.as_bytes()))
}

/// The header as one value; the authority for `host`.
fn joined_header(name: &str, request: &Request) -> Option<Vec<u8>> {
    if name == "host" {
        return Some(request.host.clone().into_bytes());
    }
    let separator: &[u8] = if name == "cookie" { b"; " } else { b"," };
    let sent = request.headers.get_all(name).iter();
    let sent: Vec<&[u8]> = sent.map(|v| v.as_bytes()).collect();
    (!sent.is_empty()).then(|| sent.join(separator))
}

/// The SAN, cut at its slashes: trust domain, and namespace and account if it has Istio's form.
fn identity(request: &Request) -> Option<(String, Option<(String, String)>)> {
    let principal = request.peer.as_ref()?.uri().replacen("spiffe://", "", 1);
    let parts: Vec<&str> = principal.split('/').collect();
    let workload = match parts.as_slice() {
        [_, "ns", namespace, "sa", account] => Some((namespace.to_string(), account.to_string())),
        _ => None,
    };
    Some((parts[0].to_owned(), workload))
}

fn principal(value: &StringMatch, request: &Request) -> bool {
    let Some(peer) = &request.peer else {
        return false;
    };
    let principal = peer.uri().replacen("spiffe://", "", 1);
    string("", value, ".+", principal.as_bytes())
}

fn trust_domain(value: &StringMatch, request: &Request) -> bool {
    identity(request).is_some_and(|(domain, _)| string("", value, ".+", domain.as_bytes()))
}

fn namespace(value: &StringMatch, request: &Request) -> bool {
    let workload = identity(request).and_then(|(_, workload)| workload);
    workload.is_some_and(|(ns, _)| string("", value, ".+", ns.as_bytes()))
}

fn service_account(value: &StringMatch, request: &Request) -> bool {
    let workload = identity(request).and_then(|(_, workload)| workload);
    workload.is_some_and(|(ns, sa)| string("", value, ".+", format!("{ns}/{sa}").as_bytes()))
}

fn path(value: &PathPattern, path: &str) -> bool {
    let template = match value {
        PathPattern::Text(text) => return string("", text, ".+", path.as_bytes()),
        PathPattern::Template(template) => template,
    };
    let mut pattern = String::new();
    for segment in template.segments() {
        pattern.push('/');
        match segment {
            TemplateSegment::Literal(text) => pattern.push_str(&regex::escape(text)),
            TemplateSegment::One => pattern.push_str("[^/]+"),
            TemplateSegment::Rest => pattern.push_str(".*"),
        }
    }
    regex("", &pattern).is_match(path.as_bytes())
}

/// A string form as a regular expression; `star` is what a lone `*` becomes.
fn string(flags: &str, value: &StringMatch, star: &str, text: &[u8]) -> bool {
    let pattern = match value {
        StringMatch::Any => star.to_owned(),
        StringMatch::Exact(text) => regex::escape(text),
        StringMatch::Prefix(text) => format!("{}.*", regex::escape(text)),
        StringMatch::Suffix(text) => format!(".*{}", regex::escape(text)),
        StringMatch::Glob(text) => regex::escape(text).replace("\\*", ".*"),
    };
    regex(flags, &pattern).is_match(text)
}

fn regex(flags: &str, pattern: &str) -> Regex {
    Regex::new(&format!("(?s-u){flags}^(?:{pattern})$")).unwrap()
}

/// An address in a block, bit by bit; IPv4 inside IPv6 is the IPv4 address.
fn in_block(block: &IpNet, address: IpAddr) -> bool {
    let (network, mut length) = (bits(block.network()), usize::from(block.prefix_len()));
    let address = bits(address);
    // A block inside ::ffff:0:0/96 is an IPv4 block with the last 32 of 128 bits.
    if matches!(block, IpNet::V6(_)) && network.len() == 32 {
        match length.checked_sub(96) {
            Some(rest) => length = rest,
            None => return false,
        }
    }
    network.len() == address.len() && network[..length] == address[..length]
}

fn bits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{:032b}", u32::from(v4)),
        IpAddr::V6(v6) => {
            let bits = format!("{:0128b}", u128::from(v6));
            let mapped = format!("{}{}", "0".repeat(80), "1".repeat(16));
            match bits.strip_prefix(&mapped) {
                Some(v4) => v4.to_owned(),
                None => bits,
            }
        }
    }
}
