//! The roll of this node's pods: which of those that the API server has are to be steered, and where each is. A pod
//! stays on it for as long as processes of it run, whatever the API server says. Asks nobody and reads no clock.

use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::parse::NodePod;
use cairn_kubernetes::watch::PodOfNode;

use super::find::{Found, Node, Place};
use crate::telemetry::node::RollState;

/// A pod without processes for so long is told of: its image may be large, or its sandbox can not be made.
const LATE: Duration = Duration::from_secs(10);

/// The pods of this node.
#[derive(Debug, Default)]
pub(super) struct Roll {
    /// By uid, for a name may be another pod's tomorrow.
    pods: BTreeMap<String, Entry>,
    /// Pods that are not steered, of which that was said.
    told_left_out: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    pod: PodOfNode,
    /// The API server has it, and it has not ended.
    is_listed: bool,
    place: Option<Place>,
    /// Its processes are there and can not be looked at; by the paths it is listed with, the agent says why.
    unclear: Option<(PathBuf, PathBuf)>,
    /// Since when it has been waited for.
    since: Instant,
    is_late: bool,
    /// It was said that another pod has its name.
    told_replaced: bool,
}

/// What the roll says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Called {
    /// The list, as a pods file would have it; by namespace and name.
    pub pods: Vec<NodePod>,
    /// Pods without processes yet.
    pub awaited: usize,
    /// The same, for more than ten seconds.
    pub overdue: usize,
    /// Pods whose processes run on though the API server has them no more, or as ended.
    pub lingering: usize,
    /// Pods that are not steered.
    pub left_out: usize,
}

impl Called {
    /// For metrics.
    pub fn counts(&self) -> RollState {
        RollState {
            awaited: self.awaited,
            overdue: self.overdue,
            lingering: self.lingering,
            left_out: self.left_out,
        }
    }
}

/// Why a pod is not steered, whatever its processes do.
fn left_out(pod: &PodOfNode) -> Option<&'static str> {
    if pod.host_network {
        return Some("it is on the host's network");
    }
    if pod.service_account.is_empty() {
        return Some("it has no service account, as static pods have none, and so no identity");
    }
    let known = Identity::of_workload("td", &pod.namespace, &pod.service_account);
    known.err().map(|_| "its service account is no identity")
}

impl Roll {
    /// Takes what the API server has now, or had when an earlier agent kept it. One that it has as ended, or has no
    /// more, stays if the next call finds processes of it, whoever knew of it first.
    pub fn take(&mut self, pods: Vec<PodOfNode>, now: Instant) {
        let out: Vec<_> = pods
            .iter()
            .filter_map(|pod| Some((pod, left_out(pod)?)))
            .filter(|(pod, _)| !pod.has_ended)
            .collect();
        let uids: BTreeSet<String> = out.iter().map(|(pod, _)| pod.uid.clone()).collect();
        for (pod, why) in out {
            if !self.told_left_out.contains(&pod.uid) {
                tracing::info!(pod = %key(pod), "pod is not steered: {why}");
            }
        }
        for entry in self.pods.values_mut() {
            entry.is_listed = false;
        }
        for pod in pods {
            if left_out(&pod).is_some() {
                continue;
            }
            let is_listed = !pod.has_ended;
            match self.pods.get_mut(&pod.uid) {
                Some(entry) => {
                    entry.is_listed = is_listed;
                    entry.pod = pod;
                }
                None => {
                    let entry = Entry::new(pod, is_listed, now);
                    self.pods.insert(entry.pod.uid.clone(), entry);
                }
            }
        }
        self.told_left_out = uids;
    }

    /// Looks where everybody is, and says who is there.
    pub fn call(&mut self, node: &mut impl Node, now: Instant) -> Called {
        let cgroups = node.cgroups();
        let mut gone = Vec::new();
        for (uid, entry) in &mut self.pods {
            let of_it = cgroups.get(uid).map_or(&[][..], Vec::as_slice);
            entry.look(of_it, node, now);
            if !entry.is_listed && !entry.is_there() {
                gone.push(uid.clone());
            }
        }
        for uid in gone {
            self.pods.remove(&uid);
        }
        self.say()
    }

    /// Whether somebody is waited for, who may be there at any moment: also one that is late, for a slow volume says
    /// nothing about how fast its containers start.
    pub fn is_waiting(&self) -> bool {
        self.pods.values().any(|e| !e.is_there())
    }

