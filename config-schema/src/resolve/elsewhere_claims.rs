//! Who claims the addresses of this waypoint's network by what istiod tells. Decides nothing but whether two accounts
//! contradict each other, and which of them counts.

use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::discovered::{account, trust_domain};
use crate::discovered::{Discovered, DiscoveredWorkload};

/// The claims to each address.
pub(super) struct Claims<'a> {
    by_address: FxHashMap<IpAddr, Claim<'a>>,
}

/// The claims to one address. The kubelet says what a Pod's is. What an entry (of a ServiceEntry, a WorkloadEntry or
/// an EndpointSlice) says is what whoever may write into one namespace says: it takes no address from a Pod.
#[derive(Default)]
struct Claim<'a> {
    /// How many Pods say that it is theirs alone.
    pods: usize,
    /// One of them.
    pod: Option<&'a DiscoveredWorkload>,
    /// It is a node's, by a Pod in its network.
    of_node: bool,
    /// An entry with this address for itself.
    entry: Option<&'a DiscoveredWorkload>,
    /// Not all such entries are the same.
    entries_differ: bool,
    /// It is a node's, by an entry.
    of_node_by_entry: bool,
}

impl<'a> Claims<'a> {
    /// All of them: those of the own cluster, and of what is left out, too.
    pub fn of(told: &'a Discovered) -> Self {
        let mut by_address: FxHashMap<IpAddr, Claim<'a>> = FxHashMap::default();
        let own_network = |(_, w): &(_, &Arc<DiscoveredWorkload>)| w.network == told.network;
        for (uid, workload) in told.workloads.iter().filter(own_network) {
            let is_pod = told.is_pod(uid, workload);
            let addresses: FxHashSet<IpAddr> = workload.addresses.iter().copied().collect();
            for address in addresses {
                by_address.entry(address).or_default().add(workload, is_pod);
            }
        }
        Self { by_address }
    }

    /// Whether somebody else claims an address of a workload whose word counts as much, or more.
    pub fn is_contested(
        &self,
        address: &IpAddr,
        workload: &DiscoveredWorkload,
        is_pod: bool,
    ) -> bool {
        let claim = self.by_address.get(address);
        claim.is_some_and(|claim| claim.contradicts(workload, is_pod))
    }
}

impl<'a> Claim<'a> {
    fn add(&mut self, workload: &'a DiscoveredWorkload, is_pod: bool) {
        match (is_pod, workload.host_network) {
            (true, false) => {
                self.pods += 1;
                self.pod = Some(workload);
            }
            (true, true) => self.of_node = true,
            (false, true) => self.of_node_by_entry = true,
            (false, false) => {
                let first = *self.entry.get_or_insert(workload);
                self.entries_differ |= !is_same(first, workload);
            }
        }
    }

    fn contradicts(&self, workload: &DiscoveredWorkload, is_pod: bool) -> bool {
        match (is_pod, workload.host_network) {
            // Of two Pods one is gone, or two clusters have one block of addresses.
            (true, false) => self.pods > 1 || self.of_node,
            (true, true) => self.pods > 0,
            (false, false) => {
                let is_other = self.pod.is_some_and(|pod| !is_same(pod, workload));
                let of_node = self.of_node || self.of_node_by_entry;
                is_other || self.pods > 1 || self.entries_differ || of_node
            }
            (false, true) => self.pods > 0 || self.entry.is_some(),
        }
    }
}

/// Whether two accounts say the same of who is there and how it is reached.
fn is_same(one: &DiscoveredWorkload, other: &DiscoveredWorkload) -> bool {
    one.namespace == other.namespace
        && account(one) == account(other)
        && trust_domain(one) == trust_domain(other)
        && one.tunnel == other.tunnel
        && one.wants_proxy_protocol == other.wants_proxy_protocol
}
