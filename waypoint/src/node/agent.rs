//! The agent: keeps what the kernel steers in step with the pods there are, the configuration in
//! force and the workers that live. Decides what is flagged; which pods are enrolled is `enrolment`'s,
//! serving the workers'.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::parse::NodePod;
use cairn_config_schema::snapshot::L7Port;
use cairn_kernel_redirect::{FlaggedService, Place, RedirectError};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::enrolment::{Enrolled, Failing};
use super::guard::Guard;
use super::watchdog::{Beat, Change, LOOK_INTERVAL, Watchdog};
use super::{PodList, PodSource, Slots, Steering};
use crate::listener::steered::PodListener;
use crate::log::Seldom;
use crate::publish::InForce;
use crate::telemetry::node::{self as telemetry, NodeEvent, NodeState};

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

/// Keeps the kernel in step.
pub struct Agent<S> {
    pub(super) steering: S,
    pub(super) place: Place,
    pub(super) in_force: InForce,
    pub(super) workers: Vec<ServingThread>,
    pub(super) watchdog: Watchdog,
    guard: Option<Guard>,
    /// Whether there is to be one.
    guarded: bool,
    slots: Slots,
    pub(super) shared: Arc<ArcSwap<Slots>>,
    pub(super) wanted: Vec<NodePod>,
    /// Whether nobody is missing in `wanted`, so that what else the kernel knows may be forgotten.
    pub(super) wanted_is_complete: bool,
    pub(super) enrolled: BTreeMap<ObjectKey, Enrolled>,
    /// Pods of the list that are not enrolled.
    pub(super) failing: BTreeMap<ObjectKey, Failing>,
    /// Pods that the kernel knows and this agent does not have: an earlier one enrolled them, or this
    /// one, under the name that is told.
    pub(super) strangers: BTreeMap<u64, Option<ObjectKey>>,
    /// Services that are to be flagged and are not.
    left_out: usize,
    /// Why the kernel's services are not those of the configuration: it is tried again.
    unflagged: Option<String>,
    /// Whether it was said that nobody knows what to flag.
    told_unknown: bool,
    /// Whether what to flag was ever known, to this agent or the one before.
    ever_known: bool,
    /// Whether what an earlier version left is gone.
    settled: bool,
    insist_until: Option<Instant>,
    /// Whether a pod whose namespace can not be entered gets a listener in the host's.
    pub(super) in_host: bool,
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
        let strangers = steering.pods()?.into_iter().map(|c| (c, None)).collect();
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
            wanted_is_complete: false,
            enrolled: BTreeMap::new(),
            failing: BTreeMap::new(),
            strangers,
            left_out: 0,
            unflagged: None,
            told_unknown: false,
            ever_known: !left.is_empty(),
            settled: false,
            insist_until: None,
            in_host: false,
        })
    }

    /// Lets pods whose namespace can not be entered have their listener in the host's.
    #[must_use]
    pub fn listening_in_host(mut self, in_host: bool) -> Self {
        self.in_host = in_host;
        self
    }

    /// Follows pods, configuration and workers for as long as the process lives. `started` is called
    /// once with the pods that are there at the start enrolled, and how many are not.
    pub async fn run(mut self, mut source: impl PodSource, started: impl FnOnce(usize)) {
        let mut version = self.in_force.version.subscribe();
        version.mark_unchanged();
        // Services first: no connection may meet slots that mean something else to its worker.
        self.flag_services();
        self.follow(source.next().await);
        self.settle();
        self.show();
        started(self.failing.len());
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = tokio::time::interval(RECONCILE_INTERVAL);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => self.look(),
                list = source.next() => self.follow(list),
                changed = version.changed() => {
                    // The sender is part of `in_force`, which lives as long as this.
                    let _ = changed;
                    self.flag_services();
                }
                _ = retry.tick() => self.retry(),
            }
        }
    }

    fn follow(&mut self, list: PodList) {
        self.wanted = list.pods;
        self.wanted_is_complete = list.is_complete;
        self.reconcile();
    }

    fn retry(&mut self) {
        self.start_guard();
        if self.unflagged.is_some() {
            self.flag_services();
        }
        self.reconcile();
        self.settle();
        self.move_unserved();
        self.show();
    }

    /// Lets go of what an earlier version left in the kernel, once what it did is done anew: until
    /// then it refuses what it knows. Its pods are known here from the start.
    fn settle(&mut self) {
        if self.settled || self.unflagged.is_some() || self.told_unknown {
            return;
        }
        match self.steering.settle() {
            Ok(()) => self.settled = true,
            Err(error) => {
                static LINE: Seldom = Seldom::new();
                if LINE.due().is_some() {
                    tracing::error!(%error, "what an earlier version left in the kernel stays there, and refuses what it knows");
                }
            }
        }
    }

    /// Flags exactly the ports of the configuration in force that need a proxy. While nobody knows
    /// which these are all stays as it is: what is steered is then refused, for there is no Gateway.
    /// Where nothing is known from before, everything is that names a Gateway: what is refused is
    /// noticed, what goes past policy is not.
    pub(super) fn flag_services(&mut self) {
        let snapshot = self.in_force.runtime.load().snapshot.clone();
        let (ports, known) = match snapshot.l7_ports() {
            Some(ports) => (ports, true),
            None if self.ever_known => (Vec::new(), false),
            None => (snapshot.ports_of_any_gateway(), false),
        };
        if !known && !self.told_unknown {
            let consequence = match self.ever_known {
                true => "the flagged services stay, and their connections are refused",
                false => {
                    "every service that names a Gateway is flagged, and its connections are refused"
                }
            };
            tracing::error!(
                snapshot = snapshot.version,
                "no Gateway can be chosen: {consequence}; name one with --gateway, or correct it"
            );
        }
        self.told_unknown = !known;
        if !known && self.ever_known {
            return;
        }
        self.ever_known = known;
        self.flag(&ports, snapshot.version);
    }

    fn flag(&mut self, ports: &[L7Port], snapshot: u64) {
        let without_slot = self.slots.assign(ports);
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
                        snapshot,
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

    /// Asks the kernel on a thread of its own for what it may take its time with, and looks after the
    /// workers meanwhile: while many links come and go an answer about one can take seconds, and the
    /// guard would take all listeners away for it.
    ///
    /// # Errors
    /// If there can be no such thread.
    pub(super) fn beside<T: Send>(&mut self, ask: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let (sender, answer) = std::sync::mpsc::sync_channel(1);
            let thread = std::thread::Builder::new().name("node-asks".to_owned());
            thread.spawn_scoped(scope, move || {
                // Who waits for it waits below.
                let _ = sender.send(ask());
            })?;
            loop {
                if self.watchdog.is_due(Instant::now()) {
                    self.look();
                }
                match answer.recv_timeout(LOOK_INTERVAL) {
                    Ok(answer) => return Ok(answer),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
            }
        })
    }

    /// Tells the guard that the agent is alive.
    fn beat(&mut self) {
        if self.guard.as_mut().is_some_and(|guard| !guard.beat()) {
            telemetry::event(NodeEvent::GuardEnded);
            tracing::error!("the guard has ended, another one is started");
            self.guard = None;
        }
    }

    /// Looks after the workers, and tells the guard that the agent itself is alive.
    fn look(&mut self) {
        self.beat();
        let now = Instant::now();
        if self.watchdog.overslept(now) {
            telemetry::event(NodeEvent::StoodStill);
            tracing::warn!("the agent stood still; its listeners are given back to the kernel");
            self.insist_until = Some(now + INSIST);
        }
        for change in self.watchdog.look(now) {
            match change {
                Change::Hung(worker) => self.relieve(worker),
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

    /// Gives the pods of a worker that hangs, or has ended, to others; if there are none takes their
    /// listeners away.
    fn relieve(&mut self, worker: usize) {
        telemetry::event(NodeEvent::WorkerHung);
        let moved = self.move_unserved();
        let mut suspended = 0;
        for enrolled in self.enrolled.values() {
            if self.is_served(enrolled) {
                continue;
            }
            suspended += 1;
            if let Err(error) = self.steering.suspend(enrolled.in_kernel.netns_cookie) {
                tracing::error!(pod = %enrolled.pod.key, %error, "its listener stays");
            }
        }
        tracing::error!(
            worker,
            moved,
            suspended,
            "worker hangs: its pods go to others; where there is none each service's failure mode applies"
        );
    }

    fn give_back(&mut self, worker: usize, told: bool) {
        if told {
            telemetry::event(NodeEvent::WorkerBack);
            tracing::info!(
                worker,
                "worker is back: listeners it still has are given back"
            );
        }
        let of_worker = |e: &&Enrolled| e.worker == Some(worker);
        for enrolled in self.enrolled.values().filter(of_worker) {
            let listener = enrolled.listener.as_fd();
            if let Err(error) = self.steering.enrol(&enrolled.in_kernel, listener) {
                tracing::error!(pod = %enrolled.pod.key, %error, "its listener can not be given back");
            }
        }
    }

    /// Shows the operator where things stand. Reads what the agent knows, and of the kernel only the
    /// counters: maps of thousands are not read every second.
    fn show(&self) {
        let served = self.enrolled.values().filter(|e| self.is_served(e)).count();
        let counters = self.steering.counters();
        let (services, slots) = self.steering.fill();
        let sizes = self.steering.sizes();
        telemetry::state(&NodeState {
            served,
            unserved: self.enrolled.len() - served,
            failing: self.failing.len(),
            earlier: self.strangers.len(),
            left_out: self.left_out,
            services,
            slots,
            sizes,
            connections: counters.ok(),
        });
    }
}

#[cfg(test)]
mod tests;
