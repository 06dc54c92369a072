//! VirtualServices as CiliumEnvoyConfigs: one for each port of a Service, for Envoy's routes name the ports they
//! lead to. Routes are read as resolved; one that Envoy's part of it can not say stays as it is.

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{
    Backend, BackendTarget, ClusterKey, Filter, HeaderChange, HttpMatch, HttpRoute, HttpRule,
    Mirror, PathMatch, PathRewrite, Redirect, RetryPolicy, RuleTraffic, Service, TextMatch,
};
use http::StatusCode;
use http::header::{HOST, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{Effect, Notes, Source, Translation};

const TYPES: &str = "type.googleapis.com/envoy";

/// Writes every VirtualService that can be written.
pub(super) fn translate(source: Source<'_>, out: &mut Translation) {
    for object in source
        .resources
        .virtual_services
        .values()
        .filter_map(|l| l.object())
    {
        let mut notes = Notes::of(&object.origin);
        let ports: Vec<Port<'_>> = ports(source, &object.origin).collect();
        if ports.is_empty() {
            let message = "it routes no HTTP port of a Service of this waypoint";
            notes.add(Effect::NotTranslated, "spec", message);
        }
        let several = ports.len() > 1;
        let objects = ports
            .iter()
            .map(|port| of_port(&object.origin, port, several, &mut notes));
        let objects = objects.collect();
        out.take(notes, objects);
    }
}

struct Port<'a> {
    service: &'a Service,
    number: u16,
    route: &'a HttpRoute,
}

fn ports<'a>(source: Source<'a>, origin: &'a Origin) -> impl Iterator<Item = Port<'a>> {
    source.snapshot.services.values().flat_map(move |service| {
        service.ports.iter().flat_map(move |port| {
            let routes = port
                .routes
                .iter()
                .filter(move |route| route.origin == *origin);
            routes.map(move |route| Port {
                service,
                number: port.number,
                route,
            })
        })
    })
}

fn of_port(origin: &Origin, port: &Port<'_>, several: bool, notes: &mut Notes<'_>) -> Value {
    let (service, name) = (&port.service.key, &origin.key.name);
    let name = match several {
        true => format!("{name}-{}-{}", service.name, port.number),
        false => name.to_string(),
    };
    if service.namespace != origin.key.namespace || port.service.is_entry() {
        let message =
            format!("a CiliumEnvoyConfig is for Services of its own namespace, not for {service}");
        notes.add(Effect::NotTranslated, "spec.hosts", message);
    }
    let mut routes = Vec::new();
    let mut backends: Vec<&ClusterKey> = Vec::new();
    for (index, rule) in port.route.rules.iter().enumerate() {
        let at = format!("spec.http[{index}]");
        routes.extend(of_rule(rule, &at, notes));
        let targets = rule
            .backends
            .iter()
            .filter_map(|backend| match &backend.target {
                BackendTarget::Cluster(key) => Some(key),
                BackendTarget::Invalid(_) | BackendTarget::Unknown(_) => None,
            });
        let mirrors = rule.filters.iter().filter_map(|filter| match filter {
            Filter::Mirror(mirror) => Some(&mirror.target),
            _ => None,
        });
        backends.extend(targets.chain(mirrors));
    }
    backends.sort();
    backends.dedup();
    let others: Vec<Value> = backends.iter().map(|key| {
        json!({"name": &*key.service.name, "namespace": &*key.service.namespace, "number": [key.port.to_string()]})
    }).collect();
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEnvoyConfig",
        "metadata": {"name": name, "namespace": &*origin.key.namespace},
        "spec": {
            "services": [{"name": &*service.name, "namespace": &*service.namespace, "listener": name, "ports": [port.number]}],
            "backendServices": others,
            "resources": [listener(&name), {
                "@type": format!("{TYPES}.config.route.v3.RouteConfiguration"),
                "name": name,
                "virtualHosts": [{"name": name, "domains": ["*"], "routes": routes}],
            }],
        },
    })
}

