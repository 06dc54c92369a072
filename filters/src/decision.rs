//! What `chain` decides about a request, and what follows from it: the answer, the destination, the
//! changes. Asks neither routes nor policy.

use std::borrow::Cow;
use std::sync::Arc;

use cairn_authz::jwt::{Failure as TokenFailure, without_params};
use cairn_authz::{HeaderEdit, Verdict};
use cairn_config_schema::snapshot::{
    Backend, BackendTarget, ClusterKey, DirectResponse, ExternalProvider, Filter, HttpMatch,
    HttpRule,
};
use cairn_routing::{Found, RuleRef};
use http::header::HeaderValue;
use http::{HeaderMap, StatusCode};

use crate::chain::RequestView;
use crate::fault::Faults;
use crate::header_change::{self, Headers};
use crate::normalise::{Rejection, Target};
use crate::outcome::Outcome;
use crate::{cors, login, redirect, rewrite};

/// What becomes of a request, and everything that led to it.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// The normalised target. `None`: refused before it was known.
    pub target: Option<Target<'a>>,
    /// The route. `None`: refused before one was looked for.
    pub found: Option<Found>,
    /// The verdict of the policies. `None`: refused before they were asked.
    pub verdict: Option<Verdict>,
    /// What to do.
    pub answer: Answer,
    /// Query parameters that are not for the application: tokens were in them.
    pub(crate) removed_params: Vec<Arc<str>>,
    /// The origin of the request, if the rule's CORS filter allows it.
    pub(crate) origin: Option<HeaderValue>,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Send it on; [`crate::chain::PortChain::backend`] says where to.
    Forward,
    /// Answer with a redirect.
    Redirect {
        /// Status.
        status: StatusCode,
        /// Location.
        location: HeaderValue,
    },
    /// 200 with these headers: a CORS preflight, of which neither token nor policy is asked
    /// (specs/istio-waypoint.md 4.9: it has no token).
    Preflight(HeaderMap),
    /// What the route itself answers.
    Direct(Arc<DirectResponse>),
    /// 401, or 403 for somebody else's: its token is not valid.
    Unauthenticated(TokenFailure),
    /// 403: policy denied it.
    Deny,
    /// 403 with the words of Cilium: network policy denied it.
    DenyNetwork,
    /// 404: routes are attached and none matches.
    NotFound,
    /// 400: the target or the authority is refused.
    BadPath(Rejection),
    /// 500: the rule can not be honoured, for this reason.
    BrokenRule(Cow<'static, str>),
    /// 500: the rule has neither a backend nor a redirect.
    NoBackend,
    /// 503: nothing may pass here, for this reason.
    Refused(Arc<str>),
}

impl Answer {
    /// Whether policy denied it.
    pub fn is_denial(&self) -> bool {
        matches!(self, Self::Deny | Self::DenyNetwork)
    }

    /// The row of the table of outcomes. `None`: the request is sent on.
    pub fn outcome(&self) -> Option<Outcome> {
        Some(match self {
            Self::Forward => return None,
            Self::Preflight(_) => Outcome::Preflight,
            Self::Direct(_) => Outcome::DirectResponse,
            Self::Redirect { .. } => Outcome::Redirected,
            Self::Unauthenticated(failure) => login::outcome(failure),
            Self::Deny => Outcome::Denied,
            Self::DenyNetwork => Outcome::DeniedByNetwork,
            Self::NotFound => Outcome::NoRoute,
            Self::BadPath(Rejection::Authority(_)) => Outcome::BadAuthority,
            Self::BadPath(_) => Outcome::BadPath,
            Self::BrokenRule(_) => Outcome::BrokenRule,
            Self::NoBackend => Outcome::NoBackend,
            Self::Refused(_) => Outcome::NotServed,
        })
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// An endpoint of this cluster.
    Cluster {
        /// The cluster.
        key: &'a ClusterKey,
        /// The backend of the rule that chose it. `None`: no route is attached.
        backend: Option<&'a Backend>,
    },
    /// The address that was dialled, a pod's.
    Dialled,
}

impl<'a> Destination<'a> {
    /// The backend of the rule, for [`Decision::change_request`].
    pub fn backend(&self) -> Option<&'a Backend> {
        match self {
            Self::Cluster { backend, .. } => *backend,
            Self::Dialled => None,
        }
    }
}

