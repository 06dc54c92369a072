//! Where things are: the folder of the pins, the pods' cgroup, and what the kernel and the process
//! must bring along. Attaches nothing.

use std::path::{Path, PathBuf};

/// Where programs and maps are pinned, and what they are attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A folder on a BPF file system, of this redirect alone: `/sys/fs/bpf/cairn`. It and the file
    /// system at `/sys/fs/bpf` are made if they are missing.
    pub bpffs: PathBuf,
    /// The cgroup v2 folder above all pods: `/sys/fs/cgroup/kubepods.slice`.
    pub cgroup: PathBuf,
}

/// What an agent does, each more than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Attaches the redirect.
    Attach,
    /// Enters pods' network namespaces, too.
    EnterPods,
    /// Finds those by the pods' processes, too.
    FindPods,
}

/// Where the cgroup v2 hierarchy is mounted, if it is: `/sys/fs/cgroup`, or beside v1
/// `/sys/fs/cgroup/unified`.
#[must_use]
pub fn cgroup2_root() -> Option<PathBuf> {
    mounted(
        &std::fs::read_to_string("/proc/self/mountinfo").ok()?,
        "cgroup2",
    )
}

/// Where a file system is mounted, from the text of /proc/self/mountinfo (proc(5)): the fifth field is
/// where, the one before it which folder of it, the one after ` - ` what. The first mount of the whole
/// comes before those of parts: a container has its own cgroup mounted beside the host's.
fn mounted(mountinfo: &str, kind: &str) -> Option<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (folder, at) = (fields.next()?, fields.next()?);
        (system.split(' ').next()? == kind).then_some((folder != "/", at))
    });
    let (_, at) = mounts.min_by_key(|(is_part, _)| *is_part)?;
    Some(Path::new(at).to_path_buf())
}

#[cfg(any(kernel, test))]
mod capabilities;
#[cfg(kernel)]
pub use checks::requirements;
#[cfg(kernel)]
pub(crate) use checks::{cgroup_id, kernel_version, may_attach, pin_folder};

#[cfg(kernel)]
mod checks {
    use std::fs::{self, DirBuilder};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    use std::path::Path;

    use aya::util::KernelVersion;
    use nix::mount::{MsFlags, mount};
    use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

    use super::{Duty, cgroup2_root};
    use crate::RedirectError;

    const BPFFS: &str = "/sys/fs/bpf";

    /// Version of the running kernel, as `uname -r` says it.
    pub(crate) fn kernel_version() -> String {
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    }

    /// Whether this kernel and process can run an agent with this duty.
    ///
    /// # Errors
    /// [`RedirectError::KernelTooOld`], [`RedirectError::MissingCapability`].
    pub fn requirements(of: Duty) -> Result<(), RedirectError> {
        let needed: &[super::capabilities::Capability] = match of {
            Duty::Attach => &super::capabilities::TO_ATTACH,
            Duty::EnterPods => &super::capabilities::OF_AN_AGENT,
            Duty::FindPods => &super::capabilities::TO_FIND_PODS,
        };
        judge(KernelVersion::current().ok(), held(), needed)
    }

    /// Whether they can attach the redirect.
    pub(crate) fn may_attach() -> Result<(), RedirectError> {
        judge(
            KernelVersion::current().ok(),
            held(),
            &super::capabilities::TO_ATTACH,
        )
    }

