//! What laboratories leave: removes namespaces, cgroups and pins, those of a killed run too. Makes
//! nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use cairn_kernel_redirect::{Place, Redirect, cgroup2_root};

use super::{PREFIX, in_time, run};

/// Its interfaces go with it, but only when the last process inside is gone.
pub fn remove_namespace(name: &str) {
    let _ = run(Command::new("ip").args(["netns", "del", name]));
}

/// Kills what is left in a cgroup and removes it and those below.
pub fn remove_cgroup(cgroup: &Path) {
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    // A cgroup is busy until its processes are reaped, of which nobody tells.
    let _ = in_time(|| remove_folders(cgroup));
}

fn remove_folders(folder: &Path) -> bool {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_folders(&entry.path());
        }
    }
    fs::remove_dir(folder).is_ok() || !folder.exists()
}

/// Removes what laboratories of processes left that are gone.
pub fn sweep() {
    let Some(root) = cgroup2_root() else {
        return;
    };
    for name in left_in(Path::new("/sys/fs/bpf")) {
        let place = Place {
            bpffs: Path::new("/sys/fs/bpf").join(name),
            cgroup: root.clone(),
        };
        let _ = Redirect::detach(&place);
    }
    for name in left_in(Path::new("/run/netns")) {
        remove_namespace(&name);
    }
    for name in left_in(&root) {
        remove_cgroup(&root.join(name));
    }
}

/// Names in a folder that belong to laboratories whose process is gone.
fn left_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            let mut parts = name.split('-');
            parts.next() == Some(PREFIX)
                && parts
                    .next()
                    .is_some_and(|process| !Path::new("/proc").join(process).exists())
        })
        .collect()
}
