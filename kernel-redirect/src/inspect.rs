//! Reads the state of the redirect from its pins and from the kernel. Changes nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aya::programs::loaded_programs;

use crate::kernel::{Attachment, PinnedLink};
use crate::layout::{self, LAYOUT, PROGRAMS, WITH_RETVAL};
use crate::load::{link_name, pin_failed, pins};
use crate::maps::Maps;
use crate::{Feature, MapStatus, Place, ProgramStatus, RedirectError, Status, existing};

/// The state of what is pinned in `folder`.
pub(crate) fn status(place: &Place, folder: &Path, maps: &Maps) -> Result<Status, RedirectError> {
    let (own_cgroup_id, features) = maps.about()?;
    let services: Vec<_> = maps.flagged()?.into_values().collect();
    let pods = maps.enrolled()?;
    let listeners = pods.iter().filter(|pod| pod.listening).count();
    let fill = |map: layout::Shape, entries| MapStatus {
        name: map.name,
        entries,
        limit: maps.sizes.of(map).max_entries,
    };
    Ok(Status {
        layout: LAYOUT,
        other_layouts: other_layouts(&place.bpffs)?,
        programs: programs(folder)?,
        maps: vec![
            fill(layout::SERVICES, services.len()),
            fill(layout::SLOTS, maps.slot_addresses()?.len()),
            fill(layout::PODS, pods.len()),
            fill(layout::LISTENERS, listeners),
        ],
        pods,
        services,
        counters: maps.counters()?,
        own_cgroup_id,
        features: self::features(features),
    })
}

/// Names of the folders of other layouts in the pins' folder.
pub(crate) fn other_layouts(bpffs: &Path) -> Result<Vec<String>, RedirectError> {
    if !bpffs.is_dir() {
        // Somebody detached while we run.
        return Ok(Vec::new());
    }
    let ours = format!("v{LAYOUT}");
    let mut names: Vec<_> = pins(bpffs)?
        .iter()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| {
            let version = name.strip_prefix('v').map(|v| v.split('-').next());
            let is_version = |v: Option<&str>| v.is_some_and(|v| v.parse::<u32>().is_ok());
            version.is_some_and(is_version) && *name != ours
        })
        .collect();
    names.sort();
    Ok(names)
}

fn programs(folder: &Path) -> Result<Vec<ProgramStatus>, RedirectError> {
    PROGRAMS
        .into_iter()
        .map(|name| {
            let pin = folder.join(link_name(name));
            let attachment = if pin.exists() {
                let read = PinnedLink::open(&pin).and_then(|link| link.attachment());
                Some(read.map_err(pin_failed(&pin, "reading the link"))?)
            } else {
                None
            };
            Ok(program(name, attachment))
        })
        .collect()
}

fn program(name: &'static str, attachment: Option<Attachment>) -> ProgramStatus {
    let id = attachment.map(|a| a.program_id);
    // Programs of others that end meanwhile are errors in this list, and none of ours.
    let (runs, run_time) = loaded_programs()
        .flatten()
        .find(|info| Some(info.id()) == id)
        .map_or((0, Duration::ZERO), |info| {
            (info.run_count(), info.run_time())
        });
    ProgramStatus {
        name,
        id,
        cgroup_id: attachment.and_then(|a| a.cgroup_id),
        runs,
        run_time_ns: u64::try_from(run_time.as_nanos()).unwrap_or(u64::MAX),
    }
}

fn features(in_use: u32) -> Vec<Feature> {
    let on = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
    let feature = |name, in_use, yes: &str, no: &str| Feature {
        name,
        in_use,
        why: if in_use { yes } else { no }.to_owned(),
    };
    vec![
        feature(
            "bpf_set_retval",
            in_use & WITH_RETVAL != 0,
            "a refused connect() fails with ECONNREFUSED",
            "this kernel does not offer it to connect hooks: a refused connect() fails with EPERM",
        ),
        feature(
            "jit",
            on("/proc/sys/net/core/bpf_jit_enable"),
            "programs run as machine code",
            "net.core.bpf_jit_enable is 0: programs are interpreted, which makes connect() slower",
        ),
        feature(
            "run statistics",
            on("/proc/sys/kernel/bpf_stats_enabled"),
            "runs and run times of programs are counted",
            "kernel.bpf_stats_enabled is 0: runs of programs are not counted, which saves their cost",
        ),
        feature(
            "closing existing connections",
            existing::can_destroy(),
            "connections made before a service was flagged can be closed",
            "the kernel is built without CONFIG_INET_DIAG_DESTROY, or we may not: connections made before a service was flagged stay direct until they end",
        ),
    ]
}
