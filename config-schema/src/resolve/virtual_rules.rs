//! The http rules of a VirtualService as a whole (specs/policies.md 2.6). Their parts are read by
//! `virtual_matches`, `virtual_actions` and `virtual_traffic`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::virtual_delegates::{self, Delegates};
use super::virtual_destinations::{Destinations, Nowhere};
use super::{Findings, virtual_actions, virtual_cors, virtual_matches, virtual_traffic};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::resources::Object;
use crate::resources::virtual_service::{
    Delegate, Destination, HttpDestination, HttpRoute, Percent, StringMatch, VirtualServiceSpec,
};
use crate::snapshot::{
    Backend, BackendTarget, ClusterKey, Filter, HttpRule, Mirror, PathNormalization, Pattern,
    TextMatch,
};

/// The object.
pub(super) type Written = Object<VirtualServiceSpec>;

/// Shares of mirrors are counted in these: a ten-thousandth of a percent, as in Envoy.
const SHARE_PARTS: u32 = 1_000_000;

/// More would not fit into a sum.
pub(super) const WEIGHT_MAX: i64 = 1_000_000;

/// A rule being read: where it stands and what breaks it.
pub(super) struct Reading<'a> {
    /// The VirtualService.
    pub object: &'a Written,
    /// `spec.http[i]`.
    pub path: String,
    /// Services it is for, in words.
    scope: &'a str,
    broken: Option<Arc<str>>,
    findings: &'a mut Findings,
}

impl Reading<'_> {
    /// Something that Cairn can not honour: the rule answers 500.
    pub fn fail(&mut self, code: Code, path: &str, message: impl Into<String>) {
        let message = message.into();
        self.broken.get_or_insert_with(|| message.as_str().into());
        let effect = format!("{} are answered 500", self.requests());
        let finding = Diagnostic::error(code, message).with_effect(effect);
        self.findings.push(self.object.mark(finding, path));
    }

    /// Something that works, but otherwise than written; `effect` says how.
    pub fn warn(&mut self, code: Code, path: &str, message: impl Into<String>, effect: &str) {
        let finding = Diagnostic::warning(code, message).with_effect(effect);
        self.findings.push(self.object.mark(finding, path));
    }

    /// Something that works, and otherwise than at Istio; `effect` says how, `hint` how to say which is meant.
    pub fn tell(&mut self, path: &str, message: &str, effect: &str, hint: &str) {
        let finding = Diagnostic::new(Severity::Info, Code::MissingField, message)
            .with_effect(effect)
            .with_hint(hint);
        self.findings.push(self.object.mark(finding, path));
    }

    /// Requests of the rule, for effects.
    pub fn requests(&self) -> String {
        format!("requests to {} that this rule matches", self.scope)
    }

    /// How a text is compared. `None`: that can not be told, and the rule is broken.
    pub fn text(&mut self, written: &StringMatch, at: &str) -> Option<TextMatch> {
        match (&written.exact, &written.prefix, &written.regex) {
            (None, None, None) => Some(TextMatch::Present),
            (Some(text), None, None) => Some(TextMatch::Exact(text.as_str().into())),
            (None, Some(text), None) if text.is_empty() => {
                let message = "an empty prefix is not valid; leave it out to match everything";
                self.fail(Code::BadValue, at, message);
                None
            }
            (None, Some(text), None) => Some(TextMatch::Prefix(text.as_str().into())),
            (None, None, Some(source)) => match Pattern::compile(source) {
                Ok(pattern) => Some(TextMatch::Regex(pattern)),
                Err(error) => {
                    let message =
                        format!("the regular expression '{source}' is not valid: {error}");
                    self.fail(Code::BadValue, at, message);
                    None
                }
            },
            _ => {
                let message = "a match has one of exact, prefix and regex";
                self.fail(Code::Conflict, at, message);
                None
            }
        }
    }

    /// A destination that leads nowhere; `effect` says what becomes of its share.
    pub fn lost(&mut self, path: &str, nowhere: &Nowhere, effect: String) {
        let finding = Diagnostic::error(Code::BackendNotFound, &*nowhere.reason)
            .with_effect(effect)
            .with_hint(&*nowhere.hint);
        let path = format!("{path}.{}", nowhere.field);
        self.findings.push(self.object.mark(finding, &path));
    }
}

/// A rule that delegates.
#[derive(Clone, Copy)]
struct Delegated<'a> {
    root: &'a HttpRoute,
    /// Where it stands.
    path: &'a str,
    delegate: &'a Delegate,
}

