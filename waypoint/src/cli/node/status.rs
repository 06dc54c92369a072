//! `cairn node status`: what is pinned in the kernel, as text or JSON. Changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cairn_config_schema::parse::NodePod;
use cairn_kernel_redirect::{FlaggedService, Place, Redirect, Status, host_key, is_host_key};
use serde_json::{Value, json};

use crate::cli::Outcome;
use crate::cli::output::{self, Format, Paint};
use crate::node::{Namespace, PodsFile};

/// Names of pods by what the kernel knows them by: the cookie of their network namespace, or their
/// cgroup.
type Names = BTreeMap<u64, String>;

/// Shows it.
pub(super) fn show(place: &Place, pods: Option<&Path>, format: Format) -> anyhow::Result<Outcome> {
    let names = match pods {
        Some(path) => names(PodsFile::open(path)?.pods()),
        None => Names::new(),
    };
    let status = Redirect::inspect(place)?;
    match format {
        Format::Json => output::print_json(&as_json(status.as_ref(), &names))?,
        Format::Text => {
            let paint = Paint::for_stdout();
            output::print(
                &status
                    .as_ref()
                    .map_or_else(nothing, |s| text(s, &names, paint)),
            )?;
        }
    }
    let works = status.is_some_and(|s| s.programs.iter().all(|p| p.attached()));
    Ok(if works { Outcome::Fine } else { Outcome::No })
}

fn nothing() -> String {
    "nothing is attached: all connections go direct\n".to_owned()
}

/// Pods whose namespace can not be entered stay without a name: what is shown is the kernel's.
fn names(pods: &[NodePod]) -> Names {
    let namespace = |pod: &NodePod| Namespace::open(&pod.netns, &pod.cgroup).ok();
    let cookie = |pod: &NodePod| namespace(pod)?.cookie().ok();
    let in_host = |pod: &NodePod| Some(host_key(fs::metadata(&pod.cgroup).ok()?.ino()));
    let named = pods.iter().flat_map(|pod| {
        let keys = [cookie(pod), in_host(pod)].into_iter().flatten();
        keys.map(|key| (key, pod.key().to_string()))
    });
    named.collect()
}

fn unnamed(key: u64) -> String {
    match cgroup_id(key) {
        Some(id) => format!("cgroup {id}"),
        None => format!("netns {key}"),
    }
}

/// Of a pod whose listener is in the host's namespace.
fn cgroup_id(key: u64) -> Option<u64> {
    is_host_key(key).then(|| key & !host_key(0))
}

fn as_json(status: Option<&Status>, names: &Names) -> Value {
    let Some(status) = status else {
        return json!({ "attached": false });
    };
    let service = |s: &FlaggedService| json!({ "address": s.address, "port": s.port, "slot": s.slot, "failOpen": s.fail_open });
    let counters = &status.counters;
    json!({
        "attached": status.programs.iter().all(|p| p.attached()),
        "layout": status.layout,
        "otherLayouts": status.other_layouts,
        "programs": status.programs.iter().map(|p| json!({
            "name": p.name, "id": p.id, "cgroupId": p.cgroup_id, "attached": p.attached(),
            "runs": p.runs, "runTimeNs": p.run_time_ns,
        })).collect::<Vec<_>>(),
        "maps": status.maps.iter().map(|m| json!({
            "name": m.name, "entries": m.entries, "limit": m.limit,
        })).collect::<Vec<_>>(),
        "pods": status.pods.iter().map(|p| json!({
            "netnsCookie": cgroup_id(p.netns_cookie).is_none().then_some(p.netns_cookie),
            "cgroupId": cgroup_id(p.netns_cookie), "pod": names.get(&p.netns_cookie),
            "listenerPort": p.listener_port, "listening": p.listening,
        })).collect::<Vec<_>>(),
        "services": status.services.iter().map(service).collect::<Vec<_>>(),
        "counters": {
            "steered": counters.steered, "refused": counters.refused, "opened": counters.opened,
            "unreachable": counters.unreachable, "notEnrolled": counters.not_enrolled,
            "own": counters.own,
        },
        "ownCgroupId": status.own_cgroup_id,
        "features": status.features.iter().map(|f| json!({
            "name": f.name, "inUse": f.in_use, "why": f.why,
        })).collect::<Vec<_>>(),
    })
}

