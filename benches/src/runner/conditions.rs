//! Under what conditions a run was made. Never holds a host name or a path of the machine.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Serialize;

use super::options::Options;
use super::rig::program;
use crate::proxy::Product;

/// Conditions of a run.
#[derive(Debug, Serialize)]
pub struct Conditions {
    /// Time of the start, UTC.
    pub date: String,
    /// The command line, paths cut to their last part.
    pub command: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub processor: String,
    /// Processors of the machine.
    pub processors: usize,
    /// What `--version` of each proxy says.
    pub versions: Vec<String>,
    /// The commit the tree was at, `+` if it had changes.
    pub commit: String,
    /// Worker threads of each proxy.
    pub workers: usize,
    /// Processors of the proxies, and of load and backend.
    pub pinning: String,
    /// Whether load generator or Cairn is a debug build, which makes every number worthless.
    pub debug_build: bool,
    /// What else is to be known.
    pub notes: Vec<&'static str>,
}

const NOTES: [&str; 3] = [
    "stock Envoy: without Istio's stats and peer metadata filters, with its own stats in full",
    "loopback; load generator and backend share the load processors",
    "one ALLOW policy (principal and methods); metrics on in both",
];

/// Gathers them.
pub fn gather(options: &Options) -> anyhow::Result<Conditions> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut versions = Vec::new();
    for &product in &options.products {
        versions.push(version(program(options, product))?);
    }
    let of_cairn = options.products.contains(&Product::Cairn);
    let debug_cairn = of_cairn && options.cairn.components().any(|c| c.as_os_str() == "debug");
    Ok(Conditions {
        date: jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string(),
        command: command(),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        processor: processor(&read("/proc/cpuinfo")),
        processors: std::thread::available_parallelism()?.get(),
        versions,
        commit: commit(),
        workers: options.workers,
        pinning: format!(
            "proxies on {}, load and backend on {}",
            options.proxy_cpus, options.load_cpus
        ),
        debug_build: cfg!(debug_assertions) || debug_cairn,
        notes: NOTES.to_vec(),
    })
}

fn processor(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name"));
    let name = model
        .and_then(|m| m.split_once(':'))
        .map(|(_, name)| name.trim());
    name.unwrap_or("unknown").to_owned()
}

fn command() -> String {
    let words: Vec<String> = std::env::args().map(|a| without_folders(&a)).collect();
    words.join(" ")
}

/// `--cairn=/a/b/cairn` becomes `--cairn=cairn`.
fn without_folders(argument: &str) -> String {
    let (flag, value) = match argument.split_once('=') {
        Some((flag, value)) => (format!("{flag}="), value),
        None => (String::new(), argument),
    };
    let last = value.rsplit('/').find(|p| !p.is_empty());
    format!("{flag}{}", last.unwrap_or(value))
}

fn version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("can not run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // Envoy writes its own path in front, and slashes in its version.
    let mut words = text.split_ascii_whitespace();
    let program_name = words.next().map(without_folders).unwrap_or_default();
    let rest: Vec<&str> = words.collect();
    Ok(format!("{program_name} {}", rest.join(" ")))
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changed = git(&["status", "--porcelain", "-uno"]).is_some_and(|s| !s.is_empty());
    if changed { commit + "+" } else { commit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_machine_are_cut() {
        assert_eq!(
            without_folders("/home/x/target/release/cairn-bench"),
            "cairn-bench"
        );
        assert_eq!(without_folders("--cairn=/home/x/cairn"), "--cairn=cairn");
        assert_eq!(without_folders("--rounds"), "--rounds");
    }
}
