//! What a rule of a route means, whatever language it is written in: to compare what was written with
//! what it takes the place of. And what all languages of routes write alike.

use http::header::{HOST, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use crate::origin::ObjectKey;
use crate::snapshot::{
    Backend, BackendTarget, ClusterKey, Filter, HeaderChange, HttpMatch, HttpRoute, HttpRule,
    PathMatch, ServicePort,
};

/// What can not be written of a rule.
pub(super) type Unsayable = Vec<String>;

/// The rules of a port in the order in which they are asked, each match by itself, without what only
/// names them. Two ports with the same text do the same.
pub(super) fn meaning(service: &ObjectKey, port: &ServicePort) -> Vec<String> {
    let mut said = Vec::new();
    for route in &port.routes {
        let own = ClusterKey::new(service.clone(), port.number);
        if is_nothing(route, &own) {
            continue;
        }
        said.push(format!("route, broken: {}", route.broken));
        for rule in &route.rules {
            for matched in &rule.matches {
                said.extend(matches(matched).into_iter().map(|m| entry(&m, rule)));
            }
        }
    }
    let streams = port.stream_routes.iter();
    said.extend(streams.map(|route| format!("{:?}", route.rules)));
    said
}

/// Whether a route does what happens without one.
fn is_nothing(route: &HttpRoute, own: &ClusterKey) -> bool {
    let mut rules = route.rules.iter().filter(|rule| !rule.matches.is_empty());
    let (Some(rule), None) = (rules.next(), rules.next()) else {
        return false;
    };
    let [matched] = rule.matches.as_slice() else {
        return false;
    };
    let [backend] = rule.backends.as_slice() else {
        return false;
    };
    is_everything(matched)
        && matches!(&backend.target, BackendTarget::Cluster(key) if key == own)
        && backend.filters.is_empty()
        && rule.filters.is_empty()
        && rule.broken.is_none()
        && rule.traffic == Default::default()
}

fn is_everything(matched: &HttpMatch) -> bool {
    let path = match &matched.path {
        PathMatch::Prefix(path) => path.is_empty(),
        PathMatch::Begins { text, .. } => **text == *"/",
        PathMatch::Exact(_) | PathMatch::Regex(_) => false,
    };
    path && matched.method.is_none()
        && matched.headers.is_empty()
        && matched.query.is_empty()
        && matched.more.is_none()
}

/// A match without what can be said in two ways.
fn matches(matched: &HttpMatch) -> Vec<HttpMatch> {
    let mut same = matched.clone();
    same.headers
        .sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    same.query.sort_by(|a, b| a.name.cmp(&b.name));
    let begins = |text: &str| PathMatch::Begins {
        text: text.into(),
        ignore_case: false,
    };
    let with = |path: PathMatch| HttpMatch {
        path,
        ..same.clone()
    };
    match &matched.path {
        PathMatch::Prefix(path) if path.is_empty() => vec![with(begins("/"))],
        // Whole segments: the path itself, or what is below it.
        PathMatch::Prefix(path) => vec![
            with(PathMatch::Exact(path.clone())),
            with(begins(&format!("{path}/"))),
        ],
        _ => vec![same],
    }
}

fn entry(matched: &HttpMatch, rule: &HttpRule) -> String {
    let mut filters: Vec<String> = rule.filters.iter().map(|f| format!("{f:?}")).collect();
    // Of one kind there is one, but for mirrors: what is asked first is the same to all kinds.
    filters.sort();
    let weight = |backend: &Backend| match rule.backends.len() {
        1 => 1,
        _ => backend.weight,
    };
    let backends = rule.backends.iter();
    let backends: Vec<String> = backends
        .map(|b| format!("{} of {:?} {:?}", weight(b), b.target, b.filters))
        .collect();
    format!(
        "{matched:?} {filters:?} {backends:?} {:?} {:?}",
        rule.traffic, rule.broken
    )
}

/// The clusters that a rule leads to, or copies requests for.
pub(super) fn clusters(rule: &HttpRule) -> impl Iterator<Item = &ClusterKey> {
    let backends = rule
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
    backends.chain(mirrors)
}

/// The cluster of a backend, if it has one.
pub(super) fn cluster<'b>(
    backend: &'b Backend,
    unsayable: &mut Unsayable,
) -> Option<&'b ClusterKey> {
    match &backend.target {
        BackendTarget::Cluster(key) => Some(key),
        BackendTarget::Invalid(why) | BackendTarget::Unknown(why) => {
            unsayable.push(format!("it leads nowhere: {why}"));
            None
        }
    }
}

/// A value of a header as text.
pub(super) fn text(value: &HeaderValue, unsayable: &mut Unsayable) -> String {
    let text = value.to_str().ok().map(str::to_owned);
    text.unwrap_or_else(|| {
        unsayable.push("a value of a header is no text".into());
        String::new()
    })
}

/// `${1}` of a replacement as `\1`.
pub(super) fn substitution(text: &str) -> String {
    let text = text.replace('\\', "\\\\");
    text.replace("${", "\\").replace('}', "")
}

/// The name by which a match asks for a header.
pub(super) fn is_host(name: &HeaderName) -> bool {
    *name == HOST
}

/// Changes of headers as maps and lists, in the way of a VirtualService.
pub(super) fn changes(change: &HeaderChange, unsayable: &mut Unsayable) -> Value {
    let mut pairs = |list: &[(HeaderName, HeaderValue)]| {
        let pairs = list.iter();
        let pairs = pairs.map(|(name, value)| (name.to_string(), json!(text(value, unsayable))));
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
    Value::Object(written)
}
