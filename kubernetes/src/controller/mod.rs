//! The controller: what Gateways of ours need is made, and what became of all objects is said in their status
//! (specs/istio-waypoint.md 1). One of several replicas writes. Serves no traffic.

mod acknowledged;
mod api;
mod applied;
mod apply;
mod class;
mod election;
mod gateways;
mod left;
mod objects;
mod overlay;
mod owned;
mod parameters;
mod prints;
mod programmed;
mod queue;
mod roles;
mod status;
mod tasks;
mod world;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resolve::Options;
use kube_client::Client;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

pub use api::Sent;
pub use objects::{MANAGED, MANAGED_BY, PodSettings};
pub use programmed::PROGRAMMED;

use api::Api;
use election::{Candidate, Remote};
use objects::MadeKind;
use owned::{News, Owned, follow_config_maps};
use prints::Prints;
use programmed::Programmed;
use queue::Queue;
use tasks::{Office, Task};
use world::{Reader, World};

use crate::kinds::ISTIO_NAMESPACE;
use crate::limits::TASKS_AT_ONCE;
use crate::watch::{Observer, Wanted, Watch};

/// What a leader waits for is said when nothing new came for so long.
const SAID_AFTER: Duration = Duration::from_secs(15);

/// Everything is looked at again so often, whether anything changed or not.
const RESYNC: Duration = Duration::from_secs(600);

/// After reading a state of the cluster, the next is read no sooner than this many times what it took: a tenth of a
/// core goes into that while a reading takes at most 0.55 s, and more in a cluster where it takes longer.
const READ_PAUSE_FACTOR: u32 = 9;

/// And no later than this: statuses are not to lag further behind.
const READ_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How the controller works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its own namespace: of the lease, and of class-wide overlays.
    pub namespace: String,
    /// Its name among others, for the lease.
    pub identity: String,
    /// Name of the lease. `None`: there is no other replica.
    pub lease: Option<String>,
    /// GatewayClass to make. `None`: somebody else makes it.
    pub class: Option<String>,
    /// Revision of Gateways (`istio.io/rev`) that it sees to.
    pub revision: String,
    /// ClusterRoleBinding whose subjects are the waypoints' accounts. `None`: somebody else sees to that.
    pub waypoint_role: Option<String>,
    /// What all waypoints have in common.
    pub pods: PodSettings,
}

/// How it is doing, for metrics and probes.
#[derive(Debug, Default)]
pub struct Standing {
    /// It is the one that writes.
    pub is_leading: AtomicBool,
    /// It leads and has seen every object.
    pub is_synced: AtomicBool,
    /// How often it became the one.
    pub elections: AtomicU64,
    /// Gateways of ours.
    pub gateways: AtomicUsize,
    /// Tasks that wait or are being done.
    pub queued: AtomicUsize,
    /// Tasks that failed, and are tried again.
    pub failed: AtomicU64,
    /// States of the cluster that were read.
    pub reads: AtomicU64,
    /// Time that took, in microseconds.
    pub read_us: AtomicU64,
    /// What was written.
    pub sent: Arc<Sent>,
    /// The watch while it leads.
    watch: Mutex<Option<Observer>>,
}

impl Standing {
    /// How the watch of each kind is doing, while it leads.
    pub fn watch(&self) -> Option<Observer> {
        self.watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_watch(&self, watch: Option<Observer>) {
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = watch;
    }
}

/// Works until `stop` is done, and gives the lease back then.
pub async fn run(
    client: Client,
    settings: Settings,
    standing: Arc<Standing>,
    stop: impl Future<Output = ()>,
) {
    let api = Api::new(client, standing.sent.clone());
    let settings = Arc::new(settings);
    let mut stop = std::pin::pin!(stop);
    let Some(lease) = &settings.lease else {
        standing.is_leading.store(true, Relaxed);
        tokio::select! {
            () = &mut stop => {}
            () = lead(api, settings, &standing) => {}
        }
        return;
    };
    let store = Remote {
        // Renewals are no writes about anybody's objects, and would hide that there are none.
        api: Api::new(api.client().clone(), Arc::default()),
        namespace: settings.namespace.clone(),
        name: lease.clone(),
    };
    let mut candidate = Candidate::new(settings.identity.clone());
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = election::acquire(&store, &mut candidate) => {}
        }
        tracing::info!(name = candidate.name(), "leading");
        standing.is_leading.store(true, Relaxed);
        standing.elections.fetch_add(1, Relaxed);
        // Whatever is being written when the lease is lost is dropped with `lead`.
        let lost = tokio::select! {
            () = &mut stop => None,
            why = election::keep(&store, &mut candidate) => Some(why),
            () = lead(api.clone(), settings.clone(), &standing) => None,
        };
        standing.is_leading.store(false, Relaxed);
        standing.is_synced.store(false, Relaxed);
        standing.set_watch(None);
        match lost {
            Some(why) => tracing::warn!(why, "leading no more"),
            None => return election::release(&store, &candidate).await,
        }
    }
}

