//! A pod that is listed otherwise and is where it was: with other labels, other addresses, another path to its
//! network namespace. It keeps its listener, so that none of its connections is refused for that.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::parse::NodePod;

use super::Steering;
use super::agent::Agent;
use super::enrolment::Enrolled;
use super::namespace::Leads;
use super::pod::{self, Pod};
use crate::upstream::Egress;

impl<S: Steering> Agent<S> {
    /// The pod of a listing, as its connections know it.
    pub(super) fn pod_of(
        &self,
        listed: &NodePod,
        addresses: Vec<IpAddr>,
        egress: Egress,
    ) -> Arc<Pod> {
        let mesh = self.in_force.mesh.load();
        let workload = pod::workload_of(listed, &addresses, &mesh.trust_domain);
        Arc::new(Pod {
            key: listed.key(),
            service_account: listed.service_account.clone(),
            addresses,
            egress,
            workload: workload.map(Arc::new),
        })
    }

    /// Takes the new listing of an enrolled pod, if it is the same pod at the same place. Otherwise nothing is done.
    pub(super) fn relist(&mut self, key: &ObjectKey, listed: &NodePod) -> bool {
        let Some(enrolled) = self.enrolled.get(key) else {
            return false;
        };
        if !is_same(&enrolled.as_listed, listed) {
            return false;
        }
        let site = enrolled.site.clone();
        let seen = self.beside(|| site.seen_from(listed));
        if !matches!(seen, Ok(Leads::Here)) {
            return false;
        }
        let Some(mut enrolled) = self.enrolled.remove(key) else {
            return false;
        };
        self.take_listing(&mut enrolled, listed);
        self.enrolled.insert(key.clone(), enrolled);
        true
    }

    /// Has a worker accept for it as it is listed now. If none takes it, it is served as before, until the next time.
    fn take_listing(&mut self, enrolled: &mut Enrolled, listed: &NodePod) {
        let addresses = match listed.addresses.as_slice() {
            [] => enrolled.pod.addresses.clone(),
            listed => listed.to_vec(),
        };
        let pod = self.pod_of(listed, addresses, enrolled.pod.egress.clone());
        let before = std::mem::replace(&mut enrolled.pod, pod);
        if self.hand_over(enrolled) {
            enrolled.as_listed = listed.clone();
            tracing::info!(pod = %enrolled.pod.key, netns = %listed.netns.display(), "pod is listed otherwise, and where it was");
        } else {
            enrolled.pod = before;
        }
    }
}

/// Whether nothing is different that another enrolment would be needed for. Addresses that are listed no more are
/// those of its interfaces, which only a visit tells.
fn is_same(before: &NodePod, now: &NodePod) -> bool {
    before.service_account == now.service_account
        && before.cgroup == now.cgroup
        && before.host_interface == now.host_interface
        && (before.addresses.is_empty() || !now.addresses.is_empty())
}
