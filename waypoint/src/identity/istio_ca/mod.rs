//! Certificates from Istio's CA: asked for with the pod's token, renewed at half of their life, the old one
//! kept while it is valid (specs/istio-waypoint.md 3). Connections that exist are left alone.

mod answer;
pub mod messages;

use std::time::{Duration, SystemTime};

use cairn_config_schema::identity::{Identity, IdentityError};
use http::uri::PathAndQuery;
use tokio::time::Instant;
use tonic::{Code, Extensions, Request};
use tonic_prost::ProstCodec;

pub use self::answer::AnswerError;
use self::answer::Issued;
use self::messages::{CertificateRequest, CertificateResponse, METHOD};
use super::own::{Outcome, OwnIdentity};
use super::{Following, LOOK_INTERVAL, back_off};
use crate::istiod::{CallError, ControlPlane, ControlPlaneError, Token};
use crate::limits::{CA_ANSWER_BYTES_MAX, CA_ATTEMPT_TIMEOUT, CERTIFICATE_RENEWAL_MIN};
use crate::pki::{PkiError, SigningRequest};
use crate::tls::{LocalIdentity, certificates_of_pem};

/// What is asked for: Istio's SECRET_TTL. The CA may give less, so that only the certificate counts.
const VALIDITY_ASKED: Duration = Duration::from_secs(24 * 3600);

/// Where Istio's CA is.
#[derive(Clone, Debug)]
pub struct IstioCa {
    /// How it is spoken to.
    pub plane: ControlPlane,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum CaError {
    #[error(transparent)]
    Plane(#[from] ControlPlaneError),
    #[error(
        "nobody says whose certificate to ask for: the token {0} is none of Kubernetes'; set POD_NAMESPACE and SERVICE_ACCOUNT"
    )]
    Nobody(String),
    #[error(
        "the token {path} is for {token}, and the pod says that it is {pod} (POD_NAMESPACE, SERVICE_ACCOUNT): one of them is another pod's"
    )]
    OtherAccount {
        path: String,
        token: String,
        pod: String,
    },
    #[error("no identity can have this name: {0}")]
    Name(#[from] IdentityError),
    #[error(transparent)]
    Request(#[from] PkiError),
    #[error(
        "the CA does not accept the token {path}: {message}; it must be for the audience istio-ca, not have expired, and be of a cluster that istiod knows (--ca-cluster)"
    )]
    Unauthenticated { path: String, message: String },
    #[error("the CA answered {code:?}: {message}")]
    Refused { code: Code, message: String },
    #[error("the connection to the CA broke: {0}")]
    Broke(String),
    #[error("the CA did not answer within {} s", CA_ATTEMPT_TIMEOUT.as_secs())]
    Late,
    #[error("the CA's answer is refused: {0}")]
    Answer(#[from] AnswerError),
}

impl CaError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Plane(ControlPlaneError::Token { .. })
            | Self::Nobody(_)
            | Self::OtherAccount { .. }
            | Self::Name(_)
            | Self::Unauthenticated { .. } => Outcome::Token,
            Self::Plane(ControlPlaneError::Roots { .. }) => Outcome::Roots,
            Self::Plane(ControlPlaneError::Tls { .. }) => Outcome::Tls,
            Self::Plane(ControlPlaneError::Connect { .. }) | Self::Broke(_) | Self::Late => {
                Outcome::Connect
            }
            Self::Request(_) | Self::Refused { .. } => Outcome::Refused,
            Self::Answer(_) => Outcome::Answer,
        }
    }
}

/// Gets certificates as long as the process lives.
pub(super) async fn follow(ca: &IstioCa, following: &Following, own: &OwnIdentity) {
    let mut failures = 0;
    let mut issued: Option<Issued> = None;
    let mut roots = Vec::new();
    loop {
        let trust_domain = following.trust_domain().await;
        let attempt = attempt(ca, following, &trust_domain);
        let wait = match tokio::time::timeout(CA_ATTEMPT_TIMEOUT, attempt).await {
            Ok(Ok(got)) => {
                failures = 0;
                own.take(got.identity);
                roots = got.roots;
                let wait = renewal(got.issued.left(SystemTime::now()), fastrand::f64());
                issued = Some(got.issued);
                wait
            }
            failed => {
                let error = match failed {
                    Ok(Err(error)) => error,
                    _ => CaError::Late,
                };
                failures += 1;
                let wait = back_off::after(failures, fastrand::f64());
                own.failed(error.outcome(), &error, wait);
                wait
            }
        };
        // After a failure the wait is the back-off's, or an overdue certificate would be asked for each second.
        let left = issued.as_ref().filter(|_| failures == 0);
        let left = left.map(|issued| issued.left(SystemTime::now()));
        let due = Instant::now() + wait;
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = following.reload.notified() => {}
            () = outdated(ca, own, issued.as_ref(), left, &mut roots) => {}
        }
    }
}

/// When to ask for the next certificate: at half of what is left, a hundredth more or less, so that
/// replicas that started together do not come together.
fn renewal(left: Duration, random: f64) -> Duration {
    let half = left.mul_f64(0.49 + 0.02 * random);
    half.max(CERTIFICATE_RENEWAL_MIN)
}

/// Whether half of what was left when it was had is over, by the clock that certificates go by: that of timers
/// stands still while a machine is suspended. Never before a timer would say so.
fn is_due(issued: &Issued, left_at_first: Duration, now: SystemTime) -> bool {
    issued.left(now) < left_at_first.mul_f64(0.49)
}

