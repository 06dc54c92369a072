//! Rules of HTTPRoutes and GRPCRoutes as a whole: their parts together. The parts are read by `route_matches`, `route_filters` and `route_backends`.

use std::sync::Arc;

use super::route_backends::Backends;
use super::{Findings, grpc_routes, route_filters, route_matches, route_traffic};
use crate::diagnostics::{Code, Diagnostic};
use crate::resources::Object;
use crate::resources::gateway_api::{GrpcRouteSpec, HttpRouteRules, HttpRouteSpec};
use crate::snapshot::{Filter, HttpRule, PathNormalization};

/// A rule being read: where it stands and what breaks it.
pub(super) struct Reading<'a> {
    /// The route.
    object: &'a Object<HttpRouteSpec>,
    /// `spec.rules[i]`.
    pub path: String,
    /// Where the route applies, in words.
    scope: &'a str,
    broken: Option<Arc<str>>,
    findings: &'a mut Findings,
}

impl Reading<'_> {
    /// Something that Cairn can not honour: the rule answers 500.
    pub fn fail(&mut self, code: Code, path: &str, message: impl Into<String>) {
        let message = message.into();
        self.broken.get_or_insert_with(|| message.as_str().into());
        let finding = Diagnostic::error(code, message).with_effect(format!(
            "requests to {} that this rule matches are answered 500",
            self.scope
        ));
        self.findings.push(self.object.mark(finding, path));
    }

    /// Something that works, but otherwise than written; `effect` says how.
    pub fn warn(&mut self, code: Code, path: &str, message: impl Into<String>, effect: &str) {
        let finding = Diagnostic::warning(code, message).with_effect(effect);
        self.findings.push(self.object.mark(finding, path));
    }

    /// The rule, by a name that no other one has.
    pub fn name(&self) -> String {
        format!("{} {}", self.object.origin, self.path)
    }

    /// Requests in the rule's scope, for effects.
    pub fn requests(&self) -> String {
        format!("requests to {} that this rule matches", self.scope)
    }

    /// A mirror that leads nowhere; the requests themselves are as they are without it.
    pub fn fail_mirror(&mut self, path: &str, message: &str, hint: &str) {
        let effect = format!("{} are not mirrored there", self.requests());
        let finding = Diagnostic::error(Code::BackendNotFound, message)
            .with_effect(effect)
            .with_hint(hint);
        self.findings.push(self.object.mark(finding, path));
    }

    /// A part of the rule's requests that is answered 500; the rule as such works.
    pub fn fail_share(&mut self, path: &str, message: &str, hint: &str) {
        let effect = format!("its share of {} is answered 500", self.requests());
        let finding = Diagnostic::error(Code::BackendNotFound, message)
            .with_effect(effect)
            .with_hint(hint);
        self.findings.push(self.object.mark(finding, path));
    }
}

/// What the rules of a route are read with.
pub(super) struct Rules<'a> {
    /// The route.
    pub object: &'a Object<HttpRouteSpec>,
    /// What it was made of, if it is a GRPCRoute.
    pub grpc: Option<&'a GrpcRouteSpec>,
    /// Where it applies, in words.
    pub scope: &'a str,
    /// For backendRefs.
    pub backends: Backends<'a>,
    /// How the paths of requests are normalised.
    pub path_normalization: PathNormalization,
}

impl Rules<'_> {
    /// Reads them all. An absent list is what the API server writes for it: one rule for
    /// everything, without backends.
    pub fn read(&self, findings: &mut Findings) -> Vec<HttpRule> {
        match &self.object.spec.rules {
            None => vec![read(self, 0, &HttpRouteRules::default(), findings)],
            Some(rules) => (rules.iter().enumerate())
                .map(|(index, written)| read(self, index, written, findings))
                .collect(),
        }
    }
}

fn read(
    rules: &Rules<'_>,
    index: usize,
    written: &HttpRouteRules,
    findings: &mut Findings,
) -> HttpRule {
    let mut reading = Reading {
        object: rules.object,
        path: format!("spec.rules[{index}]"),
        scope: rules.scope,
        broken: None,
        findings,
    };
    let mode = rules.path_normalization;
    let mut matches = route_matches::read(written.matches.as_deref(), mode, &mut reading);
    if let Some(grpc) = rules.grpc {
        let rules = grpc.rules.as_deref().unwrap_or_default();
        let written = rules.get(index).cloned().unwrap_or_default();
        grpc_routes::set_paths(&written, &mut matches, &mut reading);
    }
    let own_namespace = &rules.object.origin.key.namespace;
    let context = route_filters::Context {
        matches: &matches,
        backends: &rules.backends,
        own_namespace,
        sessions: written.session_persistence.is_some(),
    };
    let filters = route_filters::read(written, &context, &mut reading);
    let refs = written.backend_refs.as_deref().unwrap_or_default();
    let targets = rules.backends.read(refs, &context, &mut reading);
    let traffic = route_traffic::read(written, &mut reading);

    let redirects = filters.iter().any(|f| matches!(f, Filter::Redirect(_)));
    let path = format!("{}.backendRefs", reading.path);
    if redirects && !refs.is_empty() {
        let effect = "requests are redirected; the backends receive nothing";
        let message = "a rule that redirects has no use for backendRefs";
        reading.warn(Code::Conflict, &path, message, effect);
    } else if !redirects && targets.iter().all(|t| t.weight == 0) && reading.broken.is_none() {
        let message = match refs {
            [] => "the rule has no backendRefs",
            _ => "every backendRef of the rule has weight 0",
        };
        let effect = format!("{} are answered 500", reading.requests());
        reading.warn(Code::MissingField, &path, message, &effect);
    }
    HttpRule {
        name: written.name.as_deref().map(Arc::from),
        matches,
        filters,
        backends: targets,
        traffic,
        broken: reading.broken,
    }
}
