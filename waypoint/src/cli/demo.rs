//! `cairn demo`: shows a mesh at work, then leaves it running. What is shown is [`crate::demo`]'s.

use std::fmt::Write;

use super::output::{self, Outcome, Paint};
use crate::demo::{self, DB, Lab, Line, Log, Table, WEB};
use crate::log;

const EXAMPLE: &str = "\
Examples:
  cairn demo           shows the tour, then serves until Ctrl-C
  cairn demo --once    shows the tour and leaves; exit code 1 if a line is not as expected";

/// Arguments of `cairn demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Leave after the tour
    #[arg(long)]
    once: bool,
}

/// Runs `cairn demo`.
pub fn demo(args: &Args) -> anyhow::Result<Outcome> {
    let wanted = std::env::var_os("CAIRN_LOG").is_some();
    let _log = wanted.then(log::start).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(args))
}

async fn run(args: &Args) -> anyhow::Result<Outcome> {
    // Left in the middle, the mesh still takes its folder and its keys along.
    let shown = tokio::select! {
        shown = show_tour() => shown?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Ok(Outcome::No);
        }
    };
    if !args.once {
        output::print(&invitation(&shown.lab)?)?;
        shown.lab.waypoint.until_stopped().await?;
    }
    Ok(if shown.all_ok {
        Outcome::Fine
    } else {
        Outcome::No
    })
}

/// A mesh that has been through the tour.
struct Shown {
    lab: Lab,
    all_ok: bool,
    // Goes on into its file.
    _access_log: Log,
}

async fn show_tour() -> anyhow::Result<Shown> {
    let paint = Paint::for_stdout();
    output::print(
        "Starting a mesh on loopback: certificates, four pods, two of them versions of a \
        service behind HBONE tunnels, a waypoint.\n",
    )?;
    let mut lab = Lab::start().await?;
    let mut access_log = Log::start(&lab.folder().join("access.log"))?;
    output::print(&format!("Everything is in {}\n\n", lab.folder().display()))?;

    let table = Table::new(32, 28, 46);
    output::print(&table.heading())?;
    let (mut lines, mut failed) = (0, 0);
    let mut show = |line: &Line| {
        lines += 1;
        failed += u32::from(!line.ok);
        let verdict = if line.ok {
            paint.good("ok")
        } else {
            paint.bad("FAIL")
        };
        // A terminal that is gone does not stop the tour.
        let _ = output::print(&table.line(line, &verdict));
    };
    let all_ok = demo::tour(&mut lab, &mut access_log, &mut show).await?;
    let end = if all_ok {
        paint.good(format_args!("all {lines} lines are as expected"))
    } else {
        paint.bad(format_args!(
            "{failed} of {lines} lines are not as expected"
        ))
    };
    output::print(&format!("\n{end}\n"))?;
    Ok(Shown {
        lab,
        all_ok,
        _access_log: access_log,
    })
}

/// What to look at and what to try, in commands that work as they stand.
fn invitation(lab: &Lab) -> Result<String, std::fmt::Error> {
    let cairn = std::env::args()
        .next()
        .unwrap_or_else(|| "cairn".to_owned());
    let folder = lab.folder().display();
    let addresses = lab.waypoint.addresses();
    let via = lab.waypoint.hbone_addr();
    let request = |who: &str, to: &str, rest: &str| {
        format!("{cairn} request --via {via} --identity-dir {folder}/pki/{who} --to {to} {rest}")
    };
    let mut text = String::new();
    writeln!(text, "\nThe mesh goes on until Ctrl-C.\n")?;
    writeln!(
        text,
        "configuration  {folder}/mesh (edit and save it: changes are in force at once)"
    )?;
    writeln!(text, "access log     {folder}/access.log")?;
    writeln!(text, "metrics        http://{}/metrics", addresses.metrics)?;
    writeln!(
        text,
        "ready          http://{}/healthz/ready",
        addresses.ready
    )?;
    writeln!(text, "page           http://{}/", addresses.admin)?;
    let hubble = lab.waypoint.hubble_addr();
    let hubble = hubble.map_or_else(String::new, |address| address.to_string());
    writeln!(text, "flows          {hubble} (Hubble's API)")?;
    writeln!(text, "\nTry\n")?;
    for command in [
        request("shop/frontend", WEB, "-i /items"),
        request("guest/visitor", WEB, "-v /items"),
        request("shop/frontend", WEB, "--repeat 200 /canary"),
        request("shop/frontend", DB, "--tcp --data hello"),
        format!(
            "{cairn} explain --config {folder}/mesh --from guest/visitor --to web.shop:80 --path /items"
        ),
        format!(
            "{cairn} explain --config {folder}/mesh --from shop/frontend --to web.shop:80 --path /canary"
        ),
        format!("{cairn} check {folder}/mesh"),
        format!("{cairn} observe --server {hubble} --verdict DROPPED"),
    ] {
        writeln!(text, "  {command}")?;
    }
    Ok(text)
}
