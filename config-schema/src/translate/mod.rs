//! Policy and routes of one mesh written for another (specs/policies.md 1.7, Y28), from what they mean and
//! not from how they are written, with a report of every part. What belongs together is written whole
//! or not at all, so that what is written never allows what the original denies. Applies nothing.

mod absent;
mod behind;
mod cilium_peers;
mod cilium_policies;
mod cilium_refused;
mod cilium_rules;
mod cilium_subject;
mod closing;
mod coming;
mod envoy_config;
mod gateway_route;
mod ground;
mod groups;
mod isolating;
mod istio_beside;
mod istio_policies;
mod istio_rules;
mod lost_with_the_mesh;
mod names;
mod report;
mod route_rules;
mod routes;
mod strangers;
mod texts;
mod upgrades;
mod virtual_service;
mod who;

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use crate::identity::Identity;
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resolve;
use crate::resources::Resources;
use crate::snapshot::Snapshot;
use crate::store::{SourceFile, Store};

pub use report::{Outcome, Part};

/// For whom is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// AuthorizationPolicies and VirtualServices, from Cilium's objects.
    Istio,
    /// CiliumNetworkPolicies and CiliumEnvoyConfigs, from Istio's objects.
    Cilium,
    /// HTTPRoutes, from VirtualServices and CiliumEnvoyConfigs. It has no policies.
    Gateway,
}

/// What is translated: the objects, and what they mean to one waypoint.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// As written.
    pub resources: &'a Resources,
    /// As resolved, with `options`.
    pub snapshot: &'a Snapshot,
    /// How it was resolved, for what is written is resolved in the same way.
    pub options: &'a resolve::Options,
    /// Who the waypoint is to the pods behind it. `None`: nobody knows.
    pub waypoint: Option<&'a Identity>,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Translation {
    /// The objects, ready to be applied.
    pub objects: Vec<Value>,
    /// Every part of every object that there was to translate.
    pub parts: Vec<Part>,
    /// The objects that what is written takes the place of.
    pub replaced: Vec<Origin>,
    /// What holds of all that is written, and of no part by itself.
    pub notes: Vec<String>,
}

impl Translation {
    /// Whether every part of every object was written and means the same.
    pub fn is_whole(&self) -> bool {
        let mut parts = self.parts.iter();
        parts.all(|part| part.outcome == Outcome::Replaced)
    }

    /// Takes everything back, for the engine judges what was written otherwise than it was thought to.
    pub fn refute(&mut self) {
        self.objects.clear();
        self.replaced.clear();
        for part in &mut self.parts {
            if part.outcome != Outcome::NotTranslated {
                part.outcome = Outcome::NotTranslated;
                part.why = format!(
                    "nothing is written: the engine judges otherwise ({})",
                    part.why
                );
            }
        }
    }

    /// Whether a part of what is written was said to allow more.
    pub fn is_wider(&self) -> bool {
        let mut wider = self.parts.iter().filter(|p| p.outcome == Outcome::Wider);
        wider.any(|part| self.replaced.contains(&part.object))
    }

    /// The configuration after the move: without what is replaced, with what is written; and what
    /// is wrong with that.
    pub fn applied_to(&self, resources: &Resources) -> (Resources, Vec<String>) {
        let mut after = resources.clone();
        for Origin { kind, key } in &self.replaced {
            match kind {
                Kind::AuthorizationPolicy => drop(after.authorization_policies.remove(key)),
                Kind::VirtualService => drop(after.virtual_services.remove(key)),
                Kind::CiliumNetworkPolicy => drop(after.cilium_policies.remove(key)),
                Kind::CiliumClusterwideNetworkPolicy => {
                    drop(after.cilium_clusterwide_policies.remove(key));
                }
                Kind::CiliumEnvoyConfig => drop(after.envoy_configs.remove(key)),
                Kind::CiliumClusterwideEnvoyConfig => {
                    drop(after.envoy_clusterwide_configs.remove(key));
                }
                _ => {}
            }
        }
        let errors = add(&self.objects, &mut after);
        (after, errors)
    }
}

/// Reads objects that were written into others. Returns what is wrong with them.
fn add(objects: &[Value], into: &mut Resources) -> Vec<String> {
    let files = objects
        .iter()
        .enumerate()
        .map(|(index, object)| SourceFile {
            path: format!("object {index}").into(),
            content: Ok(object.to_string().into_bytes().into()),
        });
    let files: Vec<SourceFile<'_>> = files.collect();
    let new = Store::default().update(&files);
    into.authorization_policies
        .extend(new.resources.authorization_policies);
    into.virtual_services.extend(new.resources.virtual_services);
    into.cilium_policies.extend(new.resources.cilium_policies);
    into.envoy_configs.extend(new.resources.envoy_configs);
    into.http_routes.extend(new.resources.http_routes);
    let wrong = new.diagnostics.into_iter();
    wrong.map(|diagnostic| diagnostic.message).collect()
}

/// What is said where something was not ready.
const NOT_READY: &str = "endpoints that are not ready were taken for ready, as they may be at any moment; while one is not, the waypoint sends it nothing";

/// The configuration that a translation is about: with every endpoint ready that an EndpointSlice lists.
pub fn as_ready(resources: &Resources) -> Cow<'_, Resources> {
    coming::ready(resources).map_or(Cow::Borrowed(resources), Cow::Owned)
}

/// Writes what can be written. With `wider` also what allows more than the original, which is told.
pub fn translate(source: Source<'_>, target: Target, wider: bool) -> Translation {
    let Cow::Owned(coming) = as_ready(source.resources) else {
        return translate_ready(source, target, wider);
    };
    let snapshot = resolve::resolve(&coming, source.options);
    let later = Source {
        resources: &coming,
        snapshot: &snapshot,
        ..source
    };
    let mut translation = translate_ready(later, target, wider);
    if !translation.objects.is_empty() {
        translation.notes.push(NOT_READY.to_owned());
    }
    translation
}

fn translate_ready(source: Source<'_>, target: Target, wider: bool) -> Translation {
    let ground = ground::Ground::new(source);
    let mut out = report::Writing::new(&ground, wider);
    match target {
        Target::Cilium => {
            istio_policies::translate(&ground, &mut out);
            absent::tell_of_policies(source.resources, target, &mut out);
            routes::translate(&ground, target, &mut out);
        }
        Target::Istio => {
            cilium_policies::translate(&ground, &mut out);
            absent::tell_of_policies(source.resources, target, &mut out);
            routes::translate(&ground, target, &mut out);
        }
        Target::Gateway => {
            leave_policies(source.resources, &mut out);
            routes::translate(&ground, target, &mut out);
        }
    }
    out.finish()
}

/// Policies for which the other side has no kind.
fn leave_policies(resources: &Resources, out: &mut report::Writing<'_, '_>) {
    let of = |kind: Kind| {
        move |key: &ObjectKey| Origin {
            kind,
            key: key.clone(),
        }
    };
    let istio = resources.authorization_policies.keys();
    let cilium = resources.cilium_policies.keys();
    let wide = resources.cilium_clusterwide_policies.keys();
    let all = (istio.map(of(Kind::AuthorizationPolicy)))
        .chain(cilium.map(of(Kind::CiliumNetworkPolicy)))
        .chain(wide.map(of(Kind::CiliumClusterwideNetworkPolicy)));
    for origin in all {
        out.leave(
            &origin,
            "",
            "the Gateway API has no policies of authorization",
        );
    }
}