/// Whether a rule says by itself what becomes of a request.
fn acts(written: &HttpRoute) -> bool {
    let routes = written.route.as_ref().is_some_and(|r| !r.is_empty());
    routes || written.redirect.is_some() || written.direct_response.is_some()
}

/// What rules are read with.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The VirtualService.
    pub object: &'a Written,
    /// Services it is for, in words.
    pub scope: &'a str,
    /// The service port that was dialled.
    pub port: u16,
    /// How the paths of requests are normalised.
    pub path_normalization: PathNormalization,
    /// For destinations.
    pub destinations: &'a Destinations<'a>,
    /// For delegates.
    pub delegates: &'a Delegates<'a>,
}

impl Rules<'_> {
    /// Reads them all. Subsets they lead to are put to `used`.
    pub fn read(&self, used: &mut BTreeSet<ClusterKey>, findings: &mut Findings) -> Vec<HttpRule> {
        let mut rules = Vec::new();
        let written = self.object.spec.http.iter().flatten();
        for (index, written) in written.enumerate() {
            let path = format!("spec.http[{index}]");
            match &written.delegate {
                Some(delegate) if !acts(written) => {
                    let delegated = Delegated {
                        root: written,
                        path: &path,
                        delegate,
                    };
                    rules.extend(self.delegated(&delegated, used, findings));
                }
                _ => rules.push(self.rule(written, self.reading(path, findings), used)),
            }
        }
        rules
    }

    fn reading<'f>(&'f self, path: String, findings: &'f mut Findings) -> Reading<'f> {
        Reading {
            object: self.object,
            path,
            scope: self.scope,
            broken: None,
            findings,
        }
    }

    /// The rules of the object that a rule delegates to, each with the rule's own matches.
    fn delegated(
        &self,
        delegated: &Delegated<'_>,
        used: &mut BTreeSet<ClusterKey>,
        findings: &mut Findings,
    ) -> Vec<HttpRule> {
        let Delegated {
            root,
            path,
            delegate,
        } = *delegated;
        let object = match self.delegates.find(delegate, self.object) {
            Ok(object) => object,
            Err(reason) => {
                let mut reading = self.reading(path.to_owned(), findings);
                let at = format!("{path}.delegate");
                reading.fail(Code::BackendNotFound, &at, reason);
                return vec![self.rule(root, reading, used)];
            }
        };
        let rules = Rules { object, ..*self };
        let mut found = Vec::new();
        for (index, own) in object.spec.http.iter().flatten().enumerate() {
            let path = format!("spec.http[{index}]");
            let mut reading = rules.reading(path.clone(), findings);
            if own.delegate.is_some() {
                let at = format!("{path}.delegate");
                let message = "a delegate can not delegate again";
                reading.fail(Code::Unsupported, &at, message);
            }
            let merged = virtual_delegates::merged(root, own);
            for left_out in merged.left_out {
                let at = format!("{path}.match[{left_out}]");
                let message = format!(
                    "no request that {} delegates here can match this",
                    self.object.origin
                );
                let effect = "the match holds for none of its requests";
                reading.warn(Code::Conflict, &at, message, effect);
            }
            if let Some(rule) = merged.rule {
                found.push(rules.rule(&rule, reading, used));
            }
        }
        found
    }

    fn rule(
        &self,
        written: &HttpRoute,
        mut reading: Reading<'_>,
        used: &mut BTreeSet<ClusterKey>,
    ) -> HttpRule {
        let mode = self.path_normalization;
        let matches = virtual_matches::read(written, self.port, mode, &mut reading);
        one_action(written, &mut reading);
        let mut filters = Vec::new();
        if let Some(cors) = &written.cors_policy {
            let at = format!("{}.corsPolicy", reading.path);
            let cors = virtual_cors::read(cors, &at, &mut reading);
            filters.push(Filter::Cors(Arc::new(cors)));
        }
        self.mirrors(written, &mut filters, used, &mut reading);
        filters.extend(virtual_actions::read(written, &mut reading));
        let backends = self.backends(written, used, &mut reading);
        let traffic = virtual_traffic::read(written, &mut reading);
        HttpRule {
            name: written.name.as_deref().map(Arc::from),
            matches,
            filters,
            backends,
            traffic,
            broken: reading.broken,
        }
    }

    /// `mirror` with its percentage in three spellings, and `mirrors`. One that leads nowhere leaves
    /// the requests as they are.
    fn mirrors(
        &self,
        written: &HttpRoute,
        filters: &mut Vec<Filter>,
        used: &mut BTreeSet<ClusterKey>,
        reading: &mut Reading<'_>,
    ) {
        let base = reading.path.clone();
        let percent = |value: f64| Percent { value };
        let old = written.mirror_percent.or(written.mirror_percent_old);
        let share = written.mirror_percentage.or(old.map(percent));
        let one = written.mirror.as_ref();
        let mut all: Vec<(&Destination, Option<Percent>, String)> = one
            .map(|mirror| (mirror, share, format!("{base}.mirror")))
            .into_iter()
            .collect();
        for (index, mirror) in written.mirrors.iter().flatten().enumerate() {
            let at = format!("{base}.mirrors[{index}].destination");
            all.push((&mirror.destination, mirror.percentage, at));
        }
        for (destination, share, at) in all {
            let namespace = &self.object.origin.key.namespace;
            let target = match self.destinations.find(destination, namespace, self.port) {
                Ok(target) => target,
                Err(nowhere) => {
                    let effect = format!("{} are not mirrored there", reading.requests());
                    reading.lost(&at, &nowhere, effect);
                    continue;
                }
            };
            let percent = share.map_or(100.0, |share| share.value);
            if !(0.0..=100.0).contains(&percent) {
                let message = format!("{percent} is no share between 0 and 100");
                reading.fail(Code::BadValue, &at, message);
                continue;
            }
            if target.subset.is_some() {
                used.insert(target.clone());
            }
            filters.push(Filter::Mirror(Mirror {
                target,
                denominator: SHARE_PARTS,
                numerator: (percent * f64::from(SHARE_PARTS) / 100.0) as u32,
            }));
        }
    }

    /// The weighted destinations. One alone gets everything, whatever its weight.
    fn backends(
        &self,
        written: &HttpRoute,
        used: &mut BTreeSet<ClusterKey>,
        reading: &mut Reading<'_>,
    ) -> Vec<Backend> {
        let destinations = written.route.as_deref().unwrap_or_default();
        let base = format!("{}.route", reading.path);
        let mut backends = Vec::with_capacity(destinations.len());
        for (index, destination) in destinations.iter().enumerate() {
            let at = format!("{base}[{index}]");
            let weight = match destinations {
                [_] => 1,
                _ => match weight(destination, &at, reading) {
                    0 => continue,
                    weight => weight,
                },
            };
            let place = format!("{at}.destination");
            let namespace = &self.object.origin.key.namespace;
            let found = (self.destinations).find(&destination.destination, namespace, self.port);
            let target = match found {
                Ok(cluster) => {
                    if cluster.subset.is_some() {
                        used.insert(cluster.clone());
                    }
                    BackendTarget::Cluster(cluster)
                }
                Err(nowhere) => {
                    let effect = format!("its share of {} is answered 503", reading.requests());
                    reading.lost(&place, &nowhere, effect);
                    BackendTarget::Unknown(nowhere.reason.into())
                }
            };
            let headers = destination.headers.as_ref();
            let filters = virtual_actions::headers(headers, &format!("{at}.headers"), reading);
            backends.push(Backend {
                weight,
                target,
                filters,
            });
        }
        if backends.is_empty() && !destinations.is_empty() {
            let message = "every destination of the rule has weight 0";
            reading.fail(Code::BadValue, &base, message);
        }
        backends
    }
}