/// Why a request has nowhere to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The backend whose share this is could not be resolved, for this reason.
    InvalidBackend(Arc<str>),
    /// The same of a VirtualService.
    UnknownDestination(Arc<str>),
    /// The rule has no backend.
    NoBackend,
    /// No route takes the connection.
    NoRoute,
    /// The rule of the connection can not be honoured, for this reason.
    BrokenRule(Arc<str>),
    /// The decision was not to forward: asking for a backend is the caller's mistake.
    NotForwarded,
}

impl Failure {
    /// The row of the table of outcomes.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::InvalidBackend(_) => Outcome::InvalidBackend,
            Self::UnknownDestination(_) => Outcome::UnknownDestination,
            Self::NoBackend => Outcome::NoBackend,
            Self::NoRoute => Outcome::NoRoute,
            Self::BrokenRule(_) => Outcome::BrokenRule,
            Self::NotForwarded => Outcome::Internal,
        }
    }

    /// Why, in words.
    pub fn reason(&self) -> &str {
        match self {
            Self::InvalidBackend(reason)
            | Self::UnknownDestination(reason)
            | Self::BrokenRule(reason) => reason,
            Self::NoBackend => "the rule has no backend",
            Self::NoRoute => "no route takes it",
            Self::NotForwarded => "it was not to be sent on",
        }
    }
}

/// The answer to a request that policy allows.
pub(crate) fn answer(
    view: &RequestView<'_, '_>,
    target: &Target<'_>,
    found: &Found,
    removed_params: &[Arc<str>],
) -> Answer {
    let reference = match found {
        Found::Default => return Answer::Forward,
        Found::NoMatch => return Answer::NotFound,
        Found::Rule(reference) => reference,
    };
    let Some((rule, matched)) = resolve(reference) else {
        return Answer::BrokenRule("the matched rule is gone".into());
    };
    if let Some(reason) = reference.broken() {
        return Answer::BrokenRule(reason.to_owned().into());
    }
    for filter in &rule.filters {
        match filter {
            Filter::Redirect(redirect) => {
                let port = view.destination.port();
                let (authority, removed) = (view.authority, removed_params);
                let location =
                    redirect::location(redirect, matched, target, authority, port, removed);
                return match location {
                    Some(location) => Answer::Redirect {
                        status: redirect.status,
                        location,
                    },
                    None => Answer::BrokenRule("the redirect has no valid location".into()),
                };
            }
            Filter::Rewrite(change) if !rewrite::is_possible(change.path.as_ref(), matched) => {
                return Answer::BrokenRule(
                    "ReplacePrefixMatch on a rule that matched no prefix".into(),
                );
            }
            Filter::Respond(direct) => return Answer::Direct(direct.clone()),
            Filter::Rewrite(_)
            | Filter::RequestHeaders(_)
            | Filter::ResponseHeaders(_)
            | Filter::Mirror(_)
            | Filter::ExternalAuth(_)
            | Filter::Cors(_) => {}
        }
    }
    if rule.backends.is_empty() {
        return Answer::NoBackend;
    }
    Answer::Forward
}

fn resolve(reference: &RuleRef) -> Option<(&HttpRule, &HttpMatch)> {
    Some((reference.rule()?, reference.matched()?))
}

