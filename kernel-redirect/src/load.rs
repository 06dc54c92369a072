//! Brings the program into the kernel and onto the cgroup: loads it on maps that may be there
//! already, and replaces what an earlier process attached, in place. Undoes what it did if it can
//! not finish. Puts nothing into the maps.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};

use crate::earlier::Earlier;
use crate::kernel::PinnedLink;
use crate::layout::{self, PROGRAMS, WITH_RETVAL};
use crate::maps::Maps;
use crate::{RedirectError, Sizes, error, place};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/redirect.bpf.o"));

/// Name of the pin of a program's link.
pub(crate) fn link_name(program: &str) -> String {
    format!("{program}_link")
}

/// Loads and attaches; `own_cgroup` is the id of the cgroup that is not steered.
pub(crate) fn attach(
    folder: &Path,
    cgroup: &Path,
    own_cgroup: u64,
    sizes: Sizes,
) -> Result<Maps, RedirectError> {
    let cgroup_id = place::cgroup_id(cgroup)?;
    let same_sizes = Maps::have(folder, sizes)?;
    // Nothing is touched before it is known that all of it has room.
    let earlier = Earlier::than(folder, same_sizes)?;
    earlier.fits(sizes)?;
    let aside = match same_sizes {
        true => None,
        false => Some(set_aside(folder)?),
    };
    let undo = Undo::begin(folder, aside)?;
    let (mut programs, features) = load(folder, sizes)?;
    let mut maps = Maps::open(folder)?;
    maps.carry_over(&earlier.pods)?;
    maps.set_about(own_cgroup, features, false)?;
    let cgroup = Cgroup {
        path: cgroup,
        id: cgroup_id,
    };
    for name in PROGRAMS {
        let program = program(&mut programs, name)?;
        attach_one(folder, &cgroup, name, program)?;
    }
    undo.not_needed();
    Ok(maps)
}

/// Maps have the size they were made with. Those of another one are set aside as another layout is:
/// they and their programs stay in force until the new ones are filled. Returns where they are now.
fn set_aside(folder: &Path) -> Result<PathBuf, RedirectError> {
    let free = (0_u32..).map(|number| {
        let mut beside = folder.as_os_str().to_owned();
        beside.push(format!("-{number}"));
        PathBuf::from(beside)
    });
    let beside = free.into_iter().find(|path| !path.exists());
    let beside = beside.unwrap_or_else(|| folder.to_path_buf());
    fs::rename(folder, &beside).map_err(pin_failed(folder, "setting it aside"))?;
    Ok(beside)
}

/// What was pinned before; drops what was pinned since unless told that all went well.
struct Undo {
    folder: PathBuf,
    new_folder: bool,
    /// Where what was in the folder is.
    aside: Option<PathBuf>,
    before: BTreeSet<PathBuf>,
    needed: bool,
}

impl Undo {
    fn begin(folder: &Path, aside: Option<PathBuf>) -> Result<Self, RedirectError> {
        let new_folder = place::pin_folder(folder)?;
        Ok(Self {
            before: pins(folder)?.into_iter().collect(),
            folder: folder.to_path_buf(),
            new_folder,
            aside,
            needed: true,
        })
    }

    fn not_needed(mut self) {
        self.needed = false;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if !self.needed {
            return;
        }
        for pin in pins(&self.folder).unwrap_or_default() {
            if !self.before.contains(&pin) {
                // The error that led here is the one to tell.
                let _ = fs::remove_file(pin);
            }
        }
        if self.new_folder {
            let _ = fs::remove_dir(&self.folder);
            match &self.aside {
                Some(aside) => drop(fs::rename(aside, &self.folder)),
                // Ours too, if there is nothing else in it.
                None => drop(self.folder.parent().map(fs::remove_dir)),
            }
        }
    }
}

/// The pins in a folder.
pub(crate) fn pins(folder: &Path) -> Result<Vec<PathBuf>, RedirectError> {
    let list = || {
        fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()
    };
    list().map_err(pin_failed(folder, "listing"))
}

/// Names the path and what was tried.
pub(crate) fn pin_failed(
    path: &Path,
    doing: &'static str,
) -> impl FnOnce(io::Error) -> RedirectError {
    let path = path.to_path_buf();
    move |source| RedirectError::Pin {
        path,
        doing,
        source,
    }
}