fn weight(destination: &HttpDestination, at: &str, reading: &mut Reading<'_>) -> u32 {
    let written = destination.weight.unwrap_or(0);
    match u32::try_from(written) {
        Ok(weight) if written <= WEIGHT_MAX => weight,
        _ => {
            let message = format!("weight {written} is not between 0 and {WEIGHT_MAX}");
            reading.fail(Code::BadValue, &format!("{at}.weight"), message);
            0
        }
    }
}

/// Exactly one of them says what becomes of a request.
fn one_action(written: &HttpRoute, reading: &mut Reading<'_>) {
    let route = written.route.as_ref().is_some_and(|r| !r.is_empty());
    let actions = [
        (route, "route"),
        (written.redirect.is_some(), "redirect"),
        (written.direct_response.is_some(), "directResponse"),
        (written.delegate.is_some(), "delegate"),
    ];
    let set: Vec<&str> = actions
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, f)| *f)
        .collect();
    let path = reading.path.clone();
    match set.as_slice() {
        [] => {
            let message = "a rule needs one of route, redirect, directResponse and delegate";
            reading.fail(Code::MissingField, &path, message);
        }
        [_] => {}
        several => {
            let message = format!("a rule has one of {}", several.join(" and "));
            reading.fail(Code::Conflict, &path, message);
        }
    }
}