    fn held() -> Option<u64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        super::capabilities::effective(&status)
    }

    /// The kernel is new enough and lets us. SO_NETNS_COOKIE is of 5.14, the first long-term kernel
    /// with it 5.15; the listeners' map, links and hooks are older. What can not be told (`None`) is
    /// left to the kernel to refuse.
    fn judge(
        kernel: Option<KernelVersion>,
        held: Option<u64>,
        needed: &[super::capabilities::Capability],
    ) -> Result<(), RedirectError> {
        if kernel.is_some_and(|found| found < KernelVersion::new(5, 15, 0)) {
            return Err(RedirectError::KernelTooOld {
                found: kernel_version(),
                needed: "5.15",
            });
        }
        match held.map(|held| super::capabilities::missing(held, needed)) {
            Some(missing) if !missing.is_empty() => Err(RedirectError::MissingCapability {
                missing: missing.join(" and "),
            }),
            _ => Ok(()),
        }
    }

    /// The id of a cgroup v2 folder: its inode number.
    pub(crate) fn cgroup_id(path: &Path) -> Result<u64, RedirectError> {
        let wrong = |why: String| {
            RedirectError::NoCgroup {
            path: path.to_path_buf(),
            why,
            fix: match cgroup2_root() {
                Some(root) => format!("cgroup v2 is mounted at {}: give a folder there", root.display()),
                None => "cgroup v2 is not mounted: boot the node with systemd.unified_cgroup_hierarchy=1, or run `mount -t cgroup2 none /sys/fs/cgroup/unified`".to_owned(),
            },
        }
        };
        match statfs(path) {
            Ok(system) if system.filesystem_type() == CGROUP2_SUPER_MAGIC => fs::metadata(path)
                .map(|folder| folder.ino())
                .map_err(|e| wrong(e.to_string())),
            Ok(_) => Err(wrong("it is on another file system".to_owned())),
            Err(e) => Err(wrong(e.desc().to_owned())),
        }
    }

    /// Makes the folder for pins; mounts the BPF file system where it always is, if it is not.
    /// Returns whether the folder is new.
    pub(crate) fn pin_folder(folder: &Path) -> Result<bool, RedirectError> {
        if !on_bpffs(folder) {
            let failed = |source| RedirectError::NoBpffs {
                path: folder.to_path_buf(),
                source,
            };
            if !folder.starts_with(BPFFS) {
                let why =
                    "the folder is not under /sys/fs/bpf, so that it is not for Cairn to mount";
                return Err(failed(io::Error::other(why)));
            }
            mount(
                Some("bpf"),
                BPFFS,
                Some("bpf"),
                MsFlags::empty(),
                Some("mode=0700"),
            )
            .map_err(|e| failed(e.into()))?;
        }
        if folder.is_dir() {
            return Ok(false);
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| RedirectError::Pin {
                path: folder.to_path_buf(),
                doing: "making the folder",
                source,
            })?;
        Ok(true)
    }

    /// Whether the nearest folder that exists is on a BPF file system.
    fn on_bpffs(folder: &Path) -> bool {
        folder
            .ancestors()
            .find_map(|folder| statfs(folder).ok())
            .is_some_and(|system| system.filesystem_type() == BPF_FS_MAGIC)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_kernel_that_is_too_old_is_told_before_what_else_is_missing() {
            let needed = &super::super::capabilities::OF_AN_AGENT;
            let old = KernelVersion::new(5, 14, 21);
            let error = judge(Some(old), Some(0), needed).unwrap_err().to_string();
            assert!(error.contains("too old"), "{error}");
            assert!(error.contains("5.15 or later; upgrade the node"), "{error}");
            let new = KernelVersion::new(5, 15, 0);
            let error = judge(Some(new), Some(0), needed).unwrap_err().to_string();
            assert!(
                error.contains("CAP_BPF and CAP_NET_ADMIN and CAP_SYS_ADMIN"),
                "{error}"
            );
            assert!(error.contains("run it as root"), "{error}");
            assert!(judge(None, None, needed).is_ok(), "then the kernel decides");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::capabilities::*;
    use super::*;

    #[test]
    fn cgroup_v2_is_found_alone_and_beside_v1() {
        let beside = "24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            25 24 0:23 / /sys/fs/cgroup/cpu rw,relatime shared:7 - cgroup cgroup rw,cpu\n\
            26 24 0:24 / /sys/fs/cgroup/unified rw,relatime shared:8 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            mounted(beside, "cgroup2").unwrap(),
            Path::new("/sys/fs/cgroup/unified")
        );
        // In a container: its own part of the hierarchy, and the whole of it where it was mounted in.
        let container = "90 80 0:24 /kubepods.slice/x.scope /sys/fs/cgroup ro - cgroup2 cgroup ro\n\
            91 80 0:24 / /host/cgroup ro - cgroup2 cgroup ro\n";
        assert_eq!(
            mounted(container, "cgroup2").unwrap(),
            Path::new("/host/cgroup")
        );
        let part = container.lines().next().unwrap();
        assert_eq!(
            mounted(part, "cgroup2").unwrap(),
            Path::new("/sys/fs/cgroup")
        );
        let v1_only = "25 24 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(mounted(v1_only, "cgroup2"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let status = |held: &str| effective(&format!("Name:\tx\nCapEff:\t{held}\nCapBnd:\t0\n"));
        let all = status("000001ffffffffff").unwrap();
        assert_eq!(missing(all, &OF_AN_AGENT), [""; 0]);
        assert_eq!(missing(0, &TO_ATTACH), ["CAP_BPF", "CAP_NET_ADMIN"]);
        assert_eq!(
            missing(1 << SYS_ADMIN, &OF_AN_AGENT),
            ["CAP_NET_ADMIN"],
            "as on kernels before CAP_BPF"
        );
        assert_eq!(
            missing(1 << BPF | 1 << NET_ADMIN, &OF_AN_AGENT),
            ["CAP_SYS_ADMIN"]
        );
        assert_eq!(
            missing(all & !(1 << SYS_PTRACE), &TO_FIND_PODS),
            ["CAP_SYS_PTRACE"]
        );
        assert_eq!(status("no number"), None);
    }
}
