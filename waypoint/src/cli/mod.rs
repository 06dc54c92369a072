//! The command line: which commands there are, and how they end. Each command has a file of its own.

mod access;
mod attach;
mod check;
mod cluster;
mod configuration;
mod controller;
mod demo;
mod detach;
mod diff;
mod discovery;
mod doctor;
mod explain;
mod identity;
mod node;
mod observe;
mod output;
mod pki;
mod request;
mod run;
mod status;
mod translate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use output::Outcome;

/// An L7 waypoint proxy for sidecarless service meshes.
#[derive(Debug, Parser)]
#[command(
    name = "cairn",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a mesh at work in one process on loopback: a tour, then it goes on serving
    Demo(demo::Args),
    /// Serve as a waypoint on files or folders of Kubernetes YAML
    Run(Box<run::Args>),
    /// Find everything that is wrong with a configuration, and say what it serves
    Check(check::Args),
    /// Say what would become of one request, and why
    Explain(explain::Args),
    /// Say which requests another configuration would judge differently, and why
    Diff(diff::Args),
    /// Write policy and routes of one mesh as objects of another, and say what becomes of each part
    Translate(translate::Args),
    /// Send an HTTP request through an HBONE tunnel, as a client's ztunnel would
    Request(request::Args),
    /// Create a small certificate authority and SPIFFE identities in a folder, for trying things out
    Pki(pki::Args),
    /// Show flow records: who asked whom for what, and what policy said
    Observe(Box<observe::Args>),
    /// Give a namespace or single Services a waypoint
    Attach(attach::Args),
    /// Take a namespace or single Services from their waypoint
    Detach(detach::Args),
    /// Show the cluster's waypoints, and what is not enforced and why
    Status(status::Args),
    /// Find the ways past the waypoints, and what closes them
    Doctor(doctor::Args),
    /// See to a cluster's Gateways: make waypoints, write statuses
    Controller(Box<controller::Args>),
    /// Serve the pods of one node: the kernel steers what needs a proxy, and nothing else
    Node(Box<node::Args>),
}

/// Reads the command line, runs the command and says how it ended (DESIGN section 8): 0 fine, 1 the
/// answer is no or something failed, 2 wrong usage.
pub fn main() -> ExitCode {
    // Clap answers wrong usage itself, with exit code 2.
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::demo(&args),
        Command::Run(args) => run::run(*args),
        Command::Check(args) => check::check(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Translate(args) => translate::translate(&args),
        Command::Request(args) => request::request(&args),
        Command::Pki(args) => pki::pki(&args),
        Command::Observe(args) => observe::observe(*args),
        Command::Attach(args) => attach::attach(args),
        Command::Detach(args) => detach::detach(args),
        Command::Status(args) => status::status(args),
        Command::Doctor(args) => doctor::doctor(args),
        Command::Controller(args) => controller::run(*args),
        Command::Node(args) => node::node(*args),
    };
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("cairn: {error:#}");
            Outcome::No.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(help.contains("cairn "), "{}", command.get_name());
        }
    }
}
