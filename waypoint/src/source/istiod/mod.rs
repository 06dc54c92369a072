//! Workloads from istiod, beside the objects of Kubernetes (`--discovery istiod`): followed by one stream, begun again
//! where it stood when it ends. What is told stays in force while nobody tells anything else.

pub mod messages;
mod read;
mod state;
mod stream;

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_kubernetes::watch::Backoff;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::messages::DeltaDiscoveryResponse;
use self::state::{Bounds, Counts, State};
pub use self::stream::NodeNames;
use self::stream::{Ended, Stream, StreamError};
use super::kube::pace::Pace;
use crate::admin::{NotReady, Readiness};
use crate::istiod::ControlPlane;
use crate::publish::Publisher;
use crate::telemetry::discovery as metrics;

/// Whom to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Asking {
    /// How istiod is spoken to.
    pub plane: ControlPlane,
    /// Who this waypoint is.
    pub node: NodeNames,
    /// Take workloads on loopback and link-local addresses; for labs.
    pub allow_local: bool,
}

/// istiod being followed. Dropping it ends that.
#[derive(Debug)]
pub struct Following {
    _end: oneshot::Sender<()>,
}

/// Follows istiod on a thread of its own from now on. Until it has answered once the waypoint is not ready.
///
/// # Errors
/// When the thread can not be started. That istiod can not be reached is none.
pub fn follow(
    asking: Asking,
    publisher: Arc<Mutex<Publisher>>,
    readiness: Arc<Readiness>,
) -> anyhow::Result<Following> {
    metrics::preset(StreamError::REASONS);
    readiness.add(NotReady::NotDiscovered);
    let last_error = Arc::<Mutex<Option<String>>>::default();
    let address = asking.plane.address.to_string();
    let shown = last_error.clone();
    readiness.tell_undiscovered(move || {
        let error = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        vec![error.unwrap_or_else(|| format!("{address} has not answered yet"))]
    });
    let (end, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let feed = Feed {
        state: State::new(Bounds::OURS, asking.allow_local),
        asking,
        publisher,
        readiness,
        pace: Pace::default(),
        since: None,
        has_answered: false,
        last_error,
    };
    let run = async move {
        tokio::select! {
            () = feed.run() => {}
            _ = ended => {}
        }
    };
    std::thread::Builder::new()
        .name("istiod-watch".to_owned())
        .spawn(move || runtime.block_on(run))?;
    Ok(Following { _end: end })
}

/// From the stream to the publisher.
struct Feed {
    asking: Asking,
    state: State,
    publisher: Arc<Mutex<Publisher>>,
    readiness: Arc<Readiness>,
    pace: Pace,
    /// When the first change was noticed that is not in force yet.
    since: Option<Instant>,
    has_answered: bool,
    /// Why there is no stream; shown while nothing is ready, and logged once.
    last_error: Arc<Mutex<Option<String>>>,
}

impl Feed {
    /// Follows one stream after the other.
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let Err(error) = self.follow(&mut backoff).await;
            metrics::ended(error.reason());
            let words = error.to_string();
            let retry = backoff.next(fastrand::f64());
            let retry_ms = retry.as_millis() as u64;
            if self.failed_with(Some(&words)) {
                match self.has_answered {
                    true => tracing::warn!(error = %words, retry_ms,
                        "istiod tells nothing new, what it told stays in force"),
                    false => tracing::error!(error = %words, retry_ms,
                        "istiod has told nothing yet, workloads of other clusters are not known"),
                }
            }
            self.beside(tokio::time::sleep(retry)).await;
        }
    }

    /// Notes why there is no stream, and says whether that is new.
    fn failed_with(&self, words: Option<&str>) -> bool {
        let last = self.last_error.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        let is_new = last.as_deref() != words;
        *last = words.map(str::to_owned);
        is_new
    }

    /// Follows one stream until it ends.
    async fn follow(&mut self, backoff: &mut Backoff) -> Ended {
        let versions = self.state.versions();
        let resumes = versions
            .as_ref()
            .is_some_and(|versions| !versions.is_empty());
        let asking = self.asking.clone();
        let opening = Stream::open(&asking, versions.unwrap_or_default());
        let (mut stream, first) = self.beside(opening).await?;
        backoff.reset();
        metrics::connected();
        self.failed_with(None);
        tracing::info!(istiod = %asking.plane.address, resumes, "istiod tells of workloads");
        self.take(&mut stream, first, !resumes)?;
        loop {
            let answer = self.beside(stream.next()).await?;
            self.take(&mut stream, answer, false)?;
        }
    }

    /// Takes an answer, and says so.
    fn take(
        &mut self,
        stream: &mut Stream,
        answer: DeltaDiscoveryResponse,
        is_whole: bool,
    ) -> Result<(), StreamError> {
        let nonce = answer.nonce.clone();
        let applied = self.state.apply(answer, is_whole);
        metrics::answered(applied.refused.is_none());
        let Counts {
            workloads,
            services,
            refused,
            bytes,
        } = self.state.counts();
        metrics::known(workloads, services, refused, bytes);
        if let Some(refused) = &applied.refused {
            tracing::error!(%refused, "part of what istiod tells is refused, the last good version of it stays in force");
        }
        if applied.changed || !self.has_answered {
            self.since.get_or_insert_with(Instant::now);
        }
        self.has_answered = true;
        stream.answer(nonce, applied.refused)
    }

    /// Waits for something, and meanwhile puts in force what is due.
    async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            let Some(since) = self.since else {
                return other.await;
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.pace.due(since, true)) => self.publish(),
                done = &mut other => return done,
            }
        }
    }

    fn publish(&mut self) {
        let Some(since) = self.since.take() else {
            return;
        };
        let plane = &self.asking.plane;
        let cluster = plane.cluster.to_str().unwrap_or_default().into();
        let network = self.asking.node.network.as_str().into();
        let discovered = Arc::new(self.state.discovered(cluster, network));
        let began = Instant::now();
        let mut publisher = self
            .publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        publisher.discover(discovered);
        // Without the objects of the API server this would be half a configuration; they come with it.
        if !self.readiness.reasons().contains(&NotReady::NotSynced) {
            publisher.change(&[], &[], since.into_std());
        }
        drop(publisher);
        self.readiness.remove(NotReady::NotDiscovered);
        self.pace.done(Instant::now(), began.elapsed());
    }
}
