//! The one order in which a request is judged: authenticate, normalise, route, answer a CORS preflight, authorise, answer;
//! then, for a request that may go on, choose a backend and change the request. The data path and `cairn explain`
//! both run it. Sends nothing and picks no endpoint.
//!
//! The route is found before policy is asked so that a denial, too, can be told with its route; but a
//! denied request is denied whether a route matches or not: 403 before 404.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cairn_authz::jwt::{
    self, Authenticator, Failure as TokenFailure, KeySets, Login, Memory, Status,
};
use cairn_authz::{Attestation, Network, PolicySet, Verdict};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{
    AppProtocol, Backend, BackendTarget, Binding, ClusterKey, Cors, Filter, Labels,
    PathNormalization, Policy, RequestAuthentication, Service, ServicePort, Snapshot,
};
use cairn_routing::{Claims, Found, FoundStream, PortRoutes, RequestParts, StreamRoutes};
use http::header::HeaderValue;
use http::{HeaderMap, Method};

use crate::authority::{self, AuthorityError};
use crate::cors;
use crate::decision::answer;
pub use crate::decision::{Answer, Decision, Destination, Failure, ResponseChanges};
use crate::header_change::Headers;
use crate::hygiene;
use crate::login::{self, TokenClaims};
use crate::normalise::{Rejection, Target, normalise};
use crate::trial::Trial;

use common::Callers;
pub use common::Common;
pub use consult::{Consultation, External};
pub use facts::{facts, tcp_facts, trial_facts};

use facts::logged_in;

mod common;
mod consult;
mod facts;
mod streams;

/// Everything that applies to requests to one service port, or to a workload's addresses, compiled.
/// Immutable; one snapshot's.
#[derive(Debug)]
pub struct PortChain {
    routes: PortRoutes,
    streams: StreamRoutes,
    authenticator: Authenticator,
    /// `None`: no RequestAuthentication is tried.
    pub(crate) trial: Option<Trial>,
    pub(crate) policies: PolicySet,
    normalization: PathNormalization,
    /// Where requests go that no route claims. `None`: to the address that was dialled.
    default_cluster: Option<ClusterKey>,
    /// Writes x-forwarded-client-cert.
    client_cert: bool,
    /// The port declares TCP.
    declared_tcp: bool,
    /// Pods by address. `None`: no route asks who calls by labels.
    callers: Option<Callers>,
    /// Set when nothing may pass, for this reason.
    refused: Option<Arc<str>>,
}

/// A request, as it is judged. Its headers have been through [`PortChain::clean`]. A decision keeps
/// the target (`'t`) and nothing else of the request, so that the headers may be changed after it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'t, 'r> {
    /// Identity in the client certificate of the tunnel; of a steered connection the pod's.
    pub peer: Option<&'r Identity>,
    /// What says that the peer is that.
    pub attested_by: Attestation,
    /// Address of the TCP peer.
    pub source_ip: IpAddr,
    /// Virtual IP and service port, or pod IP and port.
    pub destination: SocketAddr,
    /// Method.
    pub method: &'r Method,
    /// Request target as sent.
    pub target: &'t str,
    /// Host or `:authority` ([`authority::of_request`] finds it).
    pub authority: &'r str,
    /// Headers.
    pub headers: &'r HeaderMap,
    /// What [`PortChain::authenticate`] said. `None` will do where nothing authenticates.
    pub login: Option<&'r Authenticated>,
    /// What is known of the providers of CUSTOM policies.
    pub external: External<'r>,
    /// What [`PortChain::try_token`] said.
    pub trial: Option<&'r Authenticated>,
}

/// A TCP stream, as it is judged.
#[derive(Clone, Copy, Debug)]
pub struct StreamView<'r> {
    /// Identity in the client certificate of the tunnel; of a steered connection the pod's.
    pub peer: Option<&'r Identity>,
    /// What says that the peer is that.
    pub attested_by: Attestation,
    /// Address of the TCP peer.
    pub source_ip: IpAddr,
    /// Virtual IP and service port, or pod IP and port.
    pub destination: SocketAddr,
    /// The route that it takes ([`PortChain::route_stream`]). `None`: not known yet; network policies
    /// are then those of the port itself.
    pub found: Option<&'r FoundStream>,
}

/// Who a request is from, or why its token is refused.
pub type Authenticated = Result<Login, TokenFailure>;

