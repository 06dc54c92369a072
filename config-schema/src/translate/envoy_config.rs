//! Routes of one port of a Service, as resolved, written as a CiliumEnvoyConfig. What it can not say is
//! returned, and whoever calls this compares what comes of it (`routes`).

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::route_rules::{
    Unsayable, cluster, clusters, is_host, re2, retry_words, substitution, text,
};
use crate::snapshot::{
    Backend, ClusterKey, Filter, HeaderChange, HttpMatch, HttpRule, Mirror, PathMatch, PathRewrite,
    Redirect, RetryPolicy, RuleTraffic, Service, TextMatch,
};

const TYPES: &str = "type.googleapis.com/envoy";

/// `spec` of the CiliumEnvoyConfig with this name, for the rules of a port. Envoy's routes name the ports
/// they lead to, so that each port has one of its own.
pub(super) fn spec(
    name: &str,
    service: &Service,
    port: u16,
    rules: &[HttpRule],
    unsayable: &mut Unsayable,
) -> Value {
    let mut routes = Vec::new();
    for rule in rules {
        routes.extend(of_rule(rule, unsayable));
    }
    let mut backends: Vec<&ClusterKey> = rules.iter().flat_map(clusters).collect();
    backends.sort();
    backends.dedup();
    let key = &service.key;
    if backends
        .iter()
        .any(|other| other.service.namespace != key.namespace)
    {
        unsayable.push("a CiliumEnvoyConfig leads to Services of its own namespace alone".into());
    }
    let backends: Vec<Value> = backends
        .iter()
        .map(|key| json!({"name": key.service.name, "namespace": key.service.namespace, "number": [key.port.to_string()]}))
        .collect();
    json!({
        "services": [{"name": key.name, "namespace": key.namespace, "listener": name, "ports": [port]}],
        "backendServices": backends,
        "resources": [listener(name), {
            "@type": format!("{TYPES}.config.route.v3.RouteConfiguration"),
            "name": name,
            "virtualHosts": [{"name": name, "domains": ["*"], "routes": routes}],
        }],
    })
}

/// A listener that takes the routes and does nothing else.
fn listener(name: &str) -> Value {
    let network = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "extensions.filters.http.router.v3.Router";
    json!({
        "@type": format!("{TYPES}.config.listener.v3.Listener"),
        "name": name,
        "filterChains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typedConfig": {
                "@type": format!("{TYPES}.{network}"),
                "statPrefix": name,
                "rds": {"routeConfigName": name},
                "useRemoteAddress": true,
                "skipXffAppend": true,
                // As Istio's listeners have it: without it Envoy answers requests for WebSockets itself.
                "upgradeConfigs": [{"upgradeType": "websocket"}],
                "httpFilters": [{
                    "name": "envoy.filters.http.router",
                    "typedConfig": {"@type": format!("{TYPES}.{router}")},
                }],
            },
        }]}],
    })
}

/// The routes of a rule: one for each of its matches, with the same action.
fn of_rule(rule: &HttpRule, unsayable: &mut Unsayable) -> Vec<Value> {
    if let Some(why) = &rule.broken {
        unsayable.push(format!("it is in error: {why}"));
    }
    let mut beside = Map::new();
    let (kind, action) = act(rule, &mut beside, unsayable);
    beside.insert(kind.into(), action);
    let mut routes = Vec::new();
    for wanted in &rule.matches {
        let mut route = Map::new();
        route.insert("match".into(), of_match(wanted, unsayable));
        route.extend(beside.clone());
        routes.push(Value::Object(route));
    }
    routes
}

fn of_match(wanted: &HttpMatch, unsayable: &mut Unsayable) -> Value {
    let mut out = Map::new();
    match &wanted.path {
        PathMatch::Exact(path) => drop(out.insert("path".into(), json!(path))),
        PathMatch::Prefix(path) if path.is_empty() => drop(out.insert("prefix".into(), json!("/"))),
        PathMatch::Prefix(path) => drop(out.insert("pathSeparatedPrefix".into(), json!(path))),
        PathMatch::Begins { text, ignore_case } => {
            if *ignore_case {
                out.insert("caseSensitive".into(), json!(false));
            }
            out.insert("prefix".into(), json!(text));
        }
        PathMatch::Regex(pattern) => match pattern.in_any_case() {
            Some(path) => {
                out.insert("path".into(), json!(path));
                out.insert("caseSensitive".into(), json!(false));
            }
            None => {
                let regex = re2(pattern, unsayable);
                out.insert("safeRegex".into(), json!({"regex": regex}));
            }
        },
    }
    if wanted.method.is_some() {
        unsayable.push("conditions on the method are not read in a CiliumEnvoyConfig".into());
    }
    let mut headers = Vec::new();
    if let Some(more) = &wanted.more {
        let present = |h: &crate::snapshot::HeaderMatch| h.value == TextMatch::Present;
        let others = more.method.is_some()
            || more.caller_namespace.is_some()
            || !more.caller_labels.is_empty()
            || !more.claims.is_empty()
            || !more.without_claims.is_empty()
            || !more.without_headers.iter().all(present);
        if others {
            unsayable.push("conditions on the caller, on claims, on the method and on values that a header must not have can not be asked of Envoy's routes".into());
        }
        let absent = more.without_headers.iter();
        headers.extend(
            absent.map(
                |h| json!({"name": h.name.as_str(), "presentMatch": true, "invertMatch": true}),
            ),
        );
    }
    headers.extend(wanted.headers.iter().map(|header| {
        let name = if is_host(&header.name) {
            ":authority"
        } else {
            header.name.as_str()
        };
        named(name, &header.value, unsayable)
    }));
    if !headers.is_empty() {
        out.insert("headers".into(), json!(headers));
    }
    let query: Vec<Value> = wanted
        .query
        .iter()
        .map(|q| named(&q.name, &q.value, unsayable))
        .collect();
    if !query.is_empty() {
        out.insert("queryParameters".into(), json!(query));
    }
    Value::Object(out)
}

