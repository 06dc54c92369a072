//! What a flow says of policy, in words and names.

use std::fmt::Write;

use cairn_config_schema::origin::Origin;

use crate::hubble::messages::Policy;
use crate::telemetry::flow::{Decision, Record};

/// The reason in words, of what did not pass.
pub fn reason(record: &Record) -> Option<String> {
    if let Some(reason) = &record.reason {
        return Some(reason.clone());
    }
    if !record.is_denied() {
        return record.upstream_failure.as_ref().map(|why| why.to_string());
    }
    Some(match record.details.is_empty() {
        true => "denied".to_owned(),
        false => record.details.to_string(),
    })
}

/// What policies said, one line each.
pub fn policy_log(record: &Record) -> Vec<String> {
    let Some(decision) = &record.decision else {
        return reason(record)
            .filter(|_| record.is_denied())
            .into_iter()
            .collect();
    };
    let mut log = Vec::new();
    log.extend(said(decision));
    log.extend(reason(record).filter(|_| record.is_denied()));
    log.extend(decision.audit.iter().map(|(policy, rule)| {
        let mut line = format!("audited by {policy}");
        say_rule(&mut line, *rule);
        line
    }));
    if let Some((allowed, policy, rule)) = &decision.dry_run {
        let verb = if *allowed { "allowed" } else { "denied" };
        let mut line = format!("dry run: would be {verb}");
        if let Some(policy) = policy {
            // Writing to a String can not fail.
            let _ = write!(line, " by {policy}");
            say_rule(&mut line, *rule);
        }
        log.push(line);
    }
    log
}

fn said(decision: &Decision) -> Option<String> {
    let policy = decision.policy.as_ref()?;
    let verb = if decision.allowed {
        "allowed"
    } else {
        "denied"
    };
    let mut line = format!("{verb} by {policy}");
    say_rule(&mut line, decision.rule);
    Some(line)
}

fn say_rule(line: &mut String, rule: Option<usize>) {
    if let Some(rule) = rule {
        // Writing to a String can not fail.
        let _ = write!(line, " rule {rule}");
    }
}

/// A policy as Hubble names it.
pub fn named(policy: &Origin, record: &Record) -> Policy {
    Policy {
        name: policy.key.name.to_string(),
        namespace: policy.key.namespace.to_string(),
        labels: Vec::new(),
        revision: record.snapshot,
        kind: policy.kind.bare().to_owned(),
    }
}
