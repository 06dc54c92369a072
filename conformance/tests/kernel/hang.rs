//! One worker of several hangs: its pods are served by the other one until they leave, and that one's
//! own pods notice nothing. The worker is stopped as a debugger stops a thread, so that
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
fn a_hung_workers_pods_go_to_another_within_two_seconds() {
    let Some(mut mesh) = Mesh::new() else { return };
    let other = mesh.lab.pod("other");
    mesh.list(&[("client", &mesh.client), ("other", &other)]);
    let agent = mesh.agent();
    let hung = worker_of(&agent, "shop/client");
    assert_ne!(hung, worker_of(&agent, "shop/other"), "{}", agent.stderr());
    let web = |pod: &Pod| curl(pod, &["http://10.96.0.10/"]).1;
    assert!(web(&mesh.client).ends_with(" 200\n"));

    let stopped = Stopped::thread(&agent, &hung);
    let since = Instant::now();
    // Who connects meanwhile waits at the listener, which both workers have then.
    assert!(web(&mesh.client).ends_with(" 200\n"), "by the other one");
    let took = since.elapsed();
    // 2 s, and one more for machines that share their cores.
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(web(&other).ends_with(" 403\n"));
    let listening = || mesh.status().pods.iter().filter(|p| p.listening).count();
    assert_eq!(listening(), 2, "nothing was taken away");
    let log = agent.stderr();
    assert!(log.contains("pod moved to another worker"), "{log}");

    drop(stopped);
    until("it is back", DEADLINE, || {
        agent.stderr().contains("worker is back")
    });
    for _ in 0..4 {
        assert!(web(&mesh.client).ends_with(" 200\n"));
        assert!(web(&other).ends_with(" 403\n"));
    }
}

/// The process runs, so this is the agent's own watchdog and not the guard beside it.
#[test]
fn where_every_worker_hangs_each_service_has_what_it_asked_for_within_two_seconds() {
    let Some(mesh) = Mesh::new() else { return };
    let agent = mesh.agent();
    let stopped = ["worker-0", "worker-1"].map(|name| Stopped::thread(&agent, name));
    let since = Instant::now();
    until("the listener is taken away", DEADLINE, || {
        mesh.status().pods.iter().all(|pod| !pod.listening)
    });
    let took = since.elapsed();
    // 2 s, and one more for machines that share their cores.
    assert!(took < Duration::from_secs(3), "{took:?}");
    let log = agent.stderr();
    assert!(
        log.contains("worker hangs") && !log.contains("stands still"),
        "{log}"
    );
    let client = &mesh.client;
    assert_eq!(curl(client, &["http://10.96.0.10/"]).0, REFUSED);
    assert!(
        curl(client, &["http://10.96.0.12/"])
            .1
            .contains("\"direct\"")
    );
    assert!(
        curl(client, &["http://10.96.0.11/"]).1.contains("\"raw\""),
        "untouched"
    );

    drop(stopped);
    until("it is steered to again", DEADLINE, || {
        curl(client, &["http://10.96.0.10/"]).1.ends_with(" 200\n")
    });
    assert!(curl(client, &["http://10.96.0.12/"]).1.contains("\"open\""));
}
