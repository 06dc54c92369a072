//! The text form of an explanation. Its JSON form is what serde makes of the same values.

use std::fmt;

use cairn_config_schema::snapshot::Action;

use super::outcome::{DryRunExplanation, Explanation, NearestAllow, PolicyOutcome, RuleOutcome};
use crate::trial::TrialOutcome;

impl fmt::Display for NearestAllow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            policy,
            rule,
            failed,
        } = self;
        write!(f, "nearest allow is {policy} rule {rule}: {failed}")
    }
}

impl fmt::Display for Explanation {
    /// The verdict, then a line for each policy, rule and clause; the last without a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allowed { "allowed" } else { "denied" })?;
        if let Some(policy) = &self.policy {
            write!(f, " by {policy}")?;
        }
        if let Some(rule) = self.rule {
            write!(f, " rule {rule}")?;
        }
        write!(f, ": {}", self.reason)?;
        for policy in &self.policies {
            write_policy(f, policy)?;
        }
        if let Some(network) = &self.network {
            write!(f, "\n{network}")?;
        }
        match &self.dry_run {
            Some(dry_run) => write!(f, "\n{dry_run}"),
            None => Ok(()),
        }
    }
}

fn write_policy(f: &mut fmt::Formatter<'_>, outcome: &PolicyOutcome) -> fmt::Result {
    let dry_run = if outcome.dry_run { " (dry run)" } else { "" };
    let action = action(outcome.action);
    write!(f, "\n{action} {}{dry_run}: ", outcome.policy)?;
    match &outcome.broken {
        Some(reason) => write!(f, "can not be evaluated and so denies everything: {reason}")?,
        None if outcome.rules.is_empty() => f.write_str("has no rules and matches nothing")?,
        None if outcome.matched => f.write_str("matches")?,
        None => f.write_str("does not match")?,
    }
    outcome.rules.iter().try_for_each(|r| write_rule(f, r))
}

fn write_rule(f: &mut fmt::Formatter<'_>, outcome: &RuleOutcome) -> fmt::Result {
    let matched = if outcome.matched {
        "matches"
    } else {
        "does not match"
    };
    write!(f, "\n  rule {}: {matched}", outcome.rule)?;
    if let Some(note) = &outcome.note {
        write!(f, " ({note})")?;
    }
    for clause in &outcome.clauses {
        let mark = if clause.matched { "yes" } else { "no " };
        write!(f, "\n    {mark} {}: {}", clause.path, clause.words)?;
    }
    Ok(())
}

impl fmt::Display for DryRunExplanation {
    /// The answer there would be, then a line for each policy that is tried, then the network
    /// policies as they would be; the last without a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let would = if self.allowed { "allow" } else { "deny" };
        let as_now = if self.changes { "" } else { ", as now" };
        write!(f, "dry run: would {would}{as_now}")?;
        if let Some(policy) = &self.policy {
            write!(f, " by {policy}")?;
        }
        if let Some(rule) = self.rule {
            write!(f, " rule {rule}")?;
        }
        write!(f, ": {}", self.reason)?;
        for outcome in &self.outcomes {
            write!(f, "\n  {outcome}")?;
        }
        match &self.network {
            Some(network) => write!(f, "\n  as it would be, {network}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TrialOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Some(rule) => write!(f, "{} rule {rule}: {}", self.policy, self.would.as_str()),
            None => write!(f, "{}: {}", self.policy, self.would.as_str()),
        }
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Custom => "CUSTOM",
        Action::Audit => "AUDIT",
    }
}