impl Decision<'_> {
    pub(crate) fn early(answer: Answer) -> Self {
        Self {
            target: None,
            found: None,
            verdict: None,
            answer,
            removed_params: Vec::new(),
            origin: None,
        }
    }

    /// Why the answer is what it is, in words, unless it is to forward or a denial (whose reason the
    /// verdict knows).
    pub fn reason(&self) -> Option<Cow<'_, str>> {
        match &self.answer {
            Answer::Forward
            | Answer::Preflight(_)
            | Answer::Direct(_)
            | Answer::Redirect { .. }
            | Answer::Deny
            | Answer::DenyNetwork => None,
            Answer::Unauthenticated(failure) => Some(failure.reason.as_str().into()),
            Answer::NotFound => Some("no route of the service matches".into()),
            Answer::BadPath(rejection) => Some(rejection.to_string().into()),
            Answer::BrokenRule(reason) => Some(reason.as_ref().into()),
            Answer::NoBackend => Some("the rule has no backend".into()),
            Answer::Refused(reason) => Some(reason.as_ref().into()),
        }
    }

    /// Envoy's response code details, unless the request is sent on.
    pub fn details(&self) -> Option<Cow<'static, str>> {
        if let Answer::Unauthenticated(failure) = &self.answer {
            return Some(Cow::Owned(login::details(failure)));
        }
        let of_verdict = self
            .verdict
            .as_ref()
            .and_then(Verdict::response_code_details);
        match of_verdict {
            Some(details) => Some(Cow::Owned(details)),
            None => Some(Cow::Borrowed(self.answer.outcome()?.row().details)),
        }
    }

    /// The redirect that a chosen backend has of its own; the rule's was asked before. `None`: the
    /// request is sent on.
    pub fn backend_redirect(
        &self,
        backend: Option<&Backend>,
        authority: &str,
        port: u16,
    ) -> Option<Answer> {
        let filters = backend_filters(backend).iter();
        let redirect = filters.clone().find_map(|filter| match filter {
            Filter::Redirect(redirect) => Some(redirect),
            _ => None,
        })?;
        let location = self.rule().zip(self.target.as_ref()).and_then(|found| {
            let ((_, matched), target) = found;
            let removed = &self.removed_params;
            redirect::location(redirect, matched, target, authority, port, removed)
        });
        Some(match location {
            Some(location) => Answer::Redirect {
                status: redirect.status,
                location,
            },
            None => Answer::BrokenRule("the redirect has no valid location".into()),
        })
    }

    /// Which of the mirrors of rule and backend get a copy of this request. `random` is uniform, a
    /// number for each.
    pub fn mirrors<'d>(
        &'d self,
        backend: Option<&'d Backend>,
        mut random: impl FnMut() -> u64,
    ) -> impl Iterator<Item = &'d ClusterKey> {
        let of_rule = self.rule().map_or(&[][..], |(rule, _)| &rule.filters);
        let filters = of_rule.iter().chain(backend_filters(backend));
        filters.filter_map(move |filter| match filter {
            Filter::Mirror(mirror) => {
                let ticket = random() % u64::from(mirror.denominator.max(1));
                (ticket < u64::from(mirror.numerator)).then_some(&mirror.target)
            }
            _ => None,
        })
    }

    /// The failures that the rule makes of this request on purpose. `random` gives uniform numbers.
    pub fn faults(&self, random: impl FnMut() -> u64) -> Faults {
        let rule = match self.answer {
            Answer::Forward => self.rule().map(|(rule, _)| rule),
            _ => None,
        };
        let fault = rule.and_then(|rule| rule.traffic.fault.as_deref());
        fault.map_or_else(Faults::default, |fault| Faults::draw(fault, random))
    }

    /// Path and query as they were judged, without tokens.
    pub fn judged_path(&self) -> Cow<'_, str> {
        let target = self.target.as_ref();
        let path = target.map_or(Cow::Borrowed("/"), Target::path_and_query);
        without_params(path, &self.removed_params)
    }

    /// Whom the rule's ExternalAuth filter asks about a request that would go on, or be redirected.
    pub fn external_auth(&self) -> Option<&Arc<ExternalProvider>> {
        if !matches!(self.answer, Answer::Forward | Answer::Redirect { .. }) {
            return None;
        }
        let (rule, _) = self.rule()?;
        asked_by(&rule.filters)
    }

    /// Whom the ExternalAuth filter of a backend asks about a request that was to go there.
    pub fn external_auth_of<'b>(
        &self,
        backend: Option<&'b Backend>,
    ) -> Option<&'b Arc<ExternalProvider>> {
        let goes_on = self.answer == Answer::Forward;
        asked_by(backend_filters(backend)).filter(|_| goes_on)
    }

    /// The backends of the rule of a request that would go on.
    pub fn backends(&self) -> &[Backend] {
        match (&self.answer, self.rule()) {
            (Answer::Forward, Some((rule, _))) => &rule.backends,
            _ => &[],
        }
    }

    /// Applies the request filters of the rule in their order, then those of the backend, and returns
    /// path and query to send.
    pub fn change_request(
        &self,
        backend: Option<&Backend>,
        headers: &mut impl Headers,
    ) -> Cow<'_, str> {
        let mut path = self.judged_path();
        self.change_by_network(backend, headers);
        if let Some((rule, matched)) = self.rule() {
            for filter in rule.filters.iter().chain(backend_filters(backend)) {
                match filter {
                    Filter::RequestHeaders(change) => header_change::apply(change, headers),
                    Filter::Rewrite(change) => {
                        path = rewrite::apply(change, matched, path, headers);
                    }
                    Filter::ResponseHeaders(_)
                    | Filter::Redirect(_)
                    | Filter::Mirror(_)
                    | Filter::ExternalAuth(_)
                    | Filter::Cors(_)
                    | Filter::Respond(_) => {}
                }
            }
        }
        path
    }

    /// What network policies of the workloads behind the backend change, before the filters: a route
    /// sees the request as policy left it (specs/policies.md 2.1.5).
    fn change_by_network(&self, backend: Option<&Backend>, headers: &mut impl Headers) {
        let backend = backend.and_then(|backend| match &backend.target {
            BackendTarget::Cluster(key) => Some(key),
            _ => None,
        });
        let network = self.verdict.as_ref().and_then(|v| v.network.as_ref());
        for edit in network
            .iter()
            .flat_map(|network| network.edits_for(backend))
        {
            match edit {
                HeaderEdit::Append(name, value) => headers.append(name, value.clone()),
                HeaderEdit::Set(name, value) => headers.set(name, value.clone()),
                HeaderEdit::Remove(name) => headers.remove(name),
            }
        }
    }

    /// The response filters of the rule in their order, then those of the backend, to be kept until
    /// an endpoint answers. Shares the route and copies nothing of it.
    pub fn response_changes(&self, backend: Option<&Backend>) -> ResponseChanges {
        let Some(Found::Rule(reference)) = &self.found else {
            return ResponseChanges::default();
        };
        let backends = reference.rule().map_or(&[][..], |r| &r.backends);
        ResponseChanges {
            rule: Some(reference.clone()),
            origin: self.origin.clone(),
            backend: backend.and_then(|b| backends.iter().position(|other| std::ptr::eq(b, other))),
        }
    }

    /// [`Decision::response_changes`] applied at once, where the answer is at hand.
    pub fn change_response(&self, backend: Option<&Backend>, headers: &mut impl Headers) {
        self.response_changes(backend).apply(headers);
    }

    fn rule(&self) -> Option<(&HttpRule, &HttpMatch)> {
        match &self.found {
            Some(Found::Rule(reference)) => resolve(reference),
            _ => None,
        }
    }
}

