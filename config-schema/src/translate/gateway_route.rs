//! Routes of one port of a Service, as resolved, written as an HTTPRoute. Its rules are asked by what is
//! most specific, and those of others in the order written: only where both are the same it is written.

use serde_json::{Map, Value, json};

use super::route_rules::{Unsayable, cluster, is_host, re2, text};
use crate::snapshot::{
    Backend, Filter, HeaderChange, HttpMatch, HttpRule, Mirror, PathMatch, PathRewrite, Redirect,
    Service, TextMatch,
};

/// What the API server takes in one HTTPRoute.
const RULES_MAX: usize = 16;
const MATCHES_MAX: usize = 64;
const MATCHES_OF_ROUTE_MAX: usize = 128;
const BACKENDS_MAX: usize = 16;
const WEIGHT_MAX: u32 = 1_000_000;
/// Headers or parameters of a match, filters of a rule or backend, headers of a change.
const CONDITIONS_MAX: usize = 16;
const PATH_BYTES_MAX: usize = 1024;
const HEADER_BYTES_MAX: usize = 4096;
const PARAMETER_BYTES_MAX: usize = 1024;

/// `spec` of the HTTPRoute for the rules of a port.
pub(super) fn spec(
    service: &Service,
    port: u16,
    rules: &[HttpRule],
    unsayable: &mut Unsayable,
) -> Value {
    let rules: Vec<&HttpRule> = rules
        .iter()
        .filter(|rule| !rule.matches.is_empty())
        .collect();
    let ranks: Vec<Rank> = rules
        .iter()
        .flat_map(|r| &r.matches)
        .map(Rank::of)
        .collect();
    let falls = |pair: &[Rank]| matches!(pair, [one, other] if one.is_before(other));
    if !ranks.windows(2).all(falls) {
        unsayable.push(
            "rules of an HTTPRoute are asked by what is most specific, and not in this order"
                .into(),
        );
    }
    if rules.is_empty() {
        unsayable.push(format!(
            "no rule is for port {port}: an HTTPRoute has one at least"
        ));
    }
    within_limits(&rules, unsayable);
    let own = &service.key;
    let written: Vec<Value> = rules
        .iter()
        .map(|rule| of_rule(rule, service, ranks.len() > 1, unsayable))
        .collect();
    json!({
        "parentRefs": [{"group": "", "kind": "Service", "name": own.name, "port": port}],
        "rules": written,
    })
}

/// The API server takes no HTTPRoute with more, by its schema, however it is read here.
fn within_limits(rules: &[&HttpRule], unsayable: &mut Unsayable) {
    let most = |count: fn(&HttpRule) -> usize| rules.iter().map(|rule| count(rule)).max();
    let all_matches: usize = rules.iter().map(|rule| rule.matches.len()).sum();
    let of_matches = |count: fn(&HttpMatch) -> usize| {
        let matches = rules.iter().flat_map(|rule| &rule.matches);
        matches.map(count).max()
    };
    let filters = || rules.iter().flat_map(|rule| lists_of_filters(rule));
    let changed = filters().flatten().filter_map(changed);
    let found = [
        (Some(rules.len()), RULES_MAX, "rules"),
        (most(|r| r.matches.len()), MATCHES_MAX, "matches in a rule"),
        (Some(all_matches), MATCHES_OF_ROUTE_MAX, "matches"),
        (
            most(|r| r.backends.len()),
            BACKENDS_MAX,
            "backends in a rule",
        ),
        (
            of_matches(|m| m.headers.len()),
            CONDITIONS_MAX,
            "headers in a match",
        ),
        (
            of_matches(|m| m.query.len()),
            CONDITIONS_MAX,
            "parameters in a match",
        ),
        (
            filters().map(<[Filter]>::len).max(),
            CONDITIONS_MAX,
            "filters in a list",
        ),
        (
            changed.max(),
            CONDITIONS_MAX,
            "headers in one list of a change",
        ),
    ];
    for (count, at_most, what) in found {
        if count.is_some_and(|count| count > at_most) {
            unsayable.push(format!("an HTTPRoute has {at_most} {what} at most"));
        }
    }
    let mut backends = rules.iter().flat_map(|rule| &rule.backends);
    if backends.any(|backend| backend.weight > WEIGHT_MAX) {
        unsayable.push(format!("a weight of an HTTPRoute is {WEIGHT_MAX} at most"));
    }
}

