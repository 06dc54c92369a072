//! Asks authorization services: over HTTP, or by Envoy's gRPC protocol (specs/istio-waypoint.md 4.8,
//! CUSTOM); and rate limit services, by Envoy's (issue 3, item 7). Whom to ask is for `cairn-filters` and
//! TrafficPolicies to say, and what becomes of an answer for `proxy/`.
//!
//! One call is bounded in everything: time, size, how many at once. An answer that breaks a bound is none.

mod call;
mod check;
mod connection;
mod grpc;
mod http;
pub mod limit_messages;
pub mod messages;
mod rate_limit;

use std::time::Duration;

use ::http::StatusCode;
use ::http::header::HeaderName;
use bytes::Bytes;
use cairn_config_schema::snapshot::{AppProtocol, CheckProtocol, ClusterKey, ExternalProvider};
use cairn_filters::external::{Changes, HeaderMutation};
use cairn_routing::Choice;

pub use self::check::{Check, CheckedBody, RequestInCheck};
use self::connection::Lease;
pub use self::connection::{Clients, Place};
pub use self::rate_limit::RATE_LIMITED;
use crate::clock::now_ms;
use crate::limits::CONNECT_ATTEMPTS_MAX;
use crate::runtime::Runtime;
use crate::telemetry::counters::EXT_AUTHZ_WAITING;
use crate::tls::Alpn;
use crate::upstream::{ConnectError, Dialer, Reach};

/// What a service says.
#[derive(Debug)]
pub enum Answer {
    /// The request passes, changed in this way.
    Allow(Changes),
    /// The client gets this.
    Deny(Denial),
}

/// What the client gets of a request that was denied.
#[derive(Debug)]
pub struct Denial {
    /// Status.
    pub status: StatusCode,
    /// Headers, none that belongs to a message or connection.
    pub headers: Vec<HeaderMutation>,
    /// Body, or gRPC message.
    pub body: Bytes,
}

impl Denial {
    /// A status and nothing else.
    pub fn bare(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }
}

/// Why there is no answer that could be used. Asking again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error("it has no endpoint")]
    NoEndpoint,
    /// Its traffic policy can not be honoured.
    #[error("it is not asked: {0}")]
    Refused(String),
    /// Nobody answers there.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Too many are waiting for it.
    #[error("{0} checks are waiting for it already")]
    Full(usize),
    /// Too many bodies are held.
    #[error("{0} bodies are held for checks already")]
    FullOfBodies(usize),
    /// It took too long.
    #[error("it did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection ended before the answer did.
    #[error("its answer broke off: {0}")]
    Broken(hyper::Error),
    /// It did answer, and that is not HTTP, not gRPC, or longer than an answer may be.
    #[error("its answer can not be read: {0}")]
    Unreadable(String),
    /// A status that is an error and no decision, 5xx.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// A gRPC error.
    #[error("it answered gRPC status {}: {}", .0, .1)]
    Grpc(i32, String),
    /// It says that it could not decide, and what the client gets if it names a status.
    #[error("it could not decide")]
    Undecided(Option<Box<Denial>>),
    /// The check could not be written down.
    #[error("it can not be asked about this request: {0}")]
    Request(#[from] ::http::Error),
    /// It neither allows nor denies, or does both.
    #[error("its answer says neither yes nor no")]
    Contradiction,
    /// A header of the answer is none.
    #[error("its answer has '{0}' for a header")]
    Header(String),
    /// It changes what is not its to change.
    #[error("it changes the header {0}, which belongs to the connection or to the waypoint")]
    Forbidden(HeaderName),
}

impl AskError {
    /// Whether a request may pass for it whose provider fails open. As Envoy's `failure_mode_allow`:
    /// when the service can not be reached, does not answer, or says that it failed (5xx, a gRPC error).
    ///
    /// Unlike Envoy not when it did answer and that can not be read or used: it has not allowed what
    /// would be sent, and a client may have chosen what it answers to. Nor for what is the matter on this
    /// side, limits (clients bring that about when they like), files, descriptors: only for its silence.
    pub fn fails_open(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_silence(),
            Self::NoEndpoint
            | Self::Timeout(_)
            | Self::Broken(_)
            | Self::Status(_)
            | Self::Grpc(..)
            | Self::Undecided(_) => true,
            Self::Full(_)
            | Self::FullOfBodies(_)
            | Self::Unreadable(_)
            | Self::Refused(_)
            | Self::Request(_)
            | Self::Contradiction
            | Self::Header(_)
            | Self::Forbidden(_) => false,
        }
    }

    /// Whether it may be the fault of a connection that was kept too long.
    fn of_connection(&self) -> bool {
        matches!(self, Self::Broken(_))
    }

    /// For metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoEndpoint => "no_endpoint",
            Self::Connect(_) | Self::Refused(_) => "connect",
            Self::Full(_) | Self::FullOfBodies(_) => "limit",
            Self::Timeout(_) => "timeout",
            Self::Broken(_) => "protocol",
            Self::Status(_) | Self::Grpc(..) | Self::Undecided(_) => "status",
            Self::Request(_) => "request",
            Self::Unreadable(_) | Self::Contradiction | Self::Header(_) | Self::Forbidden(_) => {
                "unusable"
            }
        }
    }
}

