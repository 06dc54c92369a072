//! Fingerprints of Gateways as they were last looked at, and the tasks for those that have changed. Does nothing.

use std::collections::BTreeMap;

use cairn_config_schema::origin::ObjectKey;

use super::left;
use super::tasks::Task;
use super::world::World;

/// Fingerprints by Gateway.
type Each = BTreeMap<ObjectKey, u64>;

/// The last ones.
#[derive(Debug, Default)]
pub struct Prints {
    /// Of Gateways of ours, with what is made for them.
    gateways: Each,
    /// Of what they apply, and of who is ready.
    applied: Each,
    /// Of Gateways that are other controllers'.
    of_others: Each,
}

impl Prints {
    /// Takes a state of the cluster, and says what it asks for.
    pub fn take(&mut self, world: &World) -> Vec<Task> {
        let gateways = world.fingerprints();
        let applied = gateways
            .keys()
            .filter_map(|key| Some((key.clone(), world.applied_print(key)?)));
        let now = Self {
            applied: applied.collect(),
            of_others: left::prints(world),
            gateways,
        };
        let gateways = changed(&self.gateways, &now.gateways).map(Task::Gateway);
        let applied = changed(&self.applied, &now.applied).map(Task::Replicas);
        let of_others = changed(&self.of_others, &now.of_others).map(Task::Left);
        let tasks = gateways.chain(applied).chain(of_others).collect();
        *self = now;
        tasks
    }

    /// Gateways of ours.
    pub fn gateways(&self) -> impl Iterator<Item = &ObjectKey> {
        self.gateways.keys()
    }

    /// Whether a Gateway is ours.
    pub fn has(&self, gateway: &ObjectKey) -> bool {
        self.gateways.contains_key(gateway)
    }

    /// Whether a Gateway of ours applies anything.
    pub fn applies(&self, gateway: &ObjectKey) -> bool {
        self.applied.contains_key(gateway)
    }
}

fn changed(before: &Each, now: &Each) -> impl Iterator<Item = ObjectKey> {
    let others = now
        .iter()
        .filter(|(key, print)| before.get(*key) != Some(*print));
    others.map(|(key, _)| key.clone())
}
