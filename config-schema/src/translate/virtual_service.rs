//! Routes of a Service, as resolved, written as a VirtualService. What it can not say is returned, and
//! whoever calls this compares what comes of it (`routes`).

use serde_json::{Map, Value, json};

use super::route_rules::{
    Unsayable, changes, cluster, is_host, is_of_producer, re2, retry_words, substitution, text,
};
use crate::snapshot::{
    BackOff, Backend, ClusterKey, Filter, HttpMatch, HttpRule, MoreConditions, PathMatch,
    PathRewrite, Redirect, RuleTraffic, Service, ServicePort, TextMatch,
};

/// `spec` of the VirtualService for these rules of ports.
pub(super) fn spec(
    service: &Service,
    ports: &[(u16, &[HttpRule])],
    domain: &str,
    unsayable: &mut Unsayable,
) -> Value {
    let mut http = Vec::new();
    for (port, rules) in ports {
        for rule in rules.iter().filter(|rule| !rule.matches.is_empty()) {
            http.push(of_rule(rule, *port, domain, unsayable));
        }
    }
    // It is for all ports of the host: those without routes go where they went, and what is written for
    // those of other objects must not be hidden. Routes of consumers are for their own callers alone.
    let own = |number: u16| ports.iter().any(|(port, _)| *port == number);
    let others = service.ports.iter();
    let has_routes = |port: &ServicePort| {
        let mut routes = port.routes.iter();
        routes.any(|route| is_of_producer(route, &service.key))
    };
    for port in others.filter(|port| !own(port.number) && !has_routes(port)) {
        let key = ClusterKey::new(service.key.clone(), port.number);
        let route = json!([{"destination": destination(&key, domain)}]);
        http.push(json!({"match": [{"port": port.number}], "route": route}));
    }
    json!({"hosts": [&*service.hostname], "http": http})
}

fn of_rule(rule: &HttpRule, port: u16, domain: &str, unsayable: &mut Unsayable) -> Value {
    if let Some(why) = &rule.broken {
        unsayable.push(format!("it is in error: {why}"));
    }
    let mut matches = Vec::new();
    for wanted in &rule.matches {
        matches.extend(of_match(wanted, port, unsayable));
    }
    let mut out = Map::new();
    out.insert("match".into(), json!(matches));
    for filter in &rule.filters {
        of_filter(filter, domain, &mut out, unsayable);
    }
    if !out.contains_key("redirect") && !out.contains_key("directResponse") {
        let backends = of_backends(&rule.backends, domain, unsayable);
        out.insert("route".into(), backends);
        of_traffic(&rule.traffic, &mut out);
    }
    Value::Object(out)
}

/// A match as one or two of a VirtualService, whose prefix knows no segments.
fn of_match(wanted: &HttpMatch, port: u16, unsayable: &mut Unsayable) -> Vec<Value> {
    let mut out = Map::new();
    out.insert("port".into(), json!(port));
    if let Some(method) = &wanted.method {
        out.insert("method".into(), json!({"exact": method.as_str()}));
    }
    let mut headers = Map::new();
    for header in &wanted.headers {
        let value = of_text(&header.value, unsayable);
        match is_host(&header.name) {
            true => drop(out.insert("authority".into(), value)),
            false => drop(headers.insert(header.name.to_string(), value)),
        }
    }
    if !headers.is_empty() {
        out.insert("headers".into(), Value::Object(headers));
    }
    let query = wanted.query.iter();
    let query: Map<String, Value> = query
        .map(|q| (q.name.to_string(), of_text(&q.value, unsayable)))
        .collect();
    if !query.is_empty() {
        out.insert("queryParams".into(), Value::Object(query));
    }
    if let Some(more) = &wanted.more {
        of_more(more, &mut out, unsayable);
    }
    let with = |uri: Value| {
        let mut out = out.clone();
        out.insert("uri".into(), uri);
        Value::Object(out)
    };
    match &wanted.path {
        PathMatch::Prefix(path) if path.is_empty() => vec![Value::Object(out)],
        PathMatch::Exact(path) => vec![with(json!({"exact": path}))],
        PathMatch::Regex(pattern) => match pattern.in_any_case() {
            Some(path) => {
                out.insert("uri".into(), json!({"exact": path}));
                out.insert("ignoreUriCase".into(), json!(true));
                vec![Value::Object(out)]
            }
            None => vec![with(json!({"regex": re2(pattern, unsayable)}))],
        },
        PathMatch::Prefix(path) => vec![
            with(json!({"exact": path})),
            with(json!({"prefix": format!("{path}/")})),
        ],
        PathMatch::Begins { text, ignore_case } => {
            if *ignore_case {
                out.insert("ignoreUriCase".into(), json!(true));
            }
            out.insert("uri".into(), json!({"prefix": text}));
            vec![Value::Object(out)]
        }
    }
}

