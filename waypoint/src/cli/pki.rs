//! `cairn pki`: a small authority and SPIFFE identities in a folder. The certificates themselves are
//! made in [`crate::pki`].

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use cairn_config_schema::identity::Identity;

use super::output::{self, Outcome};
use crate::pki::Folder;

const EXAMPLE: &str = "\
Example:
  cairn pki /tmp/lab --identity shop/web --identity shop/waypoint
  cairn run --config ./mesh --identity-dir /tmp/lab/shop/waypoint";

/// Arguments of `cairn pki`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Folder to write to: DIR/ca, and DIR/<namespace>/<service account> for each identity
    dir: PathBuf,
    /// Trust domain of the identities
    #[arg(long, default_value = "cluster.local", env = "CAIRN_TRUST_DOMAIN")]
    trust_domain: String,
    /// Namespace and service account to issue for; may be given several times
    #[arg(long = "identity", value_name = "NAMESPACE/SERVICEACCOUNT", value_parser = namespace_and_account)]
    identities: Vec<(String, String)>,
    /// Days the certificates are valid
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Issue anew from the authority that is there; all its identities if none is named
    #[arg(long, conflicts_with = "force")]
    rotate: bool,
    /// Begin again: a new authority, and new identities over those that are there
    #[arg(long)]
    force: bool,
}

/// Runs `cairn pki`.
pub fn pki(args: &Args) -> anyhow::Result<Outcome> {
    let validity = Duration::from_secs(u64::from(args.days) * 24 * 3600);
    if args.rotate && !args.dir.join("ca").is_dir() {
        bail!(
            "--rotate: there is no authority in {}",
            args.dir.join("ca").display()
        );
    }
    let folder = if args.force {
        Folder::create(&args.dir, validity)?
    } else {
        Folder::open_or_create(&args.dir, validity)?
    };
    let mut identities = args
        .identities
        .iter()
        .map(|(namespace, account)| Identity::of_workload(&args.trust_domain, namespace, account))
        .collect::<Result<Vec<_>, _>>()?;
    if identities.is_empty() && (args.rotate || args.force) {
        identities = folder.identities()?;
    }
    if !(args.rotate || args.force) {
        refuse_existing(&folder, &identities)?;
    }
    let mut text = String::new();
    for identity in &identities {
        let path = folder
            .issue(identity, validity)
            .with_context(|| format!("issuing {identity}"))?;
        writeln!(text, "{identity}  {}", path.display())?;
    }
    writeln!(
        text,
        "root  {}",
        args.dir.join("ca/root-cert.pem").display()
    )?;
    output::print(&text)?;
    Ok(Outcome::Fine)
}

/// Fails before anything is written if one of the identities is in the folder already.
fn refuse_existing(folder: &Folder, identities: &[Identity]) -> anyhow::Result<()> {
    for identity in identities {
        if let Some(path) = folder.identity_folder(identity)
            && path.join("cert-chain.pem").exists()
        {
            bail!(
                "{} has an identity already: --rotate issues it anew, --force begins again with a new authority",
                path.display()
            );
        }
    }
    Ok(())
}

fn namespace_and_account(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, account)) if !account.contains('/') => {
            Identity::of_workload("cluster.local", namespace, account)
                .map(|_| (namespace.to_owned(), account.to_owned()))
                .map_err(|_| "a name has only letters, digits, '-', '.' and '_'".to_owned())
        }
        _ => Err("expected <namespace>/<service account>, such as shop/web".to_owned()),
    }
}
