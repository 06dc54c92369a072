//! Notices changes of configuration files and tells once they are over. Reads them through `files`;
//! decides nothing about their content.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, Event, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::collect::Interest;
use super::files::{Files, SourceFile};

/// A change is over when nothing has happened for so long.
const QUIET: Duration = Duration::from_millis(20);

/// Changes that never pause are looked at all the same after so long.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often to look when the system can not tell of changes.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Folders that appear while others are being watched are found in another round; a tree that grows
/// faster than this is left to the next event.
const ROUNDS_MAX: usize = 16;

/// Events that wait to be looked at. Beyond, they are dropped: those that wait cause the same look.
const EVENTS_WAITING_MAX: usize = 1024;

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    signals: SyncSender<Signal>,
    stopped: Arc<AtomicBool>,
}

impl Watch {
    /// Looks now, whatever the system has told (SIGHUP).
    pub fn look(&self) {
        // Full: a look is due anyway. Disconnected: the thread has ended with the process.
        let _ = self.signals.try_send(Signal::Look);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Only to wake it up.
        let _ = self.signals.try_send(Signal::Look);
    }
}

#[derive(Debug)]
enum Signal {
    System(notify::Result<Event>),
    Look,
}

impl Files {
    /// Watches the files on a thread of its own and calls `on_change` there with all of them, each
    /// time any is different from the last look: edited in place, renamed over, swapped by a symlink,
    /// new or gone. Changes between the last [`Files::refresh`] and this call count.
    ///
    /// An edit in place is told when the writer has closed the file or has paused; a tool that writes
    /// in bits over more than 100 ms should rename a finished file over the old one.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn watch(
        self,
        on_change: impl FnMut(&[SourceFile]) + Send + 'static,
    ) -> std::io::Result<Watch> {
        let (signals, inbox) = mpsc::sync_channel(EVENTS_WAITING_MAX);
        let stopped = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            signals: signals.clone(),
            stopped: stopped.clone(),
        };
        std::thread::Builder::new()
            .name("config-watch".to_owned())
            .spawn(move || {
                // Never blocks: `Watcher::watch` waits for the thread that calls this.
                let system = notify::recommended_watcher(move |event| {
                    if is_change(&event) {
                        let _ = signals.try_send(Signal::System(event));
                    }
                });
                Lookout::new(self, system, on_change).run(&inbox, &stopped);
            })?;
        Ok(watch)
    }
}

/// Whether an event of the system can be a change: opening and reading are none, above all our own.
fn is_change(event: &notify::Result<Event>) -> bool {
    !matches!(event, Ok(e) if matches!(e.kind, EventKind::Access(kind) if !is_written(kind)))
}

fn is_written(kind: AccessKind) -> bool {
    kind == AccessKind::Close(AccessMode::Write)
}

struct Lookout<F> {
    files: Files,
    system: Option<RecommendedWatcher>,
    /// Folders the system watches, with their device and inode.
    watched: BTreeMap<PathBuf, (Interest, (u64, u64))>,
    /// Some folder is not watched, so that changes must be looked for.
    polling: bool,
    on_change: F,
}

impl<F: FnMut(&[SourceFile])> Lookout<F> {
    fn new(files: Files, system: notify::Result<RecommendedWatcher>, on_change: F) -> Self {
        let system = match system {
            Ok(system) => Some(system),
            Err(error) => {
                tracing::warn!(%error, "can not watch configuration, looking every 2 s instead");
                None
            }
        };
        Self {
            polling: system.is_none(),
            files,
            system,
            watched: BTreeMap::new(),
            on_change,
        }
    }

