//! `cairn explain`: what would become of one request, and why. It asks the code that decides in the
//! data path, through [`crate::explain`], and only renders the answer.

mod chain;
mod text;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use cairn_authz::jwt::{KeySet, KeySets};
use cairn_config_schema::snapshot::{KeySource, Snapshot};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use super::configuration::{self, Choice};
use super::output::{self, Format, Outcome, Paint};
use crate::explain::{self, Link, LinkOutcome, Question, Report};

const EXAMPLE: &str = "\
Examples:
  cairn explain --config ./mesh --from shop/web --to orders.shop:80 --method POST --path /orders
  cairn explain --config ./mesh --from spiffe://cluster.local/ns/shop/sa/web --from-ip 10.244.1.7 \\
      --to 10.96.1.1:80 -H 'x-user: alice' -o json

Exit code: 0 it passes, and every endpoint set it may go to has an endpoint (or it is redirected);
1 it is denied, refused or fails, for all or for a share, here or by others; 2 wrong usage.";

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
    /// File with a JSON Web Token, sent as `Authorization: Bearer`
    #[arg(long, value_name = "FILE")]
    jwt: Option<PathBuf>,
    /// File with the JSON Web Key Set of issuers whose keys a waypoint would fetch
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// The client speaks no HTTP; a port that declares HTTP answers it 400
    #[arg(long)]
    tcp: bool,
    /// Server name that the client asks for in its TLS; without it, it speaks none
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
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
    let mut headers = args.headers.iter().cloned().collect::<HeaderMap>();
    if let Some(file) = &args.jwt {
        headers.append(AUTHORIZATION, bearer(file)?);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let question = Question {
        from,
        to: &args.to,
        method: &args.method,
        path: &args.path,
        headers,
        tcp: args.tcp,
        server_name: args.sni.as_deref(),
        keys: keys(args.jwks.as_deref(), &loaded.snapshot)?,
        now_s: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
    };
    let report = explain::judge(loaded.snapshot, question)?;
    match args.output {
        Format::Json => output::print_json(&report)?,
        Format::Text => output::print(&text::render(&report, args.verbose, Paint::for_stdout())?)?,
    }
    Ok(outcome(&report))
}

fn bearer(file: &Path) -> anyhow::Result<HeaderValue> {
    let token = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
    value.with_context(|| format!("{} holds no token", file.display()))
}

/// The same keys for every source that a waypoint would fetch from.
fn keys(file: Option<&Path>, snapshot: &Snapshot) -> anyhow::Result<KeySets> {
    let mut keys = KeySets::default();
    let Some(file) = file else { return Ok(keys) };
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let set = KeySet::parse(&text).with_context(|| format!("read {}", file.display()))?;
    let set = Arc::new(set);
    for rule in snapshot.authentications.all().flat_map(|a| &a.rules) {
        if let KeySource::Remote(source) = &rule.keys {
            keys.by_source.insert(source.clone(), set.clone());
        }
    }
    Ok(keys)
}

fn outcome(report: &Report) -> Outcome {
    let denied = |link: &Link| link.outcome == LinkOutcome::Denied;
    if report.passes && !report.chain.iter().any(denied) {
        Outcome::Fine
    } else {
        Outcome::No
    }
}

#[cfg(test)]
mod tests;
