//! `cairn explain`: what would become of one request, and why. It asks the code that decides in the
//! data path, through [`crate::explain`], and only renders the answer.

mod text;

use std::net::IpAddr;
use std::path::PathBuf;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use super::configuration::{self, Choice};
use super::output::{self, Format, Outcome, Paint};
use crate::explain::{self, Question, Report};

const EXAMPLE: &str = "\
Examples:
  cairn explain --config ./mesh --from shop/web --to orders.shop:80 --method POST --path /orders
  cairn explain --config ./mesh --from spiffe://cluster.local/ns/shop/sa/web --from-ip 10.244.1.7 \\
      --to 10.96.1.1:80 -H 'x-user: alice' -o json

Exit code: 0 it passes, and every endpoint set it may go to has an endpoint (or it is redirected);
1 it is denied, refused or fails, for all or for a share; 2 wrong usage.";

/// Arguments of `cairn explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Files and folders of Kubernetes YAML or JSON
    #[arg(long, required = true, num_args = 1.., value_name = "PATH", env = "CAIRN_CONFIG", value_delimiter = ',')]
    config: Vec<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// Identity of the client: a SPIFFE ID, or NAMESPACE/SERVICEACCOUNT of the mesh's trust domain
    #[arg(long, value_name = "SPIFFE-ID")]
    from: String,
    /// Address of the client; that of a pod with this identity when there is one
    #[arg(long, value_name = "IP")]
    from_ip: Option<IpAddr>,
    /// Service (name, name.namespace or full hostname), virtual IP or pod IP, and port
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: Method,
    /// Path and query, as the client sends them
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,
    /// A header, `Name: value`; may be given several times
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = super::request::header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The client speaks no HTTP; for ports that declare no protocol
    #[arg(long)]
    tcp: bool,
    /// Every policy, rule and clause with its outcome
    #[arg(short, long)]
    verbose: bool,
    /// How to answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Runs `cairn explain`.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let loaded = configuration::load(&args.config, &args.choice);
    let from = match explain::client(&args.from, args.from_ip, &loaded.snapshot) {
        Ok(from) => from,
        Err(error) => return Ok(output::wrong_usage(&error)),
    };
    let question = Question {
        from,
        to: &args.to,
        method: &args.method,
        path: &args.path,
        headers: args.headers.iter().cloned().collect::<HeaderMap>(),
        tcp: args.tcp,
    };
    let report = explain::judge(loaded.snapshot, question)?;
    match args.output {
        Format::Json => output::print_json(&report)?,
        Format::Text => output::print(&text::render(&report, args.verbose, Paint::for_stdout())?)?,
    }
    Ok(outcome(&report))
}

fn outcome(report: &Report) -> Outcome {
    if report.passes {
        Outcome::Fine
    } else {
        Outcome::No
    }
}

#[cfg(test)]
mod tests;