/// The filters of a rule, and those of each of its backends.
fn lists_of_filters(rule: &HttpRule) -> impl Iterator<Item = &[Filter]> {
    let of_backends = rule.backends.iter();
    let of_backends = of_backends.map(|backend| backend.filters.as_slice());
    std::iter::once(rule.filters.as_slice()).chain(of_backends)
}

/// How long the longest list of a change is.
fn changed(filter: &Filter) -> Option<usize> {
    match filter {
        Filter::RequestHeaders(change) | Filter::ResponseHeaders(change) => {
            let lists = [change.set.len(), change.add.len(), change.remove.len()];
            lists.into_iter().max()
        }
        _ => None,
    }
}

/// Whether the API server takes this path, other than as an expression.
fn is_path(path: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    let within = ["//", "/./", "/../", "%2f", "%2F"];
    path.len() <= PATH_BYTES_MAX
        && path.bytes().all(legal)
        && !within.iter().any(|part| path.contains(part))
        && !path.ends_with("/.")
        && !path.ends_with("/..")
}

/// A value of a header or parameter: not empty, and not longer.
fn check_value(value: &str, bytes_max: usize, unsayable: &mut Unsayable) {
    if value.is_empty() || value.len() > bytes_max {
        unsayable.push(format!(
            "a value in an HTTPRoute has 1 to {bytes_max} bytes"
        ));
    }
}

/// A duration as the Gateway API has it: no number of more than five digits (GEP-2257).
fn duration(ms: u64) -> String {
    let parts = [
        (ms / 3_600_000, "h"),
        (ms / 60_000 % 60, "m"),
        (ms / 1_000 % 60, "s"),
        (ms % 1_000, "ms"),
    ];
    let parts = parts.into_iter().filter(|(number, _)| *number > 0);
    parts
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect()
}

/// What the Gateway API compares matches by (specs/gateway-api.md 1.4): an exact path, the length of a
/// prefix, a method, and how many headers and parameters there are.
#[derive(PartialEq, PartialOrd)]
struct Rank(bool, usize, bool, usize, usize);

impl Rank {
    fn of(matched: &HttpMatch) -> Self {
        let length = match &matched.path {
            PathMatch::Exact(path) | PathMatch::Prefix(path) => path.len(),
            PathMatch::Begins { text, .. } => text.trim_end_matches('/').len(),
            PathMatch::Regex(pattern) => pattern.source().len(),
        };
        let exact = matches!(matched.path, PathMatch::Exact(_));
        let (headers, query) = (matched.headers.len(), matched.query.len());
        Self(exact, length, matched.method.is_some(), headers, query)
    }

    /// Whether a match of this rank is always asked before one of the other.
    fn is_before(&self, other: &Self) -> bool {
        self > other
    }
}

fn of_rule(rule: &HttpRule, service: &Service, several: bool, unsayable: &mut Unsayable) -> Value {
    if let Some(why) = &rule.broken {
        unsayable.push(format!("it is in error: {why}"));
    }
    let matches: Vec<Value> = rule
        .matches
        .iter()
        .map(|m| of_match(m, several, unsayable))
        .collect();
    let mut out = Map::new();
    out.insert("matches".into(), json!(matches));
    let filters: Vec<Value> = rule
        .filters
        .iter()
        .filter_map(|f| of_filter(f, service, unsayable))
        .collect();
    let redirects = rule
        .filters
        .iter()
        .any(|f| matches!(f, Filter::Redirect(_)));
    if !filters.is_empty() {
        out.insert("filters".into(), json!(filters));
    }
    if !redirects {
        let backends = rule.backends.iter();
        let backends: Vec<Value> = backends
            .filter_map(|b| of_backend(b, service, unsayable))
            .collect();
        out.insert("backendRefs".into(), json!(backends));
    }
    let traffic = &rule.traffic;
    if traffic.retry.is_some() || traffic.fault.is_some() || traffic.session.is_some() {
        unsayable.push("retries, faults and sessions are not translated to an HTTPRoute".into());
    }
    let times = [
        ("request", traffic.timeouts.request_ms),
        ("backendRequest", traffic.timeouts.attempt_ms),
    ];
    let times = times
        .into_iter()
        .filter_map(|(field, ms)| Some((field.to_owned(), json!(duration(ms?)))));
    let times: Map<String, Value> = times.collect();
    if !times.is_empty() {
        out.insert("timeouts".into(), Value::Object(times));
    }
    Value::Object(out)
}

