//! The bpf(2) calls that aya does not offer: opening a pinned link, replacing its program in place,
//! detaching it, asking which cgroup it is on, and what else is on a cgroup. Nothing else talks to the
//! kernel directly.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Commands of bpf(2), as include/uapi/linux/bpf.h numbers them.
#[derive(Clone, Copy)]
enum Command {
    ObjectGet = 7,
    ObjectGetInfoByFd = 15,
    ProgramQuery = 16,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// A parameter block of bpf(2) for one command.
///
/// # Safety
/// The type is what the kernel expects for [`Self::COMMAND`], without padding, and what its fields
/// point to is valid for the kernel to read and write for the length they name.
#[allow(
    unsafe_code,
    reason = "a promise to the one place that calls the kernel"
)]
unsafe trait Parameters {
    const COMMAND: Command;
}

/// BPF_OBJ_GET: the beginning of that part of `union bpf_attr`.
#[repr(C)]
struct ObjectGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct ObjectGetInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// BPF_LINK_UPDATE.
#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// BPF_LINK_DETACH.
#[repr(C)]
struct LinkDetach {
    link: u32,
}

/// BPF_PROG_QUERY, up to the number of programs.
#[repr(C)]
struct ProgramQuery {
    cgroup: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    end: u32,
}

// SAFETY: laid out as above without padding; `programs` is of an array that lives across the call and
// `count` is its length.
#[allow(unsafe_code, reason = "see SAFETY")]
unsafe impl Parameters for ProgramQuery {
    const COMMAND: Command = Command::ProgramQuery;
}

// SAFETY: laid out as above without padding; `path` is of a CString that lives across the call.
#[allow(unsafe_code, reason = "see SAFETY")]
unsafe impl Parameters for ObjectGet {
    const COMMAND: Command = Command::ObjectGet;
}

// SAFETY: laid out as above without padding; `info` is of a LinkInfo that lives across the call and
// `length` is its size.
#[allow(unsafe_code, reason = "see SAFETY")]
unsafe impl Parameters for ObjectGetInfo {
    const COMMAND: Command = Command::ObjectGetInfoByFd;
}

// SAFETY: laid out as above without padding; it holds no pointers.
#[allow(unsafe_code, reason = "see SAFETY")]
unsafe impl Parameters for LinkUpdate {
    const COMMAND: Command = Command::LinkUpdate;
}

// SAFETY: laid out as above without padding; it holds no pointers.
#[allow(unsafe_code, reason = "see SAFETY")]
unsafe impl Parameters for LinkDetach {
    const COMMAND: Command = Command::LinkDetach;
}

/// `struct bpf_link_info` of a cgroup link.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    cgroup: u64,
    attach_type: u32,
    end: u32,
}

fn bpf<P: Parameters>(parameters: &mut P) -> io::Result<i32> {
    // SAFETY: by the promise of Parameters the kernel reads `size_of::<P>()` bytes of a block that
    // fits the command, and writes only where that block lets it.
    #[allow(unsafe_code, reason = "bpf(2) has no safe wrapper for these commands")]
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            P::COMMAND as libc::c_int,
            std::ptr::from_mut(parameters),
            size_of::<P>(),
        )
    };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

/// Ids of the programs on a cgroup itself that look at IPv4 connections while they are made.
pub(crate) fn connect_programs(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    const CGROUP_INET4_CONNECT: u32 = 10;
    // The kernel lets a cgroup have no more (BPF_CGROUP_MAX_PROGS).
    let mut ids = [0_u32; 64];
    let mut query = ProgramQuery {
        cgroup: raw(cgroup),
        attach_type: CGROUP_INET4_CONNECT,
        query_flags: 0,
        attach_flags: 0,
        programs: ids.as_mut_ptr() as u64,
        count: 64,
        end: 0,
    };
    bpf(&mut query)?;
    Ok(ids.into_iter().take(query.count as usize).collect())
}

/// A link pinned on a BPF file system.
#[derive(Debug)]
pub(crate) struct PinnedLink(OwnedFd);

/// What the kernel says of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attachment {
    pub program_id: u32,
    /// Inode number of the cgroup's folder; `None` once it is removed.
    pub cgroup_id: Option<u64>,
}

impl PinnedLink {
    /// Opens the link pinned at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let fd: RawFd = bpf(&mut ObjectGet {
            path: name.as_ptr() as u64,
            fd: 0,
            flags: 0,
        })?;
        // SAFETY: BPF_OBJ_GET returned a new descriptor that nothing else owns.
        #[allow(unsafe_code, reason = "the kernel hands out descriptors as numbers")]
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(fd))
    }

    /// Where it is attached, and which program.
    pub fn attachment(&self) -> io::Result<Attachment> {
        let mut info = LinkInfo::default();
        bpf(&mut ObjectGetInfo {
            fd: raw(self.0.as_fd()),
            length: u32::try_from(size_of::<LinkInfo>()).unwrap_or(0),
            info: std::ptr::from_mut(&mut info) as u64,
        })?;
        Ok(Attachment {
            program_id: info.program,
            cgroup_id: (info.cgroup != 0).then_some(info.cgroup),
        })
    }

    /// Puts `program` in place of the one it has, between two runs of it.
    pub fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        bpf(&mut LinkUpdate {
            link: raw(self.0.as_fd()),
            program: raw(program),
            flags: 0,
            old_program: 0,
        })
        .map(|_| ())
    }

    /// Detaches the program now. Removing the pin does so as well, but some time later.
    pub fn detach(&self) -> io::Result<()> {
        bpf(&mut LinkDetach {
            link: raw(self.0.as_fd()),
        })
        .map(|_| ())
    }
}
