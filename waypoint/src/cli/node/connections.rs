//! `cairn node connections`: connections of pods to flagged services that are older than the flag and
//! so go direct. Counts them, and closes them when asked.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use cairn_config_schema::parse::NodePod;
use cairn_kernel_redirect::{Place, Redirect, existing};
use serde_json::json;

use crate::cli::Outcome;
use crate::cli::output::{self, Format, count};
use crate::node::{Namespace, PodsFile};

/// What one pod has to one service.
struct Found {
    pod: String,
    service: SocketAddr,
    open: usize,
    closed: usize,
}

/// Counts, perhaps closes, and shows.
pub(super) fn show(
    place: &Place,
    pods: &Path,
    close: bool,
    format: Format,
) -> anyhow::Result<Outcome> {
    let services: Vec<SocketAddr> = Redirect::inspect(place)?
        .context("nothing is attached: no service is flagged")?
        .services
        .iter()
        .map(|s| SocketAddr::new(s.address, s.port))
        .collect();
    let mut found = Vec::new();
    let mut unseen = Vec::new();
    for pod in PodsFile::open(pods)?.pods() {
        let counted = match inside(pod, &services, close) {
            Ok(counted) => counted,
            // The others are told, and closed, all the same.
            Err(error) => {
                unseen.push((pod.key().to_string(), format!("{error:#}")));
                continue;
            }
        };
        for (service, (open, closed)) in services.iter().zip(counted) {
            if open + closed > 0 {
                found.push(Found {
                    pod: pod.key().to_string(),
                    service: *service,
                    open,
                    closed,
                });
            }
        }
    }
    match format {
        Format::Json => {
            let rows = found.iter().map(|f| {
                json!({ "pod": f.pod, "service": f.service.to_string(), "open": f.open, "closed": f.closed })
            });
            let unseen = unseen
                .iter()
                .map(|(pod, error)| json!({ "pod": pod, "error": error }));
            output::print_json(&rows.chain(unseen).collect::<Vec<_>>())?;
        }
        Format::Text => output::print(&text(&found, &unseen))?,
    }
    let open: usize = found.iter().map(|f| f.open).sum();
    Ok(if open == 0 && unseen.is_empty() {
        Outcome::Fine
    } else {
        Outcome::No
    })
}

/// What a pod has to each service.
fn inside(
    pod: &NodePod,
    services: &[SocketAddr],
    close: bool,
) -> anyhow::Result<Vec<(usize, usize)>> {
    let look = || {
        let looked = services.iter().map(|to| look(*to, close));
        looked.collect::<Result<Vec<_>, _>>()
    };
    Ok(Namespace::open(&pod.netns, &pod.cgroup)?.within(look)??)
}

/// Those that are open still, and those that were closed.
fn look(to: SocketAddr, close: bool) -> std::io::Result<(usize, usize)> {
    let closed = if close { existing::destroy(to)? } else { 0 };
    Ok((existing::count(to)?, closed))
}

/// `unseen`: pods that could not be looked into, and why.
fn text(found: &[Found], unseen: &[(String, String)]) -> String {
    if found.is_empty() && unseen.is_empty() {
        return "no connection to a flagged service goes direct\n".to_owned();
    }
    let line = |f: &Found| {
        let open = count(f.open, "connection goes direct", "connections go direct");
        let closed = match f.closed {
            0 => String::new(),
            n => format!(", {} closed", n),
        };
        format!("{} -> {}: {open}{closed}\n", f.pod, f.service)
    };
    let unseen = unseen.iter();
    let unseen = unseen.map(|(pod, error)| format!("{pod}: not looked at: {error}\n"));
    found.iter().map(line).chain(unseen).collect()
}