fn of_more(more: &MoreConditions, out: &mut Map<String, Value>, unsayable: &mut Unsayable) {
    if let Some(method) = &more.method {
        out.insert("method".into(), of_text(method, unsayable));
    }
    let without = more.without_headers.iter();
    let without: Map<String, Value> = without
        .map(|h| (h.name.to_string(), of_text(&h.value, unsayable)))
        .collect();
    if !without.is_empty() {
        out.insert("withoutHeaders".into(), Value::Object(without));
    }
    let of_caller = more.caller_namespace.is_some() || !more.caller_labels.is_empty();
    if of_caller || !more.claims.is_empty() || !more.without_claims.is_empty() {
        unsayable.push("conditions on the caller are not translated".into());
    }
}

fn of_text(value: &TextMatch, unsayable: &mut Unsayable) -> Value {
    match value {
        TextMatch::Present => json!({}),
        TextMatch::Exact(text) => json!({"exact": text}),
        TextMatch::Prefix(text) => json!({"prefix": text}),
        TextMatch::Regex(pattern) => json!({"regex": re2(pattern, unsayable)}),
    }
}

fn of_filter(
    filter: &Filter,
    domain: &str,
    out: &mut Map<String, Value>,
    unsayable: &mut Unsayable,
) {
    match filter {
        Filter::Redirect(redirect) => {
            out.insert("redirect".into(), of_redirect(redirect, unsayable));
        }
        Filter::Respond(answer) => {
            let Ok(body) = std::str::from_utf8(&answer.body) else {
                return unsayable.push("an answer of its own that is no text".into());
            };
            let mut response = Map::new();
            response.insert("status".into(), json!(answer.status.as_u16()));
            if !body.is_empty() {
                response.insert("body".into(), json!({"string": body}));
            }
            out.insert("directResponse".into(), Value::Object(response));
        }
        Filter::RequestHeaders(change) => side("request", changes(change, unsayable), out),
        Filter::ResponseHeaders(change) => side("response", changes(change, unsayable), out),
        Filter::Rewrite(rewrite) => {
            let mut written = Map::new();
            if let Some(host) = &rewrite.hostname {
                written.insert("authority".into(), json!(text(host, unsayable)));
            }
            match &rewrite.path {
                None => {}
                Some(PathRewrite::Regex(pattern, text)) => {
                    let value =
                        json!({"match": re2(pattern, unsayable), "rewrite": substitution(text)});
                    written.insert("uriRegexRewrite".into(), value);
                }
                Some(PathRewrite::Full(t) | PathRewrite::Prefix(t) | PathRewrite::Matched(t)) => {
                    written.insert("uri".into(), json!(t));
                }
            }
            out.insert("rewrite".into(), Value::Object(written));
        }
        Filter::Mirror(mirror) => {
            let share = f64::from(mirror.numerator) * 100.0 / f64::from(mirror.denominator.max(1));
            let target = destination(&mirror.target, domain);
            let item = json!({"destination": target, "percentage": {"value": share}});
            let mirrors = out.entry("mirrors").or_insert_with(|| json!([]));
            if let Value::Array(list) = mirrors {
                list.push(item);
            }
        }
        Filter::Cors(_) | Filter::ExternalAuth(_) => {
            unsayable.push("CORS and external authorization are not translated".into());
        }
    }
}

