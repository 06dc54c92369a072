//! CiliumEnvoyConfigs as VirtualServices: one for each port that is taken over. Routes are read as resolved; one
//! that a VirtualService can not say stays as it is.

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{
    Backend, BackendTarget, ClusterKey, Filter, HeaderChange, HttpMatch, HttpRoute, HttpRule,
    MoreConditions, PathMatch, PathRewrite, Redirect, RuleTraffic, Service, TextMatch,
};
use http::header::{HOST, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{Effect, Notes, Source, Translation};

/// Writes every CiliumEnvoyConfig that can be written.
pub(super) fn translate(source: Source<'_>, out: &mut Translation) {
    let configs = source
        .resources
        .envoy_configs
        .values()
        .filter_map(|l| l.object());
    let wide = source
        .resources
        .envoy_clusterwide_configs
        .values()
        .filter_map(|l| l.object());
    let origins = configs.map(|o| &o.origin).chain(wide.map(|o| &o.origin));
    for origin in origins {
        let mut notes = Notes::of(origin);
        let mut objects = Vec::new();
        for service in source.snapshot.services.values() {
            objects.extend(of_service(source, origin, service, &mut notes));
        }
        if objects.is_empty() {
            let message = "its routes are in force for no Service of this waypoint";
            notes.add(Effect::NotTranslated, "spec.services", message);
        }
        out.take(notes, objects);
    }
}

/// The VirtualService for what an object routes of a Service.
fn of_service(
    source: Source<'_>,
    origin: &Origin,
    service: &Service,
    notes: &mut Notes<'_>,
) -> Option<Value> {
    let domain = &*source.snapshot.mesh.cluster_domain;
    let routed: Vec<(u16, &HttpRoute)> = service
        .ports
        .iter()
        .flat_map(|port| port.routes.iter().map(|route| (port.number, &**route)))
        .filter(|(_, route)| route.origin == *origin)
        .collect();
    let whole = routed.len() == service.ports.len();
    let mut http = Vec::new();
    for (port, route) in &routed {
        for (index, rule) in route.rules.iter().enumerate() {
            let at = format!("route {index}");
            let port = (!whole).then_some(*port);
            http.push(of_rule(rule, port, domain, &at, notes));
        }
        if whole {
            break;
        }
    }
    (!routed.is_empty()).then(|| {
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {
                "name": format!("{}-{}", origin.key.name, service.key.name),
                "namespace": &*service.key.namespace,
            },
            "spec": {"hosts": [&*service.hostname], "http": http},
        })
    })
}

fn of_rule(
    rule: &HttpRule,
    port: Option<u16>,
    domain: &str,
    at: &str,
    notes: &mut Notes<'_>,
) -> Value {
    if let Some(reason) = &rule.broken {
        notes.add(
            Effect::NotTranslated,
            at,
            format!("the rule can not be honoured: {reason}"),
        );
    }
    let mut matches: Vec<Value> = Vec::new();
    for wanted in &rule.matches {
        matches.extend(of_match(wanted, port, at, notes));
    }
    let mut out = Map::new();
    // A match of nothing but everything is none at all.
    if matches
        .iter()
        .all(|m| m.as_object().is_some_and(|m| !m.is_empty()))
    {
        out.insert("match".into(), json!(matches));
    }
    for filter in &rule.filters {
        of_filter(filter, domain, at, &mut out, notes);
    }
    if !out.contains_key("redirect") && !out.contains_key("directResponse") {
        out.insert(
            "route".into(),
            of_backends(&rule.backends, domain, at, notes),
        );
        of_traffic(&rule.traffic, at, &mut out, notes);
    }
    Value::Object(out)
}

