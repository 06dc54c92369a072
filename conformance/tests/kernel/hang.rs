//! One worker of several hangs: its pods' connections are refused, or go direct, until it goes on;
//! the other worker's pods notice nothing. The worker is stopped as a debugger stops a thread, so that
//! the product needs no switch for it.

use std::fs;
use std::time::{Duration, Instant};

use cairn_conformance::process::Process;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::lab::Pod;
use crate::mesh::{DEADLINE, Mesh, REFUSED, curl, until};

/// A thread that stands still until it is dropped. The kernel lets it go on by itself if whoever
/// stopped it ends.
struct Stopped(Pid);

impl Stopped {
    fn thread(process: &Process, name: &str) -> Self {
        let tasks = format!("/proc/{}/task", process.id());
        let thread = fs::read_dir(tasks).unwrap().find_map(|task| {
            let task = task.unwrap();
            let comm = fs::read_to_string(task.path().join("comm")).unwrap();
            (comm.trim() == name).then(|| task.file_name().into_string().unwrap())
        });
        let thread = Pid::from_raw(thread.expect("the thread").parse().unwrap());
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Gone with its process, if this fails.
        let _ = ptrace::detach(self.0, None);
    }
}

/// The worker that serves a pod, as the log says.
fn worker_of(agent: &Process, pod: &str) -> String {
    let log = agent.stderr();
    let line = log
        .lines()
        .find(|line| line.contains("pod enrolled") && line.contains(pod));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    let (_, worker) = line.rsplit_once("worker").unwrap();
    let number: String = worker.chars().filter(char::is_ascii_digit).collect();
    format!("worker-{number}")
}

#[test]
fn a_hung_worker_loses_its_pods_within_two_seconds_and_no_other_does() {
    let Some(mut mesh) = Mesh::new() else { return };
    let other = mesh.lab.pod("other");
    mesh.list(&[("client", &mesh.client), ("other", &other)]);
    let agent = mesh.agent();
    let hung = worker_of(&agent, "shop/client");
    assert_ne!(hung, worker_of(&agent, "shop/other"), "{}", agent.stderr());
    let web = |pod: &Pod| curl(pod, &["http://10.96.0.10/"]);
    let open = |pod: &Pod| curl(pod, &["http://10.96.0.12/"]).1;
    assert!(web(&mesh.client).1.ends_with(" 200\n"));

    let stopped = Stopped::thread(&agent, &hung);
    let since = Instant::now();
    let listening = || mesh.status().pods.iter().filter(|p| p.listening).count();
    until("its listener is taken away", DEADLINE, || {
        // Nobody else's, at any time, and whoever it serves is served.
        assert!(web(&other).1.ends_with(" 403\n"));
        listening() == 1
    });
    let took = since.elapsed();
    // 2 s, and one more for machines that share their cores.
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(web(&mesh.client).0, REFUSED, "as the service asks for");
    assert!(
        open(&mesh.client).contains("\"direct\""),
        "so does this one"
    );
    assert!(web(&other).1.ends_with(" 403\n"));
    assert!(open(&other).contains("\"open\""));

    drop(stopped);
    until("it is steered to again", DEADLINE, || {
        web(&mesh.client).1.ends_with(" 200\n")
    });
    assert!(open(&mesh.client).contains("\"open\""));
    let log = agent.stderr();
    assert!(
        log.contains("worker hangs") && log.contains("worker is back"),
        "{log}"
    );
}