/// Takes up changes of the roots' file. Returns when those who have its roots alone would no longer take
/// our certificate, or when it is to be renewed by now.
async fn outdated(
    ca: &IstioCa,
    own: &OwnIdentity,
    issued: Option<&Issued>,
    left: Option<Duration>,
    roots: &mut Vec<Vec<u8>>,
) {
    let mut broken = String::new();
    let mut was_failing = false;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(issued) = issued else { continue };
        if left.is_some_and(|left| is_due(issued, left, SystemTime::now())) {
            return;
        }
        let now = match read_roots(&ca.plane) {
            Ok(now) => now,
            Err(error) => {
                let words = error.to_string();
                if words != broken {
                    if broken.is_empty() {
                        was_failing = own.is_failing();
                    }
                    own.count(Outcome::Roots);
                    tracing::error!(error = %words, "the last roots stay in force");
                    broken = words;
                }
                continue;
            }
        };
        if now == *roots && broken.is_empty() {
            continue;
        }
        match issued.with(&now) {
            Ok(identity) => {
                // That the file is whole again says nothing of the CA.
                if !broken.is_empty() {
                    own.restore(was_failing);
                }
                own.install(identity);
            }
            Err(error) => {
                tracing::error!(%error, "the last roots stay in force");
                continue;
            }
        }
        broken.clear();
        let was_accepted = issued.is_accepted_by(roots);
        *roots = now;
        if was_accepted && !issued.is_accepted_by(roots) {
            return;
        }
    }
}

/// A certificate that was had.
struct Got {
    issued: Issued,
    identity: LocalIdentity,
    /// What the file of roots held.
    roots: Vec<Vec<u8>>,
}

async fn attempt(ca: &IstioCa, following: &Following, trust_domain: &str) -> Result<Got, CaError> {
    let plane = &ca.plane;
    let token = plane.token()?;
    let expected = expected(plane, &token, following, trust_domain)?;
    let roots = read_roots(plane)?;
    let request = SigningRequest::new(&expected)?;
    let answer = ask(plane, token, request.csr_pem).await?;
    let (issued, identity) = Issued::judge(&answer, request.key, &expected, &roots)?;
    Ok(Got {
        issued,
        identity,
        roots,
    })
}

/// Who we are: what the token says, for the CA goes by it, unless the pod says otherwise.
fn expected(
    plane: &ControlPlane,
    token: &Token,
    following: &Following,
    trust_domain: &str,
) -> Result<Identity, CaError> {
    let path = || plane.token.display().to_string();
    let account = match (&token.account, &following.expected.account) {
        (Some(token), Some(pod)) if token != pod => {
            return Err(CaError::OtherAccount {
                path: path(),
                token: format!("{}/{}", token.0, token.1),
                pod: format!("{}/{}", pod.0, pod.1),
            });
        }
        (Some(account), _) | (None, Some(account)) => account,
        (None, None) => return Err(CaError::Nobody(path())),
    };
    Ok(Identity::of_workload(trust_domain, &account.0, &account.1)?)
}

fn read_roots(plane: &ControlPlane) -> Result<Vec<Vec<u8>>, ControlPlaneError> {
    let wrong = |reason: String| ControlPlaneError::Roots {
        path: plane.roots.display().to_string(),
        reason,
    };
    let text = std::fs::read(&plane.roots).map_err(|e| wrong(e.to_string()))?;
    certificates_of_pem(&text).map_err(wrong)
}

async fn ask(plane: &ControlPlane, token: Token, csr: String) -> Result<Vec<String>, CaError> {
    let client = plane.connect().await?;
    let mut client = client.max_decoding_message_size(CA_ANSWER_BYTES_MAX);
    let message = CertificateRequest {
        csr,
        validity_duration: VALIDITY_ASKED.as_secs() as i64,
    };
    let metadata = plane.metadata(token);
    let mut request = Request::from_parts(metadata, Extensions::default(), message);
    request.set_timeout(CA_ATTEMPT_TIMEOUT);
    let ready = client.ready().await;
    ready.map_err(|error| CaError::Broke(error.to_string()))?;
    let codec: ProstCodec<CertificateRequest, CertificateResponse> = ProstCodec::default();
    let method = PathAndQuery::from_static(METHOD);
    let answer = client.unary(request, method, codec).await;
    let answer = answer.map_err(|status| match CallError::from(status) {
        CallError::Unauthenticated(message) => CaError::Unauthenticated {
            path: plane.token.display().to_string(),
            message,
        },
        CallError::Broke(message) => CaError::Broke(message),
        CallError::Refused(code, message) => CaError::Refused { code, message },
    })?;
    Ok(answer.into_inner().cert_chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// specs/istio-waypoint.md 3: half-life, a hundredth of jitter; NotAfter counts, not what was asked.
    #[test]
    fn a_certificate_is_renewed_at_half_of_what_is_left_of_it() {
        let hour = Duration::from_secs(3600);
        assert_eq!(renewal(hour, 0.5).as_secs(), 1800);
        assert_eq!(renewal(hour, 0.0).as_secs(), 1764);
        assert_eq!(renewal(hour, 1.0).as_secs(), 1836);
        let least = CERTIFICATE_RENEWAL_MIN;
        assert_eq!(renewal(Duration::from_millis(300), 0.5), least);
        assert_eq!(renewal(Duration::ZERO, 0.5), least);
    }
    /// A machine that was suspended: its timers did not go on, and the certificate did.
    #[test]
    fn a_certificate_is_due_by_the_wall_clock_too() {
        let hour = Duration::from_secs(3600);
        let now = SystemTime::UNIX_EPOCH + hour;
        let issued = Issued::until(2 * 3600);
        assert!(!is_due(&issued, hour, now));
        // The timer is first, whatever its jitter.
        assert!(!is_due(&issued, hour, now + hour.mul_f64(0.51)));
        assert!(is_due(&issued, hour, now + hour.mul_f64(0.52)));
        assert!(is_due(&issued, hour, now + 13 * hour));
    }
}
