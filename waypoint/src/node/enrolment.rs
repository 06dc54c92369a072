//! Enrolling: which pods of the list the kernel steers, who accepts for them, and when they are let
//! go. Whether those who accept are alive is the agent's.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::parse::NodePod;
use cairn_kernel_redirect::EnrolledPod;
use tokio::sync::oneshot;

use super::Steering;
use super::agent::Agent;
use super::cgroup::is_below;
use super::enrol_error::EnrolError;
use super::namespace::{Inside, Leads, NamespaceError};
use super::pod::Pod;
use super::site::Site;
use crate::listener::steered::PodListener;
use crate::log::Seldom;
use crate::upstream::Egress;

/// A pod of the list that is not enrolled.
#[derive(Debug)]
pub(super) struct Failing {
    /// Why, and what becomes of its connections; so that only news is logged.
    pub(super) words: String,
    /// Its network namespace, if that could be found.
    cookie: Option<u64>,
}

/// An enrolled pod.
pub(super) struct Enrolled {
    pub(super) as_listed: NodePod,
    pub(super) site: Arc<Site>,
    pub(super) pod: Arc<Pod>,
    pub(super) in_kernel: EnrolledPod,
    /// The agent's own descriptor of the listener the worker has. It keeps the socket open, so a
    /// worker that panics must be noticed by its beat.
    pub(super) listener: std::net::TcpListener,
    /// Who has its listener; nobody if no worker took it.
    pub(super) worker: Option<usize>,
    /// Whether its path could not be followed when it was last looked at.
    lost: bool,
    /// Why no worker took its listener when it was last offered; so that only news is logged.
    untaken: Option<String>,
    _until: Option<oneshot::Sender<()>>,
}