fn side(side: &str, changes: Value, out: &mut Map<String, Value>) {
    let headers = out.entry("headers").or_insert_with(|| json!({}));
    if let Value::Object(headers) = headers {
        headers.insert(side.to_owned(), changes);
    }
}

fn of_redirect(redirect: &Redirect, unsayable: &mut Unsayable) -> Value {
    let mut out = Map::new();
    if let Some(scheme) = redirect.scheme {
        out.insert("scheme".into(), json!(scheme));
    }
    if let Some(host) = &redirect.hostname {
        out.insert("authority".into(), json!(host));
    }
    if let Some(port) = redirect.port {
        out.insert("port".into(), json!(port));
    }
    match &redirect.path {
        None => {}
        Some(PathRewrite::Full(path)) => drop(out.insert("uri".into(), json!(path))),
        Some(PathRewrite::Prefix(path) | PathRewrite::Matched(path)) => {
            out.insert("prefixRewrite".into(), json!(path));
        }
        Some(PathRewrite::Regex(..)) => {
            unsayable.push("a VirtualService redirects to no path made by an expression".into());
        }
    }
    out.insert("redirectCode".into(), json!(redirect.status.as_u16()));
    Value::Object(out)
}

fn destination(key: &ClusterKey, domain: &str) -> Value {
    let service = &key.service;
    let host = format!("{}.{}.svc.{domain}", service.name, service.namespace);
    let mut written = Map::new();
    written.insert("host".into(), json!(host));
    written.insert("port".into(), json!({"number": key.port}));
    if let Some(subset) = &key.subset {
        written.insert("subset".into(), json!(subset));
    }
    Value::Object(written)
}

fn of_backends(backends: &[Backend], domain: &str, unsayable: &mut Unsayable) -> Value {
    let mut list = Vec::new();
    for backend in backends {
        let Some(key) = cluster(backend, unsayable) else {
            continue;
        };
        let mut item = Map::new();
        item.insert("destination".into(), destination(key, domain));
        item.insert("weight".into(), json!(backend.weight));
        for filter in &backend.filters {
            match filter {
                Filter::RequestHeaders(change) => {
                    side("request", changes(change, unsayable), &mut item);
                }
                Filter::ResponseHeaders(change) => {
                    side("response", changes(change, unsayable), &mut item);
                }
                _ => unsayable.push("for one destination only headers can be changed".into()),
            }
        }
        list.push(Value::Object(item));
    }
    json!(list)
}

fn of_traffic(traffic: &RuleTraffic, out: &mut Map<String, Value>) {
    if let Some(ms) = traffic.timeouts.request_ms {
        out.insert("timeout".into(), json!(format!("{ms}ms")));
    }
    let Some(policy) = &traffic.retry else {
        return;
    };
    let (words, statuses) = retry_words(&policy.on);
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    words.extend(statuses.iter().map(u16::to_string));
    let mut retries = Map::new();
    retries.insert("attempts".into(), json!(policy.retries_max));
    retries.insert("retryOn".into(), json!(words.join(",")));
    if let Some(ms) = traffic.timeouts.attempt_ms {
        retries.insert("perTryTimeout".into(), json!(format!("{ms}ms")));
    }
    let base_ms = policy.back_off.spread_ms;
    if policy.back_off == BackOff::from_base(base_ms) && policy.back_off != BackOff::default() {
        retries.insert("backoff".into(), json!(format!("{base_ms}ms")));
    }
    out.insert("retries".into(), Value::Object(retries));
}