/// The service of an ExternalAuth filter among these.
fn asked_by(filters: &[Filter]) -> Option<&Arc<ExternalProvider>> {
    filters.iter().find_map(|filter| match filter {
        Filter::ExternalAuth(provider) => Some(provider),
        _ => None,
    })
}

fn backend_filters(backend: Option<&Backend>) -> &[Filter] {
    backend.map_or(&[], |b| &b.filters)
}

/// What a route changes in the answers of endpoints. Answers that Cairn gives by itself stay as they
/// are.
#[derive(Clone, Debug, Default)]
pub struct ResponseChanges {
    rule: Option<RuleRef>,
    /// Which backend of the rule was chosen.
    backend: Option<usize>,
    /// The allowed origin of the request.
    origin: Option<HeaderValue>,
}

impl ResponseChanges {
    /// Applies them.
    pub fn apply(&self, headers: &mut impl Headers) {
        let Some(rule) = self.rule.as_ref().and_then(RuleRef::rule) else {
            return;
        };
        let backend = self.backend.and_then(|at| rule.backends.get(at));
        for filter in rule.filters.iter().chain(backend_filters(backend)) {
            match (filter, &self.origin) {
                (Filter::ResponseHeaders(change), _) => header_change::apply(change, headers),
                (Filter::Cors(cors), Some(origin)) => cors::apply(cors, origin, headers),
                _ => {}
            }
        }
    }
}
