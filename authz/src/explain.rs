//! Why a verdict is what it is: every policy, rule and clause with its outcome, and the nearest
//! allow. Cold path: allocates freely. Whether something matches is asked of the same code that
//! decides, never worked out here.

mod outcome;
mod render;

use std::sync::Arc;

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{Policy, Provider, World};

use crate::clause::Clause;
use crate::facts::Facts;
use crate::policy::{self, Clauses, CompiledPolicy, CompiledRule, Form, Group, PolicySet, Tried};
use crate::trial::DryRun;
use crate::verdict::Verdict;
use crate::words;

pub use outcome::{
    AuditOutcome, ClauseOutcome, DryRunExplanation, Explanation, NearestAllow, PolicyOutcome,
    RuleOutcome,
};

/// Clauses of a matching rule that a reason writes out; the rest is counted.
const CLAUSES_MAX: usize = 4;

const HTTP_ONLY: &str =
    "has parts that only HTTP has, and on TCP such an ALLOW rule matches nothing";

impl PolicySet {
    /// Explains the verdict [`PolicySet::decide`] gives for these facts.
    pub fn explain(&self, facts: &Facts<'_>) -> Explanation {
        self.explain_verdict(&self.decide(facts), facts, facts)
    }

    /// Explains the verdict [`PolicySet::decide_settled`] gives for these facts.
    pub fn explain_settled(&self, facts: &Facts<'_>) -> Explanation {
        self.explain_verdict(&self.decide_settled(facts), facts, facts)
    }

    /// Explains a verdict of these facts; `in_trial` are those that the dry run had.
    pub fn explain_verdict(
        &self,
        verdict: &Verdict,
        facts: &Facts<'_>,
        in_trial: &Facts<'_>,
    ) -> Explanation {
        let mut policies = outcomes(&self.enforced, facts);
        let tried = self.trial.iter().flat_map(|trial| &trial.tried);
        policies.extend(tried.map(|tried| match tried {
            Tried::Broken(policy) => broken_outcome(policy),
            Tried::Whole(policy) => whole_outcome(policy, in_trial),
        }));
        let by_default =
            !verdict.allowed && verdict.policy.is_none() && !verdict.denied_by_network();
        let audit = verdict.audit.iter().map(|audited| AuditOutcome {
            policy: audited.policy.origin.clone(),
            rule: audited.rule,
        });
        Explanation {
            allowed: verdict.allowed,
            reason: reason(verdict, self, World::InForce, facts),
            policy: verdict.origin().cloned(),
            rule: verdict.rule_index(),
            nearest_allow: by_default
                .then(|| nearest_allow(&self.enforced.allow, facts))
                .flatten(),
            policies,
            audit: audit.collect(),
            dry_run: (verdict.dry_run.as_deref())
                .map(|run| self.explain_dry_run(run, verdict.allowed, in_trial)),
            network: self.network.as_ref().and_then(|n| n.explain(facts)),
        }
    }

    fn explain_dry_run(&self, run: &DryRun, allowed: bool, facts: &Facts<'_>) -> DryRunExplanation {
        let network = self.network.as_ref().filter(|n| n.has_trial());
        DryRunExplanation {
            allowed: run.allowed(),
            changes: run.allowed() != allowed,
            policy: run.origin().cloned(),
            rule: run.rule_index(),
            reason: match &run.refused {
                Some(failure) => failure.reason.clone(),
                None => reason(&run.verdict, self, World::Trial, facts),
            },
            outcomes: run.outcomes.clone(),
            network: network.and_then(|n| n.of(World::Trial).explain(facts)),
        }
    }
}

fn outcomes(group: &Group, facts: &Facts<'_>) -> Vec<PolicyOutcome> {
    let broken = group.broken.iter().map(|p| broken_outcome(p));
    let whole = [&group.custom, &group.deny, &group.allow];
    let whole = whole.into_iter().flatten().chain(&group.audit);
    broken
        .chain(whole.map(|p| whole_outcome(p, facts)))
        .collect()
}

fn broken_outcome(policy: &Policy) -> PolicyOutcome {
    PolicyOutcome {
        policy: policy.origin.clone(),
        action: policy.action,
        dry_run: policy.dry_run,
        broken: policy.broken.as_deref().map(str::to_owned),
        matched: true,
        rules: Vec::new(),
    }
}

fn whole_outcome(policy: &CompiledPolicy, facts: &Facts<'_>) -> PolicyOutcome {
    let rules = policy.rules.iter().enumerate();
    if policy.policy.broken.is_some() {
        return broken_outcome(&policy.policy);
    }
    PolicyOutcome {
        policy: policy.policy.origin.clone(),
        action: policy.policy.action,
        dry_run: policy.policy.dry_run,
        broken: None,
        matched: policy.first_match(facts).is_some(),
        rules: rules.map(|(i, r)| rule_outcome(i, r, facts)).collect(),
    }
}

fn rule_outcome(index: usize, rule: &CompiledRule, facts: &Facts<'_>) -> RuleOutcome {
    let form = rule.form(facts);
    let (note, clauses) = match form {
        Form::Always(reason) => (Some(always(reason)), Vec::new()),
        Form::Never(reason) => (Some(never(reason)), Vec::new()),
        Form::HttpOnly => (Some(HTTP_ONLY.to_owned()), Vec::new()),
        Form::Clauses(clauses) => (
            rule.reduced(facts)
                .then(|| "parts that only HTTP has are left out, for this is TCP".to_owned()),
            clauses.iter().map(|c| clause_outcome(c, facts)).collect(),
        ),
    };
    RuleOutcome {
        rule: index,
        matched: form.matches(facts),
        note,
        clauses,
    }
}

