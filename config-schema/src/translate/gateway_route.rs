//! Routes of one port of a Service, as resolved, written as an HTTPRoute. Its rules are asked by what is
//! most specific, and those of others in the order written: only where both are the same it is written.

use serde_json::{Map, Value, json};

use super::route_rules::{Unsayable, cluster, is_host, text};
use crate::snapshot::{
    Backend, Filter, HeaderChange, HttpMatch, HttpRule, Mirror, PathMatch, PathRewrite, Redirect,
    Service, TextMatch,
};

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
        .filter_map(|(field, ms)| Some((field.to_owned(), json!(format!("{}ms", ms?)))));
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
            ("RegularExpression", pattern.source().to_owned())
        }
    };
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
        headers.push(named(header.name.as_str(), &header.value, unsayable));
    }
    if !headers.is_empty() {
        out.insert("headers".into(), json!(headers));
    }
    let query: Vec<Value> = wanted
        .query
        .iter()
        .map(|q| named(&q.name, &q.value, unsayable))
        .collect();
    if !query.is_empty() {
        out.insert("queryParams".into(), json!(query));
    }
    Value::Object(out)
}

fn named(name: &str, value: &TextMatch, unsayable: &mut Unsayable) -> Value {
    let (kind, value) = match value {
        TextMatch::Exact(text) => ("Exact", text.to_string()),
        TextMatch::Regex(pattern) => ("RegularExpression", pattern.source().to_owned()),
        TextMatch::Present | TextMatch::Prefix(_) => {
            unsayable.push("an HTTPRoute compares whole values".into());
            ("Exact", String::new())
        }
    };
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
        let pairs = pairs
            .map(|(name, value)| json!({"name": name.as_str(), "value": text(value, unsayable)}));
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