/// Makes and says everything, for ever.
async fn lead(api: Api, settings: Arc<Settings>, standing: &Standing) {
    let istio_namespace = settings.pods.istio_namespace.as_deref();
    let istio_namespace = istio_namespace.unwrap_or(ISTIO_NAMESPACE);
    let mut watch = Watch::start(api.client().clone(), Wanted::All, istio_namespace).await;
    standing.set_watch(Some(watch.observer()));
    let (sender, mut news) = mpsc::unbounded_channel();
    let office = Arc::new(Office {
        api: api.clone(),
        settings: settings.clone(),
        owned: Owned::default(),
        applied: Default::default(),
        role_failure: Mutex::default(),
        programmed: Programmed::default(),
        handed_over: Default::default(),
        world: RwLock::default(),
    });
    let mut followers = JoinSet::new();
    for kind in MadeKind::ALL {
        let (office, client, sender) = (office.clone(), api.client().clone(), sender.clone());
        followers.spawn(async move { office.owned.follow(client, kind, sender).await });
    }
    let (of_sets, client, news_of_sets) = (office.clone(), api.client().clone(), sender.clone());
    followers.spawn(async move {
        of_sets
            .owned
            .follow_replica_sets(client, news_of_sets)
            .await
    });
    followers.spawn(follow_config_maps(api.client().clone(), sender));
    while !watch.synced() {
        if timeout(SAID_AFTER, watch.changed()).await.is_err() {
            let waiting = watch.observer().waiting().join("; ");
            tracing::warn!(waiting, "leading, and not everything is read yet");
        }
    }
    while !office.owned.is_complete() {
        // The sender lives as long as the followers, which live as long as this.
        news.recv().await;
    }
    standing.is_synced.store(true, Relaxed);
    let options = Options {
        trust_domain: settings.pods.trust_domain.clone(),
        cluster_domain: Some(settings.pods.cluster_domain.clone()),
        network: settings.pods.network.clone(),
        is_elsewhere: true,
        ..Options::default()
    };
    let desk = Desk {
        office,
        standing,
        reader: Some(Reader::new(options, settings.revision.clone())),
        queue: Queue::default(),
        prints: Prints::default(),
        accounts: None,
        has_class: false,
    };
    desk.run(watch, news).await;
}

/// Where news come in and work goes out.
struct Desk<'a> {
    office: Arc<Office>,
    standing: &'a Standing,
    /// Away while it reads.
    reader: Option<Reader>,
    queue: Queue<Task>,
    /// Gateways as they were last looked at.
    prints: Prints,
    /// Accounts of waypoints, as they were last bound. `None`: whoever led before has bound them.
    accounts: Option<BTreeSet<ObjectKey>>,
    /// The class that users name was there.
    has_class: bool,
}

