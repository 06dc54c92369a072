//! Whom CUSTOM policies want to be asked before a request or stream is decided
//! (specs/istio-waypoint.md 4.8). Asks nobody: who does says so by [`External::Settled`].
//!
//! They are asked before tokens are checked, as at Istio, and get the request with its token; but rules
//! on claims see the verified token, where Istio's never match.

use std::sync::Arc;

use cairn_authz::{Question, Verdict};
use cairn_config_schema::snapshot::{CheckProtocol, ExternalProvider, PathNormalization};
use cairn_routing::Found;

use super::{PortChain, RequestView, StreamView, cors_of, facts, tcp_facts};
use crate::cors;

/// What is known of the answers to a request's questions.
#[derive(Clone, Copy, Debug)]
pub enum External<'r> {
    /// Nobody was asked: a request that a CUSTOM policy matches is denied.
    Unasked,
    /// There was nothing to ask, or all that were asked have allowed it. With a route, that one stays,
    /// whatever they changed.
    Settled(Option<&'r Found>),
}

/// What is to be asked about a request.
#[derive(Debug, Default)]
pub struct Consultation {
    /// Whom, and for which policy.
    pub questions: Vec<Question>,
    /// Path and query in the form that policy saw. `None`: nobody is to be asked.
    pub target: Option<String>,
    /// The route that the request has, to be kept when headers are changed. `None`: it is looked for
    /// again, because a provider or a token may decide it.
    pub route: Option<Found>,
}

impl PortChain {
    /// Whether a request may have to be asked about at all.
    pub fn asks(&self) -> bool {
        self.refused.is_none() && self.policies.asks()
    }

    /// Whom to ask about a request that has been through [`PortChain::clean`] and has its token still.
    /// Nobody when it is refused in any case.
    pub fn consult(&self, view: &RequestView<'_, '_>) -> Consultation {
        let Ok(target) = self.read_target(view) else {
            return Consultation::default();
        };
        let found = self.route(view, &target);
        // Answered for the endpoint, before anybody may deny it.
        if cors_of(&found).is_some_and(|cors| cors::answers(cors, view.method, view.headers)) {
            return Consultation::default();
        }
        let ask = |target| self.policies.questions(&facts(view, target, Some(&found)));
        let mut questions = ask(&target);
        // A path with parameters is two paths, see `authorise`.
        if self.normalization == PathNormalization::Strict
            && let Some(other) = target.without_parameters()
        {
            for question in ask(&other) {
                if !questions.iter().any(|q| q.provider == question.provider) {
                    questions.push(question);
                }
            }
        }
        let again = questions.iter().any(|q| q.provider.clear_route_cache);
        let keeps = !questions.is_empty() && !again && self.authenticator.is_empty();
        Consultation {
            target: (!questions.is_empty()).then(|| target.path_and_query().into_owned()),
            route: keeps.then_some(found),
            questions,
        }
    }

    /// What would have to be asked about a request as it is now of somebody who did not allow it: taking
    /// the token out, or what a provider changed, may have led it to another route or under another
    /// CUSTOM policy. It is denied.
    pub fn unasked(
        &self,
        view: &RequestView<'_, '_>,
        allowed_by: &[Arc<ExternalProvider>],
    ) -> Option<Question> {
        if !self.asks() {
            return None;
        }
        let mut questions = self.consult(view).questions.into_iter();
        questions.find(|question| !allowed_by.contains(&question.provider))
    }

    /// Whom to ask about a TCP stream. HTTP providers can not be asked: on a port that declares TCP they
    /// are left out, as at Istio; elsewhere a client chooses what its stream is taken for.
    ///
    /// # Errors
    /// What would have to be asked of a provider that can not be asked.
    pub fn consult_tcp(&self, view: &StreamView<'_>) -> Result<Vec<Question>, Question> {
        if self.refused.is_some() {
            return Ok(Vec::new());
        }
        let facts = tcp_facts(view);
        let mut questions = self.policies.questions(&facts);
        let is_http = |q: &Question| matches!(q.provider.protocol, CheckProtocol::Http(_));
        if !self.declared_tcp
            && let Some(unaskable) = questions.iter().find(|q| is_http(q))
        {
            return Err(unaskable.clone());
        }
        questions.retain(|q| !is_http(q));
        Ok(questions)
    }

    /// Judges a TCP stream about which nobody was asked: what somebody would have to allow is denied.
    pub fn decide_tcp(&self, view: &StreamView<'_>) -> Verdict {
        match self.consult_tcp(view) {
            Err(question) => question.denied(),
            Ok(questions) => match questions.first() {
                Some(question) => question.denied(),
                None => self.decide_tcp_settled(view),
            },
        }
    }
}
