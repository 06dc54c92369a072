//! Where the kernel has a pod: its cgroup, found by its uid below the cgroup of all pods, and the network namespace
//! of the processes in it. Goes by what is there now and remembers nothing; who the pods are is not known here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::folder::pod_uid;
use crate::limits::{CGROUP_FOLDERS_MAX, PROCESSES_OF_POD_MAX};
use crate::node::process::Process;

/// Folders between the cgroup of all pods and that of one: one for the class of service (`besteffort`), and more
/// where `--cgroup` names a folder further up, as kind's `/kubelet`.
const DEPTH_MAX: usize = 4;

/// Where runtimes keep namespaces of pods under a name, as `cni-...`: such a path is the pod's as long as it is
/// there, and does not end with a process. In a container one of the two is a folder of its own.
const PINNED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// What tells namespaces apart: device and inode.
type Id = (u64, u64);

/// Where the kernel has a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// Of the namespace.
    id: Id,
}

/// A place for tests, whose namespace is the one of this inode.
#[cfg(test)]
pub(super) fn place(inode: u64, cgroup: &Path) -> Place {
    Place {
        netns: format!("/run/netns/{inode}").into(),
        cgroup: cgroup.to_owned(),
        id: (4, inode),
    }
}

/// What was found of a pod.
#[derive(Debug)]
pub(super) enum Found {
    /// No process of its own yet, or any more.
    Nobody,
    /// It.
    At(Place),
    /// Its processes are there, and where they are can not be told.
    Unclear {
        /// A path by which its namespace would be.
        netns: PathBuf,
        /// Its cgroup.
        cgroup: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What is known of where pods are; a trait, so that the roll can be tested without a kernel.
pub(super) trait Node {
    /// Cgroups of pods by uid; a pod may have several, most of them empty.
    fn cgroups(&mut self) -> BTreeMap<String, Vec<PathBuf>>;

    /// The pod of these cgroups.
    fn find(&mut self, cgroups: &[PathBuf]) -> Found;

    /// Whether the path of the namespace still leads there.
    fn leads(&self, place: &Place) -> bool;
}

/// This node.
#[derive(Debug)]
pub(super) struct ThisNode {
    /// The cgroup of all pods.
    all: PathBuf,
    /// Namespaces that are no pod's: the agent's own, and the host's.
    not_pods: BTreeSet<Id>,
    /// Whether it was said that processes can not be seen.
    told_blind: bool,
}

/// A process in a network namespace of a pod.
#[derive(Debug)]
struct Seen {
    id: Id,
    /// When it was started, in clock ticks since the kernel was.
    started: u64,
    netns: PathBuf,
    cgroup: PathBuf,
}

impl ThisNode {
    /// The node whose pods are below this cgroup.
    pub fn new(all: &Path) -> Self {
        // Of the host only where its processes can be seen; there its first one is no pod's.
        let own = ["/proc/self/ns/net", "/proc/1/ns/net"];
        let ids = own.iter().filter_map(|path| fs::metadata(path).ok());
        Self {
            all: all.to_owned(),
            not_pods: ids.map(|found| (found.dev(), found.ino())).collect(),
            told_blind: false,
        }
    }

    /// The processes of a cgroup and of those below it.
    fn processes(&mut self, cgroup: &Path) -> Vec<u32> {
        let mut found = Vec::new();
        let mut is_blind = false;
        let mut folders = VecDeque::from([cgroup.to_owned()]);
        let mut looked_at = 0;
        while let Some(folder) = folders.pop_front() {
            looked_at += 1;
            if looked_at > CGROUP_FOLDERS_MAX || found.len() >= PROCESSES_OF_POD_MAX {
                break;
            }
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            for id in text.lines().filter_map(|line| line.parse().ok()) {
                match id {
                    // Of another PID namespace, above this one (cgroups(7)).
                    0 => is_blind = true,
                    id => found.push(id),
                }
            }
            folders.extend(folders_in(&folder).into_iter().map(|(_, path)| path));
        }
        if is_blind && found.is_empty() && !std::mem::replace(&mut self.told_blind, true) {
            tracing::error!(cgroup = %cgroup.display(),
                "there are processes of pods that this process can not see: give the agent's pod hostPID: true; until then its pods are not steered");
        }
        found.truncate(PROCESSES_OF_POD_MAX);
        found
    }
}

impl Node for ThisNode {
    fn cgroups(&mut self) -> BTreeMap<String, Vec<PathBuf>> {
        let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        let mut folders = VecDeque::from([(self.all.clone(), 0)]);
        let mut looked_at = 0;
        while let Some((folder, depth)) = folders.pop_front() {
            looked_at += 1;
            if looked_at > CGROUP_FOLDERS_MAX {
                break;
            }
            for (name, path) in folders_in(&folder) {
                match pod_uid(&name) {
                    // Nothing below it is looked at: whoever may make cgroups in his own pod could call one so.
                    Some(uid) => found.entry(uid).or_default().push(path),
                    None if depth < DEPTH_MAX => folders.push_back((path, depth + 1)),
                    None => {}
                }
            }
        }
        found
    }

    fn find(&mut self, cgroups: &[PathBuf]) -> Found {
        let (mut seen, mut unclear) = (Vec::new(), None);
        for cgroup in cgroups {
            for id in self.processes(cgroup) {
                let netns = PathBuf::from(format!("/proc/{id}/ns/net"));
                match see(netns.clone(), cgroup) {
                    // A container is in the host's namespace for the moment in which it is made.
                    Ok(Some(found)) if self.not_pods.contains(&found.id) => {}
                    Ok(Some(found)) => seen.push(found),
                    Ok(None) => {}
                    Err(error) => {
                        let cgroup = cgroup.clone();
                        unclear.get_or_insert(Found::Unclear {
                            netns,
                            cgroup,
                            error,
                        });
                    }
                }
            }
        }
        // Who has no process is looked for ten times a second: names are looked through only for who has one.
        if seen.is_empty() {
            return unclear.unwrap_or(Found::Nobody);
        }
        match best(seen, &pinned()) {
            Some(place) => Found::At(place),
            None => unclear.unwrap_or(Found::Nobody),
        }
    }

    fn leads(&self, place: &Place) -> bool {
        match Process::in_path(&place.netns) {
            Ok(None) => {
                let found = fs::metadata(&place.netns);
                found.is_ok_and(|found| (found.dev(), found.ino()) == place.id)
            }
            // It may be another pod's process by now.
            Ok(Some(_)) => {
                let found = see(place.netns.clone(), &place.cgroup);
                found.is_ok_and(|found| found.is_some_and(|seen| seen.id == place.id))
            }
            Err(_) => false,
        }
    }
}

/// The pod's namespace of those that its processes are in: one that the runtime keeps under a name before others,
/// which a process may have made itself, and that of its oldest process, whom the runtime started.
fn best(seen: Vec<Seen>, pinned: &BTreeMap<Id, PathBuf>) -> Option<Place> {
    let rank = |seen: &Seen| (!pinned.contains_key(&seen.id), seen.started);
    let first = seen.into_iter().min_by_key(rank)?;
    Some(Place {
        netns: match pinned.get(&first.id) {
            Some(path) => path.clone(),
            None => first.netns,
        },
        cgroup: first.cgroup,
        id: first.id,
    })
}

/// The process by this path, if it is there and in the pod's cgroup.
fn see(netns: PathBuf, cgroup: &Path) -> io::Result<Option<Seen>> {
    let look = || {
        let Some(process) = Process::in_path(&netns)? else {
            return Ok(None);
        };
        let found = process.namespace()?.metadata()?;
        let started = process.started()?;
        // Last: all of it was of one process, which is in there after that.
        if process.strays_from(cgroup)?.is_some() {
            return Ok(None);
        }
        Ok(Some((found, started)))
    };
    match look() {
        Ok(Some((found, started))) => Ok(Some(Seen {
            id: (found.dev(), found.ino()),
            started,
            netns,
            cgroup: cgroup.to_owned(),
        })),
        Ok(None) => Ok(None),
        Err(error) if has_ended(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether there is no such process any more (proc(5)).
fn has_ended(error: &io::Error) -> bool {
    let gone = nix::errno::Errno::ESRCH as i32;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(gone)
}

/// Namespaces that are kept under a name.
fn pinned() -> BTreeMap<Id, PathBuf> {
    let mut found = BTreeMap::new();
    for folder in PINNED {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // What is mounted there, not the file below it.
            if let Ok(meta) = fs::metadata(&path) {
                found.entry((meta.dev(), meta.ino())).or_insert(path);
            }
        }
    }
    found
}

/// The folders in one, by name.
fn folders_in(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, entry.path())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "5f0c2c2e-8a0e-4a4d-9b0e-3f1f3f1f3f1f";
    const OTHER: &str = "00000000-8a0e-4a4d-9b0e-3f1f3f1f3f1f";

    #[test]
    fn folders_of_pods_are_found_by_either_driver_and_nothing_inside_of_one() {
        let all = tempfile::tempdir().unwrap();
        let slice = format!("kubepods-besteffort-pod{}.slice", UID.replace('-', "_"));
        let mine = format!("kubepods-besteffort.slice/{slice}");
        let theirs = format!("burstable/pod{OTHER}");
        for folder in [
            // Whoever may make cgroups in his pod makes one that is called like another pod's.
            format!("{mine}/pod{OTHER}"),
            format!("{mine}/cri-containerd-1.scope/kubepods-pod{OTHER}.slice"),
            theirs.clone(),
            "system/a/b/c/d/e".to_owned(),
        ] {
            fs::create_dir_all(all.path().join(folder)).unwrap();
        }
        let found = ThisNode::new(all.path()).cgroups();
        let expected = BTreeMap::from([
            (UID.to_owned(), vec![all.path().join(mine)]),
            (OTHER.to_owned(), vec![all.path().join(theirs)]),
        ]);
        assert_eq!(found, expected);
    }

    fn seen(inode: u64, started: u64) -> Seen {
        Seen {
            id: (4, inode),
            started,
            netns: format!("/proc/{started}/ns/net").into(),
            cgroup: "/c".into(),
        }
    }

    fn chosen(seen: Vec<Seen>, pinned: &[(u64, &str)]) -> Option<PathBuf> {
        let pinned = pinned
            .iter()
            .map(|(inode, path)| ((4, *inode), path.into()));
        best(seen, &pinned.collect()).map(|place| place.netns)
    }

    #[test]
    fn a_pods_namespace_is_the_runtimes_not_one_that_a_process_made() {
        let of = |seen, pinned: &[(u64, &str)]| chosen(seen, pinned).unwrap();
        let both = || vec![seen(2, 200), seen(1, 100)];
        assert_eq!(of(both(), &[]), Path::new("/proc/100/ns/net"), "the oldest");
        let kept = [(2, "/run/netns/cni-2"), (9, "/run/netns/cni-9")];
        assert_eq!(of(both(), &kept), Path::new("/run/netns/cni-2"));
        assert_eq!(chosen(vec![], &kept), None, "of no process");
    }

    #[test]
    fn a_process_that_ended_and_one_of_another_cgroup_are_nobodys() {
        let gone = see("/proc/4194305/ns/net".into(), Path::new("/"));
        assert!(gone.unwrap().is_none());
        let folder = tempfile::tempdir().unwrap();
        let own = format!("/proc/{}/ns/net", std::process::id());
        // Where there is no cgroup of version 2 nobody can tell, which is no answer either.
        if let Ok(found) = see(own.into(), folder.path()) {
            assert!(found.is_none());
        }
    }
}
