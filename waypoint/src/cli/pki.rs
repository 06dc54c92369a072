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
    output::print(&issue(args)?)?;
    Ok(Outcome::Fine)
}

/// Writes what was asked for, and says what was written.
fn issue(args: &Args) -> anyhow::Result<String> {
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
    Ok(text)
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn run(dir: &std::path::Path, line: &[&str]) -> Result<String, String> {
        let always = ["pki", dir.to_str().unwrap()];
        let line = always.iter().chain(line);
        let args = Line::try_parse_from(line).map_err(|e| e.to_string())?.args;
        issue(&args).map_err(|e| format!("{e:#}"))
    }

    fn leaf(dir: &std::path::Path) -> String {
        std::fs::read_to_string(dir.join("shop/web/cert-chain.pem")).unwrap()
    }

    fn root(dir: &std::path::Path) -> String {
        std::fs::read_to_string(dir.join("ca/root-cert.pem")).unwrap()
    }

    #[test]
    fn identities_are_added_but_never_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &["--identity", "shop/web"]).unwrap();
        let (first, ca) = (leaf(dir.path()), root(dir.path()));
        run(dir.path(), &["--identity", "shop/orders"]).unwrap();
        let error = run(
            dir.path(),
            &["--identity", "shop/db", "--identity", "shop/web"],
        );
        assert!(error.unwrap_err().contains("--rotate"));
        assert!(!dir.path().join("shop/db").exists(), "all or nothing");
        assert_eq!((leaf(dir.path()), root(dir.path())), (first, ca));
    }

    #[test]
    fn rotate_keeps_the_authority_and_the_trust_domain() {
        let dir = tempfile::tempdir().unwrap();
        run(
            dir.path(),
            &["--trust-domain", "mesh.example", "--identity", "shop/web"],
        )
        .unwrap();
        let (first, ca) = (leaf(dir.path()), root(dir.path()));
        let told = run(dir.path(), &["--rotate"]).unwrap();
        assert!(
            told.starts_with("spiffe://mesh.example/ns/shop/sa/web  "),
            "{told}"
        );
        assert_ne!(leaf(dir.path()), first);
        assert_eq!(root(dir.path()), ca);
    }

    #[test]
    fn force_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &["--identity", "shop/web"]).unwrap();
        let (first, ca) = (leaf(dir.path()), root(dir.path()));
        run(dir.path(), &["--force"]).unwrap();
        assert_ne!(leaf(dir.path()), first);
        assert_ne!(root(dir.path()), ca);
    }

    #[test]
    fn wrong_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["web", "shop/web/x", "../web", "shop/", "shop/w b"] {
            assert!(run(dir.path(), &["--identity", name]).is_err(), "{name}");
        }
        assert!(
            run(dir.path(), &["--rotate"]).is_err(),
            "nothing is there to rotate"
        );
    }
}
