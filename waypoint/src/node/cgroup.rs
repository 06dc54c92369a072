//! Which cgroup is which: by what the folders are, not by what they are called, for one can be mounted
//! at two places. Changes none.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cairn_kernel_redirect::cgroup2_root;

/// Id of the folder above all cgroups.
const ROOT: u64 = 1;

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Whether a cgroup is another one or below it.
pub(super) fn is_below(cgroup: &Path, above: &Path) -> io::Result<bool> {
    let id = |path: &Path| std::fs::metadata(path).map(|found| identity(&found));
    let above = id(above)?;
    let cgroup = cgroup.canonicalize()?;
    Ok(cgroup
        .ancestors()
        .any(|folder| id(folder).is_ok_and(|found| found == above)))
}

/// Ids of a cgroup and of those above it, the innermost first and the root of all left out. `None`
/// where that root is not to be seen, as in a cgroup namespace: then nobody knows how deep it lies.
pub(super) fn lineage(cgroup: &Path) -> io::Result<Option<Vec<u64>>> {
    let cgroup = cgroup.canonicalize()?;
    let system = std::fs::metadata(&cgroup)?.dev();
    let mut ids = Vec::new();
    for folder in cgroup.ancestors() {
        let found = std::fs::metadata(folder)?;
        if found.dev() != system {
            break;
        }
        if found.ino() == ROOT {
            return Ok(Some(ids));
        }
        ids.push(found.ino());
    }
    Ok(None)
}

/// The cgroup that a text of /proc/PID/cgroup names (cgroups(7)).
pub(super) fn named_in(text: &str) -> io::Result<PathBuf> {
    let none = |why| io::Error::new(io::ErrorKind::NotFound, why);
    let root = cgroup2_root().ok_or_else(|| none("cgroup v2 is not mounted"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.ok_or_else(|| none("it is in no cgroup of version 2"))?;
    Ok(root.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_below_those_that_hold_it_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(of("pods/web")).unwrap();
        std::fs::create_dir_all(of("podsother")).unwrap();
        std::os::unix::fs::symlink(of("pods"), of("also")).unwrap();
        let below = |a: &str, b: &str| is_below(&of(a), &of(b)).unwrap();
        assert!(below("pods/web", "pods") && below("pods", "pods") && below("also/web", "pods"));
        assert!(!below("pods", "pods/web") && !below("podsother", "pods"));
        assert!(!below("pods/web/../../podsother", "pods"));
        is_below(&of("gone"), &of("pods")).unwrap_err();
    }

    #[test]
    fn a_folder_without_the_root_of_cgroups_above_it_has_no_lineage() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(lineage(folder.path()).unwrap(), None);
        lineage(&folder.path().join("gone")).unwrap_err();
    }

    #[test]
    fn beside_v1_the_line_of_v2_counts() {
        let Some(root) = cgroup2_root() else { return };
        let text = "4:memory:/x\n0::/kubepods/web\n";
        assert_eq!(named_in(text).unwrap(), root.join("kubepods/web"));
        named_in("4:memory:/x\n").unwrap_err();
    }
}
