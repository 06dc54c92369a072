//! The agent: keeps what the kernel steers in step with the pods there are, the configuration in
//! force and the workers that live. Decides what is enrolled and flagged; serves nothing itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::parse::NodePod;
use cairn_kernel_redirect::{EnrolledPod, FlaggedService, Place, RedirectError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::guard::Guard;
use super::namespace::{Inside, Leads, Namespace, NamespaceError};
use super::pod::{self, Pod};
use super::watchdog::{Beat, Change, LOOK_INTERVAL, Watchdog};
use super::{PodSource, Slots, Steering};
use crate::limits::PODS_MAX;
use crate::listener::steered::PodListener;
use crate::publish::InForce;
use crate::upstream::Egress;

/// How often pods that could not be enrolled are tried again, and namespaces looked at.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);

/// For so long after it stood still the agent gives its listeners to the kernel again and again: the
/// guard may be in the middle of taking them away.
const INSIST: Duration = Duration::from_secs(3);

/// A worker as the agent sees it.
#[derive(Debug)]
pub struct ServingThread {
    /// Takes listeners.
    pub pods: mpsc::Sender<PodListener>,
    /// Shows that it is alive.
    pub beat: Arc<Beat>,
}

/// Why a pod's connections are not steered.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Its namespace can not be used.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel does not take it.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// No sockets in its namespace.
    #[error("no sockets in its network namespace: {0}")]
    Egress(std::io::Error),
    /// Its processes would not be steered.
    #[error(
        "its cgroup {0} is not below {1}, to which the redirect is attached, so its connections would not be steered; correct `cgroup`, or --cgroup"
    )]
    OtherCgroup(PathBuf, PathBuf),
    /// Another pod has the same namespace by another path.
    #[error("its network namespace is that of {0}; a pod has one of its own")]
    Shared(ObjectKey),
    /// The kernel's map is full.
    #[error("{PODS_MAX} pods are enrolled, which is all this node can have")]
    Full,
    /// No worker takes its listener.
    #[error("no worker takes its listener")]
    NoWorker,
}

/// Keeps the kernel in step.
pub struct Agent<S> {
    steering: S,
    place: Place,
    in_force: InForce,
    workers: Vec<ServingThread>,
    watchdog: Watchdog,
    guard: Option<Guard>,
    /// Whether there is to be one.
    guarded: bool,
    slots: Slots,
    shared: Arc<ArcSwap<Slots>>,
    wanted: Vec<NodePod>,
    enrolled: BTreeMap<ObjectKey, Enrolled>,
    /// Why pods are not enrolled, so that only news is logged.
    failing: BTreeMap<ObjectKey, String>,
    /// The same for services.
    left_out: usize,
    /// Why the kernel's services are not those of the configuration: it is tried again.
    unflagged: Option<String>,
    /// Whether it was said that nobody knows what to flag.
    told_unknown: bool,
    insist_until: Option<Instant>,
}

/// An enrolled pod.
struct Enrolled {
    as_listed: NodePod,
    namespace: Namespace,
    pod: Arc<Pod>,
    in_kernel: EnrolledPod,
    /// The agent's own descriptor of the listener the worker has. It keeps the socket open, so a
    /// worker that panics must be noticed by its beat.
    listener: std::net::TcpListener,
    worker: usize,
    /// Whether its path could not be followed when it was last looked at.
    lost: bool,
    _until: oneshot::Sender<()>,
}

impl Enrolled {
    /// Whether the pod's path leads to another namespace now. One that leads nowhere says nothing
    /// about the pod: it stays enrolled, for its processes may live on.
    fn is_elsewhere(&mut self) -> bool {
        let leads = self.namespace.seen_from(&self.as_listed.netns);
        if let Leads::Unknown(error) = &leads
            && !self.lost
        {
            tracing::warn!(pod = %self.pod.key, netns = %self.as_listed.netns.display(), %error,
                "the pod's network namespace can not be found; it stays enrolled while it is listed");
        }
        self.lost = matches!(leads, Leads::Unknown(_));
        matches!(leads, Leads::Elsewhere)
    }
}