impl Enrolled {
    /// Whether the pod's path leads to another namespace now. One that leads nowhere says nothing
    /// about the pod: it stays enrolled, for its processes may live on.
    fn is_elsewhere(&mut self, leads: &Leads) -> bool {
        if let Leads::Unknown(error) = leads
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
            let listed = wanted.get(&key);
            if !listed.is_some_and(|listed| self.relist(&key, listed)) {
                self.let_go(&key, listed);
            }
        }
        self.failing.retain(|key, _| wanted.contains_key(key));
        for (key, pod) in &wanted {
            if self.enrolled.contains_key(key) {
                continue;
            }
            match self.enrol(pod) {
                Ok(enrolled) => {
                    tracing::info!(pod = %key, netns = %pod.netns.display(),
                        in_host = matches!(*enrolled.site, Site::Host(_)), port = enrolled.in_kernel.listener_port, worker = enrolled.worker, "pod enrolled");
                    self.failing.remove(key);
                    self.strangers.remove(&enrolled.in_kernel.netns_cookie);
                    self.enrolled.insert(key.clone(), enrolled);
                }
                Err((cookie, error)) => self.fails(key, cookie, &error),
            }
        }
        self.forget_strangers();
    }

    /// Pods that left, are listed otherwise, or have another namespace than they had.
    fn outdated(&mut self, wanted: &BTreeMap<ObjectKey, NodePod>) -> Vec<ObjectKey> {
        let same =
            |key: &ObjectKey, enrolled: &Enrolled| wanted.get(key) == Some(&enrolled.as_listed);
        let all = self.enrolled.iter();
        let (stay, others): (Vec<_>, Vec<_>) = all.partition(|(key, e)| same(key, e));
        let mut outdated: Vec<ObjectKey> = others.into_iter().map(|(key, _)| key.clone()).collect();
        let stay = stay.into_iter();
        let asked: Vec<_> = stay
            .map(|(key, e)| (key.clone(), e.site.clone(), e.as_listed.clone()))
            .collect();
        let seen = self.beside(move || {
            let each = |(key, site, listed): (_, Arc<Site>, _)| (key, site.seen_from(&listed));
            asked.into_iter().map(each).collect::<Vec<_>>()
        });
        if let Err(error) = &seen {
            static LINE: Seldom = Seldom::new();
            if LINE.due().is_some() {
                tracing::error!(%error, "no thread to look after the enrolled pods with: they stay as they are");
            }
        }
        for (key, leads) in seen.unwrap_or_default() {
            let enrolled = self.enrolled.get_mut(&key);
            if enrolled.is_some_and(|enrolled| enrolled.is_elsewhere(&leads)) {
                outdated.push(key);
            }
        }
        outdated
    }

    fn fails(&mut self, key: &ObjectKey, cookie: Option<u64>, error: &EnrolError) {
        let was = |(cookie, pod): (&u64, &Option<ObjectKey>)| {
            (pod.as_ref() == Some(key)).then_some(*cookie)
        };
        // One whose path leads nowhere is the one that this agent had under its name.
        let cookie = cookie.or_else(|| self.strangers.iter().find_map(was));
        let words = format!("{error}: {}", self.consequence(cookie));
        if self.failing.get(key).is_none_or(|f| f.words != words) {
            tracing::error!(pod = %key, %error, "pod not enrolled: {}", self.consequence(cookie));
        }
        self.failing.insert(key.clone(), Failing { words, cookie });
    }

    /// What becomes of the connections of a pod that is not enrolled.
    fn consequence(&self, cookie: Option<u64>) -> &'static str {
        match cookie {
            Some(cookie) if self.strangers.contains_key(&cookie) => {
                "the kernel knows it from before, so each service's failure mode applies"
            }
            Some(cookie) if self.has(cookie) => "its connections are steered as the other pod's",
            Some(_) => "its connections go direct, past policy",
            None if self.strangers.is_empty() => "its connections go direct, past policy",
            None => {
                "its connections go direct, past policy, unless the kernel knows it from before: then each service's failure mode applies"
            }
        }
    }

    /// Whether a pod with this network namespace is enrolled.
    fn has(&self, cookie: u64) -> bool {
        let mut all = self.enrolled.values();
        all.any(|e| e.in_kernel.netns_cookie == cookie)
    }

    /// The error comes with the cookie of the pod's namespace, if that could be found.
    fn enrol(&mut self, listed: &NodePod) -> Result<Enrolled, (Option<u64>, EnrolError)> {
        let in_host = self.in_host;
        let found = self.beside(|| {
            let site = Site::of(listed, in_host)?;
            let key = site.key();
            Ok((site, key))
        });
        let (site, cookie) = match found.map_err(EnrolError::NoThread) {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                // Of a pod in the wrong place its namespace may be no matter, unless it is not there.
                if !matches!(error, NamespaceError::Open(..)) {
                    self.check_cgroup(listed).map_err(|e| (None, e))?;
                }
                return Err((None, error.into()));
            }
            Err(error) => return Err((None, error)),
        };
        let known = cookie.as_ref().ok().copied();
        self.enrol_in(listed, site, cookie).map_err(|e| (known, e))
    }

    fn check_cgroup(&self, listed: &NodePod) -> Result<(), EnrolError> {
        let cgroup = &listed.cgroup;
        let below = is_below(cgroup, &self.place.cgroup);
        if below.map_err(|e| EnrolError::NoCgroup(cgroup.clone(), e))? {
            return Ok(());
        }
        let attached = self.place.cgroup.clone();
        Err(EnrolError::OtherCgroup(cgroup.clone(), attached))
    }

    /// Whether the pod's connections can be told from those of others.
    fn check_apart(&self, listed: &NodePod, site: &Site, cookie: u64) -> Result<(), EnrolError> {
        let mut others = self.enrolled.values();
        let Site::Host(side) = site else {
            let same = |e: &&Enrolled| e.in_kernel.netns_cookie == cookie;
            let other = others.find(same).map(|e| e.pod.key.clone());
            return other.map_or(Ok(()), |other| Err(EnrolError::Shared(other)));
        };
        let cgroup = &listed.cgroup;
        let of_all = std::fs::metadata(&self.place.cgroup);
        let of_all = of_all.map_err(|e| EnrolError::NoCgroup(cgroup.clone(), e))?;
        if side.has_all_of(of_all.ino()) {
            return Err(EnrolError::CgroupOfAll(cgroup.clone()));
        }
        let overlaps = |e: &&Enrolled| match &*e.site {
            Site::Host(other) => other.overlaps(side),
            Site::Pod(_) => false,
        };
        let other = others.find(overlaps).map(|e| e.pod.key.clone());
        other.map_or(Ok(()), |other| Err(EnrolError::SharedCgroup(other)))
    }

    pub(super) fn enrol_in(
        &mut self,
        listed: &NodePod,
        site: Site,
        cookie: Result<u64, NamespaceError>,
    ) -> Result<Enrolled, EnrolError> {
        self.check_cgroup(listed)?;
        let cookie = cookie?;
        self.check_apart(listed, &site, cookie)?;
        let room = self.steering.sizes().pods;
        let taken = self.enrolled.len() + self.strangers.len();
        if taken >= room as usize && !self.strangers.contains_key(&cookie) {
            return Err(EnrolError::Full(room));
        }
        let visited = self.beside(|| {
            let inside = site.visit()?;
            let egress = site.egress().map_err(EnrolError::Egress)?;
            Ok::<_, EnrolError>((inside, egress))
        });
        let (inside, egress) = visited.map_err(EnrolError::NoThread)??;
        self.take_in(listed, site, inside, egress)
    }

    /// Enrols a pod whose namespace was visited. Also if no worker serves it now: of a pod that the
    /// kernel does not know all connections would go direct, and not only where the service asks for
    /// that.
    pub(super) fn take_in(
        &mut self,
        listed: &NodePod,
        site: Site,
        inside: Inside,
        egress: Egress,
    ) -> Result<Enrolled, EnrolError> {
        // What a policy sees must not be for the pod to choose, as its interfaces are.
        let addresses = match listed.addresses.as_slice() {
            [] => inside.addresses,
            listed => listed.to_vec(),
        };
        if addresses.is_empty() {
            return Err(EnrolError::NoAddress);
        }
        let pod = self.pod_of(listed, addresses, egress);
        let listen = |e| NamespaceError::Listen(listed.netns.display().to_string(), e);
        let address = inside.listener.local_addr().map_err(listen)?;
        let in_kernel = EnrolledPod {
            netns_cookie: inside.cookie,
            listener_port: address.port(),
            ipv6_slots: inside.ipv6_slots,
        };
        self.steering
            .enrol(&in_kernel, inside.listener.as_fd())
            .inspect_err(|_| pod.egress.close())?;
        let mut enrolled = Enrolled {
            as_listed: listed.clone(),
            site: Arc::new(site),
            pod,
            in_kernel,
            listener: inside.listener,
            worker: None,
            lost: false,
            untaken: None,
            _until: None,
        };
        self.hand_over(&mut enrolled);
        if !self.is_served(&enrolled)
            && let Err(error) = self.steering.suspend(in_kernel.netns_cookie)
        {
            tracing::error!(pod = %enrolled.pod.key, %error, "no worker serves it, and its listener stays");
        }
        Ok(enrolled)
    }

    /// Whether a worker that lives has the pod's listener.
    pub(super) fn is_served(&self, enrolled: &Enrolled) -> bool {
        enrolled.worker.is_some_and(|w| self.watchdog.is_alive(w))
    }

    /// Gives a pod's listener to the worker with the fewest, one that lives if there is any, and
    /// takes it from the one that has it. The kernel need not know: the socket is the same. Whether one
    /// took it.
    pub(super) fn hand_over(&self, enrolled: &mut Enrolled) -> bool {
        let offered = self.offer(enrolled);
        let is_taken = offered.is_ok();
        match offered {
            Ok((worker, until)) => {
                enrolled.worker = Some(worker);
                enrolled._until = Some(until);
                enrolled.untaken = None;
            }
            Err(why) => {
                if enrolled.untaken.as_ref() != Some(&why) {
                    tracing::error!(pod = %enrolled.pod.key, "its listener is not handed over: {why}; tried again every second");
                }
                enrolled.untaken = Some(why);
            }
        }
        is_taken
    }

    /// The worker that took it, and what ends its listening when dropped; or why none did.
    fn offer(&self, enrolled: &Enrolled) -> Result<(usize, oneshot::Sender<()>), String> {
        let load = |worker: &usize| {
            let pods = self.enrolled.values().filter(|e| e.worker == Some(*worker));
            (!self.watchdog.is_alive(*worker), pods.count())
        };
        let takes = |worker: &usize| {
            let thread = self.workers.get(*worker);
            thread.is_some_and(|thread| !thread.pods.is_closed())
        };
        let worker = (0..self.workers.len()).filter(takes).min_by_key(load);
        let found = worker.and_then(|w| Some((w, self.workers.get(w)?)));
        let (worker, thread) = found.ok_or("every worker has ended")?;
        let socket = enrolled.listener.try_clone().map_err(|e| e.to_string())?;
        let (sender, until) = oneshot::channel();
        let listener = PodListener {
            pod: enrolled.pod.clone(),
            socket,
            slots: self.shared.clone(),
            until,
        };
        let sent = thread.pods.try_send(listener);
        sent.map_err(|error| format!("worker {worker} takes none: {error}"))?;
        Ok((worker, sender))
    }

    /// Looks for a worker for pods that have none which lives, and lets their connections in again.
    /// Answers how many have one now.
    pub(super) fn move_unserved(&mut self) -> usize {
        let unserved = |(_, e): &(&ObjectKey, &Enrolled)| !self.is_served(e);
        let keys = self.enrolled.iter().filter(unserved);
        let keys: Vec<ObjectKey> = keys.map(|(key, _)| key.clone()).collect();
        if !(0..self.workers.len()).any(|worker| self.watchdog.is_alive(worker)) {
            return 0;
        }
        let mut moved = 0;
        for key in keys {
            let Some(mut enrolled) = self.enrolled.remove(&key) else {
                continue;
            };
            self.hand_over(&mut enrolled);
            if self.is_served(&enrolled) {
                tracing::info!(pod = %key, worker = enrolled.worker, "pod moved to another worker");
                moved += 1;
                self.listen_again(&enrolled);
            }
            self.enrolled.insert(key, enrolled);
        }
        moved
    }

    /// Gives the kernel a pod's listener, which it may have already.
    pub(super) fn listen_again(&mut self, enrolled: &Enrolled) {
        let listener = enrolled.listener.as_fd();
        if let Err(error) = self.steering.enrol(&enrolled.in_kernel, listener) {
            tracing::error!(pod = %enrolled.pod.key, %error, "its listener can not be given back");
        }
    }

    /// Ends the listening for a pod. One that is the same in all but its listing stays in the kernel,
    /// which gets its new listener at once: not for a moment may it pass policy by. So does one whose
    /// new path can not be followed: it is refused until it can.
    fn let_go(&mut self, key: &ObjectKey, listed: Option<&NodePod>) {
        let site = self.enrolled.get(key).map(|enrolled| enrolled.site.clone());
        let (Some(site), listed) = (site, listed.cloned()) else {
            return;
        };
        // If nobody can look, it may be there still.
        let stays = listed.is_some_and(|pod| {
            let seen = self.beside(|| site.seen_from(&pod));
            !matches!(seen, Ok(Leads::Elsewhere))
        });
        let Some(enrolled) = self.enrolled.remove(key) else {
            return;
        };
        let cookie = enrolled.in_kernel.netns_cookie;
        if stays {
            tracing::info!(pod = %key, "pod is listed otherwise");
            self.strangers.insert(cookie, Some(key.clone()));
            return;
        }
        enrolled.pod.egress.close();
        match self.steering.withdraw(cookie) {
            Ok(()) => tracing::info!(pod = %key, "pod left"),
            Err(error) => {
                tracing::error!(pod = %key, %error, "pod left, and the kernel still has it");
                self.strangers.insert(cookie, None);
            }
        }
    }

    /// Withdraws what the kernel knows from before and is no pod of the list. While the list may lack
    /// a pod, or the namespace of a listed one can not be found, each of them may be that pod: they
    /// stay, refused. That costs room in the kernel's map, and nothing else.
    fn forget_strangers(&mut self) {
        let is_unfound = |pod: &Failing| pod.cookie.is_none();
        if !self.wanted_is_complete || self.failing.values().any(is_unfound) {
            return;
        }
        let awaited = |cookie: &u64| {
            let mut failing = self.failing.values();
            failing.any(|pod| pod.cookie == Some(*cookie))
        };
        let strangers = self.strangers.keys().copied();
        let gone: Vec<u64> = strangers.filter(|cookie| !awaited(cookie)).collect();
        for cookie in gone {
            match self.steering.withdraw(cookie) {
                Ok(()) => {
                    tracing::info!(cookie, "forgot a pod of before");
                    self.strangers.remove(&cookie);
                }
                Err(error) => tracing::error!(cookie, %error, "a pod of before stays"),
            }
        }
    }
}
