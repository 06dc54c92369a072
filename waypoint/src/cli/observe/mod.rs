//! `cairn observe`: flow records of a waypoint, as they come or looked back at. It asks Hubble's API, so
//! that it works with anything that serves it; which flows are shown is decided there.

mod filters;
mod print;
mod since;

use anyhow::Context;
use clap::ValueEnum;
use tonic::Code;

use self::filters::Filters;
use self::print::Printer;
use super::output::{self, Outcome, Paint};
use crate::hubble::client::Client;
use crate::hubble::messages::{GetFlowsRequest, Timestamp};

const EXAMPLE: &str = "\
Examples:
  cairn run --config ./mesh --hubble-addr 127.0.0.1:4245 ...
  cairn observe --follow
  cairn observe --verdict DROPPED --to-service shop/orders --since 10m
  cairn observe --pod shop/web --http-status 5xx -o json | jq .flow.Summary
  cairn observe --follow --not --http-path '^/healthz'

Several filters must all match; of one filter given several times, one. Exit code: 0 all was shown;
1 the server can not be reached or broke off; 2 wrong usage, or a filter that it does not understand.";

/// Flows shown when nothing says how many, as with the `hubble` command.
const LAST_DEFAULT: u64 = 20;

/// Arguments of `cairn observe`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Where Hubble's API is served
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "HUBBLE_SERVER",
        default_value = "127.0.0.1:4245"
    )]
    server: String,
    /// Go on with flows as they come
    #[arg(short, long, conflicts_with_all = ["first", "until"])]
    follow: bool,
    /// The last N flows [default: 20, with --follow none]
    #[arg(long, value_name = "N", conflicts_with_all = ["first", "all"])]
    last: Option<u64>,
    /// The first N flows that are kept
    #[arg(long, value_name = "N", conflicts_with = "all")]
    first: Option<u64>,
    /// All flows that are kept
    #[arg(long)]
    all: bool,
    /// From this time on: 10s, 5m, 2h ago, or 2026-11-04T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since::parse)]
    since: Option<Timestamp>,
    /// To this time, said in the same ways
    #[arg(long, value_name = "TIME", value_parser = since::parse)]
    until: Option<Timestamp>,
    /// How to show them
    #[arg(short, long, value_name = "FORMAT", default_value = "compact")]
    output: Format,
    /// Show which waypoint tells of each flow
    #[arg(long)]
    print_node_name: bool,
    #[command(flatten)]
    filters: Filters,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line each, coloured on a terminal.
    Compact,
    /// A block of lines each.
    Dict,
    /// In columns, once all are there.
    Table,
    /// One object a line, in the API's JSON form.
    #[value(alias = "jsonpb")]
    Json,
}

/// Runs `cairn observe`.
pub fn observe(args: Args) -> anyhow::Result<Outcome> {
    if args.follow && args.output == Format::Table {
        let why = anyhow::anyhow!("a table has no end with --follow: use -o compact");
        return Ok(output::wrong_usage(&why));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(show(args))
}

async fn show(args: Args) -> anyhow::Result<Outcome> {
    let mut printer = Printer::new(args.output, args.print_node_name, Paint::for_stdout());
    let mut client = Client::connect(&args.server)
        .await
        .context("is `cairn run` started with --hubble-addr?")?;
    let mut flows = match client.flows(request(args)).await {
        Ok(flows) => flows,
        Err(status) if status.code() == Code::InvalidArgument => {
            return Ok(output::wrong_usage(&anyhow::anyhow!(
                "{}",
                status.message()
            )));
        }
        Err(status) => anyhow::bail!("the server refused: {}", status.message()),
    };
    loop {
        let next = tokio::select! {
            next = flows.message() => next,
            _ = tokio::signal::ctrl_c() => Ok(None),
        };
        match next {
            Ok(Some(response)) => output::print(&printer.text(&response)?)?,
            Ok(None) => break,
            Err(status) => anyhow::bail!("the server broke off: {}", status.message()),
        }
    }
    output::print(&printer.end())?;
    Ok(Outcome::Fine)
}

fn request(args: Args) -> GetFlowsRequest {
    let ranged = args.since.is_some() || args.until.is_some();
    let number = match (args.first, args.last) {
        (Some(number), _) | (None, Some(number)) => number,
        (None, None) if args.all || args.follow || ranged => 0,
        (None, None) => LAST_DEFAULT,
    };
    GetFlowsRequest {
        number,
        first: args.first.is_some(),
        follow: args.follow,
        since: args.since,
        until: args.until,
        whitelist: args.filters.wanted,
        blacklist: args.filters.unwanted,
        field_mask: None,
    }
}

#[cfg(test)]
mod tests;