impl<S: Steering> Agent<S> {
    /// An agent that goes on with what an earlier one left in the kernel.
    ///
    /// # Errors
    /// When the kernel's maps can not be read.
    pub fn new(
        steering: S,
        place: Place,
        in_force: InForce,
        workers: Vec<ServingThread>,
        guard: Option<Guard>,
    ) -> Result<Self, RedirectError> {
        let left = steering.services()?;
        let flagged: Vec<_> = left
            .iter()
            .map(|s| (s.slot, SocketAddr::new(s.address, s.port)))
            .collect();
        let slots = Slots::resume(&flagged, &steering.named_slots());
        let watchdog = Watchdog::new(workers.iter().map(|w| w.beat.clone()), Instant::now());
        Ok(Self {
            shared: Arc::new(ArcSwap::from_pointee(slots.clone())),
            steering,
            place,
            in_force,
            watchdog,
            workers,
            guarded: guard.is_some(),
            guard,
            slots,
            wanted: Vec::new(),
            enrolled: BTreeMap::new(),
            failing: BTreeMap::new(),
            left_out: 0,
            unflagged: None,
            told_unknown: false,
            insist_until: None,
        })
    }

    /// Follows pods, configuration and workers for as long as the process lives. `started` is called
    /// once with the pods that are there at the start enrolled, or why not.
    pub async fn run(
        mut self,
        mut source: impl PodSource,
        started: impl FnOnce(Vec<(ObjectKey, String)>),
    ) {
        let mut version = self.in_force.version.subscribe();
        version.mark_unchanged();
        // Services first: no connection may meet slots that mean something else to its worker.
        self.flag_services();
        self.wanted = source.next().await;
        self.reconcile();
        started(self.failing.clone().into_iter().collect());
        if let Err(error) = self.steering.settle() {
            tracing::error!(%error, "what an earlier version left in the kernel stays there");
        }
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = tokio::time::interval(RECONCILE_INTERVAL);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => self.look(),
                pods = source.next() => {
                    self.wanted = pods;
                    self.reconcile();
                }
                changed = version.changed() => {
                    // The sender is part of `in_force`, which lives as long as this.
                    let _ = changed;
                    self.flag_services();
                }
                _ = retry.tick() => self.retry(),
            }
        }
    }

    fn retry(&mut self) {
        self.start_guard();
        if self.unflagged.is_some() {
            self.flag_services();
        }
        self.reconcile();
    }

    /// Flags exactly the ports of the configuration in force that need a proxy. While nobody knows
    /// which these are all stays as it is: what is steered is then refused, for there is no Gateway.
    fn flag_services(&mut self) {
        let snapshot = self.in_force.runtime.load().snapshot.clone();
        let Some(ports) = snapshot.l7_ports() else {
            if !self.told_unknown {
                tracing::error!(
                    snapshot = snapshot.version,
                    "no Gateway can be chosen: the flagged services stay, and their connections are refused"
                );
            }
            self.told_unknown = true;
            return;
        };
        self.told_unknown = false;
        let without_slot = self.slots.assign(&ports);
        let mut left_out = without_slot.len();
        for port in without_slot {
            tracing::error!(service = %port.service, address = %port.address,
                "not steered: there is no free slot; its connections go direct, past policy");
        }
        // Before the kernel knows them the workers do.
        self.shared.store(Arc::new(self.slots.clone()));
        let wanted: Vec<FlaggedService> = ports
            .iter()
            .filter_map(|port| {
                Some(FlaggedService {
                    address: port.address.ip(),
                    port: port.address.port(),
                    fail_open: port.fails_open,
                    slot: self.slots.slot(port.address)?,
                })
            })
            .collect();
        match self.steering.set_services(&wanted) {
            Ok(report) => {
                for left in &report.left_out {
                    tracing::error!(address = %left.service.address, port = left.service.port,
                        reason = %left.reason, "not steered: its connections go direct, past policy");
                }
                left_out += report.left_out.len();
                let changed = report.added + report.changed + report.removed > 0;
                if changed || left_out != self.left_out {
                    tracing::info!(
                        flagged = report.flagged,
                        added = report.added,
                        changed = report.changed,
                        removed = report.removed,
                        left_out,
                        snapshot = snapshot.version,
                        "services flagged"
                    );
                }
                self.left_out = left_out;
                self.unflagged = None;
            }
            Err(error) => {
                let words = error.to_string();
                if self.unflagged.as_ref() != Some(&words) {
                    tracing::error!(%error,
                        "the flagged services are not those of the configuration; tried again every second");
                }
                self.unflagged = Some(words);
            }
        }
    }

    /// Enrols the pods that are there and lets go of the others.
    fn reconcile(&mut self) {
        let keyed = self.wanted.iter().map(|pod| (pod.key(), pod.clone()));
        let wanted: BTreeMap<ObjectKey, NodePod> = keyed.collect();
        for key in self.outdated(&wanted) {
            self.let_go(&key, wanted.get(&key));
        }
        self.failing.retain(|key, _| wanted.contains_key(key));
        for (key, pod) in &wanted {
            self.beat();
            if self.enrolled.contains_key(key) {
                continue;
            }
            match self.enrol(pod) {
                Ok(enrolled) => {
                    tracing::info!(pod = %key, netns = %pod.netns.display(),
                        port = enrolled.in_kernel.listener_port, worker = enrolled.worker, "pod enrolled");
                    self.failing.remove(key);
                    self.enrolled.insert(key.clone(), enrolled);
                }
                Err(error) => self.fails(key, error.to_string()),
            }
        }
        // While a pod fails, what an earlier agent enrolled may be that pod: it stays refused.
        if self.failing.is_empty() {
            self.forget_strangers();
        }
    }

    /// Pods that left, are listed otherwise, or have another namespace than they had.
    fn outdated(&mut self, wanted: &BTreeMap<ObjectKey, NodePod>) -> Vec<ObjectKey> {
        let is_outdated = |key: &ObjectKey, enrolled: &mut Enrolled| {
            wanted.get(key) != Some(&enrolled.as_listed) || enrolled.is_elsewhere()
        };
        let all = self.enrolled.iter_mut();
        all.filter_map(|(key, enrolled)| is_outdated(key, enrolled).then(|| key.clone()))
            .collect()
    }

    fn fails(&mut self, key: &ObjectKey, words: String) {
        if self.failing.get(key) != Some(&words) {
            tracing::error!(pod = %key, error = %words,
                "pod not enrolled: its connections go direct, past policy");
            self.failing.insert(key.clone(), words);
        }
    }

    fn enrol(&mut self, listed: &NodePod) -> Result<Enrolled, EnrolError> {
        if !listed.cgroup.starts_with(&self.place.cgroup) {
            let attached = self.place.cgroup.clone();
            return Err(EnrolError::OtherCgroup(listed.cgroup.clone(), attached));
        }
        if self.enrolled.len() >= PODS_MAX {
            return Err(EnrolError::Full);
        }
        let namespace = Namespace::open(&listed.netns)?;
        let inside = namespace.visit()?;
        let same = |e: &&Enrolled| e.in_kernel.netns_cookie == inside.cookie;
        if let Some(other) = self.enrolled.values().find(same) {
            return Err(EnrolError::Shared(other.pod.key.clone()));
        }
        let egress = Egress::enter(&namespace.file).map_err(EnrolError::Egress)?;
        self.take_in(listed, namespace, inside, egress)
    }

    /// Enrols a pod whose namespace was visited. Also if its worker hangs: of a pod that the kernel
    /// does not know all connections would go direct, and not only where the service asks for that.
    fn take_in(
        &mut self,
        listed: &NodePod,
        namespace: Namespace,
        inside: Inside,
        egress: Egress,
    ) -> Result<Enrolled, EnrolError> {
        let mesh = self.in_force.mesh.load();
        let workload = pod::workload_of(listed, &inside.addresses, &mesh.trust_domain);
        let pod = Arc::new(Pod {
            key: listed.key(),
            service_account: listed.service_account.clone(),
            addresses: inside.addresses,
            egress,
            workload: workload.map(Arc::new),
        });
        let listen = |e| NamespaceError::Listen(listed.netns.display().to_string(), e);
        let address = inside.listener.local_addr().map_err(listen)?;
        let in_kernel = EnrolledPod {
            netns_cookie: inside.cookie,
            listener_port: address.port(),
        };
        let handed = inside.listener.try_clone().map_err(listen)?;
        let (worker, until) = self.hand_over(&pod, handed)?;
        let listener = inside.listener.as_fd();
        self.steering
            .enrol(&in_kernel, listener)
            .inspect_err(|_| pod.egress.close())?;
        if !self.watchdog.is_alive(worker)
            && let Err(error) = self.steering.suspend(in_kernel.netns_cookie)
        {
            tracing::error!(pod = %pod.key, %error, "its worker hangs, and its listener stays");
        }
        Ok(Enrolled {
            as_listed: listed.clone(),
            namespace,
            pod,
            in_kernel,
            listener: inside.listener,
            worker,
            lost: false,
            _until: until,
        })
    }

    /// Gives a pod's listener to the worker with the fewest, one that lives if there is any.
    fn hand_over(
        &self,
        pod: &Arc<Pod>,
        socket: std::net::TcpListener,
    ) -> Result<(usize, oneshot::Sender<()>), EnrolError> {
        let load = |worker: &usize| {
            let pods = self.enrolled.values().filter(|e| e.worker == *worker);
            (!self.watchdog.is_alive(*worker), pods.count())
        };
        let worker = (0..self.workers.len()).min_by_key(load);
        let worker = worker.ok_or(EnrolError::NoWorker)?;
        let (sender, until) = oneshot::channel();
        let listener = PodListener {
            pod: pod.clone(),
            socket,
            slots: self.shared.clone(),
            until,
        };
        let thread = self.workers.get(worker).ok_or(EnrolError::NoWorker)?;
        let handed = thread.pods.try_send(listener);
        handed.map_err(|_| EnrolError::NoWorker)?;
        Ok((worker, sender))
    }

    /// Ends the listening for a pod. One that is the same in all but its listing stays in the kernel,
    /// which gets its new listener at once: not for a moment may it pass policy by. So does one whose
    /// new path can not be followed: it is refused until it can.
    fn let_go(&mut self, key: &ObjectKey, listed: Option<&NodePod>) {
        let Some(enrolled) = self.enrolled.remove(key) else {
            return;
        };
        let is_elsewhere =
            |pod: &NodePod| matches!(enrolled.namespace.seen_from(&pod.netns), Leads::Elsewhere);
        if listed.is_some_and(|pod| !is_elsewhere(pod)) {
            tracing::info!(pod = %key, "pod is listed otherwise");
            return;
        }
        enrolled.pod.egress.close();
        match self.steering.withdraw(enrolled.in_kernel.netns_cookie) {
            Ok(()) => tracing::info!(pod = %key, "pod left"),
            Err(error) => {
                tracing::error!(pod = %key, %error, "pod left, and the kernel still has it");
            }
        }
    }

    /// Withdraws what an earlier agent enrolled and is no pod of ours.
    fn forget_strangers(&mut self) {
        let known = match self.steering.pods() {
            Ok(known) => known,
            Err(error) => return tracing::error!(%error, "the kernel's pods can not be read"),
        };
        for cookie in known {
            let mut ours = self.enrolled.values();
            if ours.any(|e| e.in_kernel.netns_cookie == cookie) {
                continue;
            }
            match self.steering.withdraw(cookie) {
                Ok(()) => tracing::info!(cookie, "forgot a pod of an earlier agent"),
                Err(error) => tracing::error!(cookie, %error, "a pod of an earlier agent stays"),
            }
        }
    }

    /// Starts a guard where there was one. Without it nobody takes the listeners away should this
    /// process stand still.
    fn start_guard(&mut self) {
        if !self.guarded || self.guard.is_some() {
            return;
        }
        match Guard::start(&self.place) {
            Ok(guard) => self.guard = Some(guard),
            Err(error) => tracing::error!(%error, "no guard can be started"),
        }
    }

    /// Tells the guard that the agent is alive.
    fn beat(&mut self) {
        if self.guard.as_mut().is_some_and(|guard| !guard.beat()) {
            tracing::error!("the guard has ended, another one is started");
            self.guard = None;
        }
    }

    /// Looks after the workers, and tells the guard that the agent itself is alive.
    fn look(&mut self) {
        self.beat();
        let now = Instant::now();
        if self.watchdog.overslept(now) {
            tracing::warn!("the agent stood still; its listeners are given back to the kernel");
            self.insist_until = Some(now + INSIST);
        }
        for change in self.watchdog.look(now) {
            match change {
                Change::Hung(worker) => self.suspend(worker),
                Change::Back(worker) => self.give_back(worker, true),
            }
        }
        if self.insist_until.is_some_and(|until| now < until) {
            for worker in 0..self.workers.len() {
                if self.watchdog.is_alive(worker) {
                    self.give_back(worker, false);
                }
            }
        } else {
            self.insist_until = None;
        }
    }

    fn suspend(&mut self, worker: usize) {
        tracing::error!(
            worker,
            "worker hangs: its listeners are taken away, each service's failure mode applies"
        );
        for enrolled in self.enrolled.values().filter(|e| e.worker == worker) {
            if let Err(error) = self.steering.suspend(enrolled.in_kernel.netns_cookie) {
                tracing::error!(pod = %enrolled.pod.key, %error, "its listener stays");
            }
        }
    }

    fn give_back(&mut self, worker: usize, told: bool) {
        if told {
            tracing::info!(worker, "worker is back: its listeners are given back");
        }
        for enrolled in self.enrolled.values().filter(|e| e.worker == worker) {
            let listener = enrolled.listener.as_fd();
            if let Err(error) = self.steering.enrol(&enrolled.in_kernel, listener) {
                tracing::error!(pod = %enrolled.pod.key, %error, "its listener can not be given back");
            }
        }
    }
}

#[cfg(test)]
mod tests;
