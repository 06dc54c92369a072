//! Why a verdict is what it is, in words. Cold path: allocates freely. Matches nothing by itself.

use std::fmt;

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::Action;
use serde::Serialize;

use crate::facts::Facts;
use crate::policy::PolicySet;
use crate::verdict::Verdict;

/// A verdict with everything that led to it. `Display` gives the text form, several lines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Whether the request or stream may pass.
    pub allowed: bool,
    /// The policy that decided, as in [`Verdict::policy`].
    pub policy: Option<Origin>,
    /// The rule that decided, from 0.
    pub rule: Option<usize>,
    /// The reason in one clause, as in the access log.
    pub reason: String,
    /// Only of a denial by default: the ALLOW rule that came closest.
    pub nearest_allow: Option<NearestAllow>,
    /// Every policy that applies, in the order of evaluation, dry-run ones last.
    pub policies: Vec<PolicyOutcome>,
}

/// The ALLOW rule with the fewest failed clauses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearestAllow {
    /// Its policy.
    pub policy: Origin,
    /// The rule, from 0.
    pub rule: usize,
    /// The first clause that failed, in words.
    pub failed: String,
}

/// How one policy came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyOutcome {
    /// The policy.
    pub policy: Origin,
    /// Its action.
    pub action: Action,
    /// Evaluated, never enforced.
    pub dry_run: bool,
    /// Why the policy as a whole can not be evaluated and so denies everything.
    pub broken: Option<String>,
    /// Whether any rule matched.
    pub matched: bool,
    /// Its rules.
    pub rules: Vec<RuleOutcome>,
}

/// How one rule came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleOutcome {
    /// The rule, from 0.
    pub rule: usize,
    /// Whether it matched.
    pub matched: bool,
    /// Why its clauses were not, or not all, looked at: broken, or HTTP-only parts on TCP.
    pub note: Option<String>,
    /// Its clauses.
    pub clauses: Vec<ClauseOutcome>,
}

/// How one clause came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClauseOutcome {
    /// Where it stands in the rule: `from[0].source.principals`.
    pub path: String,
    /// Whether it matched.
    pub matched: bool,
    /// The outcome in words: `method POST is not one of GET, HEAD`.
    pub words: String,
}

impl PolicySet {
    /// Explains the verdict [`PolicySet::decide`] gives for these facts.
    pub fn explain(&self, facts: &Facts<'_>) -> Explanation {
        let verdict = self.decide(facts);
        Explanation {
            allowed: verdict.allowed,
            reason: reason(&verdict, self, facts),
            policy: verdict.policy.map(|p| p.origin.clone()),
            rule: verdict.rule,
            nearest_allow: None,
            policies: Vec::new(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

pub(crate) fn reason(_verdict: &Verdict, _set: &PolicySet, _facts: &Facts<'_>) -> String {
    String::new()
}
