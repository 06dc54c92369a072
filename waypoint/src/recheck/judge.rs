//! Whether what is open would be allowed to begin now.

use std::sync::Arc;

use cairn_authz::jwt::Login;
use cairn_authz::{Question, Verdict};
use cairn_config_schema::snapshot::{Backend, BackendTarget, ClusterKey, ExternalProvider};
use cairn_filters::chain::{
    Answer, Authenticated, Decision, Destination, External, PortChain, RequestView, StreamView,
    facts, tcp_facts,
};
use cairn_filters::outcome::Outcome;
use cairn_routing::ServerName;
use http::{HeaderMap, Method};

use super::open::Closure;
use crate::listener::admit::Asked;
use crate::runtime::Runtime;
use crate::telemetry::exchange::{Peer, StreamOrigin};

/// The providers of CUSTOM policies that were asked when it began, and allowed it. What they said holds
/// as long as nobody else has to be asked.
pub type AllowedBy = Vec<Arc<ExternalProvider>>;

/// What is kept of something open, so that it can be judged again.
pub enum Kept {
    /// A client's tunnel.
    Tunnel(Arc<Peer>),
    /// A TCP stream.
    Tcp(KeptStream),
    /// A connection that HTTP handed over to another protocol, for this request.
    Upgraded(Arc<StreamOrigin>, Asked, Box<UpgradeRequest>),
}

/// A TCP stream, as it was judged.
pub struct KeptStream {
    /// Where it comes from.
    pub origin: Arc<StreamOrigin>,
    /// What it asked for.
    pub asked: Asked,
    /// What it said of the server it wants.
    pub server_name: ServerName,
    /// Who allowed it.
    pub allowed_by: AllowedBy,
}

/// A request for an upgrade, as it was judged.
pub struct UpgradeRequest {
    /// Method.
    pub method: Method,
    /// Path and query as sent.
    pub target: String,
    /// Host.
    pub authority: String,
    /// Headers as policy saw them.
    pub headers: HeaderMap,
    /// Who it is from.
    pub login: Option<Authenticated>,
    /// Who allowed it.
    pub allowed_by: AllowedBy,
    /// Where it went.
    pub cluster: Option<ClusterKey>,
}

impl Kept {
    /// The label of `cairn_closed_by_policy_total`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tunnel(_) => "tunnel",
            Self::Tcp(..) => "tcp",
            Self::Upgraded(..) => "upgraded",
        }
    }

    /// Why it may not go on under this runtime; `None` if it may.
    pub fn denied_by(&self, runtime: &Runtime) -> Option<Closure> {
        match self {
            Self::Tunnel(peer) => {
                let trust_domain = peer.identity.trust_domain();
                let accepted = runtime.snapshot.mesh.accepts_trust_domain(trust_domain);
                (!accepted).then(|| Closure {
                    snapshot: runtime.snapshot.version,
                    verdict: None,
                    reason: format!("the trust domain {trust_domain} is no longer accepted"),
                    details: String::new(),
                })
            }
            Self::Tcp(stream) => stream.denied_by(runtime),
            Self::Upgraded(origin, asked, request) => request.denied_by(runtime, origin, asked),
        }
    }
}

impl KeptStream {
    /// Where a new stream would go decides only which network policies are asked.
    fn denied_by(&self, runtime: &Runtime) -> Option<Closure> {
        let Ok(target) = runtime.find(&self.asked, self.origin.peer.identity.namespace()) else {
            return Some(not_served(runtime));
        };
        let (chain, origin) = (&target.chain, &self.origin);
        let view = StreamView {
            peer: Some(&origin.peer.identity),
            attested_by: origin.attested_by(),
            source_ip: origin.peer.address.ip(),
            destination: origin.destination,
            found: None,
        };
        let found = chain.route_stream(&view, &self.server_name);
        let view = StreamView {
            found: Some(&found),
            ..view
        };
        let questions = chain.consult_tcp(&view);
        let settled = questions.is_ok_and(|questions| are_answered(&questions, &self.allowed_by));
        let verdict = match settled {
            true => chain.decide_tcp_settled(&view),
            false => chain.decide_tcp(&view),
        };
        if verdict.allowed {
            return None;
        }
        let (reason, details) = tcp_denial(chain, &view, &verdict);
        Some(Closure {
            snapshot: runtime.snapshot.version,
            verdict: Some(verdict),
            reason,
            details,
        })
    }
}