/// A listener that takes the routes and does nothing else.
fn listener(name: &str) -> Value {
    let network = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
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
                "httpFilters": [{
                    "name": "envoy.filters.http.router",
                    "typedConfig": {"@type": format!("{TYPES}.extensions.filters.http.router.v3.Router")},
                }],
            },
        }]}],
    })
}

/// The routes of a rule: one for each of its matches, with the same action.
fn of_rule(rule: &HttpRule, at: &str, notes: &mut Notes<'_>) -> Vec<Value> {
    if let Some(reason) = &rule.broken {
        notes.add(
            Effect::NotTranslated,
            at,
            format!("the rule can not be honoured: {reason}"),
        );
    }
    let mut action = Map::new();
    let (kind, value) = act(rule, at, &mut action, notes);
    action.insert(kind.into(), value);
    let routes = rule.matches.iter().map(|wanted| {
        let mut route = Map::new();
        route.insert("match".into(), of_match(wanted, at, notes));
        route.extend(action.clone());
        Value::Object(route)
    });
    routes.collect()
}

fn of_match(wanted: &HttpMatch, at: &str, notes: &mut Notes<'_>) -> Value {
    let mut out = Map::new();
    match &wanted.path {
        PathMatch::Exact(path) => out.insert("path".into(), json!(&**path)),
        PathMatch::Prefix(path) if path.is_empty() => out.insert("prefix".into(), json!("/")),
        PathMatch::Prefix(path) => out.insert("pathSeparatedPrefix".into(), json!(&**path)),
        PathMatch::Begins { text, ignore_case } => {
            if *ignore_case {
                out.insert("caseSensitive".into(), json!(false));
            }
            out.insert("prefix".into(), json!(&**text))
        }
        PathMatch::Regex(pattern) => {
            out.insert("safeRegex".into(), json!({"regex": pattern.source()}))
        }
    };
    let mut headers = Vec::new();
    if let Some(method) = &wanted.method {
        headers.push(json!({"name": ":method", "stringMatch": {"exact": method.as_str()}}));
    }
    if let Some(more) = &wanted.more {
        let method = more.method.iter().map(|value| named(":method", value));
        headers.extend(method);
        let others = more.caller_namespace.is_some()
            || !more.claims.is_empty()
            || !more.without_claims.is_empty()
            || more
                .without_headers
                .iter()
                .any(|h| h.value != TextMatch::Present);
        if others {
            let message = "callers' namespaces, claims of tokens and values that a header must not have \
                           can not be asked of Envoy's routes";
            notes.add(Effect::NotTranslated, format!("{at}.match"), message);
        }
        headers.extend(more.without_headers.iter().map(|header| {
            json!({"name": header.name.as_str(), "presentMatch": true, "invertMatch": true})
        }));
    }
    headers.extend(wanted.headers.iter().map(|header| {
        let name = if header.name == HOST {
            ":authority"
        } else {
            header.name.as_str()
        };
        named(name, &header.value)
    }));
    if !headers.is_empty() {
        out.insert("headers".into(), json!(headers));
    }
    let query: Vec<Value> = wanted
        .query
        .iter()
        .map(|q| named(&q.name, &q.value))
        .collect();
    if !query.is_empty() {
        out.insert("queryParameters".into(), json!(query));
    }
    Value::Object(out)
}

fn named(name: &str, value: &TextMatch) -> Value {
    match value {
        TextMatch::Present => json!({"name": name, "presentMatch": true}),
        TextMatch::Exact(text) => json!({"name": name, "stringMatch": {"exact": &**text}}),
        TextMatch::Prefix(text) => json!({"name": name, "stringMatch": {"prefix": &**text}}),
        TextMatch::Regex(pattern) => {
            json!({"name": name, "stringMatch": {"safeRegex": {"regex": pattern.source()}}})
        }
    }
}

