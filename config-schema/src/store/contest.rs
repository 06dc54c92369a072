//! The definitions of one object. One name, two definitions that say different things: nobody can
//! know which is meant, so neither is taken, and the order of files and documents decides nothing
//! but which place a finding names first. What is in force instead is decided in `settle`.

use std::net::IpAddr;
use std::sync::Arc;

use super::settle::Places;
use crate::diagnostics::Location;
use crate::parse::Item;
use crate::resolve::grpc_routes as grpc;
use crate::resources::{AnyObject, Broken, TargetRef};

/// What the files say of one object.
#[derive(Clone, Debug)]
pub(super) struct Defined {
    /// Good: what all definitions say. Broken: they can not be read or differ, and this is whatever
    /// any of them may be aimed at.
    pub item: Item,
    pub places: Places,
    /// What is wrong with there being more than one, as in "it is defined twice ...".
    pub contest: Option<&'static str>,
    first_is_broken: bool,
}

impl Defined {
    pub fn new(item: Item, places: Places) -> Self {
        let first_is_broken = matches!(item, Item::Broken(_));
        Self {
            item,
            places,
            contest: None,
            first_is_broken,
        }
    }

    /// Takes a further definition in; says what is wrong with it.
    pub fn add(&mut self, again: &Item, file: &Arc<str>) -> Option<&'static str> {
        self.places.set(file, |count| count + 1);
        if let (Item::Good(one), Item::Good(other)) = (&self.item, again)
            && one.says_the_same_as(other)
        {
            // Copies may differ in their age, which routes are ordered by: the oldest counts, in
            // whatever order the files come.
            if age(other) < age(one) {
                self.item = again.clone();
            }
            return None;
        }
        let contest = match (self.first_is_broken, again) {
            (true, Item::Broken(_)) => "defined twice, and neither definition can be read",
            (false, Item::Good(_)) => "defined twice with different content",
            _ => "defined twice, and one of the definitions can not be read",
        };
        let reason = format!("it is {}", self.contest.unwrap_or(contest));
        self.contest.get_or_insert(contest);
        self.item = Item::Broken(Arc::new(joined(&self.item, again, reason.into())));
        Some(contest)
    }
}

/// Sorts older before younger before unknown.
fn age(object: &AnyObject) -> (bool, Option<i64>) {
    let created_s = object.created_s();
    (created_s.is_none(), created_s)
}

/// What may be either of two: aimed at all that either is aimed at.
pub(super) fn joined(one: &Item, other: &Item, reason: Arc<str>) -> Broken {
    let targets = match (targets(one), targets(other)) {
        (Some(mut all), Some(more)) => {
            all.extend(more);
            all.sort();
            all.dedup();
            Some(all)
        }
        _ => None,
    };
    let mut pod_ips = [pod_ips(one), pod_ips(other)].concat();
    pod_ips.sort();
    pod_ips.dedup();
    Broken {
        origin: one.origin().clone(),
        location: place(one),
        reason,
        targets,
        pod_ips,
        dry_run: dry_run(one) && dry_run(other),
        selection: None,
        uid: None,
    }
}

/// Whether an object is only to be tried.
pub(super) fn dry_run(item: &Item) -> bool {
    match item {
        Item::Good(object) => object.is_dry_run(),
        Item::Broken(broken) => broken.dry_run,
    }
}

/// Where an object stands in its file.
pub(super) fn place(item: &Item) -> Option<Location> {
    match item {
        Item::Good(object) => object.place().locate(""),
        Item::Broken(broken) => broken.location.clone(),
    }
}

/// What an object is aimed at; `None`: perhaps at anything.
fn targets(item: &Item) -> Option<Vec<TargetRef>> {
    match item {
        Item::Broken(broken) => broken.targets.clone(),
        Item::Good(AnyObject::AuthorizationPolicy(policy)) => {
            let spec = &policy.spec;
            let all = spec.target_refs.iter().flatten().chain(&spec.target_ref);
            Some(all.cloned().collect())
        }
        Item::Good(AnyObject::RequestAuthentication(authentication)) => {
            let spec = &authentication.spec;
            let all = spec.target_refs.iter().flatten().chain(&spec.target_ref);
            Some(all.cloned().collect())
        }
        Item::Good(AnyObject::HTTPRoute(route)) => {
            let parents = route.spec.parent_refs.iter().flatten();
            Some(parents.map(TargetRef::from).collect())
        }
        Item::Good(AnyObject::GRPCRoute(route)) => {
            let parents = grpc::http_parents(&route.spec);
            Some(parents.ok()?.iter().map(TargetRef::from).collect())
        }
        Item::Good(AnyObject::TLSRoute(route)) => {
            let parents = route.spec.parent_refs.iter().flatten();
            Some(parents.map(TargetRef::from).collect())
        }
        Item::Good(AnyObject::TCPRoute(route)) => {
            let parents = route.spec.parent_refs.iter().flatten();
            Some(parents.map(TargetRef::from).collect())
        }
        Item::Good(_) => None,
    }
}

/// The addresses of a Pod that runs, as far as they are known.
pub(super) fn pod_ips(item: &Item) -> &[IpAddr] {
    match item {
        Item::Broken(broken) => &broken.pod_ips,
        Item::Good(AnyObject::Pod(pod)) if !pod.spec.finished => &pod.spec.pod_ips,
        Item::Good(_) => &[],
    }
}