fn named(name: &str, value: &TextMatch, unsayable: &mut Unsayable) -> Value {
    match value {
        TextMatch::Present => json!({"name": name, "presentMatch": true}),
        TextMatch::Exact(text) => json!({"name": name, "stringMatch": {"exact": text}}),
        TextMatch::Prefix(text) => json!({"name": name, "stringMatch": {"prefix": text}}),
        TextMatch::Regex(pattern) => {
            let regex = re2(pattern, unsayable);
            json!({"name": name, "stringMatch": {"safeRegex": {"regex": regex}}})
        }
    }
}

/// What a rule does, as the one of `route`, `redirect` and `directResponse` that it is; what belongs
/// beside it goes into `beside`.
fn act(
    rule: &HttpRule,
    beside: &mut Map<String, Value>,
    unsayable: &mut Unsayable,
) -> (&'static str, Value) {
    let mut route = Map::new();
    let mut mirrors = Vec::new();
    for filter in &rule.filters {
        match filter {
            Filter::Redirect(redirect) => {
                return ("redirect", of_redirect(redirect, unsayable));
            }
            Filter::Respond(answer) => {
                let mut response = Map::new();
                response.insert("status".into(), json!(answer.status.as_u16()));
                match std::str::from_utf8(&answer.body) {
                    Ok("") => {}
                    Ok(body) => drop(response.insert("body".into(), json!({"inlineString": body}))),
                    Err(_) => unsayable.push("an answer of its own that is no text".into()),
                }
                return ("directResponse", Value::Object(response));
            }
            Filter::RequestHeaders(change) => change_headers("request", change, beside, unsayable),
            Filter::ResponseHeaders(change) => {
                change_headers("response", change, beside, unsayable)
            }
            Filter::Rewrite(rewrite) => {
                if let Some(host) = &rewrite.hostname {
                    route.insert("hostRewriteLiteral".into(), json!(text(host, unsayable)));
                }
                let path = rewrite.path.as_ref();
                route.extend(path.map(|path| rewritten(path, unsayable)));
            }
            Filter::Mirror(mirror) => mirrors.push(of_mirror(mirror, unsayable)),
            Filter::Cors(_) | Filter::ExternalAuth(_) => {
                unsayable.push("CORS and external authorization are not translated".into());
            }
        }
    }
    if !mirrors.is_empty() {
        route.insert("requestMirrorPolicies".into(), json!(mirrors));
    }
    of_backends(&rule.backends, &mut route, unsayable);
    of_traffic(&rule.traffic, &mut route, unsayable);
    ("route", Value::Object(route))
}

fn of_redirect(redirect: &Redirect, unsayable: &mut Unsayable) -> Value {
    let mut out = Map::new();
    if let Some(scheme) = redirect.scheme {
        out.insert("schemeRedirect".into(), json!(scheme));
    }
    if let Some(host) = &redirect.hostname {
        out.insert("hostRedirect".into(), json!(host));
    }
    if let Some(port) = redirect.port {
        out.insert("portRedirect".into(), json!(port));
    }
    out.extend(redirect.path.as_ref().map(|path| match path {
        PathRewrite::Full(path) => ("pathRedirect".to_owned(), json!(path)),
        other => rewritten(other, unsayable),
    }));
    let code = match redirect.status {
        StatusCode::FOUND => "FOUND",
        StatusCode::SEE_OTHER => "SEE_OTHER",
        StatusCode::TEMPORARY_REDIRECT => "TEMPORARY_REDIRECT",
        StatusCode::PERMANENT_REDIRECT => "PERMANENT_REDIRECT",
        _ => "MOVED_PERMANENTLY",
    };
    out.insert("responseCode".into(), json!(code));
    Value::Object(out)
}