fn of_match(wanted: &HttpMatch, several: bool, unsayable: &mut Unsayable) -> Value {
    let (kind, value) = match &wanted.path {
        PathMatch::Exact(path) => ("Exact", path.to_string()),
        PathMatch::Prefix(path) if path.is_empty() => ("PathPrefix", "/".to_owned()),
        PathMatch::Prefix(path) => ("PathPrefix", path.to_string()),
        PathMatch::Begins { text, .. } if **text == *"/" => ("PathPrefix", "/".to_owned()),
        PathMatch::Begins { .. } => {
            unsayable.push("a prefix of an HTTPRoute is of whole segments".into());
            ("PathPrefix", "/".to_owned())
        }
        PathMatch::Regex(pattern) => {
            if several {
                unsayable.push("the order of expressions is not defined for HTTPRoutes".into());
            }
            if pattern.in_any_case().is_some() {
                unsayable.push("an HTTPRoute compares paths with their case".into());
            }
            ("RegularExpression", re2(pattern, unsayable).to_owned())
        }
    };
    let is_expression = matches!(wanted.path, PathMatch::Regex(_));
    if value.len() > PATH_BYTES_MAX || !is_expression && !is_path(&value) {
        unsayable.push(format!("an HTTPRoute takes no path '{value}'"));
    }
    if wanted.more.is_some() {
        unsayable.push("an HTTPRoute asks neither for callers, claims nor absent headers".into());
    }
    let mut out = Map::new();
    out.insert("path".into(), json!({"type": kind, "value": value}));
    if let Some(method) = &wanted.method {
        out.insert("method".into(), json!(method.as_str()));
    }
    let mut headers = Vec::new();
    for header in &wanted.headers {
        if is_host(&header.name) {
            unsayable
                .push("the Host of a request to a Service is not a header to an HTTPRoute".into());
        }
        let name = header.name.as_str();
        headers.push(named(name, &header.value, HEADER_BYTES_MAX, unsayable));
    }
    if !headers.is_empty() {
        out.insert("headers".into(), json!(headers));
    }
    let query: Vec<Value> = wanted
        .query
        .iter()
        .map(|q| named(&q.name, &q.value, PARAMETER_BYTES_MAX, unsayable))
        .collect();
    if !query.is_empty() {
        out.insert("queryParams".into(), json!(query));
    }
    Value::Object(out)
}

fn named(name: &str, value: &TextMatch, bytes_max: usize, unsayable: &mut Unsayable) -> Value {
    let (kind, value) = match value {
        TextMatch::Exact(text) => ("Exact", text.to_string()),
        TextMatch::Regex(pattern) => ("RegularExpression", re2(pattern, unsayable).to_owned()),
        TextMatch::Present | TextMatch::Prefix(_) => {
            unsayable.push("an HTTPRoute compares whole values".into());
            ("Exact", String::new())
        }
    };
    check_value(&value, bytes_max, unsayable);
    json!({"type": kind, "name": name, "value": value})
}