fn text(status: &Status, names: &Names, paint: Paint) -> String {
    let mut out = String::new();
    // Writing to a string can not fail.
    let _ = render(status, names, paint, &mut out);
    out
}

fn render(
    status: &Status,
    names: &Names,
    paint: Paint,
    out: &mut String,
) -> Result<(), std::fmt::Error> {
    writeln!(out, "{}", paint.strong("programs"))?;
    for program in &status.programs {
        let state = match program.attached() {
            true => paint.good("attached"),
            false => paint.bad("not attached"),
        };
        writeln!(out, "  {:<20} {state}", program.name)?;
    }
    for layout in &status.other_layouts {
        let words = format!("layout {layout} of another version is still there");
        writeln!(out, "  {}", paint.odd(words))?;
    }
    writeln!(out, "{}", paint.strong("maps"))?;
    for map in &status.maps {
        let fill = format!("{} of {}", map.entries, map.limit);
        let full = map.entries >= map.limit as usize && map.limit > 16;
        let fill = if full { paint.bad(fill) } else { fill };
        writeln!(out, "  {:<20} {fill}", map.name)?;
    }
    writeln!(out, "{}", paint.strong("pods"))?;
    for pod in &status.pods {
        let name = names.get(&pod.netns_cookie);
        let name = name.cloned().unwrap_or_else(|| unnamed(pod.netns_cookie));
        let state = match pod.listening {
            true if is_host_key(pod.netns_cookie) => {
                paint.good(format!("listening on {} of the host", pod.listener_port))
            }
            true => paint.good(format!("listening on {}", pod.listener_port)),
            false => paint.bad("nobody listens: each service's failure mode applies"),
        };
        writeln!(out, "  {name:<20} {state}")?;
    }
    writeln!(out, "{}", paint.strong("flagged services"))?;
    for service in &status.services {
        let address = std::net::SocketAddr::new(service.address, service.port).to_string();
        let mode = if service.fail_open {
            "fails open"
        } else {
            "fails closed"
        };
        writeln!(out, "  {address:<24} slot {:<8} {mode}", service.slot)?;
    }
    writeln!(
        out,
        "{}",
        paint.strong("connections since the maps were made")
    )?;
    for (name, number) in status.counters.by_name() {
        writeln!(out, "  {:<20} {number}", name.replace('_', " "))?;
    }
    writeln!(out, "{}", paint.strong("kernel"))?;
    for feature in &status.features {
        let state = if feature.in_use { "in use" } else { "not used" };
        writeln!(out, "  {:<20} {state}: {}", feature.name, feature.why)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cairn_kernel_redirect::{Counters, PodStatus};

    use super::*;

    fn status() -> Status {
        Status {
            layout: 1,
            other_layouts: vec![],
            programs: vec![],
            maps: vec![],
            pods: vec![PodStatus {
                netns_cookie: 7,
                listener_port: 15001,
                ipv6_slots: true,
                listening: false,
            }],
            services: vec![FlaggedService {
                address: "10.0.0.1".parse().unwrap(),
                port: 80,
                fail_open: true,
                slot: 3,
            }],
            counters: Counters {
                refused: 2,
                ..Counters::default()
            },
            own_cgroup_id: 1,
            features: vec![],
        }
    }

    #[test]
    fn text_says_who_has_no_listener_and_what_follows() {
        let names = Names::from([(7, "shop/web-1".to_owned())]);
        let shown = text(&status(), &names, Paint::none());
        assert!(
            shown.contains("shop/web-1           nobody listens"),
            "{shown}"
        );
        assert!(shown.contains("10.0.0.1:80"), "{shown}");
        assert!(shown.contains("fails open"), "{shown}");
    }

    #[test]
    fn json_has_the_same() {
        let shown = as_json(Some(&status()), &Names::new());
        assert_eq!(shown["pods"][0]["listening"], false);
        assert_eq!(shown["services"][0]["slot"], 3);
        assert_eq!(shown["counters"]["refused"], 2);
        assert_eq!(as_json(None, &Names::new())["attached"], false);
    }
}
