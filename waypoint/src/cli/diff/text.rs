//! The text form of what differs: requests that change in the same way are one paragraph.

use std::collections::BTreeMap;
use std::fmt::{Result, Write};

use super::{Change, Found};
use crate::cli::output::{Paint, count};
use crate::diff::Judged;

/// Requests of a paragraph that are written out; the rest is counted.
const EXAMPLES_MAX: usize = 3;

/// Lines under a heading stand below its first.
const INDENT: &str = "           ";

/// Renders what was found.
pub(super) fn render(found: &Found, paint: Paint) -> std::result::Result<String, std::fmt::Error> {
    let mut text = String::new();
    compared(&mut text, found)?;
    for (what, word) in [
        ("verdict", "CHANGED"),
        ("recorded", "RECORDED"),
        ("route", "rerouted"),
    ] {
        let mut groups: BTreeMap<Key<'_>, Vec<&Change>> = BTreeMap::new();
        for change in found.changes.iter().filter(|c| c.what == what) {
            groups.entry(key(change)).or_default().push(change);
        }
        for changes in groups.into_values() {
            group(&mut text, what, word, &changes, paint)?;
        }
    }
    let said = found.changes.len();
    let all = found.changed + found.rerouted + found.recorded_otherwise;
    if all > said {
        writeln!(text, "note       {} of these are left out", all - said)?;
    }
    notes(&mut text, found, paint)?;
    let changed = match found.changed {
        0 => paint.good("no verdict changes"),
        changed => {
            let requests = count(changed, "request", "requests");
            paint.bad(format_args!("{requests} would have another verdict"))
        }
    };
    writeln!(text, "result     {changed}")?;
    Ok(text)
}

/// What requests of one paragraph have in common.
type Key<'a> = (&'a str, Of<'a>, Of<'a>, Option<&'a str>);

/// Verdict, policy, rule.
type Of<'a> = (&'a str, Option<&'a str>, Option<usize>);

fn key(change: &Change) -> Key<'_> {
    fn of(judged: &Judged) -> Of<'_> {
        (judged.verdict, judged.policy.as_deref(), judged.rule)
    }
    let recorded = change.recorded.as_deref();
    let (old, new) = (&change.compared.old, &change.compared.new);
    (&change.request.to, of(old), of(new), recorded)
}

fn compared(text: &mut String, found: &Found) -> Result {
    let requests = count(found.compared, "request", "requests");
    match found.combinations {
        None => writeln!(
            text,
            "compared   {requests} of the access log, equal ones once"
        ),
        Some(all) if all > found.compared as u128 => writeln!(
            text,
            "compared   {requests} of a matrix from the rules of both, cut: {all} would be all (--requests)"
        ),
        Some(_) => writeln!(
            text,
            "compared   {requests} of a matrix from the rules of both, all of it"
        ),
    }
}

fn group(text: &mut String, what: &str, word: &str, changes: &[&Change], paint: Paint) -> Result {
    let Some(first) = changes.first() else {
        return Ok(());
    };
    let (old, new) = (&first.compared.old, &first.compared.new);
    let word = format!("{word:<10}");
    let word = match what {
        "verdict" => paint.bad(word),
        _ => paint.odd(word),
    };
    let requests = count(changes.len(), "request", "requests");
    match (what, &first.recorded) {
        ("recorded", Some(recorded)) => writeln!(
            text,
            "{word} {recorded}, old says {}: {requests} to {}",
            old.verdict, first.request.to
        )?,
        ("route", _) => writeln!(text, "{word} {requests} to {}", first.request.to)?,
        _ => writeln!(
            text,
            "{word} {} -> {}: {requests} to {}",
            old.verdict, new.verdict, first.request.to
        )?,
    }
    for (side, judged) in [("old", old), ("new", new)] {
        match what {
            "route" => writeln!(text, "{INDENT}{side}: {}", way(judged))?,
            _ => writeln!(
                text,
                "{INDENT}{side}: {} {}: {}",
                judged.verdict,
                judged.by(),
                judged.reason
            )?,
        }
    }
    for change in changes.iter().take(EXAMPLES_MAX) {
        example(text, change)?;
    }
    let more = changes.len().saturating_sub(EXAMPLES_MAX);
    if more > 0 {
        writeln!(text, "{INDENT}  and {more} more")?;
    }
    Ok(())
}

fn example(text: &mut String, change: &Change) -> Result {
    write!(text, "{INDENT}  {}", change.request)?;
    if let Some(line) = change.line {
        let times = match change.times {
            1 => String::new(),
            times => format!(", {times} times"),
        };
        write!(text, ", line {line}{times}")?;
    }
    if !change.not_told.is_empty() {
        write!(
            text,
            "; not told, taken for absent: {}",
            change.not_told.join(", ")
        )?;
    }
    writeln!(text)
}

fn way(judged: &Judged) -> String {
    let mut words = judged
        .route
        .clone()
        .unwrap_or_else(|| "no route".to_owned());
    if let Some(status) = judged.status {
        words.push_str(&format!(", answered {status}"));
    }
    if !judged.backends.is_empty() {
        words.push_str(&format!(", to {}", judged.backends.join(", ")));
    }
    words
}

fn notes(text: &mut String, found: &Found, paint: Paint) -> Result {
    for (reason, skipped) in &found.not_compared {
        let lines = count(skipped.lines, "line", "lines");
        let note = format!(
            "{lines} not compared: {reason} (the first: {})",
            skipped.first_line
        );
        writeln!(text, "note       {}", paint.odd(note))?;
    }
    if found.not_told > 0 {
        let requests = count(found.not_told, "request", "requests");
        let note = format!(
            "of {requests} the log does not tell all that rules ask for; it was taken for absent"
        );
        writeln!(text, "note       {}", paint.odd(note))?;
    }
    for (side, errors) in ["old", "new"].into_iter().zip(found.configuration_errors) {
        if errors > 0 {
            let errors = count(errors, "error", "errors");
            let note = format!("the {side} configuration has {errors}, see `cairn check`");
            writeln!(text, "note       {}", paint.odd(note))?;
        }
    }
    Ok(())
}