fn of_filter(filter: &Filter, service: &Service, unsayable: &mut Unsayable) -> Option<Value> {
    match filter {
        Filter::RequestHeaders(change) => {
            let changes = changes(change, unsayable);
            Some(json!({"type": "RequestHeaderModifier", "requestHeaderModifier": changes}))
        }
        Filter::ResponseHeaders(change) => {
            let changes = changes(change, unsayable);
            Some(json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": changes}))
        }
        Filter::Redirect(redirect) => {
            let redirect = of_redirect(redirect, unsayable);
            Some(json!({"type": "RequestRedirect", "requestRedirect": redirect}))
        }
        Filter::Rewrite(rewrite) => {
            let mut out = Map::new();
            if let Some(host) = &rewrite.hostname {
                out.insert("hostname".into(), json!(text(host, unsayable)));
            }
            if let Some(path) = &rewrite.path {
                out.insert("path".into(), of_path(path, unsayable));
            }
            Some(json!({"type": "URLRewrite", "urlRewrite": out}))
        }
        Filter::Mirror(mirror) => Some(of_mirror(mirror, service, unsayable)),
        Filter::Cors(_) | Filter::ExternalAuth(_) | Filter::Respond(_) => {
            unsayable.push(
                "CORS, external authorization and answers of its own are not translated".into(),
            );
            None
        }
    }
}

fn of_mirror(mirror: &Mirror, service: &Service, unsayable: &mut Unsayable) -> Value {
    let target = &mirror.target;
    if target.service.namespace != service.key.namespace || target.subset.is_some() {
        unsayable.push("copies for another namespace or a subset are not translated".into());
    }
    let backend = json!({"name": target.service.name, "port": target.port});
    let share = json!({"numerator": mirror.numerator, "denominator": mirror.denominator});
    json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend, "fraction": share}})
}

fn of_path(path: &PathRewrite, unsayable: &mut Unsayable) -> Value {
    match path {
        PathRewrite::Full(text) => json!({"type": "ReplaceFullPath", "replaceFullPath": text}),
        PathRewrite::Prefix(text) => {
            json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": text})
        }
        PathRewrite::Matched(_) | PathRewrite::Regex(..) => {
            unsayable
                .push("an HTTPRoute rewrites whole paths, and prefixes of whole segments".into());
            json!({"type": "ReplaceFullPath", "replaceFullPath": "/"})
        }
    }
}

fn of_redirect(redirect: &Redirect, unsayable: &mut Unsayable) -> Value {
    let mut out = Map::new();
    if let Some(scheme) = redirect.scheme {
        out.insert("scheme".into(), json!(scheme));
    }
    if let Some(host) = &redirect.hostname {
        out.insert("hostname".into(), json!(host));
    }
    if let Some(port) = redirect.port {
        out.insert("port".into(), json!(port));
    }
    if let Some(path) = &redirect.path {
        out.insert("path".into(), of_path(path, unsayable));
    }
    out.insert("statusCode".into(), json!(redirect.status.as_u16()));
    Value::Object(out)
}

fn changes(change: &HeaderChange, unsayable: &mut Unsayable) -> Value {
    let mut out = Map::new();
    for (field, list) in [("set", &change.set), ("add", &change.add)] {
        let pairs = list.iter();
        let pairs = pairs.map(|(name, value)| {
            let value = text(value, unsayable);
            check_value(&value, HEADER_BYTES_MAX, unsayable);
            json!({"name": name.as_str(), "value": value})
        });
        let pairs: Vec<Value> = pairs.collect();
        if !pairs.is_empty() {
            out.insert(field.into(), json!(pairs));
        }
    }
    let removed: Vec<&str> = change.remove.iter().map(|name| name.as_str()).collect();
    if !removed.is_empty() {
        out.insert("remove".into(), json!(removed));
    }
    Value::Object(out)
}

fn of_backend(backend: &Backend, service: &Service, unsayable: &mut Unsayable) -> Option<Value> {
    let key = cluster(backend, unsayable)?;
    if let Some(subset) = &key.subset {
        unsayable.push(format!(
            "the subset {subset} needs a Service of its own: make one with its labels"
        ));
    }
    if key.service.namespace != service.key.namespace {
        unsayable.push("a backend in another namespace needs a ReferenceGrant".into());
    }
    let mut out = Map::new();
    out.insert("name".into(), json!(key.service.name));
    out.insert("port".into(), json!(key.port));
    out.insert("weight".into(), json!(backend.weight));
    let filters: Vec<Value> = backend
        .filters
        .iter()
        .filter_map(|f| of_filter(f, service, unsayable))
        .collect();
    if !filters.is_empty() {
        out.insert("filters".into(), json!(filters));
    }
    Some(Value::Object(out))
}
