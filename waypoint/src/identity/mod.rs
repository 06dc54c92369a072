//! Where the waypoint's own identity comes from, and when it comes anew: files, Istio's CA, or the SPIFFE
//! Workload API (specs/istio-waypoint.md 3). What TLS makes of it is `tls`' business.

mod back_off;
mod files;
mod istio_ca;
mod own;
mod spiffe;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

pub use self::istio_ca::{IstioCa, messages};
use self::own::OwnIdentity;
use crate::publish::InForce;
use crate::tls::{IdentityFiles, IdentitySource, LocalIdentity};

/// How often certificate files are looked at, and whether the certificate has expired.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Where the identity comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Three files that somebody else writes.
    Files(IdentityFiles),
    /// Istio's CA, or one that speaks its protocol.
    IstioCa(IstioCa),
    /// The SPIFFE Workload API, as SPIRE's agent serves it.
    SpiffeWorkloadApi {
        /// `unix:PATH` or `tcp:ADDRESS:PORT`.
        endpoint: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(files) => write!(f, "files in {}", files.dir.display()),
            Self::IstioCa(ca) => write!(f, "Istio CA {}", ca.plane.address),
            Self::SpiffeWorkloadApi { endpoint } => write!(f, "SPIFFE Workload API {endpoint}"),
        }
    }
}

/// Who this waypoint is meant to be. What an issuer says otherwise is refused.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// The trust domain, in place of the mesh's.
    pub trust_domain: Option<String>,
    /// Namespace and service account of the pod, where it was told.
    pub account: Option<(String, String)>,
}

/// What following the identity needs.
pub struct Following {
    /// Where it comes from.
    pub source: Source,
    /// Who it is to be.
    pub expected: Expected,
    /// Mesh settings; readiness; files for TLS towards endpoints, which are looked at on the way.
    pub in_force: InForce,
    /// Looks, or asks, at once.
    pub reload: Arc<Notify>,
    /// Ends waiting for the first one.
    pub stop: Arc<Notify>,
}

/// Returns once there is an identity, and follows its source from then on, on a thread of its own.
///
/// # Errors
/// When files can not be loaded, or the process is told to stop before there was a certificate.
pub fn establish(following: Following) -> anyhow::Result<Arc<IdentitySource>> {
    tracing::info!(source = %following.source, "the identity comes from");
    let own = Arc::new(OwnIdentity::new(following.in_force.readiness.clone()));
    let (stop, reload) = (following.stop.clone(), following.reload.clone());
    let waits = match &following.source {
        Source::Files(files) => {
            own.take(LocalIdentity::load(files, 1).context("load the identity")?);
            false
        }
        _ => true,
    };
    let followed = own.clone();
    std::thread::Builder::new()
        .name("identity".to_owned())
        .spawn({
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            move || runtime.block_on(follow(&following, &followed))
        })?;
    if waits {
        wait(&own, &stop, &reload)?;
    }
    own.in_force().context("there is no identity")
}

/// Waits for the first identity, or for the word to stop.
fn wait(own: &OwnIdentity, stop: &Notify, reload: &Notify) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // The first process of a container ends by no signal that it does not listen to.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                () = own.first() => return Ok(()),
                _ = hangup.recv() => reload.notify_waiters(),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = stop.notified() => break,
            }
        }
        bail!("told to stop before there was a certificate")
    })
}

async fn follow(following: &Following, own: &OwnIdentity) {
    let source = async {
        match &following.source {
            Source::Files(files) => files::follow(files, own, &following.reload).await,
            Source::IstioCa(ca) => istio_ca::follow(ca, following, own).await,
            Source::SpiffeWorkloadApi { endpoint } => {
                spiffe::follow(endpoint, following, own).await;
            }
        }
    };
    tokio::join!(source, look(following, own));
}

/// Looks at what changes by time alone, and at the files of TLS towards endpoints.
async fn look(following: &Following, own: &OwnIdentity) {
    loop {
        own.look(SystemTime::now());
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = following.reload.notified() => {}
        }
        following.in_force.originations.refresh(Instant::now());
    }
}

impl Following {
    /// The trust domain of the mesh. Waits for the first configuration unless it was told.
    async fn trust_domain(&self) -> String {
        if let Some(told) = &self.expected.trust_domain {
            return told.clone();
        }
        let mut version = self.in_force.version.subscribe();
        // The sender lives in `in_force`, so that this does not fail.
        let _ = version.wait_for(|version| *version > 0).await;
        self.in_force.mesh.load().trust_domain.to_string()
    }
}
