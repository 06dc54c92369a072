//! Enrolling: which pods of the list the kernel steers, who accepts for them, and when they are let
//! go. Whether those who accept are alive is the agent's.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::parse::NodePod;
use cairn_kernel_redirect::{EnrolledPod, RedirectError};
use tokio::sync::oneshot;

use super::Steering;
use super::agent::Agent;
use super::namespace::{Inside, Leads, Namespace, NamespaceError};
use super::pod::{self, Pod};
use crate::limits::PODS_MAX;
use crate::listener::steered::PodListener;
use crate::upstream::Egress;

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

/// An enrolled pod.
pub(super) struct Enrolled {
    as_listed: NodePod,
    namespace: Namespace,
    pub(super) pod: Arc<Pod>,
    pub(super) in_kernel: EnrolledPod,
    /// The agent's own descriptor of the listener the worker has. It keeps the socket open, so a
    /// worker that panics must be noticed by its beat.
    pub(super) listener: std::net::TcpListener,
    pub(super) worker: usize,
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
    /// Enrols the pods that are there and lets go of the others.
    pub(super) fn reconcile(&mut self) {
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
    pub(super) fn take_in(
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
}
