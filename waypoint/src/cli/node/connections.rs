//! `cairn node connections`: connections of pods to flagged services that are older than the flag and
//! so go direct. Counts them, and closes them when asked.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
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
    for pod in PodsFile::open(pods)?.pods() {
        let namespace = Namespace::open(&pod.netns)?;
        let look = || {
            services
                .iter()
                .map(|to| look(*to, close))
                .collect::<Result<Vec<_>, _>>()
        };
        let counted = namespace.within(look)?;
        let counted = counted.with_context(|| format!("connections of {}", pod.key()))?;
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
            output::print_json(&rows.collect::<Vec<_>>())?;
        }
        Format::Text => output::print(&text(&found))?,
    }
    let open: usize = found.iter().map(|f| f.open).sum();
    Ok(if open == 0 {
        Outcome::Fine
    } else {
        Outcome::No
    })
}

/// Those that are open still, and those that were closed.
fn look(to: SocketAddr, close: bool) -> std::io::Result<(usize, usize)> {
    let closed = if close { existing::destroy(to)? } else { 0 };
    Ok((existing::count(to)?, closed))
}

fn text(found: &[Found]) -> String {
    if found.is_empty() {
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
    found.iter().map(line).collect()
}
