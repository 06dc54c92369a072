//! The shape of an explanation, for people and scripts. Plain values; `explain` fills them in.

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::Action;
use serde::Serialize;

use crate::network::NetworkExplanation;
use crate::trial::TrialOutcome;

/// A verdict with everything that led to it. `Display` gives the text form, several lines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Whether the request or stream may pass.
    pub allowed: bool,
    /// The policy that decided, as in [`crate::Verdict::policy`].
    pub policy: Option<Origin>,
    /// The rule that decided, from 0.
    pub rule: Option<usize>,
    /// The reason in one clause, as in the access log.
    pub reason: String,
    /// Only of a denial by default: the ALLOW rule that came closest.
    pub nearest_allow: Option<NearestAllow>,
    /// Every policy that applies: broken ones, CUSTOM, DENY, ALLOW, AUDIT, then those that are tried.
    pub policies: Vec<PolicyOutcome>,
    /// AUDIT policies with a rule that matches.
    pub audit: Vec<AuditOutcome>,
    /// What would have been decided with the policies that are tried. `None`: none is.
    pub dry_run: Option<DryRunExplanation>,
    /// The network policies of the workload. `None`: none applies.
    pub network: Option<NetworkExplanation>,
}

/// The ALLOW rule with the fewest failed clauses; among equals the one that failed latest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearestAllow {
    /// Its policy.
    pub policy: Origin,
    /// The rule, from 0.
    pub rule: usize,
    /// The first clause that failed, in words, or why the rule can not match at all.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// Whether any rule matched; a broken policy always does.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Its clauses: one for each field and each `not` field.
    pub clauses: Vec<ClauseOutcome>,
}

/// How one clause came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClauseOutcome {
    /// Where it stands in the rule: `from[0].source.principals`.
    pub path: String,
    /// Whether it matched.
    pub matched: bool,
    /// What was found: `method POST is not one of GET, HEAD`. Values of headers are left out.
    pub words: String,
}

/// An AUDIT policy with a rule that matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditOutcome {
    /// The policy.
    pub policy: Origin,
    /// The first rule that matches, from 0. `None`: the policy as a whole is broken.
    pub rule: Option<usize>,
}

/// What would have been decided if the policies that are tried were enforced.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DryRunExplanation {
    /// Whether it would pass.
    pub allowed: bool,
    /// Whether that is another answer than the one in force.
    pub changes: bool,
    /// The policy that would decide. `None`: by default.
    pub policy: Option<Origin>,
    /// Its rule, from 0 in its list.
    pub rule: Option<usize>,
    /// The reason in one clause.
    pub reason: String,
    /// What each policy that is tried says.
    pub outcomes: Vec<TrialOutcome>,
    /// The network policies of the workload as they would be. `None`: none of them is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkExplanation>,
}
