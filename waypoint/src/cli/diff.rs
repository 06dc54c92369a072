//! `cairn diff`: which requests another configuration would judge differently, and why. The requests
//! are those of an access log, or a matrix made of the rules of both.

mod progress;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;
use cairn_config_schema::diagnostics::Severity;
use serde::Serialize;

use super::configuration::{self, Choice};
use super::output::{self, Format, Outcome, Paint};
use crate::diff::{self, Case, Compared, Line, Matrix, Side, Unread, Untold};
use crate::limits::{DIFF_CHANGES_MAX, DIFF_REQUESTS_MAX};
use progress::Progress;

const EXAMPLE: &str = "\
Examples:
  cairn diff --config ./mesh --config ./mesh-new
  cairn diff --config ./mesh --config ./mesh-new --access-log access.log
  kubectl logs deploy/waypoint | cairn diff --config ./mesh --config ./mesh-new --access-log - -o json

Exit code: 0 no verdict changes; 1 one does, or the log could not be read; 2 wrong usage.";

/// Arguments of `cairn diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Files and folders of Kubernetes YAML or JSON, separated by commas: the first time what is in
    /// force, the second time what would be
    #[arg(long, required = true, value_name = "OLD, NEW")]
    config: Vec<String>,
    #[command(flatten)]
    choice: Choice,
    /// Access log of a waypoint, JSON lines; `-` for stdin. Without it: a matrix made of the rules
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Requests of the matrix, at most
    #[arg(long, value_name = "N", default_value_t = DIFF_REQUESTS_MAX)]
    requests: usize,
    /// How to answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// What came out.
#[derive(Debug, Default, Serialize)]
struct Found {
    /// Where the requests come from: `access-log` or `matrix`.
    source: &'static str,
    /// Requests that were asked under both, equal ones once.
    compared: usize,
    /// Combinations of the matrix. `None`: an access log.
    combinations: Option<u128>,
    /// Requests whose verdict changes.
    changed: usize,
    /// Requests that are allowed under both and go elsewhere.
    rerouted: usize,
    /// Lines of the log with a verdict that the old configuration does not give.
    recorded_otherwise: usize,
    /// Requests that rules ask something of that the log does not tell.
    not_told: usize,
    /// Lines that were not compared, by reason, with the first of each.
    not_compared: BTreeMap<&'static str, Skipped>,
    /// Requests that differ, the first of them.
    changes: Vec<Change>,
    /// Errors of both configurations, for which parts of them are not in force.
    configuration_errors: [usize; 2],
}

#[derive(Debug, Default, Serialize)]
struct Skipped {
    lines: usize,
    first_line: usize,
}

/// A request that something is to be said of.
#[derive(Debug, Serialize)]
struct Change {
    /// `verdict`, `route`, or `recorded` (the log has another verdict than the old configuration).
    what: &'static str,
    /// The request.
    request: Case,
    /// The line of the log it was first seen in, and how often it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    times: usize,
    /// What the log recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded: Option<String>,
    /// What rules ask for and the log does not tell; it was taken for absent.
    not_told: Vec<String>,
    #[serde(flatten)]
    compared: Compared,
}

/// Runs `cairn diff`.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let [old, new] = match sides(args) {
        Ok(sides) => sides,
        Err(error) => return Ok(output::wrong_usage(&error)),
    };
    let mut found = Found {
        configuration_errors: [&old, &new].map(errors),
        ..Found::default()
    };
    match &args.access_log {
        Some(file) => compare_log(&old, &new, file, &mut found)?,
        None => compare_matrix(&old, &new, args.requests, &mut found)?,
    }
    match args.output {
        Format::Json => output::print_json(&found)?,
        Format::Text => output::print(&text::render(&found, Paint::for_stdout())?)?,
    }
    Ok(match found.changed {
        0 => Outcome::Fine,
        _ => Outcome::No,
    })
}

/// Both configurations.
fn sides(args: &Args) -> anyhow::Result<[Side; 2]> {
    let [old, new] = args.config.as_slice() else {
        anyhow::bail!(
            "--config is needed twice: once for what is in force, once for what would be; it was given {}",
            output::count(args.config.len(), "time", "times")
        );
    };
    Ok([side(old, args)?, side(new, args)?])
}

fn side(written: &str, args: &Args) -> anyhow::Result<Side> {
    let paths: Vec<PathBuf> = written.split(',').map(PathBuf::from).collect();
    for path in &paths {
        // What is not there would be a configuration that refuses everything.
        path.metadata()
            .with_context(|| format!("--config {}", path.display()))?;
    }
    Ok(Side::new(
        configuration::load(&paths, &args.choice).snapshot,
    ))
}