impl Desk<'_> {
    async fn run(mut self, mut watch: Watch, mut news: UnboundedReceiver<News>) {
        let mut running: JoinSet<(Task, queue::Done)> = JoinSet::new();
        // The first state is there to be read.
        let mut is_dirty = true;
        let mut read_from = Instant::now();
        let mut resync_at = Instant::now() + RESYNC;
        self.queue.add(Task::Class, Instant::now());
        loop {
            if is_dirty && Instant::now() >= read_from {
                is_dirty = false;
                let took = self.read(&watch).await;
                read_from = Instant::now() + (took * READ_PAUSE_FACTOR).min(READ_PAUSE_MAX);
            }
            while running.len() < TASKS_AT_ONCE
                && let Some(task) = self.queue.take(Instant::now())
            {
                let office = self.office.clone();
                running.spawn(async move {
                    let done = office.work(&task).await;
                    (task, done)
                });
            }
            self.standing.queued.store(self.queue.len(), Relaxed);
            let next = self.queue.next().filter(|_| running.len() < TASKS_AT_ONCE);
            let next = next.unwrap_or(resync_at).min(resync_at);
            let next = if is_dirty { next.min(read_from) } else { next };
            tokio::select! {
                () = watch.changed() => is_dirty = true,
                Some(news) = news.recv() => self.take(&news),
                Some(Ok((task, done))) = running.join_next() => self.done(&task, done),
                () = sleep_until(next) => {}
            }
            if Instant::now() >= resync_at {
                resync_at = Instant::now() + RESYNC;
                self.add_all();
            }
        }
    }

    /// Reads the state of the cluster, and has done what it asks for; how long that took.
    async fn read(&mut self, watch: &Watch) -> Duration {
        let objects = watch.objects();
        let Some(mut reader) = self.reader.take() else {
            return Duration::ZERO;
        };
        let began = Instant::now();
        let read = tokio::task::spawn_blocking(move || {
            let world = reader.read(objects);
            (reader, world)
        });
        let Ok((reader, world)) = read.await else {
            // It said so itself; with a reader that may be broken nothing is to be written.
            tracing::error!("a state of the cluster could not be read; please report this");
            std::future::pending::<()>().await;
            return Duration::ZERO;
        };
        self.reader = Some(reader);
        let took = began.elapsed();
        self.standing.reads.fetch_add(1, Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.standing.read_us.fetch_add(us, Relaxed);
        self.put(world);
        took
    }

    fn put(&mut self, world: World) {
        let now = Instant::now();
        self.standing
            .gateways
            .store(world.found.managed.len(), Relaxed);
        for path in &world.outdated {
            self.queue.add(Task::Status(path.clone()), now);
        }
        for task in self.prints.take(&world) {
            self.queue.add(task, now);
        }
        self.office
            .programmed
            .retain(|key| self.prints.applies(key));
        let has_class = self.is_class_in(&world);
        if self.has_class && !has_class {
            self.queue.add(Task::Class, now);
        }
        self.has_class = has_class;
        let mut last = self
            .office
            .world
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Arc::new(world);
        drop(last);
        self.bind_accounts();
    }

    fn is_class_in(&self, world: &World) -> bool {
        let class = self.office.settings.class.as_ref();
        class.is_some_and(|name| {
            let path = format!("kubernetes:GatewayClass/{name}");
            world.objects.contains_key(&*path)
        })
    }

    fn bind_accounts(&mut self) {
        let accounts = Some(self.office.accounts());
        if accounts != self.accounts {
            self.queue.add(Task::Role, Instant::now());
            self.accounts = accounts;
        }
    }

    fn take(&mut self, news: &News) {
        let now = Instant::now();
        match news {
            News::Gateway(key) if self.prints.has(key) => {
                self.queue.add(Task::Gateway(key.clone()), now);
            }
            News::Replicas(key) if self.prints.has(key) => {
                self.queue.add(Task::Gateway(key.clone()), now);
                if self.prints.applies(key) {
                    self.queue.add(Task::Replicas(key.clone()), now);
                }
            }
            News::ConfigMap(map) => {
                let world = self
                    .office
                    .world
                    .read()
                    .unwrap_or_else(PoisonError::into_inner);
                let root = &self.office.settings.namespace;
                let is_root = *map.namespace == **root;
                let gateways = world.found.managed.values().filter(|gateway| {
                    let named = gateway
                        .parameters()
                        .is_some_and(|(_, _, name)| *name == *map.name);
                    is_root || (named && gateway.key.namespace == map.namespace)
                });
                for gateway in gateways {
                    self.queue.add(Task::Gateway(gateway.key.clone()), now);
                }
            }
            News::Account | News::Listed => self.bind_accounts(),
            News::Gateway(_) | News::Replicas(_) => {}
        }
    }

    fn done(&mut self, task: &Task, done: queue::Done) {
        if done == queue::Done::Failed {
            self.standing.failed.fetch_add(1, Relaxed);
        }
        let now = Instant::now();
        self.queue.done(task, done, now, fastrand::f64());
        for path in self.office.programmed.take_due() {
            self.queue.add(Task::Status(path.into()), now);
        }
    }

    fn add_all(&mut self) {
        let now = Instant::now();
        self.queue.add(Task::Class, now);
        self.queue.add(Task::Role, now);
        for key in self.prints.gateways() {
            self.queue.add(Task::Gateway(key.clone()), now);
        }
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
