//! Follows one collection: lists it, watches it from there, lists it again when the server no longer knows the
//! version. While it can not be followed, what was there stays. Knows nothing of other collections.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::api::{Api, Collection, Event};
use super::backoff::Backoff;
use super::discovery::Served;
use super::hub::Hub;
use super::mirror::Mirror;
use super::reduce::{self, Detail, reduce};
use super::refusal::{Reason, Refusal};

/// A watch that says nothing for this long is a connection that is dead: a bookmark comes every minute or so.
const IDLE: Duration = Duration::from_secs(90);

/// A watch that goes on after a failure has told what was missed once it says nothing for so long.
const QUIET: Duration = Duration::from_millis(200);

/// It counts as told after this time even if the watch is never quiet.
const CATCH_UP: Duration = Duration::from_secs(1);

/// How long a page may take.
const ANSWER: Duration = Duration::from_secs(60);

/// How long the beginning of a watch may take, which has nothing to read: a server that takes longer has lost it, as
/// one does that replaces the storage of a CRD.
const BEGINNING: Duration = Duration::from_secs(10);

/// Looks by which a kind must be found missing before its objects are taken to be gone with it: a server that
/// starts may not have all of its kinds yet.
const MISSING_LOOKS: u32 = 3;

/// The same for a kind of which nothing is known. Looks are a second apart at least.
const MISSING_LOOKS_AT_FIRST: u32 = 2;

/// One collection being followed.
pub(super) struct Reflector<A> {
    pub api: A,
    pub collection: Collection,
    pub detail: Detail,
    pub mirror: Mirror,
    pub hub: Arc<Hub>,
    pub served: watch::Receiver<Served>,
    /// Asks for a look at what is served.
    pub look: Arc<Notify>,
    /// Turns for pages, shared by all reflectors.
    pub turns: Arc<Semaphore>,
}

/// Why a watch ended.
enum Ended {
    /// By the server, as watches do.
    Regularly,
    /// By a failure: what to wait for.
    Refused(Refusal),
}

impl<A: Api> Reflector<A> {
    /// Follows until it is dropped.
    pub async fn run(mut self) {
        let mut not_before = 1;
        loop {
            let version = self.version(not_before).await;
            let refusal = self.follow(version).await;
            self.hub.failed(&self.collection, refusal);
            // Listing said that there is no such kind, whatever the last look said.
            not_before = self.served.borrow().round + 1;
            self.look.notify_one();
        }
    }

