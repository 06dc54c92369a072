//! Clusters of hosts inside of wildcards, made as requests ask for them: one for each wildcard and host.
//! A request for a host whose answer is the same takes no lock. Looks nothing up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use cairn_config_schema::snapshot::{ClusterKey, Discovery, NamedEndpoint};
use cairn_routing::Cluster;
use rustc_hash::FxHashMap;

use crate::clock::now_ms;
use crate::limits::DNS_REQUESTED_NAMES_MAX;
use crate::names::answer::{self, Answer, MeshAddresses};

/// A wildcard, and a name inside of it.
pub(super) type HostKey = (ClusterKey, Arc<str>);

type Table = FxHashMap<HostKey, Arc<RequestedHost>>;

/// A host that requests have asked for.
#[derive(Debug)]
struct RequestedHost {
    /// What its endpoints are from.
    answer: Arc<Answer>,
    cluster: Arc<Cluster>,
    used_ms: AtomicU64,
}

/// Hosts inside of wildcards.
#[derive(Debug, Default)]
pub(super) struct RequestedHosts {
    table: ArcSwap<Table>,
    /// Held by whoever writes the table, which is as often as answers come.
    writing: Mutex<()>,
}

impl RequestedHosts {
    /// The cluster of a host, if its endpoints are those of this answer.
    pub fn find(&self, key: &HostKey, answer: &Arc<Answer>) -> Option<Arc<Cluster>> {
        let table = self.table.load();
        let host = table.get(key)?;
        host.used_ms.store(now_ms(), Ordering::Relaxed);
        Arc::ptr_eq(&host.answer, answer).then(|| host.cluster.clone())
    }

    /// The cluster of a host with the endpoints of an answer. What is in flight and in memory of its
    /// endpoints stays. `all`: the wildcard's own cluster.
    pub fn renew(
        &self,
        key: HostKey,
        port: u16,
        all: &Cluster,
        answer: &Arc<Answer>,
        mesh: &MeshAddresses,
    ) -> Arc<Cluster> {
        let named = NamedEndpoint {
            name: key.1.clone(),
            port,
            weight: 1,
            labels: Arc::default(),
        };
        let discovery = Discovery::Names {
            names: [named].into(),
            first_only: false,
        };
        let known = |_: &str| Some(answer.clone());
        let (endpoints, reason) = answer::endpoints(&[], &discovery, mesh, known);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        let cluster = match table.get(&key) {
            Some(host) => host.cluster.clone(),
            None => {
                make_room(&mut table);
                let key = all.key().clone();
                Arc::new(Cluster::new(key, &[], all.settings(), now_ms()))
            }
        };
        cluster.update(&endpoints, all.settings(), now_ms());
        cluster.explain_absence(reason);
        let host = RequestedHost {
            answer: answer.clone(),
            cluster: cluster.clone(),
            used_ms: AtomicU64::new(now_ms()),
        };
        table.insert(key, Arc::new(host));
        self.table.store(Arc::new(table));
        cluster
    }

    /// Clusters of all of them.
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        let table = self.table.load();
        table.values().map(|host| host.cluster.clone()).collect()
    }
}

/// At the limit the eighth goes that was not asked for for longest.
fn make_room(table: &mut Table) {
    if table.len() < DNS_REQUESTED_NAMES_MAX {
        return;
    }
    let used = |host: &Arc<RequestedHost>| host.used_ms.load(Ordering::Relaxed);
    let mut by_age: Vec<(u64, HostKey)> = table
        .iter()
        .map(|(key, host)| (used(host), key.clone()))
        .collect();
    by_age.sort_unstable();
    for (_, key) in by_age.into_iter().take(DNS_REQUESTED_NAMES_MAX / 8) {
        table.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use cairn_config_schema::origin::ObjectKey;

    use super::*;

    fn answer() -> Arc<Answer> {
        Arc::new(Answer {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            reason: None,
            answered: Instant::now(),
        })
    }

    fn wildcard() -> Cluster {
        let key = ClusterKey::new(ObjectKey::new("shop", "*.example.org"), 443);
        Cluster::new(key, &[], Arc::default(), 0)
    }

    /// A cluster remembers what is in flight and who failed: an answer that comes again, and hosts that
    /// others ask for, must not make it forget.
    #[test]
    fn the_cluster_of_a_host_stays_while_it_is_asked_for() {
        let (hosts, all) = (RequestedHosts::default(), wildcard());
        let key = |host: &str| (all.key().clone(), Arc::from(host));
        let mesh = MeshAddresses::default();
        let first = answer();
        let renew = |host: &str, answer| hosts.renew(key(host), 443, &all, answer, &mesh);
        assert!(hosts.find(&key("a"), &first).is_none());
        let cluster = renew("a", &first);
        assert_eq!(cluster.endpoints().len(), 1);
        assert!(Arc::ptr_eq(
            &cluster,
            &hosts.find(&key("a"), &first).unwrap()
        ));
        let second = answer();
        assert!(hosts.find(&key("a"), &second).is_none());
        assert!(Arc::ptr_eq(&cluster, &renew("a", &second)));
        for n in 0..DNS_REQUESTED_NAMES_MAX * 2 {
            let host = hosts.table.load().get(&key("a")).cloned().unwrap();
            host.used_ms.store(u64::MAX, Ordering::Relaxed);
            renew(&format!("b{n}"), &first);
            assert!(hosts.clusters().len() <= DNS_REQUESTED_NAMES_MAX);
        }
        assert!(Arc::ptr_eq(&cluster, &renew("a", &second)));
    }
}