impl From<hyper::Error> for AskError {
    fn from(error: hyper::Error) -> Self {
        let h2 = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<h2::Error>());
        // Found by this end, in what the other one sent.
        match error.is_parse() || h2.is_some_and(h2::Error::is_library) {
            true => Self::Unreadable(error.to_string()),
            false => Self::Broken(error),
        }
    }
}

/// Everything that [`AskError::reason`] may say.
pub const REASONS: [&str; 8] = [
    "no_endpoint",
    "connect",
    "limit",
    "timeout",
    "protocol",
    "status",
    "request",
    "unusable",
];

/// One question to one service.
trait Ask {
    /// What is said to it.
    type Said;

    /// Who is asked.
    fn cluster(&self) -> &ClusterKey;

    /// Whether it is asked over gRPC.
    fn is_grpc(&self) -> bool;

    /// Asks over a connection.
    fn speak(&self, lease: Lease) -> impl Future<Output = Result<Self::Said, AskError>> + Send;
}

impl Clients {
    /// Asks one provider.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(
        &self,
        dialer: &Dialer,
        runtime: &Runtime,
        provider: &ExternalProvider,
        check: &Check<'_>,
    ) -> Result<Answer, AskError> {
        let _place = self.place(&provider.cluster, &EXT_AUTHZ_WAITING)?;
        let limit = Duration::from_millis(provider.timeout_ms);
        let asking = Asking { provider, check };
        let said = tokio::time::timeout(limit, self.said(dialer, runtime, &asking));
        let answer = match said.await.map_err(|_| AskError::Timeout(limit))?? {
            Said::Answer(answer) => answer,
            // Decided: from here on nothing may turn it into a silence.
            Said::Denied(denial) => Answer::Deny(denial.read().await),
        };
        answer.permitted()
    }

    /// The answer of one endpoint, of another if the first can not be reached.
    async fn said<Q: Ask + Sync>(
        &self,
        dialer: &Dialer,
        runtime: &Runtime,
        question: &Q,
    ) -> Result<Q::Said, AskError> {
        let cluster = runtime.cluster(question.cluster());
        let cluster = cluster.ok_or(AskError::NoEndpoint)?;
        let settings = cluster.settings();
        if let Some(reason) = &settings.refused {
            return Err(AskError::Refused(reason.to_string()));
        }
        let mesh_ms = runtime.snapshot.mesh.connect_timeout_ms;
        let limit = Duration::from_millis(settings.connect_timeout_ms.unwrap_or(mesh_ms));
        let declared = runtime.protocol(question.cluster());
        let http2 =
            question.is_grpc() || matches!(declared, AppProtocol::Http2 | AppProtocol::Grpc);
        let mut tried = Vec::new();
        let mut failure = AskError::NoEndpoint;
        while tried.len() < CONNECT_ATTEMPTS_MAX as usize {
            let Some(live) = cluster.pick(&Choice::new(fastrand::u64(..), &tried, now_ms())) else {
                break;
            };
            tried.push(live.endpoint.address);
            let _busy = live.begin();
            // The service is asked for the waypoint, not for a pod of this node.
            let reach = Reach {
                egress: None,
                settings: &settings,
                alpn: if http2 { Alpn::Http2 } else { Alpn::Http1 },
                client: None,
                host: None,
            };
            let destination = dialer.destination(&live.endpoint, &reach);
            if let Some(kept) = self.kept(&destination, http2) {
                let said = question.speak(kept).await;
                // It may have been closed under our hands: a new one says what is true.
                if !matches!(&said, Err(error) if error.of_connection()) {
                    return said;
                }
            }
            match self.connect(dialer, destination, http2, limit).await {
                Ok(lease) => return question.speak(lease).await,
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl Answer {
    /// The answer, unless it changes what is not its to change.
    fn permitted(self) -> Result<Self, AskError> {
        if let Self::Allow(changes) = &self
            && let Some(name) = changes.forbidden()
        {
            return Err(AskError::Forbidden(name.clone()));
        }
        Ok(self)
    }
}

/// A question to an authorization service.
struct Asking<'a> {
    provider: &'a ExternalProvider,
    check: &'a Check<'a>,
}

impl Ask for Asking<'_> {
    type Said = Said;

    fn cluster(&self) -> &ClusterKey {
        &self.provider.cluster
    }

    fn is_grpc(&self) -> bool {
        matches!(self.provider.protocol, CheckProtocol::Grpc(_))
    }

    async fn speak(&self, lease: Lease) -> Result<Said, AskError> {
        let Self { provider, check } = self;
        match &provider.protocol {
            CheckProtocol::Http(settings) => http::ask(lease, provider.body, settings, check).await,
            CheckProtocol::Grpc(settings) => grpc::ask(lease, provider, settings, check)
                .await
                .map(Said::Answer),
        }
    }
}

/// What was said, as far as it was read.
enum Said {
    Answer(Answer),
    /// No, and its words are still to come.
    Denied(Box<http::Denied>),
}