/// A match as one or two of a VirtualService, whose prefix knows no segments.
fn of_match(wanted: &HttpMatch, port: Option<u16>, at: &str, notes: &mut Notes<'_>) -> Vec<Value> {
    let mut out = Map::new();
    out.extend(port.map(|port| ("port".to_owned(), json!(port))));
    out.extend(
        wanted
            .method
            .as_ref()
            .map(|m| ("method".to_owned(), json!({"exact": m.as_str()}))),
    );
    let mut headers = Map::new();
    for header in &wanted.headers {
        match header.name == HOST {
            true => out.insert("authority".into(), of_text(&header.value)),
            false => headers.insert(header.name.to_string(), of_text(&header.value)),
        };
    }
    if !headers.is_empty() {
        out.insert("headers".into(), Value::Object(headers));
    }
    let query: Map<String, Value> = wanted
        .query
        .iter()
        .map(|q| (q.name.to_string(), of_text(&q.value)))
        .collect();
    if !query.is_empty() {
        out.insert("queryParams".into(), Value::Object(query));
    }
    if let Some(more) = &wanted.more {
        of_more(more, at, &mut out, notes);
    }
    let with = |uri: Value| {
        let mut out = out.clone();
        out.insert("uri".into(), uri);
        Value::Object(out)
    };
    match &wanted.path {
        PathMatch::Prefix(path) if path.is_empty() => vec![Value::Object(out)],
        PathMatch::Begins { text, .. } if **text == *"/" => vec![Value::Object(out)],
        PathMatch::Exact(path) => vec![with(json!({"exact": &**path}))],
        PathMatch::Regex(pattern) => vec![with(json!({"regex": pattern.source()}))],
        PathMatch::Prefix(path) => vec![
            with(json!({"exact": &**path})),
            with(json!({"prefix": format!("{path}/")})),
        ],
        PathMatch::Begins { text, ignore_case } => {
            if *ignore_case {
                out.insert("ignoreUriCase".into(), json!(true));
            }
            out.insert("uri".into(), json!({"prefix": &**text}));
            vec![Value::Object(out)]
        }
    }
}

fn of_more(more: &MoreConditions, at: &str, out: &mut Map<String, Value>, notes: &mut Notes<'_>) {
    out.extend(
        more.method
            .as_ref()
            .map(|value| ("method".to_owned(), of_text(value))),
    );
    let without: Map<String, Value> = more
        .without_headers
        .iter()
        .map(|header| (header.name.to_string(), of_text(&header.value)))
        .collect();
    if !without.is_empty() {
        out.insert("withoutHeaders".into(), Value::Object(without));
    }
    if more.caller_namespace.is_some() || !more.claims.is_empty() || !more.without_claims.is_empty()
    {
        notes.add(
            Effect::NotTranslated,
            at,
            "conditions on the caller are not read back",
        );
    }
}

fn of_text(value: &TextMatch) -> Value {
    match value {
        TextMatch::Present => json!({}),
        TextMatch::Exact(text) => json!({"exact": &**text}),
        TextMatch::Prefix(text) => json!({"prefix": &**text}),
        TextMatch::Regex(pattern) => json!({"regex": pattern.source()}),
    }
}

fn of_filter(
    filter: &Filter,
    domain: &str,
    at: &str,
    out: &mut Map<String, Value>,
    notes: &mut Notes<'_>,
) {
    match filter {
        Filter::Redirect(redirect) => {
            out.insert("redirect".into(), of_redirect(redirect, at, notes));
        }
        Filter::Respond(answer) => {
            let body = json!({"string": &*answer.body});
            let answer = json!({"status": answer.status.as_u16(), "body": body});
            out.insert("directResponse".into(), answer);
        }
        Filter::RequestHeaders(change) => change_headers("request", change, out),
        Filter::ResponseHeaders(change) => change_headers("response", change, out),
        Filter::Rewrite(rewrite) => {
            let mut written = Map::new();
            let host = rewrite.hostname.as_ref().map(text);
            written.extend(host.map(|host| ("authority".to_owned(), json!(host))));
            written.extend(rewrite.path.as_ref().map(|path| match path {
                PathRewrite::Full(text)
                | PathRewrite::Prefix(text)
                | PathRewrite::Matched(text) => ("uri".to_owned(), json!(&**text)),
                PathRewrite::Regex(pattern, text) => {
                    let rewrite = text
                        .replace('\\', "\\\\")
                        .replace("${", "\\")
                        .replace('}', "");
                    let value = json!({"match": pattern.source(), "rewrite": rewrite});
                    ("uriRegexRewrite".to_owned(), value)
                }
            }));
            out.insert("rewrite".into(), Value::Object(written));
        }
        Filter::Mirror(mirror) => {
            let share = f64::from(mirror.numerator) * 100.0 / f64::from(mirror.denominator.max(1));
            let target = &mirror.target;
            let item =
                json!({"destination": destination(target, domain), "percentage": {"value": share}});
            let mirrors = out.entry("mirrors").or_insert_with(|| json!([]));
            if let Value::Array(list) = mirrors {
                list.push(item);
            }
        }
        Filter::Cors(_) | Filter::ExternalAuth(_) => {
            notes.add(
                Effect::NotTranslated,
                at,
                "CORS and external authorization are not read back",
            );
        }
    }
}