/// What a rule does, as the one of `route`, `redirect` and `directResponse` that it is; what belongs beside it goes
/// into `beside`.
fn act(
    rule: &HttpRule,
    at: &str,
    beside: &mut Map<String, Value>,
    notes: &mut Notes<'_>,
) -> (&'static str, Value) {
    let mut route = Map::new();
    let mut mirrors = Vec::new();
    for filter in &rule.filters {
        match filter {
            Filter::Redirect(redirect) => return ("redirect", of_redirect(redirect)),
            Filter::Respond(answer) => {
                let body = json!({"inlineString": &*answer.body});
                return (
                    "directResponse",
                    json!({"status": answer.status.as_u16(), "body": body}),
                );
            }
            Filter::RequestHeaders(change) => change_headers("request", change, beside),
            Filter::ResponseHeaders(change) => change_headers("response", change, beside),
            Filter::Rewrite(rewrite) => {
                let host = rewrite.hostname.as_ref().map(text);
                route.extend(host.map(|host| ("hostRewriteLiteral".to_owned(), json!(host))));
                route.extend(rewrite.path.as_ref().map(rewritten));
            }
            Filter::Mirror(mirror) => mirrors.push(of_mirror(mirror, at, notes)),
            Filter::Cors(_) | Filter::ExternalAuth(_) => {
                let message = "CORS and external authorization are filters of Envoy's listener, which are not written";
                notes.add(Effect::NotTranslated, at, message);
            }
        }
    }
    if !mirrors.is_empty() {
        route.insert("requestMirrorPolicies".into(), json!(mirrors));
    }
    of_backends(&rule.backends, at, &mut route, notes);
    of_traffic(&rule.traffic, at, &mut route, notes);
    ("route", Value::Object(route))
}

