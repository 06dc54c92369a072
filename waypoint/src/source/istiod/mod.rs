//! Workloads from istiod, beside the objects of Kubernetes (`--discovery istiod`): followed by one stream, begun again
//! where it stood when it ends. What is told stays in force while nobody tells anything else.

pub mod messages;
mod read;
mod state;
mod stream;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_config_schema::discovered::{Discovered, DiscoveredWorkload, Tunnel};
use cairn_kubernetes::watch::Backoff;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::messages::DeltaDiscoveryResponse;
use self::state::{Bounds, Counts, State};
pub use self::stream::NodeNames;
use self::stream::{Ended, Stream, StreamError};
use super::kube::pace::{Done, Pace};
use crate::admin::{NotReady, Readiness};
use crate::istiod::ControlPlane;
use crate::limits::XDS_OWN_PODS_PAUSE;
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
        state: State::new(
            Bounds::OURS,
            asking.allow_local,
            asking.plane.cluster.to_str().unwrap_or_default(),
        ),
        asking,
        publisher,
        readiness,
        pace: Pace::default(),
        since: None,
        is_urgent: false,
        own_since: None,
        to_hand_over: None,
        untold: Vec::new(),
        hand_over_pace: Pace::default(),
        handed_over: 0,
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
    /// Among these is a tunnel to where plain text goes.
    is_urgent: bool,
    /// The same of Pods of the own cluster.
    own_since: Option<Instant>,
    /// When the first of these was noticed that the publisher was not told of. To tell it costs a copy of everything.
    to_hand_over: Option<Instant>,
    /// Those of these Pods that are new or different: the API server may tell of one before the publisher knows its tunnel.
    untold: Vec<Arc<DiscoveredWorkload>>,
    hand_over_pace: Pace,
    /// What was in force when the publisher was told of these: with the next version they are.
    handed_over: u64,
    /// Something that it told was taken.
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
        // While all workloads are refused nobody gets ready: Services, which are told too, in the first answer and in
        // later ones, tell of no tunnels and nobody elsewhere.
        let told_anything = workloads > 0 || (applied.refused.is_none() && refused == 0);
        if !self.has_answered && !told_anything {
            if let Some(words) = &applied.refused {
                self.failed_with(Some(&format!(
                    "everything that it told was refused: {words}"
                )));
            }
        } else if self.is_missed(&applied.own) {
            self.since.get_or_insert_with(Instant::now);
            self.is_urgent = true;
        } else if applied.changed || applied.own_changed || !self.has_answered {
            if applied.changed || !self.has_answered {
                self.since.get_or_insert_with(Instant::now);
            } else {
                self.own_since.get_or_insert_with(Instant::now);
            }
            if applied.own_changed {
                self.to_hand_over.get_or_insert_with(Instant::now);
                self.untold.extend(applied.own);
            }
        }
        self.has_answered |= told_anything;
        stream.answer(nonce, applied.refused)
    }

    /// Whether one of these Pods has a tunnel of which nothing is in force: in plain text nothing may go there.
    fn is_missed(&self, own: &[Arc<DiscoveredWorkload>]) -> bool {
        let tunnelled = own.iter().filter(|pod| pod.tunnel == Tunnel::Hbone);
        let mut addresses = tunnelled.flat_map(|pod| &pod.addresses).peekable();
        if addresses.peek().is_none() {
            return false;
        }
        let snapshot = self.lock().snapshot();
        addresses.any(|ip| snapshot.workloads.get(ip).is_some_and(|there| !there.hbone))
    }

    fn lock(&self) -> MutexGuard<'_, Publisher> {
        let publisher = self.publisher.lock();
        publisher.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something, and meanwhile puts in force what is due.
    async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            let due = self
                .since
                .map(|since| self.pace.due(since, !self.is_urgent));
            let own_due = self.own_since.map(|since| since + XDS_OWN_PODS_PAUSE);
            let publish = due.into_iter().chain(own_due).min();
            let hand_over = self.to_hand_over;
            let hand_over = hand_over.map(|since| self.hand_over_pace.due(since, true));
            let Some(next) = publish.into_iter().chain(hand_over).min() else {
                return other.await;
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next) => match publish == Some(next) {
                    true => self.publish(),
                    false => self.hand_over(),
                },
                done = &mut other => return done,
            }
        }
    }

    /// Has what is known of Pods of the own cluster come into force with what the API server says next.
    fn hand_over(&mut self) {
        let began = Instant::now();
        self.to_hand_over = None;
        let discovered = self.discovered();
        let mut publisher = self.lock();
        publisher.discover(discovered);
        let version = publisher.snapshot().version;
        drop(publisher);
        self.handed_over = version;
        // The API server has told of one meanwhile: since then it is known without its tunnel.
        let own = std::mem::take(&mut self.untold);
        if self.is_missed(&own) {
            self.since.get_or_insert(began);
            self.is_urgent = true;
        }
        let done = Done {
            took: began.elapsed(),
            is_of_endpoints: true,
            callers_count: false,
        };
        self.hand_over_pace.done(Instant::now(), done);
    }

    fn discovered(&self) -> Arc<Discovered> {
        let cluster = self.asking.plane.cluster.to_str().unwrap_or_default();
        let network = self.asking.node.network.as_str();
        Arc::new(self.state.discovered(cluster.into(), network.into()))
    }

    fn publish(&mut self) {
        let own_since = self.own_since.take();
        let is_pending = self.to_hand_over.is_some();
        let own_since =
            own_since.filter(|_| is_pending || self.lock().snapshot().version == self.handed_over);
        let Some(since) = self.since.take().or(own_since) else {
            return;
        };
        self.to_hand_over = None;
        self.untold.clear();
        self.is_urgent = false;
        let began = Instant::now();
        let discovered = self.discovered();
        let mut publisher = self.lock();
        publisher.discover(discovered);
        // Without the objects of the API server this would be half a configuration; they come with it.
        let reasons = self.readiness.reasons();
        if !reasons.contains(&NotReady::NotSynced) {
            publisher.change(&[], &[], since.into_std());
        }
        let callers_count = publisher.callers_count();
        drop(publisher);
        self.readiness.remove(NotReady::NotDiscovered);
        let done = Done {
            took: began.elapsed(),
            // The first time everything is new, which takes many times as long.
            is_of_endpoints: !reasons.contains(&NotReady::NotDiscovered),
            callers_count,
        };
        self.pace.done(Instant::now(), done);
    }
}
