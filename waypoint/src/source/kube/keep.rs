//! Has what the API server said stored for the next start: once everything was read, and then from time to
//! time if it changed. The file itself is `cairn_kubernetes::watch::Stored`'s.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cairn_kubernetes::watch::{Differences, State, Stored};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::telemetry;

/// Pause between two files. Who starts with a file while the API server is away misses what changed since.
const PAUSE: Duration = Duration::from_secs(30);

/// Keeps the state.
pub(super) struct Keeper {
    stored: Option<Stored>,
    changes: Differences,
    /// The file has what was known before these changes.
    has_base: bool,
    may_write: bool,
    next: Instant,
    writing: Option<JoinHandle<(Differences, io::Result<()>)>>,
}

impl Keeper {
    /// Keeps nothing.
    pub fn none() -> Self {
        Self {
            stored: None,
            changes: BTreeMap::new(),
            has_base: false,
            may_write: false,
            next: Instant::now(),
            writing: None,
        }
    }

    /// Keeps it in this folder; what is there already is returned, if it can be believed.
    pub fn open(dir: PathBuf) -> (Self, Option<State>) {
        let shown = dir.display().to_string();
        let stored = match Stored::open(dir) {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(dir = %shown, %error, "--state-dir can not be used: nothing is stored for the next start");
                telemetry::kubernetes::stored(false);
                return (Self::none(), None);
            }
        };
        let state = stored.load().unwrap_or_else(|error| {
            let file = stored.path().display().to_string();
            tracing::error!(file, %error, "the stored state is not used, for it is not whole");
            None
        });
        let keeper = Self {
            stored: Some(stored),
            has_base: state.is_some(),
            ..Self::none()
        };
        (keeper, state)
    }

    /// Takes what came into force; it may be written once everything was read.
    pub fn add(&mut self, changes: BTreeMap<Arc<str>, Option<Arc<str>>>, is_complete: bool) {
        if self.stored.is_none() {
            return;
        }
        self.changes.extend(changes);
        self.may_write |= is_complete;
    }

    /// Waits until something is to be done.
    pub async fn due(&mut self) {
        if let Some(writing) = &mut self.writing {
            let ended = writing.await;
            self.writing = None;
            match ended {
                Ok((changes, written)) => self.written(changes, written),
                // The runtime is ending.
                Err(_) => self.stored = None,
            }
        }
        if self.stored.is_none() || self.changes.is_empty() || !self.may_write {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.next).await;
    }

    /// Writes what there is, beside what else is done.
    pub fn keep(&mut self) {
        let Some(stored) = self.stored.clone() else {
            return;
        };
        let (changes, is_everything) = (std::mem::take(&mut self.changes), !self.has_base);
        self.next = Instant::now() + PAUSE;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let written = stored.save(&changes, is_everything);
            (changes, written)
        }));
    }

    fn written(&mut self, changes: Differences, written: io::Result<()>) {
        telemetry::kubernetes::stored(written.is_ok());
        match written {
            Ok(()) => self.has_base = true,
            // The file that these changes belong to is not what was written: nothing can be built on it.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(%error, "the stored state was damaged: nothing is stored until the next start");
                if let Some(stored) = self.stored.take()
                    && let Err(error) = stored.discard()
                {
                    tracing::error!(%error, "it could not be taken away either");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the state can not be stored; trying again in 30 s");
                let newer = std::mem::replace(&mut self.changes, changes);
                self.changes.extend(newer);
            }
        }
    }
}
