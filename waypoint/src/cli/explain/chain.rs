//! The chain of a report in words: link by link what becomes of the request, and who enforces it.

use std::fmt::{Result, Write};

use crate::cli::output::Paint;
use crate::explain::{By, Link, LinkOutcome, Report};

/// Lines under a heading stand below its first.
const INDENT: &str = "           ";

/// Written when others than this waypoint have something to say, or all is asked for.
pub(super) fn write_chain(
    text: &mut String,
    report: &Report,
    verbose: bool,
    paint: Paint,
) -> Result {
    let speaks = |link: &Link| {
        !link.here && (!link.policies.is_empty() || link.outcome != LinkOutcome::Passes)
    };
    if !verbose && !report.chain.iter().any(speaks) {
        return Ok(());
    }
    for (index, link) in report.chain.iter().enumerate() {
        let heading = if index == 0 { "chain      " } else { INDENT };
        write_link(text, heading, link, paint)?;
    }
    Ok(())
}

fn write_link(text: &mut String, heading: &str, link: &Link, paint: Paint) -> Result {
    let outcome = match link.outcome {
        LinkOutcome::Passes => paint.good("passes "),
        LinkOutcome::Denied => paint.bad("DENIED "),
        LinkOutcome::Unknown => paint.odd("unknown"),
    };
    let by = match link.enforced_by {
        By::Cni => "enforced by the CNI, not here",
        By::Ztunnel => "enforced by ztunnel, not here",
        By::Waypoint => "enforced here",
    };
    let what = match link.more {
        0 => link.what.clone(),
        more => format!("{} (and {more} more)", link.what),
    };
    writeln!(text, "{heading}{outcome} {what}: {by}")?;
    let policies: Vec<String> = link.policies.iter().map(ToString::to_string).collect();
    let policies = match (policies.is_empty(), &link.rule) {
        (true, _) => String::new(),
        (false, Some(rule)) => format!(" ({} {rule})", policies.join(", ")),
        (false, None) => format!(" ({})", policies.join(", ")),
    };
    if link.reason.is_empty() && policies.is_empty() {
        return Ok(());
    }
    writeln!(text, "{INDENT}        {}{policies}", link.reason)
}