fn rewritten(path: &PathRewrite, unsayable: &mut Unsayable) -> (String, Value) {
    let (pattern, by) = match path {
        PathRewrite::Prefix(text) | PathRewrite::Matched(text) => {
            return ("prefixRewrite".to_owned(), json!(text));
        }
        PathRewrite::Full(text) => ("^/.*$", text.replace('\\', "\\\\")),
        PathRewrite::Regex(pattern, text) => (re2(pattern, unsayable), substitution(text)),
    };
    let value = json!({"pattern": {"regex": pattern}, "substitution": by});
    ("regexRewrite".to_owned(), value)
}

fn change_headers(
    side: &str,
    change: &HeaderChange,
    out: &mut Map<String, Value>,
    unsayable: &mut Unsayable,
) {
    let mut added = Vec::new();
    let actions = [
        (&change.set, "OVERWRITE_IF_EXISTS_OR_ADD"),
        (&change.add, "APPEND_IF_EXISTS_OR_ADD"),
    ];
    for (list, action) in actions {
        let pair = |(name, value): &(HeaderName, HeaderValue)| {
            let header = json!({"key": name.as_str(), "value": text(value, unsayable)});
            json!({"header": header, "appendAction": action})
        };
        added.extend(list.iter().map(pair));
    }
    if !added.is_empty() {
        out.insert(format!("{side}HeadersToAdd"), json!(added));
    }
    let removed: Vec<&str> = change.remove.iter().map(HeaderName::as_str).collect();
    if !removed.is_empty() {
        out.insert(format!("{side}HeadersToRemove"), json!(removed));
    }
}

fn of_mirror(mirror: &Mirror, unsayable: &mut Unsayable) -> Value {
    let denominator = match mirror.denominator {
        100 => "HUNDRED",
        10_000 => "TEN_THOUSAND",
        1_000_000 => "MILLION",
        _ => {
            unsayable.push(
                "Envoy counts shares of copies in hundredths, ten-thousandths and millionths"
                    .into(),
            );
            "MILLION"
        }
    };
    let share = json!({"numerator": mirror.numerator, "denominator": denominator});
    json!({
        "cluster": named_cluster(&mirror.target, unsayable),
        "runtimeFraction": {"defaultValue": share},
    })
}

fn named_cluster(key: &ClusterKey, unsayable: &mut Unsayable) -> String {
    if let Some(subset) = &key.subset {
        unsayable.push(format!(
            "the subset {subset} needs a Service of its own at Cilium: make one with its labels"
        ));
    }
    format!("{}:{}", key.service, key.port)
}

fn of_backends(backends: &[Backend], route: &mut Map<String, Value>, unsayable: &mut Unsayable) {
    let mut clusters = Vec::new();
    for backend in backends {
        let Some(key) = cluster(backend, unsayable) else {
            continue;
        };
        let mut item = Map::new();
        item.insert("name".into(), json!(named_cluster(key, unsayable)));
        item.insert("weight".into(), json!(backend.weight));
        for filter in &backend.filters {
            match filter {
                Filter::RequestHeaders(change) => {
                    change_headers("request", change, &mut item, unsayable);
                }
                Filter::ResponseHeaders(change) => {
                    change_headers("response", change, &mut item, unsayable);
                }
                _ => unsayable.push("for one destination only headers can be changed".into()),
            }
        }
        clusters.push(Value::Object(item));
    }
    route.insert("weightedClusters".into(), json!({"clusters": clusters}));
}

fn of_traffic(traffic: &RuleTraffic, route: &mut Map<String, Value>, unsayable: &mut Unsayable) {
    // Envoy's own default is 15 seconds.
    let timeout = traffic.timeouts.request_ms.unwrap_or(0);
    route.insert("timeout".into(), json!(seconds(timeout)));
    if traffic.fault.is_some() || traffic.session.is_some() {
        unsayable.push("faults and sessions are not translated".into());
    }
    if let Some(policy) = &traffic.retry {
        let attempt = traffic.timeouts.attempt_ms;
        route.insert("retryPolicy".into(), of_retry(policy, attempt));
    }
}

fn of_retry(policy: &RetryPolicy, attempt_ms: Option<u64>) -> Value {
    let (mut words, statuses) = retry_words(&policy.on);
    let mut retry = Map::new();
    if !statuses.is_empty() {
        words.push("retriable-status-codes");
        retry.insert("retriableStatusCodes".into(), json!(statuses));
    }
    retry.insert("retryOn".into(), json!(words.join(",")));
    retry.insert("numRetries".into(), json!(policy.retries_max));
    if let Some(ms) = attempt_ms {
        retry.insert("perTryTimeout".into(), json!(seconds(ms)));
    }
    if policy.back_off.spread_ms > 0 {
        let (base, most) = (policy.back_off.spread_ms, policy.back_off.at_most_ms);
        let value = json!({"baseInterval": seconds(base), "maxInterval": seconds(most)});
        retry.insert("retryBackOff".into(), value);
    }
    Value::Object(retry)
}

/// A duration as protobuf's JSON has it.
fn seconds(ms: u64) -> String {
    match ms % 1_000 {
        0 => format!("{}s", ms / 1_000),
        rest => format!("{}.{rest:03}s", ms / 1_000),
    }
}