fn clause_outcome(clause: &Clause, facts: &Facts<'_>) -> ClauseOutcome {
    ClauseOutcome {
        path: words::path(clause),
        matched: clause.matches(facts),
        words: words::outcome(clause, facts),
    }
}

/// The reason for a verdict, see [`Verdict::reason`].
pub(crate) fn reason(
    verdict: &Verdict,
    set: &PolicySet,
    world: World,
    facts: &Facts<'_>,
) -> String {
    let group = set.group(world);
    let network = set.network.as_ref().map(|n| n.of(world));
    if verdict.is_by_network()
        && let Some(reason) = network.and_then(|n| n.reason(facts))
    {
        return reason;
    }
    match &verdict.policy {
        None if !verdict.allowed => denied_by_default(&group.allow, facts),
        None if group.is_empty() => "no policy applies".to_owned(),
        None => "no rule that denies matches and no ALLOW policy applies".to_owned(),
        Some(policy) => match verdict.rule {
            Some(rule) => matched(group, policy, rule, facts),
            None => always(policy.broken.as_deref().unwrap_or_default()),
        },
    }
}

fn always(reason: &str) -> String {
    format!("can not be evaluated and so denies everything: {reason}")
}

fn never(reason: &str) -> String {
    format!("can not be evaluated and so allows nothing: {reason}")
}

fn denied_by_default(allow: &[CompiledPolicy], facts: &Facts<'_>) -> String {
    match nearest_allow(allow, facts) {
        Some(nearest) => format!("no ALLOW rule matches, {nearest}"),
        None => "no ALLOW rule matches, for the ALLOW policies that apply have no rules".to_owned(),
    }
}

/// The clauses by which a rule matched.
fn matched(group: &Group, policy: &Arc<Policy>, rule: usize, facts: &Facts<'_>) -> String {
    let compiled = [&group.custom, &group.deny, &group.allow]
        .into_iter()
        .flatten()
        .find(|c| Arc::ptr_eq(&c.policy, policy))
        .and_then(|c| c.rules.get(rule));
    let words = match compiled.map(|rule| rule.form(facts)) {
        Some(Form::Clauses(clauses)) => matched_clauses(clauses, facts),
        Some(Form::Always(reason)) => always(reason),
        // The verdict is not of this set, or these facts.
        Some(Form::Never(_) | Form::HttpOnly) | None => "the rule matches".to_owned(),
    };
    match &policy.provider {
        Some(Provider::Ask(provider)) => {
            format!("provider {} has to allow it, and {words}", provider.name)
        }
        Some(Provider::Unusable(reason)) => format!("{reason}, and {words}"),
        None => words,
    }
}

fn matched_clauses(clauses: &Clauses, facts: &Facts<'_>) -> String {
    let item = |items: &'_ [Vec<Clause>]| -> Vec<String> {
        let matching = items.iter().find(|item| policy::all(item, facts));
        let clauses = matching.into_iter().flatten();
        clauses.map(|c| words::outcome(c, facts)).collect()
    };
    let mut all = item(&clauses.from);
    all.extend(item(&clauses.to));
    all.extend(clauses.when.iter().map(|c| words::outcome(c, facts)));
    if all.is_empty() {
        return "the rule matches everything".to_owned();
    }
    let more = all.len().saturating_sub(CLAUSES_MAX);
    all.truncate(CLAUSES_MAX);
    let mut words = all.join(" and ");
    if more > 0 {
        words.push_str(&format!(" and {more} more"));
    }
    words
}

/// How far an ALLOW rule is from matching; less is nearer.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Distance {
    /// Clauses that fail in the best item of `from`, the best of `to`, and in `when`.
    failed: usize,
    /// Parts not passed: 3 fails in `from`, 2 in `to`, 1 in `when`.
    parts_left: u8,
}

fn nearest_allow(allow: &[CompiledPolicy], facts: &Facts<'_>) -> Option<NearestAllow> {
    let mut nearest: Option<(Distance, &Origin, usize, String)> = None;
    for compiled in allow {
        for (rule, compiled_rule) in compiled.rules.iter().enumerate() {
            let (distance, failed) = distance(compiled_rule.form(facts), facts);
            if nearest.as_ref().is_none_or(|(d, ..)| distance < *d) {
                nearest = Some((distance, &compiled.policy.origin, rule, failed));
            }
        }
    }
    nearest.map(|(_, origin, rule, failed)| NearestAllow {
        policy: origin.clone(),
        rule,
        failed,
    })
}

/// How far a rule is from matching, and the first clause that fails.
fn distance(form: &Form, facts: &Facts<'_>) -> (Distance, String) {
    let never_matches = |why: String| {
        let distance = Distance {
            failed: usize::MAX,
            parts_left: u8::MAX,
        };
        (distance, why)
    };
    let clauses = match form {
        Form::Clauses(clauses) => clauses,
        Form::Never(reason) | Form::Always(reason) => return never_matches(never(reason)),
        Form::HttpOnly => return never_matches(HTTP_ONLY.to_owned()),
    };
    let failing = |clauses: &'_ [Clause]| -> Vec<String> {
        let failing = clauses.iter().filter(|c| !c.matches(facts));
        failing.map(|c| words::outcome(c, facts)).collect()
    };
    let best = |items: &'_ [Vec<Clause>]| -> Vec<String> {
        let items = items.iter().map(|item| failing(item));
        items.min_by_key(Vec::len).unwrap_or_default()
    };
    let parts = [
        best(&clauses.from),
        best(&clauses.to),
        failing(&clauses.when),
    ];
    let failed = parts.iter().map(Vec::len).sum();
    let passed = parts.iter().take_while(|p| p.is_empty()).count();
    let parts_left = (parts.len() - passed) as u8;
    let first = parts.into_iter().flatten().next().unwrap_or_default();
    (Distance { failed, parts_left }, first)
}