fn of_redirect(redirect: &Redirect, at: &str, notes: &mut Notes<'_>) -> Value {
    let mut out = Map::new();
    out.extend(
        redirect
            .scheme
            .map(|scheme| ("scheme".to_owned(), json!(scheme))),
    );
    out.extend(
        redirect
            .hostname
            .as_ref()
            .map(|host| ("authority".to_owned(), json!(&**host))),
    );
    out.extend(redirect.port.map(|port| ("port".to_owned(), json!(port))));
    match &redirect.path {
        None => {}
        Some(PathRewrite::Full(path)) => drop(out.insert("uri".into(), json!(&**path))),
        Some(PathRewrite::Prefix(path) | PathRewrite::Matched(path)) => {
            out.insert("prefixRewrite".into(), json!(&**path));
        }
        Some(PathRewrite::Regex(..)) => {
            let message = "a VirtualService redirects to no path made by an expression";
            notes.add(Effect::NotTranslated, at, message);
        }
    }
    out.insert("redirectCode".into(), json!(redirect.status.as_u16()));
    Value::Object(out)
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn change_headers(side: &str, change: &HeaderChange, out: &mut Map<String, Value>) {
    let pairs = |list: &[(HeaderName, HeaderValue)]| {
        let pairs = list
            .iter()
            .map(|(name, value)| (name.to_string(), json!(text(value))));
        Value::Object(pairs.collect())
    };
    let mut written = Map::new();
    if !change.set.is_empty() {
        written.insert("set".into(), pairs(&change.set));
    }
    if !change.add.is_empty() {
        written.insert("add".into(), pairs(&change.add));
    }
    if !change.remove.is_empty() {
        let names: Vec<&str> = change.remove.iter().map(HeaderName::as_str).collect();
        written.insert("remove".into(), json!(names));
    }
    let headers = out.entry("headers").or_insert_with(|| json!({}));
    if let Value::Object(headers) = headers {
        headers.insert(side.to_owned(), Value::Object(written));
    }
}

fn destination(key: &ClusterKey, domain: &str) -> Value {
    let host = format!(
        "{}.{}.svc.{domain}",
        key.service.name, key.service.namespace
    );
    json!({"host": host, "port": {"number": key.port}})
}

fn of_backends(backends: &[Backend], domain: &str, at: &str, notes: &mut Notes<'_>) -> Value {
    let mut list = Vec::new();
    for backend in backends {
        let key = match &backend.target {
            BackendTarget::Cluster(key) => key,
            BackendTarget::Invalid(reason) | BackendTarget::Unknown(reason) => {
                notes.add(Effect::NotTranslated, at, &**reason);
                continue;
            }
        };
        let mut item = Map::new();
        item.insert("destination".into(), destination(key, domain));
        item.insert("weight".into(), json!(backend.weight));
        for filter in &backend.filters {
            match filter {
                Filter::RequestHeaders(change) => change_headers("request", change, &mut item),
                Filter::ResponseHeaders(change) => change_headers("response", change, &mut item),
                _ => notes.add(
                    Effect::NotTranslated,
                    at,
                    "only headers can be changed for one destination",
                ),
            }
        }
        list.push(Value::Object(item));
    }
    json!(list)
}

fn of_traffic(
    traffic: &RuleTraffic,
    at: &str,
    out: &mut Map<String, Value>,
    notes: &mut Notes<'_>,
) {
    let timeout = traffic.timeouts.request_ms;
    out.extend(timeout.map(|ms| ("timeout".to_owned(), json!(format!("{ms}ms")))));
    let Some(policy) = &traffic.retry else {
        return;
    };
    let mut words: Vec<String> = vec!["connect-failure".into(), "refused-stream".into()];
    for range in &policy.on.statuses {
        match (*range.start(), *range.end()) {
            (500, 599) => words.push("5xx".into()),
            (first, last) => words.extend((first..=last).map(|status| status.to_string())),
        }
    }
    if policy.on.reset {
        words.push("reset".into());
    }
    if policy.on.timeout && !policy.on.reset {
        notes.add(
            Effect::Differs,
            at,
            "attempts that take too long are retried only by 5xx or reset",
        );
    }
    let mut retries = Map::new();
    retries.insert("attempts".into(), json!(policy.retries_max));
    retries.insert("retryOn".into(), json!(words.join(",")));
    let attempt = traffic.timeouts.attempt_ms;
    retries.extend(attempt.map(|ms| ("perTryTimeout".to_owned(), json!(format!("{ms}ms")))));
    out.insert("retries".into(), Value::Object(retries));
}
