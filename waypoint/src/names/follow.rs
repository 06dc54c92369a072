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
use super::state::{Entry, Names};
use crate::clock::now_ms;
use crate::guarded::forbidden;
use crate::limits::{
    DNS_IDLE_TIMEOUT, DNS_NAMES_MAX, DNS_REQUESTED_NAMES_MAX, DNS_RETRY_INTERVAL,
    DNS_RETRY_INTERVAL_MAX, DNS_TTL_MAX, DNS_TTL_MIN,
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

/// A task, and whether the configuration has its name.
type Tasks = BTreeMap<Arc<str>, (bool, AbortOnDropHandle<()>)>;

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
        tasks.retain(|name, (configured, _)| {
            let keep = !*configured || wanted.contains(name);
            if !keep {
                shared.names.forget(name);
            }
            keep
        });
        for name in wanted {
            if !tasks.get(&name).is_some_and(|(configured, _)| *configured) {
                tasks.insert(name.clone(), (true, task(&shared, name, None)));
            }
        }
        // Until the configuration changes, what requests ask for.
        let changed = loop {
            measure(&shared.names);
            tokio::select! {
                changed = version.changed() => break changed,
                name = asked.recv() => {
                    let Some(name) = name else { return };
                    if tasks.contains_key(&name) {
                        continue;
                    }
                    let requested = tasks.values().filter(|(configured, _)| !configured);
                    if requested.count() >= DNS_REQUESTED_NAMES_MAX {
                        let why = "too many other names are asked for";
                        shared.refuse(&name, why);
                        continue;
                    }
                    let task = task(&shared, name.clone(), Some(done.clone()));
                    tasks.insert(name, (false, task));
                }
                Some(name) = ended.recv() => {
                    if tasks.get(&name).is_some_and(|(configured, _)| !configured) {
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

fn task(
    shared: &Arc<Shared>,
    name: Arc<str>,
    done: Option<mpsc::UnboundedSender<Arc<str>>>,
) -> AbortOnDropHandle<()> {
    let (shared, entry) = (shared.clone(), shared.names.entry(&name));
    AbortOnDropHandle::new(tokio::spawn(async move {
        shared.keep_fresh(&name, &entry, done.is_some()).await;
        if let Some(done) = done {
            // The receiver lives as long as the thread.
            let _ = done.send(name);
        }
    }))
}

impl Shared {
    /// Ends when nobody has asked for the name for a while, if requests alone ask for it.
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