impl PortChain {
    /// The chain of one port of a service.
    pub fn compile(snapshot: &Snapshot, service: &Arc<Service>, port: &ServicePort) -> Self {
        Self::compile_sharing(snapshot, &Common::compile(snapshot), service, port)
    }

    /// The same, with what the chains of one snapshot have in common.
    pub fn compile_sharing(
        snapshot: &Snapshot,
        common: &Common,
        service: &Arc<Service>,
        port: &ServicePort,
    ) -> Self {
        let authentications = snapshot.authentications.of_service(&service.key);
        let mut chain = Self::bare(snapshot, common, &service.policies, authentications);
        chain.routes = PortRoutes::compile(&service.key.namespace, &port.routes);
        chain.streams = StreamRoutes::compile(&service.key.namespace, &port.stream_routes);
        let own = ClusterKey::new(service.key.clone(), port.number);
        if !snapshot.network.is_empty() {
            let network = Network::of_port(&snapshot.network, &common.egress, &own, routed(port));
            chain.policies = chain.policies.with_network(network);
        }
        let asks = port.asks_for_caller_labels();
        chain.callers = asks.then(|| common.callers.clone());
        chain.default_cluster = Some(own);
        chain.declared_tcp = port.protocol == AppProtocol::Tcp;
        // The policies of a service that is not served were never resolved: their empty list would
        // allow everything.
        if chain.refused.is_none() && service.binding != Binding::Served {
            chain.refused = Some("the service is not served by this waypoint".into());
        }
        chain
    }

    /// The chain for traffic to the addresses of workloads: the waypoint's policies, and no routes.
    pub fn for_workload(snapshot: &Snapshot) -> Self {
        Self::for_workload_sharing(snapshot, &Common::compile(snapshot))
    }

    /// The same, with what the chains of one snapshot have in common.
    pub fn for_workload_sharing(snapshot: &Snapshot, common: &Common) -> Self {
        let policies = snapshot.waypoint.as_ref().map_or(&[][..], |w| &w.policies);
        let authentications = &snapshot.authentications.waypoint;
        let mut chain = Self::bare(snapshot, common, policies, authentications);
        if !snapshot.network.is_empty() {
            let network = Network::of_workloads(&snapshot.network, &common.egress);
            chain.policies = chain.policies.with_network(network);
        }
        chain
    }

    /// A chain without routes. It refuses everything when the waypoint is missing or blocked.
    fn bare(
        snapshot: &Snapshot,
        common: &Common,
        policies: &[Arc<Policy>],
        authentications: &[Arc<RequestAuthentication>],
    ) -> Self {
        let waypoint = snapshot.waypoint.as_ref();
        let in_force = authentications.iter().filter(|a| !a.dry_run);
        let in_force: Vec<_> = in_force.cloned().collect();
        Self {
            routes: PortRoutes::default(),
            streams: StreamRoutes::default(),
            authenticator: Authenticator::compile_sharing(&in_force, &common.keys),
            trial: Trial::compile(authentications, &common.keys),
            policies: PolicySet::compile(policies),
            normalization: snapshot.mesh.path_normalization,
            default_cluster: None,
            declared_tcp: false,
            callers: None,
            client_cert: waypoint.is_some_and(|w| w.xfcc_include_client_identity),
            refused: match waypoint {
                Some(waypoint) => waypoint.blocked.clone(),
                None => Some("there is no Gateway for this waypoint".into()),
            },
        }
    }

    /// The compiled policies, for explanations.
    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// The cluster of requests that no route claims. `None`: a workload's chain.
    pub fn default_cluster(&self) -> Option<&ClusterKey> {
        self.default_cluster.as_ref()
    }

    /// First of all: removes the headers a client may not set and sets those every request has
    /// ([`hygiene::clean_request`]). `own` is the waypoint's identity.
    pub fn clean(
        &self,
        headers: &mut impl Headers,
        own: Option<&Identity>,
        peer: Option<&Identity>,
        request_id: impl FnOnce() -> HeaderValue,
    ) {
        let client_cert = own
            .filter(|_| self.client_cert)
            .and_then(|own| hygiene::client_cert(own, peer));
        hygiene::clean_request(headers, client_cert, request_id);
    }

    /// What verifies tokens here.
    pub fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// Second: who the request is from. `now_s` is in seconds since 1970.
    ///
    /// # Errors
    /// When it has a token that is not valid; to be handed on to [`PortChain::decide`] all the same.
    pub fn authenticate(
        &self,
        request: &jwt::Request<'_>,
        keys: &KeySets,
        memory: &mut Memory,
        now_s: i64,
    ) -> Authenticated {
        self.authenticator
            .authenticate(request, keys, memory, now_s)
    }