/// Whether all that would have to be asked have allowed it before.
fn are_answered(questions: &[Question], allowed_by: &AllowedBy) -> bool {
    let mut providers = questions.iter().map(|question| &question.provider);
    providers.all(|provider| allowed_by.contains(provider))
}

/// Why policy denies a TCP stream: in words, and as `response_code_details`.
pub fn tcp_denial(chain: &PortChain, view: &StreamView<'_>, verdict: &Verdict) -> (String, String) {
    let reason = verdict.reason(chain.policies(), &tcp_facts(view));
    (reason, verdict.response_code_details().unwrap_or_default())
}

fn not_served(runtime: &Runtime) -> Closure {
    Closure {
        snapshot: runtime.snapshot.version,
        verdict: None,
        reason: "the service is no longer served here".to_owned(),
        details: Outcome::NotServed.row().details.to_owned(),
    }
}

impl UpgradeRequest {
    /// The same, that went there.
    pub fn towards(self, destination: Destination<'_>) -> Self {
        let cluster = match destination {
            Destination::Cluster { key, .. } => Some(key.clone()),
            Destination::Dialled => None,
        };
        Self { cluster, ..self }
    }

    fn denied_by(
        &self,
        runtime: &Runtime,
        origin: &StreamOrigin,
        asked: &Asked,
    ) -> Option<Closure> {
        let Ok(target) = runtime.find(asked, origin.peer.identity.namespace()) else {
            return Some(not_served(runtime));
        };
        let login = self.login_under(&target.chain);
        let view = RequestView {
            peer: Some(&origin.peer.identity),
            attested_by: origin.attested_by(),
            source_ip: origin.peer.address.ip(),
            destination: origin.destination,
            method: &self.method,
            target: &self.target,
            authority: &self.authority,
            headers: &self.headers,
            login: Some(&login),
            trial: None,
            external: External::Unasked,
        };
        let questions = target.chain.consult(&view).questions;
        let external = match are_answered(&questions, &self.allowed_by) {
            true => External::Settled(None),
            false => External::Unasked,
        };
        let view = RequestView { external, ..view };
        let decision = target.chain.decide(&view);
        let words = match &decision.answer {
            Answer::Deny | Answer::DenyNetwork => {
                let (target_read, verdict) = (decision.target.as_ref(), &decision.verdict);
                let facts = target_read.map(|read| facts(&view, read, decision.found.as_ref()));
                let verdict = verdict.as_ref().zip(facts.as_ref());
                verdict.map(|(verdict, facts)| verdict.reason(target.chain.policies(), facts))
            }
            Answer::Unauthenticated(_) | Answer::BadPath(_) | Answer::Refused(_) => None,
            _ if let Some(unasked) = self.unasked(&decision) => {
                return Some(Closure {
                    snapshot: runtime.snapshot.version,
                    verdict: None,
                    reason: format!("its route asks {unasked} now, which was not asked"),
                    details: Outcome::ExternalDenied.row().details.to_owned(),
                });
            }
            // Where a new request would go is no reason to end one that has arrived.
            _ => return None,
        };
        let words = words.or_else(|| decision.reason().map(Into::into));
        Some(Closure {
            snapshot: runtime.snapshot.version,
            reason: words.unwrap_or_default(),
            details: decision.details().unwrap_or_default().into_owned(),
            verdict: decision.verdict,
        })
    }

    /// Whom the filter of its route, or of the backend that it went to, would ask, and did not when it
    /// began.
    fn unasked<'d>(&self, decision: &'d Decision<'_>) -> Option<&'d str> {
        let is_there = |backend: &&Backend| match (&backend.target, &self.cluster) {
            (BackendTarget::Cluster(key), Some(own)) => key == own,
            _ => false,
        };
        let there = decision.backends().iter().filter(is_there);
        let of_backends = there.filter_map(|b| decision.external_auth_of(Some(b)));
        let mut asked = decision.external_auth().into_iter().chain(of_backends);
        let unasked = asked.find(|provider| !self.allowed_by.contains(provider));
        unasked.map(|provider| &*provider.name)
    }

    /// A token was valid when the connection began and is not asked for its times again; but one whose
    /// issuer nobody trusts any more says nothing, like one that nobody looked at.
    fn login_under(&self, chain: &PortChain) -> Authenticated {
        let nobody = Login::default();
        let login = self.login.as_ref().and_then(|login| login.as_ref().ok());
        chain.authenticator().renew(login.unwrap_or(&nobody))
    }
}