fn of_redirect(redirect: &Redirect) -> Value {
    let mut out = Map::new();
    let scheme = redirect
        .scheme
        .map(|scheme| ("schemeRedirect".to_owned(), json!(scheme)));
    out.extend(scheme);
    out.extend(
        redirect
            .hostname
            .as_ref()
            .map(|host| ("hostRedirect".to_owned(), json!(&**host))),
    );
    out.extend(
        redirect
            .port
            .map(|port| ("portRedirect".to_owned(), json!(port))),
    );
    out.extend(redirect.path.as_ref().map(|path| match path {
        PathRewrite::Full(path) => ("pathRedirect".to_owned(), json!(&**path)),
        other => rewritten(other),
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

fn rewritten(path: &PathRewrite) -> (String, Value) {
    let regex = |pattern: &str, substitution: String| {
        let value = json!({"pattern": {"regex": pattern}, "substitution": substitution});
        ("regexRewrite".to_owned(), value)
    };
    match path {
        PathRewrite::Prefix(text) | PathRewrite::Matched(text) => {
            ("prefixRewrite".to_owned(), json!(&**text))
        }
        PathRewrite::Full(text) => regex("^/.*$", text.replace('\\', "\\\\")),
        // `${1}` here, `\1` there.
        PathRewrite::Regex(pattern, text) => {
            let substitution = text
                .replace('\\', "\\\\")
                .replace("${", "\\")
                .replace('}', "");
            regex(pattern.source(), substitution)
        }
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn change_headers(side: &str, change: &HeaderChange, out: &mut Map<String, Value>) {
    let pair = |(name, value): &(HeaderName, HeaderValue), action: &str| json!({"header": {"key": name.as_str(), "value": text(value)}, "appendAction": action});
    let set = change
        .set
        .iter()
        .map(|p| pair(p, "OVERWRITE_IF_EXISTS_OR_ADD"));
    let add = change
        .add
        .iter()
        .map(|p| pair(p, "APPEND_IF_EXISTS_OR_ADD"));
    let added: Vec<Value> = set.chain(add).collect();
    if !added.is_empty() {
        out.insert(format!("{side}HeadersToAdd"), json!(added));
    }
    let removed: Vec<&str> = change.remove.iter().map(HeaderName::as_str).collect();
    if !removed.is_empty() {
        out.insert(format!("{side}HeadersToRemove"), json!(removed));
    }
}

fn of_mirror(mirror: &Mirror, at: &str, notes: &mut Notes<'_>) -> Value {
    let denominator = match mirror.denominator {
        100 => "HUNDRED",
        10_000 => "TEN_THOUSAND",
        1_000_000 => "MILLION",
        _ => {
            let message = "Envoy counts shares in hundredths, ten-thousandths and millionths";
            notes.add(Effect::NotTranslated, format!("{at}.mirrors"), message);
            "MILLION"
        }
    };
    let share = json!({"numerator": mirror.numerator, "denominator": denominator});
    json!({
        "cluster": cluster(&mirror.target, at, notes),
        "runtimeFraction": {"defaultValue": share},
    })
}

fn cluster(key: &ClusterKey, at: &str, notes: &mut Notes<'_>) -> String {
    if let Some(subset) = &key.subset {
        let message = format!(
            "the subset {subset} needs a Service of its own at Cilium: make one with its labels"
        );
        notes.add(Effect::NotTranslated, format!("{at}.route"), message);
    }
    format!("{}:{}", key.service, key.port)
}

fn of_backends(
    backends: &[Backend],
    at: &str,
    route: &mut Map<String, Value>,
    notes: &mut Notes<'_>,
) {
    let mut clusters = Vec::new();
    for backend in backends {
        let key = match &backend.target {
            BackendTarget::Cluster(key) => key,
            BackendTarget::Invalid(reason) | BackendTarget::Unknown(reason) => {
                notes.add(Effect::NotTranslated, format!("{at}.route"), &**reason);
                continue;
            }
        };
        let mut item = Map::new();
        item.insert("name".into(), json!(cluster(key, at, notes)));
        item.insert("weight".into(), json!(backend.weight));
        for filter in &backend.filters {
            match filter {
                Filter::RequestHeaders(change) => change_headers("request", change, &mut item),
                Filter::ResponseHeaders(change) => change_headers("response", change, &mut item),
                _ => {
                    let message = "only headers can be changed for one destination";
                    notes.add(Effect::NotTranslated, format!("{at}.route"), message);
                }
            }
        }
        clusters.push(Value::Object(item));
    }
    route.insert("weightedClusters".into(), json!({"clusters": clusters}));
}

fn of_traffic(
    traffic: &RuleTraffic,
    at: &str,
    route: &mut Map<String, Value>,
    notes: &mut Notes<'_>,
) {
    // Envoy's own default is 15 seconds.
    let timeout = traffic.timeouts.request_ms.unwrap_or(0);
    route.insert("timeout".into(), json!(seconds(timeout)));
    if traffic.fault.is_some() {
        notes.add(
            Effect::NotTranslated,
            format!("{at}.fault"),
            "faults are a filter of Envoy's listener",
        );
    }
    let default = RetryPolicy::DEFAULT;
    let policy = traffic.retry.as_ref().unwrap_or(&default);
    let mut retry = Map::new();
    let mut words = vec!["connect-failure", "refused-stream"];
    let mut statuses: Vec<u16> = Vec::new();
    for range in &policy.on.statuses {
        match (*range.start(), *range.end()) {
            (500, 599) => words.push("5xx"),
            (first, last) => statuses.extend(first..=last),
        }
    }
    if policy.on.reset {
        words.push("reset");
    }
    if !statuses.is_empty() {
        words.push("retriable-status-codes");
        retry.insert("retriableStatusCodes".into(), json!(statuses));
    }
    retry.insert("retryOn".into(), json!(words.join(",")));
    retry.insert("numRetries".into(), json!(policy.retries_max));
    let attempt = traffic.timeouts.attempt_ms;
    retry.extend(attempt.map(|ms| ("perTryTimeout".to_owned(), json!(seconds(ms)))));
    if policy.back_off.spread_ms > 0 {
        let back_off = &policy.back_off;
        let (base, most) = (seconds(back_off.spread_ms), seconds(back_off.at_most_ms));
        retry.insert(
            "retryBackOff".into(),
            json!({"baseInterval": base, "maxInterval": most}),
        );
    }
    route.insert("retryPolicy".into(), Value::Object(retry));
}

/// A duration as protobuf's JSON has it.
fn seconds(ms: u64) -> String {
    match ms % 1_000 {
        0 => format!("{}s", ms / 1_000),
        rest => format!("{}.{rest:03}s", ms / 1_000),
    }
}