    /// Third: takes the token out and writes claims, so that routes and policies see the headers that
    /// the application will see.
    pub fn take_token(&self, login: &Authenticated, headers: &mut impl Headers) {
        if !self.authenticator.is_empty() {
            login::apply(&self.authenticator, login.as_ref().ok(), headers);
        }
    }

    /// Why a request is refused before policy is asked.
    fn unauthenticated(&self, view: &RequestView<'_, '_>) -> Option<TokenFailure> {
        match view.login {
            Some(login) => login.as_ref().err().cloned(),
            None if self.authenticator.is_empty() => None,
            // A caller that forgot to ask must not find an open door.
            None => Some(TokenFailure {
                status: Status::BadSignature,
                reason: "the token was not looked at".to_owned(),
                rule: None,
                refresh: None,
            }),
        }
    }

    /// Judges a request: normalise, route, authorise, answer.
    pub fn decide<'t>(&self, view: &RequestView<'t, '_>) -> Decision<'t> {
        if let Some(reason) = &self.refused {
            return Decision::early(Answer::Refused(reason.clone()));
        }
        let target = match self.read_target(view) {
            Ok(target) => target,
            Err(rejection) => return Decision::early(Answer::BadPath(rejection)),
        };
        let found = self.route(view, &target);
        let cors = cors_of(&found);
        if let Some(cors) = cors
            && cors::answers(cors, view.method, view.headers)
        {
            let answer = Answer::Preflight(cors::preflight(cors, view.headers));
            return Decision {
                target: Some(target),
                found: Some(found),
                ..Decision::early(answer)
            };
        }
        let origin = cors.and_then(|cors| cors::granted(cors, view.headers));
        if let Some(failure) = self.unauthenticated(view) {
            return Decision {
                target: Some(target),
                found: Some(found),
                ..Decision::early(Answer::Unauthenticated(failure))
            };
        }
        let removed_params = logged_in(view.login).map_or_else(Vec::new, login::removed_params);
        let mut target = target;
        target.hide_params(&removed_params);
        let (target, verdict) = self.authorise(view, target, &found);
        let answer = match verdict.allowed {
            true => answer(view, &target, &found, &removed_params),
            false if verdict.denied_by_network() => Answer::DenyNetwork,
            false => Answer::Deny,
        };
        Decision {
            target: Some(target),
            found: Some(found),
            verdict: Some(verdict),
            answer,
            removed_params,
            origin,
        }
    }

    /// Labels of the caller's pod: that at the peer's address, if its certificate can be that pod's. Any other
    /// address (behind a NAT, of a node, of a pod that is gone) says nothing, and a stolen one does no more than
    /// take a pod for another one of the same service account.
    fn caller_labels(&self, peer: Option<&Identity>, source_ip: IpAddr) -> Option<&Labels> {
        let (peer, callers) = (peer?, self.callers.as_ref()?);
        let pod = callers.get(&source_ip.to_canonical())?;
        pod.labels.as_deref().filter(|_| pod.may_be(peer))
    }

    fn route(&self, view: &RequestView<'_, '_>, target: &Target<'_>) -> Found {
        if let External::Settled(Some(found)) = view.external {
            return found.clone();
        }
        let claims = logged_in(view.login)
            .and_then(Login::token)
            .map(TokenClaims);
        let parts = RequestParts {
            method: view.method,
            authority: view.authority,
            path: &target.path,
            query: target.query,
            caller_namespace: view.peer.and_then(Identity::namespace),
            caller_labels: self.caller_labels(view.peer, view.source_ip),
            headers: view.headers,
            claims: claims.as_ref().map(|claims| claims as &dyn Claims),
        };
        (self.routes).find(view.peer.and_then(Identity::namespace), &parts)
    }