    fn run(mut self, inbox: &Receiver<Signal>, stopped: &AtomicBool) {
        loop {
            self.look();
            self.await_change(inbox, stopped);
            if stopped.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Looks at everything and tells if it is different. Folders found new are watched and looked
    /// into again, because what came into them before they were watched was not told.
    fn look(&mut self) {
        let mut changed = false;
        for _ in 0..ROUNDS_MAX {
            let (different, collected) = self.files.refresh_with_folders();
            changed |= different;
            if !self.follow(collected.folders) {
                break;
            }
        }
        if changed {
            (self.on_change)(self.files.sources());
        }
        self.files.release();
    }

    /// Has the system watch these folders and no others. Says whether any is new.
    fn follow(&mut self, wanted: BTreeMap<PathBuf, Interest>) -> bool {
        let Some(system) = &mut self.system else {
            return false;
        };
        let mut any_new = false;
        let mut failure = None;
        let mut before = std::mem::take(&mut self.watched);
        for (folder, interest) in wanted {
            let place = place(&folder);
            let old = before.remove(&folder);
            if let Some((_, old_place)) = &old
                && Some(*old_place) == place
            {
                self.watched.insert(folder, (interest, *old_place));
                continue;
            }
            // Another folder of that name: the old watch is on the one that has gone.
            let _ = system.unwatch(&folder);
            match (system.watch(&folder, RecursiveMode::NonRecursive), place) {
                (Ok(()), Some(place)) => {
                    any_new = true;
                    self.watched.insert(folder, (interest, place));
                }
                (result, _) => failure = Some((folder, result)),
            }
        }
        for folder in before.into_keys() {
            let _ = system.unwatch(&folder);
        }
        if let Some((folder, result)) = &failure
            && !self.polling
        {
            let folder = folder.display();
            tracing::warn!(%folder, ?result, "can not watch this folder, looking every 2 s instead");
        }
        self.polling = failure.is_some();
        any_new
    }

    /// Returns when something may have changed and the changes have paused, or it is time to look.
    fn await_change(&mut self, inbox: &Receiver<Signal>, stopped: &AtomicBool) {
        let mut writing = HashSet::new();
        loop {
            let signal = if self.polling {
                inbox.recv_timeout(POLL_INTERVAL)
            } else {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match signal {
                Err(_) | Ok(Signal::Look) => return,
                Ok(Signal::System(event)) if self.note(&event, &mut writing) => break,
                Ok(Signal::System(_)) => {}
            }
        }
        let patience_ends = Instant::now() + PATIENCE;
        let mut quiet_since = Instant::now();
        while !stopped.load(Ordering::Relaxed) {
            // Who has begun to write and not closed the file is in the middle of it.
            let until = if writing.is_empty() {
                patience_ends.min(quiet_since + QUIET)
            } else {
                patience_ends
            };
            match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Err(_) | Ok(Signal::Look) => return,
                Ok(Signal::System(event)) => {
                    if self.note(&event, &mut writing) {
                        quiet_since = Instant::now();
                    }
                }
            }
        }
    }

    /// Takes note of an event and says whether it matters.
    fn note(&mut self, event: &notify::Result<Event>, writing: &mut HashSet<PathBuf>) -> bool {
        let Ok(event) = event else {
            return true;
        };
        if event.need_rescan() {
            return true;
        }
        let mut matters = false;
        for path in event
            .paths
            .iter()
            .filter(|path| concerns(&self.watched, path))
        {
            matters = true;
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => {
                    writing.insert(path.clone());
                }
                EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                    writing.remove(path);
                }
                EventKind::Access(kind) if is_written(kind) => {
                    writing.remove(path);
                }
                _ => {}
            }
        }
        // A watched folder that goes takes its watch with it; one that comes in its place, perhaps
        // with the same inode, needs another.
        if matches!(
            event.kind,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
        ) {
            for path in &event.paths {
                matters |= self.watched.remove(path).is_some();
            }
        }
        matters
    }
}

/// Whether something at this path is of interest.
fn concerns(watched: &BTreeMap<PathBuf, (Interest, (u64, u64))>, path: &Path) -> bool {
    let inside = path.parent().and_then(|folder| watched.get(folder));
    watched.contains_key(path)
        || inside.is_some_and(|(interest, _)| interest.includes(path.file_name()))
}

/// Device and inode of a folder that is there.
fn place(folder: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
