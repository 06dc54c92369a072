//! A process by which a pod's namespace is listed, as `/proc/PID/ns/net`: whether it is the pod's. A
//! process id is given to another process when its own has ended, of another pod maybe, so that the
//! path says nothing about whose namespace it leads to.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use super::cgroup;

/// Its folder in /proc, open: what is reached through it is of this very process, and gone when that
/// has ended, whoever has its id then.
#[derive(Debug)]
pub(super) struct Process {
    folder: File,
}

impl Process {
    /// The process that a namespace's path goes by, if it goes by one.
    pub(super) fn in_path(netns: &Path) -> io::Result<Option<Self>> {
        let of_it = |path: &Path| {
            path.ends_with("ns/net")
                .then(|| path.parent()?.parent().map(Path::to_path_buf))
        };
        let Some(folder) = of_it(netns).flatten() else {
            return Ok(None);
        };
        if statfs(&folder)?.filesystem_type() != PROC_SUPER_MAGIC {
            return Ok(None);
        }
        let folder = File::open(folder)?;
        Ok(Some(Self { folder }))
    }

    fn path(&self, of: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{of}", self.folder.as_raw_fd()).into()
    }

    /// Its network namespace.
    pub(super) fn namespace(&self) -> io::Result<File> {
        File::open(self.path("ns/net"))
    }

    /// When it was started, in clock ticks since the kernel was (field 22 of proc_pid_stat(5)).
    pub(super) fn started(&self) -> io::Result<u64> {
        let mut text = String::new();
        File::open(self.path("stat"))?.read_to_string(&mut text)?;
        // Its name, in brackets, may hold anything; the next field is the third.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = fields.split_ascii_whitespace().nth(19);
        let number = field.and_then(|field| field.parse().ok());
        number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no time of its start"))
    }

    /// The cgroup it is in, unless that is the pod's or below it.
    pub(super) fn strays_from(&self, pods: &Path) -> io::Result<Option<PathBuf>> {
        let mut text = String::new();
        File::open(self.path("cgroup"))?.read_to_string(&mut text)?;
        let own = cgroup::named_in(&text)?;
        Ok((!cgroup::is_below(&own, pods)?).then_some(own))
    }
}

/// Whether a namespace was opened by way of a process, and not where it is mounted: the kernel shows
/// only the latter with their path (nsfs).
pub(super) fn led_by_a_process(namespace: &File) -> bool {
    let shown = std::fs::read_link(format!("/proc/self/fd/{}", namespace.as_raw_fd()));
    shown.is_ok_and(|shown| shown.to_string_lossy().starts_with("net:["))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_in_proc_goes_by_a_process() {
        let own = format!("/proc/{}/ns/net", std::process::id());
        for (path, expected) in [
            (own.as_str(), true),
            ("/proc/self/ns/net", true),
            ("/run/netns/web", false),
            ("/tmp/ns/net", false),
        ] {
            let found = Process::in_path(Path::new(path));
            assert_eq!(found.is_ok_and(|p| p.is_some()), expected, "{path}");
        }
        Process::in_path(Path::new("/proc/0/ns/net")).unwrap_err();
        assert!(led_by_a_process(&File::open(own).unwrap()));
        assert!(!led_by_a_process(&File::open("/proc/self/stat").unwrap()));
    }

    #[test]
    fn a_process_was_started_after_its_parent() {
        let started = |id: u32| {
            let path = format!("/proc/{id}/ns/net");
            let process = Process::in_path(Path::new(&path)).unwrap().unwrap();
            process.started().unwrap()
        };
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(started(child.id()) >= started(std::process::id()));
        assert!(started(std::process::id()) > 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_a_process_had_is_gone_with_it() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let path = format!("/proc/{}/ns/net", child.id());
        let process = Process::in_path(Path::new(&path)).unwrap().unwrap();
        process.namespace().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        process.namespace().unwrap_err();
        process.strays_from(Path::new("/")).unwrap_err();
    }
}