/// The programs, loaded, and the features they use: all, or without bpf_set_retval on kernels that
/// do not offer it to connect hooks.
fn load(folder: &Path, sizes: Sizes) -> Result<(Ebpf, u32), RedirectError> {
    match load_with(folder, sizes, true) {
        Ok(programs) => Ok((programs, WITH_RETVAL)),
        Err(first) => match load_with(folder, sizes, false) {
            Ok(programs) => Ok((programs, 0)),
            Err(_) => Err(first),
        },
    }
}

fn load_with(folder: &Path, sizes: Sizes, set_retval: bool) -> Result<Ebpf, RedirectError> {
    let failed = |what: &str, source: error::Source| RedirectError::Load {
        what: what.to_owned(),
        kernel: place::kernel_version(),
        source,
    };
    let set_retval = u32::from(set_retval);
    let mut loader = EbpfLoader::new();
    for map in layout::MAPS {
        loader.map_max_entries(map.name, sizes.of(map).max_entries);
    }
    let mut programs = loader
        .btf(None)
        .default_map_pin_directory(folder)
        .override_global("may_set_retval", &set_retval, true)
        .load(OBJECT)
        .map_err(|e: EbpfError| failed("the redirect's maps", e.into()))?;
    for name in PROGRAMS {
        program(&mut programs, name)?
            .load()
            .map_err(|e| failed(name, e.into()))?;
    }
    Ok(programs)
}

fn program<'e>(
    programs: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut CgroupSockAddr, RedirectError> {
    let wrong = || RedirectError::Load {
        what: name.to_owned(),
        kernel: place::kernel_version(),
        source: "it is not in the object that was built in".into(),
    };
    let program = programs.program_mut(name).ok_or_else(wrong)?;
    program.try_into().map_err(|_: ProgramError| wrong())
}

struct Cgroup<'p> {
    path: &'p Path,
    id: u64,
}

/// Replaces the program of the pinned link if that is on this cgroup; else makes and pins a new link
/// and then lets go of the old one.
fn attach_one(
    folder: &Path,
    cgroup: &Cgroup<'_>,
    name: &'static str,
    program: &mut CgroupSockAddr,
) -> Result<(), RedirectError> {
    let failed = |source: error::Source| RedirectError::Attach {
        program: name,
        cgroup: cgroup.path.to_path_buf(),
        source,
    };
    let pin = folder.join(link_name(name));
    let beside = folder.join(format!("{name}_new"));
    if replace(&pin, cgroup.id, program).map_err(|e| failed(e.into()))? {
        return remove_stale(&beside);
    }
    let folder_fd = File::open(cgroup.path).map_err(|e| failed(e.into()))?;
    // A link leaves other programs alone whatever the mode; specs/kernel-redirect.md 6.2.
    let attached = program
        .attach(folder_fd, CgroupAttachMode::Single)
        .and_then(|id| program.take_link(id))
        .map_err(|e| failed(e.into()))?;
    let link = FdLink::try_from(attached).map_err(|e| failed(e.into()))?;
    // Beside the old one first, so that there is no moment without: both may be attached for one, and
    // the second to run finds nothing left to steer.
    remove_stale(&beside)?;
    link.pin(&beside).map_err(|e| failed(e.into()))?;
    fs::rename(&beside, &pin).map_err(pin_failed(&beside, "renaming"))
}

/// Removes what a process left that ended between pinning and renaming: it would be in the way of the
/// next, and stay attached. Only once something else is attached in its place.
fn remove_stale(pin: &Path) -> Result<(), RedirectError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(pin_failed(pin, "removing")(error))
        }
        _ => Ok(()),
    }
}

/// Whether the link pinned at `pin` is on this cgroup and has the new program now.
fn replace(pin: &Path, cgroup_id: u64, program: &CgroupSockAddr) -> io::Result<bool> {
    if !pin.exists() {
        return Ok(false);
    }
    let link = PinnedLink::open(pin)?;
    if link.attachment()?.cgroup_id != Some(cgroup_id) {
        return Ok(false);
    }
    let program = program.fd().map_err(io::Error::other)?;
    link.replace(std::os::fd::AsFd::as_fd(program))?;
    Ok(true)
}