    /// Asks policy. A path with parameters (`/admin;x=1`) is two paths: some servers strip them, some
    /// do not, and nobody here knows which one the endpoint is. Strict mode lets it pass only if policy
    /// allows both (specs/istio-waypoint.md 4.8; Istio looks at the path as sent alone).
    fn authorise<'t>(
        &self,
        view: &RequestView<'t, '_>,
        target: Target<'t>,
        found: &Found,
    ) -> (Target<'t>, Verdict) {
        let mut verdict = self.decide_policies(view, &target, found);
        if verdict.allowed
            && self.normalization == PathNormalization::Strict
            && let Some(other) = target.without_parameters()
        {
            let of_other = self.decide_policies(view, &other, found);
            if !of_other.allowed {
                return (other, of_other);
            }
            verdict.take_records(of_other);
        }
        (target, verdict)
    }

    /// Judges a TCP stream about which all of [`PortChain::consult_tcp`] were asked, and allowed it.
    pub fn decide_tcp_settled(&self, view: &StreamView<'_>) -> Verdict {
        if self.refused.is_some() {
            return Verdict {
                allowed: false,
                ..Verdict::default()
            };
        }
        self.policies.decide_settled(&tcp_facts(view))
    }

    /// Why nothing may pass here, when nothing may.
    pub fn refused(&self) -> Option<&Arc<str>> {
        self.refused.as_ref()
    }

    /// Where a request goes that was decided to be forwarded. `random` is uniform.
    pub fn backend<'d>(
        &'d self,
        decision: &'d Decision<'_>,
        random: u64,
    ) -> Result<Destination<'d>, Failure> {
        if decision.answer != Answer::Forward {
            return Err(Failure::NotForwarded);
        }
        match &decision.found {
            Some(Found::Default) => Ok(match &self.default_cluster {
                Some(key) => Destination::Cluster { key, backend: None },
                None => Destination::Dialled,
            }),
            Some(Found::Rule(rule)) => {
                let backends = rule.rule().map_or(&[][..], |r| &r.backends);
                let backend = cairn_routing::choose(backends, random).ok_or(Failure::NoBackend)?;
                destination_of(backend)
            }
            Some(Found::NoMatch) | None => Err(Failure::NotForwarded),
        }
    }

    /// Where a request goes that was decided to be forwarded and whose session is at this backend of
    /// its rule.
    pub fn backend_at<'d>(
        &self,
        decision: &'d Decision<'_>,
        index: usize,
    ) -> Result<Destination<'d>, Failure> {
        match &decision.found {
            Some(Found::Rule(rule)) if decision.answer == Answer::Forward => {
                let backends = rule.rule().map_or(&[][..], |r| &r.backends);
                destination_of(backends.get(index).ok_or(Failure::NoBackend)?)
            }
            _ => Err(Failure::NotForwarded),
        }
    }

    fn read_target<'t>(&self, view: &RequestView<'t, '_>) -> Result<Target<'t>, Rejection> {
        authority::validate(view.authority)?;
        let target = normalise(view.target, self.normalization)?;
        if target.path == "*" && view.method != Method::OPTIONS {
            return Err(Rejection::Form);
        }
        match target.authority {
            Some(sent)
                if !authority::without_trailing_dot(sent).eq_ignore_ascii_case(view.authority) =>
            {
                Err(AuthorityError::Contradiction.into())
            }
            _ => Ok(target),
        }
    }
}

/// Where a backend leads.
fn destination_of(backend: &Backend) -> Result<Destination<'_>, Failure> {
    match &backend.target {
        BackendTarget::Cluster(key) => Ok(Destination::Cluster {
            key,
            backend: Some(backend),
        }),
        BackendTarget::Invalid(reason) => Err(Failure::InvalidBackend(reason.clone())),
        BackendTarget::Unknown(reason) => Err(Failure::UnknownDestination(reason.clone())),
    }
}

/// The CORS filter of a rule that is in force.
fn cors_of(found: &Found) -> Option<&Cors> {
    let Found::Rule(reference) = found else {
        return None;
    };
    let rule = reference.rule().filter(|_| reference.broken().is_none())?;
    rule.filters.iter().find_map(|filter| match filter {
        Filter::Cors(cors) => Some(&**cors),
        _ => None,
    })
}

/// The ports that the routes of a port lead to.
fn routed(port: &ServicePort) -> impl Iterator<Item = &ClusterKey> + Clone {
    let rules = port.routes.iter().flat_map(|route| &route.rules);
    let streams = (port.stream_routes.iter()).flat_map(|route| &route.rules);
    let targets = (rules.flat_map(|rule| &rule.backends))
        .chain(streams.flat_map(|rule| &rule.backends))
        .map(|backend| &backend.target);
    targets.filter_map(|target| match target {
        BackendTarget::Cluster(key) => Some(key),
        BackendTarget::Invalid(_) | BackendTarget::Unknown(_) => None,
    })
}

#[cfg(test)]
mod tests;
