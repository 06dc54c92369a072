//! RouteConfigurations: virtual hosts and their routes as rules, in the order Envoy asks them
//! (specs/policies.md 2.2).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use http::StatusCode;

use super::actions::{self, HeaderChanges};
use super::clusters::{Clusters, Nowhere};
use super::matches::{self, Domain};
use super::message::Message;
use crate::diagnostics::Code;
use crate::snapshot::{
    Backend, BackendTarget, ClusterKey, Filter, HttpMatch, HttpRule, Mirror, PathMatch,
    PathNormalization, PathRewrite, RetryPolicy, RuleTraffic,
};

/// A place that leads nowhere.
pub(super) type Lost = (String, Nowhere);

/// What routes are read with.
pub(super) struct Context<'a> {
    pub clusters: &'a Clusters<'a>,
    pub mode: PathNormalization,
    /// The port that was dialled.
    pub port: u16,
    /// Clusters that routes lead to.
    pub used: RefCell<BTreeSet<ClusterKey>>,
    /// Clusters that are not there: their share is answered 503.
    pub lost: RefCell<Vec<Lost>>,
}

/// The rules of a virtual host, and the domains it is for.
struct Host {
    domains: Vec<Domain>,
    rules: Vec<HttpRule>,
}

/// What a virtual host says for all of its routes.
struct Above<'a> {
    changes: Vec<&'a HeaderChanges>,
    retry: Option<(RetryPolicy, Option<u64>)>,
}

/// The rules of a RouteConfiguration. Envoy looks for the virtual host first, and asks no other one when
/// none of its routes matches.
pub(super) fn read(mut written: Message<'_, '_>, context: &Context<'_>) -> Vec<HttpRule> {
    written.skip(&["@type", "name"]);
    let changes = HeaderChanges::read(&mut written);
    let hosts = written.messages("virtual_hosts");
    let hosts: Vec<Host> = (hosts.into_iter())
        .map(|host| virtual_host(host, &changes, context))
        .collect();
    let mut all: Vec<(&Domain, &Host)> = (hosts.iter())
        .flat_map(|host| host.domains.iter().map(move |domain| (domain, host)))
        .collect();
    all.sort_by_key(|(domain, _)| domain.rank);
    let mut seen = BTreeSet::new();
    let mut rules = Vec::new();
    for (domain, host) in all {
        if !seen.insert(domain.text.as_str()) {
            let message = format!("two virtual hosts have the domain '{}'", domain.text);
            written.wrong(Code::Conflict, "virtualHosts", message);
        }
        rules.extend(host.rules.iter().map(|rule| of_domain(rule, domain)));
        if domain.condition.is_some() {
            rules.push(of_domain(&not_found(), domain));
        }
    }
    rules
}

/// A rule for requests to a domain alone.
fn of_domain(rule: &HttpRule, domain: &Domain) -> HttpRule {
    let mut rule = rule.clone();
    for matched in &mut rule.matches {
        matched.headers.extend(domain.condition.clone());
    }
    rule
}

/// What a virtual host says of a request that none of its routes is for.
fn not_found() -> HttpRule {
    HttpRule {
        name: None,
        matches: vec![HttpMatch {
            path: PathMatch::Prefix("".into()),
            ..HttpMatch::default()
        }],
        filters: vec![actions::answer(StatusCode::NOT_FOUND, "")],
        backends: Vec::new(),
        traffic: RuleTraffic::default(),
        broken: None,
    }
}

fn virtual_host(
    mut written: Message<'_, '_>,
    of_all: &HeaderChanges,
    context: &Context<'_>,
) -> Host {
    let name = written.text("name").unwrap_or_default();
    let own = HeaderChanges::read(&mut written);
    let above = Above {
        changes: vec![&own, of_all],
        retry: written.message("retry_policy").map(actions::retry),
    };
    let mut domains = Vec::new();
    for (text, path) in written.texts("domains") {
        match Domain::read(text) {
            Some(domain) => domains.push(domain),
            None => {
                let message = format!("'{text}' ({path}) is no domain: *, host, *.end or begin.*");
                written.wrong(Code::BadValue, "domains", message);
            }
        }
    }
    if domains.is_empty() {
        written.wrong(
            Code::MissingField,
            "domains",
            "a virtual host needs domains",
        );
    }
    let routes = written.messages("routes").into_iter().enumerate();
    let rules = routes.map(|(at, route)| {
        let rule = rule(route, &above, context);
        let own = rule.name.as_deref().map(str::to_owned);
        let own = own.unwrap_or_else(|| at.to_string());
        HttpRule {
            name: Some(format!("{name}/{own}").into()),
            ..rule
        }
    });
    Host {
        rules: rules.collect(),
        domains,
    }
}

fn rule(mut written: Message<'_, '_>, above: &Above<'_>, context: &Context<'_>) -> HttpRule {
    let name = written.text("name").map(Arc::from);
    let matched = match written.message("match") {
        Some(matched) => matches::read(matched, context.mode),
        None => {
            written.wrong(Code::MissingField, "match", "a route needs a match");
            HttpMatch::default()
        }
    };
    let own = HeaderChanges::read(&mut written);
    let levels: Vec<&HeaderChanges> = [&own].into_iter().chain(above.changes.clone()).collect();
    let mut rule = HttpRule {
        name,
        matches: vec![matched],
        // The most general last, as at Envoy.
        filters: levels.iter().flat_map(|level| level.filters()).collect(),
        backends: Vec::new(),
        traffic: RuleTraffic::default(),
        broken: None,
    };
    let route = written.message("route");
    let redirect = written.message("redirect");
    let direct = written.message("direct_response");
    match (route, redirect, direct) {
        (Some(route), None, None) => forward(route, &levels, above, context, &mut rule),
        (None, Some(redirect), None) => {
            let redirect = actions::redirect(redirect);
            rule.filters.push(Filter::Redirect(redirect));
        }
        (None, None, Some(direct)) => rule.filters.push(actions::direct_response(direct)),
        _ => {
            let message = "a route has one of route, redirect and directResponse";
            written.wrong(Code::MissingField, "", message);
        }
    }
    refuse_changed_twice(&written, &levels);
    by_segments(&mut rule);
    rule
}

