//! The text form of an explanation. Its JSON form is what serde makes of the same values.

use std::fmt;

use cairn_config_schema::snapshot::Action;

use super::outcome::{Explanation, NearestAllow, PolicyOutcome, RuleOutcome, ShadowOutcome};

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
        self.shadow.iter().try_for_each(|s| write_shadow(f, s))?;
        match &self.network {
            Some(network) => write!(f, "\n{network}"),
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

fn write_shadow(f: &mut fmt::Formatter<'_>, shadow: &ShadowOutcome) -> fmt::Result {
    let action = action(shadow.action);
    let would = if shadow.would { "allow" } else { "deny" };
    write!(f, "\ndry run of {action}: would {would}")?;
    match (&shadow.policy, shadow.rule) {
        (Some(policy), Some(rule)) => write!(f, " by {policy} rule {rule}"),
        (Some(policy), None) => write!(f, " by {policy}"),
        (None, _) => f.write_str(", no rule matches"),
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Custom => "CUSTOM",
    }
}
