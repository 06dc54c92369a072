//! Keeps answers fresh: one task for each name that the configuration in force has, or that a request
//! asked for lately. Asks by `resolver`, writes to `state`, and tells clusters of the change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cairn_config_schema::snapshot::{Discovery, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::answer::{Answer, Looked};
use super::resolver::{Resolver, Servers};
use super::room::{self, State};
use super::state::{Entry, Names, TOO_MANY};
use crate::clock::now_ms;
use crate::guarded::forbidden;
use crate::limits::{
    DNS_IDLE_TIMEOUT, DNS_NAMES_MAX, DNS_RETRY_INTERVAL, DNS_RETRY_INTERVAL_MAX, DNS_TTL_MAX,
    DNS_TTL_MIN,
};
use crate::runtime::Runtime;
use crate::telemetry::counters;

/// What is followed, and how.
pub struct Following {
    /// Where answers go.
    pub names: Arc<Names>,
    /// Who is asked.
    pub servers: Servers,
    /// Names may lead to loopback and link-local addresses, for labs.
    pub allow_local: bool,
    /// The configuration in force.
    pub runtime: Arc<ArcSwap<Runtime>>,
    /// Its version.
    pub version: watch::Receiver<u64>,
}

/// Starts the thread that looks names up.
///
/// # Errors
/// When the thread can not be started.
pub fn start(following: Following) -> std::io::Result<()> {
    counters::DNS_LOOKUPS.preset(["success", "nothing", "failure", "forbidden"]);
    counters::DNS_CROWDED_OUT.preset(["known", "absent", "refused"]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("names".to_owned())
        .spawn(move || runtime.block_on(follow(following)))?;
    Ok(())
}

/// What the tasks of all names share.
struct Shared {
    names: Arc<Names>,
    resolver: Resolver,
    allow_local: bool,
    runtime: Arc<ArcSwap<Runtime>>,
}

/// A name that is kept fresh, until this is dropped.
struct Task {
    /// The configuration has it; else requests asked for it.
    configured: bool,
    entry: Arc<Entry>,
    _running: AbortOnDropHandle<()>,
}

type Tasks = BTreeMap<Arc<str>, Task>;

/// What a task that ended kept fresh.
type Ended = (Arc<str>, Arc<Entry>);

async fn follow(following: Following) {
    let Some(mut asked) = following.names.asked() else {
        return;
    };
    let mut version = following.version;
    let shared = Arc::new(Shared {
        resolver: Resolver::new(&following.servers),
        names: following.names,
        allow_local: following.allow_local,
        runtime: following.runtime,
    });
    let (done, mut ended) = mpsc::unbounded_channel();
    let mut tasks = Tasks::new();
    loop {
        version.mark_unchanged();
        let wanted = wanted(&shared.runtime.load().snapshot);
        tasks.retain(|name, task| {
            let keep = !task.configured || wanted.contains(name);
            if !keep {
                shared.names.forget(name);
            }
            keep
        });
        for name in wanted {
            if !tasks.get(&name).is_some_and(|task| task.configured) {
                tasks.insert(name.clone(), task(&shared, name, None));
            }
        }
        // Until the configuration changes, what requests ask for.
        let changed = loop {
            measure(&shared.names);
            tokio::select! {
                changed = version.changed() => break changed,
                name = asked.recv() => match name {
                    Some(name) => shared.take_up(name, &mut tasks, &done),
                    None => return,
                },
                Some((name, entry)) = ended.recv() => {
                    let of_it = |task: &Task| !task.configured && Arc::ptr_eq(&task.entry, &entry);
                    if tasks.get(&name).is_some_and(of_it) {
                        tasks.remove(&name);
                        shared.names.forget(&name);
                    }
                }
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

fn measure(names: &Names) {
    let before = counters::DNS_NAMES.value();
    counters::DNS_NAMES.add(names.len() as i64 - before);
}

/// Names of the configuration. Beyond the limit they stay unknown, and what needs them is answered 503.
fn wanted(snapshot: &Snapshot) -> BTreeSet<Arc<str>> {
    let mut wanted = BTreeSet::new();
    for discovery in snapshot.discoveries.values() {
        if let Discovery::Names { names, .. } = &**discovery {
            wanted.extend(names.iter().map(|named| named.name.clone()));
        }
    }
    if wanted.len() > DNS_NAMES_MAX {
        let left_out = wanted.len() - DNS_NAMES_MAX;
        tracing::error!(
            left_out,
            "too many names of ServiceEntries: the rest is not looked up"
        );
        wanted = wanted.into_iter().take(DNS_NAMES_MAX).collect();
    }
    wanted
}

fn task(shared: &Arc<Shared>, name: Arc<str>, done: Option<mpsc::UnboundedSender<Ended>>) -> Task {
    let (shared, entry) = (shared.clone(), shared.names.entry(&name));
    let configured = done.is_none();
    let kept = entry.clone();
    let running = AbortOnDropHandle::new(tokio::spawn(async move {
        shared.keep_fresh(&name, &kept, done.is_some()).await;
        if let Some(done) = done {
            // The receiver lives as long as the thread.
            let _ = done.send((name, kept));
        }
    }));
    Task {
        configured,
        entry,
        _running: running,
    }
}

impl Shared {
    /// Looks up a name that a request asked for, if there is room.
    fn take_up(
        self: &Arc<Self>,
        name: Arc<str>,
        tasks: &mut Tasks,
        done: &mpsc::UnboundedSender<Ended>,
    ) {
        if tasks.contains_key(&name) {
            return;
        }
        let requested = tasks.iter().filter(|(_, task)| !task.configured);
        match room::make(requested.map(|(name, task)| (name, &task.entry))) {
            Ok(gone) => {
                for (gone, state) in gone {
                    counters::DNS_CROWDED_OUT.inc(state.as_str());
                    tasks.remove(&gone);
                    self.names.forget(&gone);
                }
                tasks.insert(name.clone(), task(self, name, Some(done.clone())));
            }
            Err(()) => {
                counters::DNS_CROWDED_OUT.inc(State::Asked.as_str());
                self.refuse(&name, TOO_MANY);
            }
        }
    }

    /// Ends, if requests alone ask for the name, when nobody has for a while, or when it has no address
    /// and that is no longer known for sure: clients can make up such names.
    async fn keep_fresh(&self, name: &Arc<str>, entry: &Entry, requested: bool) {
        let mut failures = 0;
        loop {
            let looked = self.resolver.look_up(name).await;
            let wait = match &looked {
                Looked::Found(_, ttl) => *ttl,
                Looked::Nothing(_, ttl) => (*ttl).min(DNS_RETRY_INTERVAL_MAX),
                Looked::Failed(_) => {
                    (DNS_RETRY_INTERVAL * (1 << failures)).min(DNS_RETRY_INTERVAL_MAX)
                }
            };
            failures = match looked {
                Looked::Failed(_) => (failures + 1).min(10),
                _ => 0,
            };
            self.answered(name, entry, looked);
            tokio::time::sleep(wait.clamp(DNS_TTL_MIN, DNS_TTL_MAX)).await;
            if requested && State::of(entry) == State::Absent {
                return;
            }
            let idle_ms = now_ms().saturating_sub(entry.used_ms.load(Ordering::Relaxed));
            if requested && Duration::from_millis(idle_ms) > DNS_IDLE_TIMEOUT {
                return;
            }
        }
    }

    fn answered(&self, name: &Arc<str>, entry: &Entry, looked: Looked) {
        let result = match &looked {
            Looked::Found(..) => "success",
            Looked::Nothing(..) => "nothing",
            Looked::Failed(_) => "failure",
        };
        let before = entry.answer.borrow().clone();
        let allow_local = self.allow_local;
        let answer = Answer::after(
            looked,
            before.as_deref(),
            |address| forbidden(address, allow_local),
            Instant::now(),
        );
        let is_forbidden = result == "success" && answer.addresses.is_empty();
        counters::DNS_LOOKUPS.inc(if is_forbidden { "forbidden" } else { result });
        let news = before
            .as_ref()
            .is_none_or(|before| !before.is_like(&answer));
        if news {
            tell(name, &answer);
        }
        entry.answer.send_replace(Some(Arc::new(answer)));
        if news {
            let _held = self.names.hold();
            self.runtime.load().renew(name, &self.names);
        }
    }

    fn refuse(&self, name: &str, why: &str) {
        let answer = Answer {
            addresses: Vec::new(),
            reason: Some(why.into()),
            answered: Instant::now(),
        };
        self.names
            .entry(name)
            .answer
            .send_replace(Some(Arc::new(answer)));
        self.names.forget(name);
    }
}

fn tell(name: &str, answer: &Answer) {
    match &answer.reason {
        Some(reason) => {
            tracing::warn!(name, %reason, addresses = answer.addresses.len(), "a name of endpoints")
        }
        None => tracing::info!(
            name,
            addresses = answer.addresses.len(),
            "a name of endpoints was looked up"
        ),
    }
}