fn errors(side: &Side) -> usize {
    let findings = side.snapshot().diagnostics.iter();
    findings.filter(|d| d.severity == Severity::Error).count()
}

fn compare_matrix(old: &Side, new: &Side, most: usize, found: &mut Found) -> anyhow::Result<()> {
    let matrix = Matrix::new(old.snapshot(), new.snapshot(), most);
    found.source = "matrix";
    found.combinations = Some(matrix.combinations);
    let mut progress = Progress::new("requests", Some(matrix.asked));
    for case in matrix.cases() {
        progress.step();
        let compared = diff::compare(old, new, &case)?;
        found.add(Seen::of(case), compared, Vec::new());
    }
    progress.end();
    Ok(())
}

/// A request, and where it was seen.
struct Seen {
    case: Case,
    recorded: Option<String>,
    line: Option<usize>,
    times: usize,
}

impl Seen {
    fn of(case: Case) -> Self {
        Self {
            case,
            recorded: None,
            line: None,
            times: 1,
        }
    }
}

fn compare_log(old: &Side, new: &Side, file: &Path, found: &mut Found) -> anyhow::Result<()> {
    found.source = "access-log";
    let seen = match file.as_os_str() == "-" {
        true => read_log(std::io::stdin().lock(), found)?,
        false => {
            let opened = File::open(file).with_context(|| format!("read {}", file.display()))?;
            read_log(BufReader::new(opened), found)?
        }
    };
    let untold = Untold::new(old.snapshot(), new.snapshot());
    let mut progress = Progress::new("requests", Some(seen.len()));
    for seen in seen {
        progress.step();
        let compared = diff::compare(old, new, &seen.case)?;
        let not_told = match seen.case.tcp {
            true => Vec::new(),
            false => untold.of(&seen.case.to).iter().cloned().collect(),
        };
        found.add(seen, compared, not_told);
    }
    progress.end();
    Ok(())
}

/// The requests of a log in their order, equal ones once.
fn read_log(log: impl BufRead, found: &mut Found) -> anyhow::Result<Vec<Seen>> {
    let mut known: HashMap<(Case, String), usize> = HashMap::new();
    let mut all: Vec<Seen> = Vec::new();
    let mut progress = Progress::new("lines", None);
    for (index, text) in log.lines().enumerate() {
        progress.step();
        let number = index + 1;
        let text = text.with_context(|| format!("line {number} of the access log"))?;
        if text.trim().is_empty() {
            continue;
        }
        let Line { case, verdict } = match diff::read_line(&text) {
            Ok(line) => line,
            Err(unread) => {
                found.skip(unread, number);
                continue;
            }
        };
        let key = (case, verdict);
        if let Some(seen) = known.get(&key).and_then(|at| all.get_mut(*at)) {
            seen.times += 1;
            continue;
        }
        if all.len() >= DIFF_REQUESTS_MAX {
            found.skip_for("too many different requests", number);
            continue;
        }
        known.insert(key.clone(), all.len());
        let (case, verdict) = key;
        all.push(Seen {
            recorded: Some(verdict),
            line: Some(number),
            ..Seen::of(case)
        });
    }
    progress.end();
    Ok(all)
}

impl Found {
    fn skip(&mut self, unread: Unread, line: usize) {
        self.skip_for(unread.as_str(), line);
    }

    fn skip_for(&mut self, reason: &'static str, line: usize) {
        let skipped = self.not_compared.entry(reason).or_insert(Skipped {
            lines: 0,
            first_line: line,
        });
        skipped.lines += 1;
    }

    fn add(&mut self, seen: Seen, compared: Compared, not_told: Vec<String>) {
        self.compared += 1;
        self.not_told += usize::from(!not_told.is_empty());
        let recorded = seen.recorded.as_deref();
        let what = if compared.verdict_changes() {
            self.changed += 1;
            "verdict"
        } else if recorded.is_some_and(|recorded| !compared.old.may_be(recorded)) {
            self.recorded_otherwise += 1;
            "recorded"
        } else if compared.goes_elsewhere() {
            self.rerouted += 1;
            "route"
        } else {
            return;
        };
        if self.changes.len() < DIFF_CHANGES_MAX {
            self.changes.push(Change {
                what,
                request: seen.case,
                line: seen.line,
                times: seen.times,
                recorded: seen.recorded,
                not_told,
                compared,
            });
        }
    }
}