/// A prefix of segments is replaced as one: `/a` by `/b` in `/a/c`.
fn by_segments(rule: &mut HttpRule) {
    let is_prefix = |matched: &HttpMatch| matches!(matched.path, PathMatch::Prefix(_));
    if !rule.matches.iter().any(is_prefix) {
        return;
    }
    let of_backends = rule.backends.iter_mut().flat_map(|b| &mut b.filters);
    for filter in rule.filters.iter_mut().chain(of_backends) {
        let path = match filter {
            Filter::Rewrite(rewrite) => &mut rewrite.path,
            Filter::Redirect(redirect) => &mut redirect.path,
            _ => continue,
        };
        if let Some(PathRewrite::Matched(text)) = path {
            *path = Some(PathRewrite::Prefix(text.clone()));
        }
    }
}

fn refuse_changed_twice(written: &Message<'_, '_>, levels: &[&HeaderChanges]) {
    if let Some(name) = HeaderChanges::both_change(levels) {
        let message = format!("header {name} is changed on two levels, which is not supported");
        written.wrong(Code::Unsupported, "", message);
    }
}

/// The action `route`.
fn forward(
    mut written: Message<'_, '_>,
    levels: &[&HeaderChanges],
    above: &Above<'_>,
    context: &Context<'_>,
    rule: &mut HttpRule,
) {
    for policy in written.messages("request_mirror_policies") {
        rule.filters
            .extend(mirror(policy, context).map(Filter::Mirror));
    }
    rule.filters.extend(actions::rewrite(&mut written));
    rule.traffic = actions::traffic(&mut written, above.retry.as_ref());
    let weighted = written.message("weighted_clusters");
    match (written.text("cluster"), weighted) {
        (Some(name), None) => {
            let path = format!("{}.cluster", written.path);
            rule.backends.push(Backend {
                weight: 1,
                target: target(name, path, context),
                filters: Vec::new(),
            });
        }
        (None, Some(weighted)) => rule.backends = shares(weighted, levels, context),
        _ => {
            let message = "a route leads to one of cluster and weightedClusters";
            written.wrong(Code::MissingField, "", message);
        }
    }
}

/// `weightedClusters`: shares of the sum of all weights.
fn shares(
    mut written: Message<'_, '_>,
    levels: &[&HeaderChanges],
    context: &Context<'_>,
) -> Vec<Backend> {
    let total = written.number("total_weight");
    let mut sum: u64 = 0;
    let mut backends = Vec::new();
    for mut cluster in written.messages("clusters") {
        let weight = cluster.number("weight").unwrap_or(0);
        sum += u64::from(weight);
        let changes = HeaderChanges::read(&mut cluster);
        let all: Vec<&HeaderChanges> = [&changes].into_iter().chain(levels.to_vec()).collect();
        refuse_changed_twice(&cluster, &all);
        let mut filters = changes.filters();
        filters.extend(actions::rewrite(&mut cluster));
        let Some(name) = cluster.text("name") else {
            cluster.wrong(Code::MissingField, "name", "a cluster needs a name");
            continue;
        };
        if weight == 0 {
            continue;
        }
        let path = format!("{}.name", cluster.path);
        backends.push(Backend {
            weight,
            target: target(name, path, context),
            filters,
        });
    }
    if sum == 0 || sum > u64::from(u32::MAX) {
        let message = format!(
            "the sum of the weights is {sum}, and not between 1 and {}",
            u32::MAX
        );
        written.wrong(Code::BadValue, "clusters", message);
    }
    if total.is_some_and(|total| u64::from(total) != sum) {
        let message = format!("totalWeight is not the sum of the weights, {sum}");
        written.wrong(Code::BadValue, "totalWeight", message);
    }
    backends
}

fn target(name: &str, path: String, context: &Context<'_>) -> BackendTarget {
    match context.clusters.find(name, context.port) {
        Ok(key) => {
            context.used.borrow_mut().insert(key.clone());
            BackendTarget::Cluster(key)
        }
        Err(nowhere) => {
            let reason = Arc::from(nowhere.reason.as_str());
            context.lost.borrow_mut().push((path, nowhere));
            BackendTarget::Unknown(reason)
        }
    }
}

/// A `RequestMirrorPolicy`. `None`: there is nobody to copy requests for, and they go on as they are.
fn mirror(mut written: Message<'_, '_>, context: &Context<'_>) -> Option<Mirror> {
    let share = written.message("runtime_fraction");
    let share = share.and_then(|mut fraction| fraction.message("default_value"));
    let (numerator, denominator) = share.map_or((100, 100), |mut share| {
        let parts = match share.text("denominator") {
            None | Some("HUNDRED") => 100,
            Some("TEN_THOUSAND") => 10_000,
            Some("MILLION") => 1_000_000,
            Some(other) => {
                let message = format!("there is no denominator '{other}'");
                share.wrong(Code::BadValue, "denominator", message);
                100
            }
        };
        (share.number("numerator").unwrap_or(0).min(parts), parts)
    });
    let name = written.text("cluster").unwrap_or_default();
    let path = format!("{}.cluster", written.path);
    match target(name, path, context) {
        BackendTarget::Cluster(target) => Some(Mirror {
            target,
            denominator,
            numerator,
        }),
        _ => None,
    }
}
