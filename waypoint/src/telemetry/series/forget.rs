//! Series and labels that are forgotten: when nothing was counted for long, and of policies only when they are gone.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use cairn_config_schema::origin::Origin;
use rustc_hash::FxHashSet;

use super::{PolicyKey, PolicyName, Registry};

impl Registry {
    /// Forgets the series of exchanges in which no thread counted anything for `idle`, as Prometheus' clients
    /// may: one that comes back begins at 0. Then the labels that no series has any more.
    ///
    /// To be called from time to time, and never at once from two threads. A thread holds the series it
    /// counted in until it lets go of them ([`super::metrics::Shard::let_go`]).
    pub fn forget(&self, now: Instant, idle: Duration) {
        let mut gone = self.http.forget(now, idle).len();
        gone += self.tcp.forget(now, idle).len();
        gone += self.hubble.forget(now, idle).len();
        let changed = self.changed.iter();
        gone += changed.map(|t| t.forget(now, idle).len()).sum::<usize>();
        self.expired.add(i64::try_from(gone).unwrap_or(i64::MAX));
        self.forget_labels();
    }

    /// Forgets the series of policies that are not there any more, and in which no thread counted anything for `idle`
    /// since: what began under the old configuration is still counted. As [`Self::forget`], otherwise.
    pub fn forget_policies(&self, now: Instant, idle: Duration, there: &FxHashSet<Origin>) {
        let is_gone = |key: &PolicyKey| match &key.policy {
            PolicyName::Object(origin) => !there.contains(origin),
            PolicyName::Default | PolicyName::Other => false,
        };
        let tables = [&self.verdicts, &self.dry_run, &self.audit].into_iter();
        let gone = tables.map(|table| table.forget_where(now, idle, is_gone).len());
        let gone = i64::try_from(gone.sum::<usize>());
        self.expired.add(gone.unwrap_or(i64::MAX));
    }

    fn forget_labels(&self) {
        let mut used: [FxHashSet<u32>; 3] = Default::default();
        let [sources, destinations, services] = &mut used;
        self.http.each(|key, _| {
            sources.insert(key.source);
            destinations.insert(key.destination);
            services.insert(key.service);
        });
        self.tcp.each(|key, _| {
            sources.insert(key.source);
            destinations.insert(key.destination);
            services.insert(key.service);
        });
        self.hubble.each(|key, _| {
            sources.insert(key.source);
            destinations.insert(key.destination);
        });
        let clients = self.sources.forget(sources);
        self.destinations.forget(destinations);
        self.services.forget(services);
        let of_baggage = &self.baggage_clients;
        let mut of_baggage = of_baggage.lock().unwrap_or_else(PoisonError::into_inner);
        for client in clients {
            of_baggage.remove(&*client);
        }
    }
}