    /// The version in which the kind is served, by a look of this round or a later one.
    async fn version(&mut self, not_before: u64) -> &'static str {
        let mut missing = 0;
        loop {
            let (round, version, is_known) = {
                let served = self.served.borrow_and_update();
                let kind = self.collection.kind.0;
                (served.round, served.version(kind), served.is_known(kind))
            };
            match version {
                Some(version) if round >= not_before || self.is_core() => return version,
                None if round >= not_before && is_known => {
                    missing += 1;
                    self.absent(missing);
                }
                _ => {}
            }
            if self.served.changed().await.is_err() {
                // Nobody looks any more: the process is about to end.
                std::future::pending::<()>().await;
            }
        }
    }

    /// There is no such kind, by so many looks in a row.
    fn absent(&mut self, looks: u32) {
        let had = self.mirror.len();
        if had == 0 {
            if looks >= MISSING_LOOKS_AT_FIRST {
                self.hub.absent(&self.collection);
            }
        } else if looks >= MISSING_LOOKS {
            let kind = self.collection.kind.0.title();
            tracing::warn!(%kind, objects = had, "the API server has no such kind any more: its objects are withdrawn");
            let changes = self.mirror.replace(Vec::new());
            self.hub.push(&self.collection, changes, 0);
            self.hub.absent(&self.collection);
        } else {
            let message = format!("the API server has no such kind now; its {had} objects stay");
            let reason = Reason::Absent;
            self.hub
                .failed(&self.collection, Refusal { reason, message });
        }
    }

    /// Kinds of the core are always there, whatever a server says that is just starting.
    fn is_core(&self) -> bool {
        self.collection.kind.0.group.is_empty()
    }

    fn is_gone(&self, refusal: &Refusal) -> bool {
        refusal.reason == Reason::Absent && !self.is_core()
    }

    /// Lists and watches until there is no such kind.
    async fn follow(&mut self, version: &'static str) -> Refusal {
        let mut backoff = Backoff::default();
        let mut has_expired = false;
        loop {
            let mut from = match self.list(version).await {
                Ok(from) => from,
                Err(refusal) if self.is_gone(&refusal) => return refusal,
                Err(refusal) => {
                    self.hub.failed(&self.collection, refusal);
                    tokio::time::sleep(backoff.next(fastrand::f64())).await;
                    continue;
                }
            };
            if !has_expired {
                backoff.reset();
            }
            let mut has_missed = false;
            loop {
                let (began, stood_at) = (Instant::now(), from.clone());
                let ended = match in_time(BEGINNING, self.api.watch(version, &from)).await {
                    Ok(events) => {
                        let catches_up = has_missed.then(|| Instant::now() + CATCH_UP);
                        self.watch(version, events, &mut from, &mut backoff, catches_up)
                            .await
                    }
                    Err(refusal) => Ended::Refused(refusal),
                };
                has_expired &= from == stood_at;
                match ended {
                    Ended::Refused(refusal) if self.is_gone(&refusal) => return refusal,
                    Ended::Refused(refusal) if refusal.reason == Reason::Expired => {
                        self.hub.failed(&self.collection, refusal);
                        // A server that forgets at once must not be asked in a circle.
                        if std::mem::replace(&mut has_expired, true) {
                            tokio::time::sleep(backoff.next(fastrand::f64())).await;
                        }
                        break;
                    }
                    Ended::Refused(refusal) => {
                        has_missed = true;
                        self.hub.failed(&self.collection, refusal);
                        tokio::time::sleep(backoff.next(fastrand::f64())).await;
                    }
                    // A server that ends each watch at once must not be asked in a circle.
                    Ended::Regularly if began.elapsed() < Duration::from_secs(1) => {
                        tokio::time::sleep(backoff.next(fastrand::f64())).await;
                    }
                    Ended::Regularly => {}
                }
            }
        }
    }

    /// Lists all, page by page; takes it only when it is whole. Gives the version to watch from.
    async fn list(&mut self, version: &'static str) -> Result<String, Refusal> {
        let kind = self.collection.kind.0;
        let (mut token, mut whole) = (None, false);
        let (mut listed, detail) = (Vec::new(), self.detail);
        loop {
            // Until the page is read, for it is largest then.
            let _turn = self.turns.acquire().await;
            let mut take = |object| {
                listed.push(reduce(kind, version, object, detail)?);
                Ok(())
            };
            let page = self.api.list(version, token.take(), whole, &mut take);
            let page = match in_time(ANSWER, page).await {
                // The pages took longer than the server keeps them: all at once, then.
                Err(refusal) if refusal.reason == Reason::Expired && !whole => {
                    whole = true;
                    listed.clear();
                    continue;
                }
                page => page?,
            };
            if page.next.is_some() {
                token = page.next;
                continue;
            }
            let changes = self.mirror.replace(listed);
            self.hub
                .listed(&self.collection, changes, self.mirror.len());
            return Ok(page.version);
        }
    }

    /// Takes what a watch tells until it ends.
    async fn watch(
        &mut self,
        version: &'static str,
        mut events: BoxStream<'static, Result<Event, Refusal>>,
        from: &mut String,
        backoff: &mut Backoff,
        mut catches_up: Option<Instant>,
    ) -> Ended {
        let kind = self.collection.kind.0;
        if catches_up.is_none() {
            self.hub.connected(&self.collection);
        }
        loop {
            let patience = match catches_up {
                Some(end) => QUIET.min(end.saturating_duration_since(Instant::now())),
                None => IDLE,
            };
            let event = match tokio::time::timeout(patience, events.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(refusal))) => return Ended::Refused(refusal),
                Ok(None) => return Ended::Regularly,
                Err(_) if catches_up.take().is_some() => {
                    self.hub.connected(&self.collection);
                    continue;
                }
                Err(_) => return Ended::Refused(silent()),
            };
            backoff.reset();
            let stands_at = match &event {
                Event::Put(object) | Event::Deleted(object) => {
                    reduce::version(object).map(str::to_owned)
                }
                Event::Bookmark(at) => Some(at.clone()),
            };
            let change = match event {
                Event::Put(object) => match reduce(kind, version, object, self.detail) {
                    Ok(object) => self.mirror.put(object),
                    Err(refusal) => return Ended::Refused(refusal),
                },
                Event::Deleted(object) => match reduce::path(kind, &object) {
                    Ok(path) => self.mirror.delete(&path),
                    Err(refusal) => return Ended::Refused(refusal),
                },
                Event::Bookmark(_) => None,
            };
            // After the event was taken, so that one that can not be read is asked for again.
            if let Some(at) = stands_at.filter(|at| !at.is_empty()) {
                *from = at;
            }
            let objects = self.mirror.len();
            self.hub
                .push(&self.collection, change.into_iter().collect(), objects);
        }
    }
}

fn silent() -> Refusal {
    Refusal {
        reason: Reason::Broken,
        message: format!("nothing came for {} s", IDLE.as_secs()),
    }
}

/// An answer that does not come is one that failed.
async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Refusal {
            reason: Reason::Unreachable,
            message: format!("no answer within {} s", limit.as_secs()),
        }),
    }
}

#[cfg(test)]
mod tests;
