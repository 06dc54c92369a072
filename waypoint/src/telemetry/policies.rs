//! What policies decided, said in a dry run, and audited, counted by policy and rule. One thread's
//! part; which label sets there are in the process is in `series`.

use std::sync::{Arc, PoisonError};

use cairn_authz::Verdict;
use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::Snapshot;
use rustc_hash::{FxHashMap, FxHashSet};

use super::series::{DryRunVerdicts, PolicyKey, PolicyName, Registry, Table, Tally, own};

/// Every policy that may decide something, or say something in a dry run.
pub fn all(snapshot: &Snapshot) -> FxHashSet<Origin> {
    let waypoint = snapshot.waypoint.iter().flat_map(|w| &w.policies);
    let services = snapshot.services.values().flat_map(|s| &s.policies);
    let network = snapshot.network.all.iter();
    let tokens = snapshot.authentications.all();
    // Many services have the same ones.
    let origins: FxHashSet<&Origin> = (waypoint.chain(services).map(|policy| &policy.origin))
        .chain(network.map(|selecting| &selecting.policy.origin))
        .chain(tokens.map(|authentication| &authentication.origin))
        .collect();
    origins.into_iter().cloned().collect()
}

/// What one thread counts of policies.
pub struct PolicyCounts {
    registry: Arc<Registry>,
    verdicts: FxHashMap<PolicyKey, Arc<Tally>>,
    dry_run: FxHashMap<PolicyKey, Arc<Tally>>,
    audit: FxHashMap<PolicyKey, Arc<Tally>>,
    dry_run_verdicts: Arc<DryRunVerdicts>,
}

impl PolicyCounts {
    /// Counts into a registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        let dry_run_verdicts = Arc::new(DryRunVerdicts::default());
        registry
            .dry_run_verdicts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(dry_run_verdicts.clone());
        Self {
            registry,
            verdicts: FxHashMap::default(),
            dry_run: FxHashMap::default(),
            audit: FxHashMap::default(),
            dry_run_verdicts,
        }
    }

    /// Lets go of all series with a policy's name, so that those of policies that are gone can be
    /// forgotten ([`Registry::forget_policies`]). Counts are not touched.
    pub fn let_go(&mut self) {
        self.verdicts = FxHashMap::default();
        self.dry_run = FxHashMap::default();
        self.audit = FxHashMap::default();
    }

    /// Counts a verdict.
    pub fn count(&mut self, verdict: &Verdict) {
        let outcome = if verdict.allowed { "allow" } else { "deny" };
        let decided = key(verdict.origin(), verdict.rule_index(), outcome);
        add(&mut self.verdicts, &self.registry.verdicts, decided);
        for audited in &verdict.audit {
            let key = key(Some(&audited.policy.origin), audited.rule, "");
            add(&mut self.audit, &self.registry.audit, key);
        }
        let Some(run) = &verdict.dry_run else { return };
        let counts = &self.dry_run_verdicts.counts;
        let of_outcome = counts.get(usize::from(!run.allowed()));
        if let Some(count) = of_outcome.and_then(|c| c.get(usize::from(!verdict.allowed))) {
            count.add(1);
        }
        for said in &run.outcomes {
            let key = key(Some(&said.policy), said.rule, said.would.as_str());
            add(&mut self.dry_run, &self.registry.dry_run, key);
        }
    }
}

fn key(policy: Option<&Origin>, rule: Option<usize>, outcome: &'static str) -> PolicyKey {
    PolicyKey {
        policy: match policy {
            Some(origin) => PolicyName::Object(origin.clone()),
            None => PolicyName::Default,
        },
        rule,
        outcome,
    }
}

/// Adds one to this thread's count of a label set, which is looked for in the registry the first time.
/// Label sets come from the configuration, so that there are few of them; beyond the limit of the
/// table they are remembered as parts of `other`.
fn add(
    kept: &mut FxHashMap<PolicyKey, Arc<Tally>>,
    table: &Table<PolicyKey, Tally>,
    key: PolicyKey,
) {
    if let Some(count) = kept.get(&key) {
        count.add(1);
        return;
    }
    let count = match table.enter(key.clone(), PolicyKey::OTHER, own) {
        Some(count) => count,
        None => {
            let other = kept.get(&PolicyKey::OTHER).cloned();
            let other = other.or_else(|| table.enter(PolicyKey::OTHER, PolicyKey::OTHER, own));
            let other = other.unwrap_or_default();
            kept.entry(PolicyKey::OTHER)
                .or_insert_with(|| other.clone());
            other
        }
    };
    count.add(1);
    // What is remembered is bounded, too; beyond, the table is asked each time.
    if kept.len() < table.max().saturating_mul(2) {
        kept.insert(key, count);
    }
}

#[cfg(test)]
mod tests;