    /// Pods that the API server has no more, or as ended, and whose processes ran on at the last call.
    pub fn lingering(&self) -> impl Iterator<Item = &PodOfNode> {
        let lingers = |e: &&Entry| !e.is_listed && e.is_there();
        self.pods.values().filter(lingers).map(|e| &e.pod)
    }

    fn say(&mut self) -> Called {
        let mut called = Called {
            left_out: self.told_left_out.len(),
            ..Called::default()
        };
        let mut listed: BTreeMap<ObjectKey, NodePod> = BTreeMap::new();
        // Those that the API server has come first: a name may be another pod's now than that which lingers.
        let (now, before): (Vec<_>, Vec<_>) = self.pods.values_mut().partition(|e| e.is_listed);
        for entry in now.into_iter().chain(before) {
            match (entry.is_listed, entry.is_there(), entry.is_late) {
                (false, ..) => called.lingering += 1,
                (true, false, true) => called.overdue += 1,
                (true, false, false) => called.awaited += 1,
                (true, true, _) => {}
            }
            let Some(pod) = entry.as_listed() else {
                continue;
            };
            match listed.entry(pod.key()) {
                Vacant(place) => drop(place.insert(pod)),
                Occupied(_) if entry.told_replaced => {}
                Occupied(_) => {
                    entry.told_replaced = true;
                    tracing::warn!(pod = %key(&entry.pod), uid = %entry.pod.uid,
                        "another pod has its name while its processes run on: those of this one go direct, past policy");
                }
            }
        }
        called.pods = listed.into_values().collect();
        called
    }
}

impl Entry {
    fn new(pod: PodOfNode, is_listed: bool, since: Instant) -> Self {
        Self {
            pod,
            is_listed,
            place: None,
            unclear: None,
            since,
            is_late: false,
            told_replaced: false,
        }
    }

    fn is_there(&self) -> bool {
        self.place.is_some() || self.unclear.is_some()
    }

    /// Looks where it is. One that was somewhere stays there while nothing else is known: its namespace may live
    /// on, and to forget it would let it past policy.
    fn look(&mut self, cgroups: &[PathBuf], node: &mut impl Node, now: Instant) {
        let leads = self.place.as_ref().is_some_and(|place| node.leads(place));
        if leads && self.is_listed {
            return;
        }
        match node.find(cgroups) {
            Found::At(place) if leads && self.place.as_ref() != Some(&place) => {}
            Found::At(place) => {
                if self.is_late {
                    let after_s = now.duration_since(self.since).as_secs();
                    tracing::info!(pod = %key(&self.pod), after_s, "its processes are there");
                }
                (self.place, self.unclear, self.is_late) = (Some(place), None, false);
            }
            Found::Unclear {
                netns,
                cgroup,
                error,
            } => {
                if self.unclear.is_none() {
                    tracing::error!(pod = %key(&self.pod), netns = %netns.display(), %error,
                        "its network namespace can not be looked at; CAP_SYS_PTRACE is needed");
                }
                self.unclear = Some((netns, cgroup));
            }
            Found::Nobody if self.is_listed => self.wait(now),
            Found::Nobody => {
                if self.is_there() {
                    tracing::info!(pod = %key(&self.pod), "the last process of the pod has ended");
                }
                (self.place, self.unclear) = (None, None);
            }
        }
    }

    fn wait(&mut self, now: Instant) {
        self.unclear = None;
        if self.place.is_some() || self.is_late || now.duration_since(self.since) < LATE {
            return;
        }
        self.is_late = true;
        let after_s = LATE.as_secs();
        tracing::warn!(pod = %key(&self.pod), uid = %self.pod.uid, after_s,
            "no process of this pod is there yet; if some are, its cgroup is not below that of all pods (--cgroup), and its connections go direct, past policy, unless the kernel knows it from before: then each service's failure mode applies");
    }

    fn as_listed(&self) -> Option<NodePod> {
        let (netns, cgroup) = match (&self.place, &self.unclear) {
            (Some(place), _) => (place.netns.clone(), place.cgroup.clone()),
            (None, Some((netns, cgroup))) => (netns.clone(), cgroup.clone()),
            (None, None) => return None,
        };
        let pod = &self.pod;
        Some(NodePod {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            service_account: pod.service_account.clone(),
            labels: pod.labels.clone(),
            addresses: pod.addresses.iter().map(IpAddr::to_canonical).collect(),
            netns,
            host_interface: None,
            cgroup,
        })
    }
}

fn key(pod: &PodOfNode) -> ObjectKey {
    ObjectKey::new(pod.namespace.as_str(), pod.name.as_str())
}

#[cfg(test)]
pub(super) mod tests;
