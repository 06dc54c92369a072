//! What a snapshot has in common with the one before it, kept once: workloads and endpoints that are as they were.
//! Those in the data path that compare them see at once that nothing changed, and those that keep the old ones keep
//! no second copy. Changes nothing of what a snapshot says.

use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Snapshot, Workload};

/// Workloads of the snapshot before, by the place in memory of their copies.
type Known = FxHashMap<*const Workload, Arc<Workload>>;

impl Snapshot {
    /// Takes workloads and endpoints of the snapshot before in place of equal ones.
    pub fn share_with(&mut self, before: &Self) {
        let known = known(&self.workloads, &before.workloads);
        // Pods in the network of their node, which have no address of their own, stay copies.
        for (key, endpoints) in &mut self.clusters {
            for endpoint in Arc::get_mut(endpoints).into_iter().flatten() {
                if let Some(workload) = &mut endpoint.workload {
                    take(workload, &known);
                }
            }
            if let Some(old) = before.clusters.get(key).filter(|old| *old == endpoints) {
                *endpoints = old.clone();
            }
        }
        let sources = Arc::get_mut(&mut self.network.sources).into_iter();
        for workload in sources.flat_map(|sources| sources.values_mut()) {
            take(workload, &known);
        }
        // Last, for until now these hold the copies, so that no other can be in their place in memory.
        for workload in self.workloads.values_mut() {
            take(workload, &known);
        }
    }
}

fn known(
    own: &FxHashMap<IpAddr, Arc<Workload>>,
    before: &FxHashMap<IpAddr, Arc<Workload>>,
) -> Known {
    let both = own.iter().filter_map(|(address, workload)| {
        let old = before.get(address).filter(|old| *old == workload)?;
        Some((Arc::as_ptr(workload), old.clone()))
    });
    both.collect()
}

fn take(workload: &mut Arc<Workload>, known: &Known) {
    if let Some(old) = known.get(&Arc::as_ptr(workload)) {
        *workload = old.clone();
    }
}
