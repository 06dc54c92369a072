//! What a rule of a route means, whatever language it is written in: to compare what was written with
//! what it takes the place of. And what all languages of routes write alike.

use std::collections::BTreeMap;

use http::header::{HOST, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use crate::origin::ObjectKey;
use crate::snapshot::{
    Backend, BackendTarget, ClusterKey, Filter, HeaderChange, HeaderMatch, HttpMatch, HttpRoute,
    HttpRule, Mirror, PathMatch, Pattern, RetryConditions, RuleTraffic, ServicePort,
};

/// What can not be written of a rule.
pub(super) type Unsayable = Vec<String>;

/// The rules of a port in the order in which they are asked, each match by itself, without what only
/// names them. Two ports with the same text do the same.
pub(super) fn meaning(service: &ObjectKey, port: &ServicePort) -> Vec<String> {
    let mut said = Vec::new();
    // One set is in force for a caller: they are never merged (specs/gateway-api.md 1.4).
    let mut by_author: BTreeMap<&str, Vec<&HttpRoute>> = BTreeMap::new();
    for route in &port.routes {
        let of_author = by_author.entry(author(route, service)).or_default();
        of_author.push(route);
    }
    for (author, routes) in by_author {
        said.extend(of_author(author, routes, service, port.number));
    }
    let streams = port.stream_routes.iter();
    said.extend(streams.map(|route| format!("{:?}", route.rules)));
    said
}

/// For whom a route speaks: the service's own namespace, its producer, or that of a consumer. One that is
/// cluster-wide is its service's.
fn author<'r>(route: &'r HttpRoute, service: &'r ObjectKey) -> &'r str {
    match &*route.origin.key.namespace {
        "" => &service.namespace,
        own => own,
    }
}

/// Whether it is among those for callers that have none of their own.
pub(super) fn is_of_producer(route: &HttpRoute, service: &ObjectKey) -> bool {
    *author(route, service) == *service.namespace
}

/// The rules of one author in the order in which they are asked.
fn of_author(
    author: &str,
    mut routes: Vec<&HttpRoute>,
    service: &ObjectKey,
    port: u16,
) -> Vec<String> {
    // As `cairn-routing` asks them: the oldest first. Rules of several HTTPRoutes are mixed, and nothing
    // is written of which there would be several.
    routes.sort_by_cached_key(|route| {
        let key = &route.origin.key;
        let created_s = route.created_s.unwrap_or(i64::MAX);
        (created_s, format!("{}/{}", key.namespace, key.name))
    });
    // Beside others it takes requests from those that come later, and those that no rule is for; a consumer's
    // takes them from the producer's.
    if let [only] = routes.as_slice()
        && is_of_producer(only, service)
        && is_nothing(only, &ClusterKey::new(service.clone(), port))
    {
        return Vec::new();
    }
    let mut said = Vec::new();
    for route in routes {
        // Without any, requests go to the service; how many there are makes no difference.
        let there = format!("routes of {author}, broken: {}", route.broken);
        if !said.contains(&there) {
            said.push(there);
        }
        for rule in &route.rules {
            for matched in &rule.matches {
                said.extend(matches(matched).into_iter().map(|m| entry(&m, rule)));
            }
        }
    }
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
    let by_name = |a: &HeaderMatch, b: &HeaderMatch| a.name.as_str().cmp(b.name.as_str());
    same.headers.sort_by(by_name);
    same.query.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(more) = &mut same.more {
        more.without_headers.sort_by(by_name);
    }
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
    let filters = plain_filters(&rule.filters);
    let weight = |backend: &Backend| match rule.backends.len() {
        1 => 1,
        _ => backend.weight,
    };
    let backends = rule.backends.iter();
    let backends: Vec<String> = backends
        .map(|b| {
            let filters = plain_filters(&b.filters);
            format!("{} of {:?} {filters:?}", weight(b), b.target)
        })
        .collect();
    let traffic = plain_traffic(&rule.traffic);
    format!(
        "{matched:?} {filters:?} {backends:?} {traffic:?} {:?}",
        rule.broken
    )
}

/// Filters as texts, without what can be said in two ways. Those that change nothing are left out.
fn plain_filters(filters: &[Filter]) -> Vec<String> {
    let mut plain: Vec<String> = Vec::new();
    for filter in filters {
        let same = match filter {
            Filter::RequestHeaders(change) => plain_change(change).map(Filter::RequestHeaders),
            Filter::ResponseHeaders(change) => plain_change(change).map(Filter::ResponseHeaders),
            Filter::Rewrite(rewrite) if rewrite.hostname.is_none() && rewrite.path.is_none() => {
                None
            }
            Filter::Mirror(mirror) => Some(Filter::Mirror(reduced(mirror))),
            other => Some(other.clone()),
        };
        plain.extend(same.map(|filter| format!("{filter:?}")));
    }
    // Of one kind there is one, but for mirrors: what is asked first is the same to all kinds.
    plain.sort();
    plain
}

/// Changes in the order of the names of headers, which change nothing of each other. `None`: it is empty.
fn plain_change(change: &HeaderChange) -> Option<HeaderChange> {
    let mut same = change.clone();
    for list in [&mut same.set, &mut same.add] {
        list.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    }
    same.remove.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    same.remove.dedup();
    let is_empty = same.set.is_empty() && same.add.is_empty() && same.remove.is_empty();
    (!is_empty).then_some(same)
}

/// The same share in the least numbers.
fn reduced(mirror: &Mirror) -> Mirror {
    let (mut divisor, mut rest) = (mirror.denominator, mirror.numerator);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    let divisor = divisor.max(1);
    Mirror {
        target: mirror.target.clone(),
        denominator: mirror.denominator / divisor,
        numerator: mirror.numerator / divisor,
    }
}

/// Time and failure with each status by itself.
fn plain_traffic(traffic: &RuleTraffic) -> RuleTraffic {
    let mut same = traffic.clone();
    if let Some(policy) = &mut same.retry {
        let ranges = std::mem::take(&mut policy.on.statuses);
        let mut statuses: Vec<u16> = ranges.into_iter().flatten().collect();
        statuses.sort_unstable();
        statuses.dedup();
        policy.on.statuses = statuses.into_iter().map(|status| status..=status).collect();
    }
    same
}

/// After what a request is tried again, in the words that Istio and Envoy share, and the statuses for which
/// there is no word.
pub(super) fn retry_words(on: &RetryConditions) -> (Vec<&'static str>, Vec<u16>) {
    let mut words = vec!["connect-failure", "refused-stream"];
    let mut statuses: Vec<u16> = Vec::new();
    for range in &on.statuses {
        match (*range.start(), *range.end()) {
            (500, 599) => words.push("5xx"),
            (502, 504) => words.push("gateway-error"),
            (first, last) => statuses.extend(first..=last),
        }
    }
    if on.reset {
        words.push("reset");
    }
    (words, statuses)
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

/// An expression for other proxies, which know those of RE2 alone.
pub(super) fn re2<'p>(pattern: &'p Pattern, unsayable: &mut Unsayable) -> &'p str {
    let source = pattern.source();
    let mut groups = source.split("(?").skip(1);
    let has_other_flags = groups.any(|group| {
        let flags = group.split([':', ')']).next().unwrap_or_default();
        let is_flags = flags.chars().all(|c| c.is_ascii_alphabetic() || c == '-');
        is_flags && flags.contains(['u', 'x', 'R'])
    });
    if has_other_flags {
        unsayable.push(format!("the expression '{source}' is none of RE2"));
    }
    source
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
