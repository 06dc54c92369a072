//! Finds a redirect on the same cgroup whose pins are elsewhere: two would steer the same connections,
//! each to its own listeners. Changes nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use aya::programs::loaded_programs;

use crate::kernel::{PinnedLink, connect_programs};
use crate::load::{link_name, pin_failed, pins};
use crate::{Place, RedirectError};

/// The program that every redirect has on its cgroup.
const PROGRAM: &str = "cairn_connect4";

/// # Errors
/// [`RedirectError::Stranger`] if there is one; what keeps us from looking.
pub(crate) fn none_on_the_cgroup(place: &Place) -> Result<(), RedirectError> {
    let failed = pin_failed(&place.cgroup, "asking for its programs");
    let cgroup = File::open(&place.cgroup);
    let attached = cgroup.and_then(|cgroup| connect_programs(cgroup.as_fd()));
    let attached = attached.map_err(failed)?;
    if attached.is_empty() {
        return Ok(());
    }
    let ours = pinned_in(&place.bpffs)?;
    let mut programs = loaded_programs().flatten();
    let stranger = programs.find(|program| {
        program.name_as_str() == Some(PROGRAM)
            && attached.contains(&program.id())
            && !ours.contains(&program.id())
    });
    match stranger {
        Some(program) => Err(RedirectError::Stranger {
            cgroup: place.cgroup.clone(),
            program: program.id(),
            bpffs: place.bpffs.clone(),
        }),
        None => Ok(()),
    }
}

/// Ids of the programs whose links are pinned here, of all layouts and sizes. A link whose pin was
/// made and not yet renamed counts.
fn pinned_in(bpffs: &Path) -> Result<BTreeSet<u32>, RedirectError> {
    let mut ids = BTreeSet::new();
    if !bpffs.is_dir() {
        return Ok(ids);
    }
    for folder in pins(bpffs)? {
        for name in [link_name(PROGRAM), format!("{PROGRAM}_new")] {
            let pin = folder.join(name);
            if pin.exists() {
                let link = PinnedLink::open(&pin).and_then(|link| link.attachment());
                ids.insert(
                    link.map_err(pin_failed(&pin, "reading the link"))?
                        .program_id,
                );
            }
        }
    }
    Ok(ids)
}
