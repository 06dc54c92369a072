//! Which pods are enrolled, who serves them, and what of before is forgotten.

use std::path::Path;

use tokio::sync::mpsc;

use super::*;
use crate::listener::steered::PodListener;
use crate::node::enrol_error::EnrolError;
use crate::node::namespace::Inside;
use crate::node::watchdog::HUNG_AFTER;
use crate::node::{Beat, Namespace, Site};
use crate::upstream::Egress;

/// A pod whose namespace is a plain file at `netns`, which nobody enters.
pub fn listed_at(netns: &Path) -> NodePod {
    NodePod {
        host_interface: None,
        name: "web-1".into(),
        namespace: "shop".into(),
        service_account: "web".into(),
        labels: BTreeMap::new(),
        addresses: vec![],
        netns: netns.into(),
        cgroup: "/sys/fs/cgroup/kubepods/web-1".into(),
    }
}

const COOKIE: u64 = 7;

fn inside() -> Inside {
    Inside {
        listener: std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
        cookie: COOKIE,
        ipv6_slots: true,
        addresses: vec!["10.1.0.1".parse().unwrap()],
    }
}

/// Enrols a pod as if its namespace had been visited.
fn take_in(agent: &mut Agent<Kernel>, listed: &NodePod) {
    let namespace = Namespace::open(&listed.netns, &listed.cgroup).unwrap();
    let enrolled = agent.take_in(listed, Site::Pod(namespace), inside(), Egress::nowhere());
    agent.enrolled.insert(listed.key(), enrolled.unwrap());
    agent.wanted = vec![listed.clone()];
}

/// An agent with one worker, and what that worker is sent.
fn with_a_worker(kernel: &Kernel) -> (Agent<Kernel>, mpsc::Receiver<PodListener>) {
    let (pods, taken) = mpsc::channel(8);
    let beat = Arc::default();
    let workers = vec![ServingThread { pods, beat }];
    let in_force = InForce::default();
    let agent = Agent::new(kernel.clone(), place(), in_force, workers, None);
    (complete(agent.unwrap()), taken)
}

#[test]
fn a_pod_whose_worker_hangs_is_enrolled_with_nobody_listening() {
    let kernel = Kernel::default();
    let (mut agent, _taken) = with_a_worker(&kernel);
    agent.watchdog.look(Instant::now() + HUNG_AFTER * 2);
    assert!(!agent.watchdog.is_alive(0));
    let folder = tempfile::tempdir().unwrap();
    let netns = folder.path().join("web-1");
    std::fs::write(&netns, "").unwrap();
    take_in(&mut agent, &listed_at(&netns));
    let suspended = BTreeMap::from([(COOKIE, false)]);
    assert_eq!(kernel.0.lock().unwrap().pods, suspended);
    agent.give_back(0, true);
    assert!(kernel.0.lock().unwrap().pods[&COOKIE]);
}

/// An answer about a link can take seconds while thousands come and go.
#[test]
fn a_hung_worker_is_noticed_while_the_kernel_takes_its_time() {
    let kernel = Kernel::default();
    let (mut agent, _taken) = with_a_worker(&kernel);
    let folder = tempfile::tempdir().unwrap();
    let netns = folder.path().join("web-1");
    std::fs::write(&netns, "").unwrap();
    take_in(&mut agent, &listed_at(&netns));
    let listens = || kernel.0.lock().unwrap().pods[&COOKIE];
    assert!(listens());
    let began = Instant::now();
    let answered = agent.beside(|| {
        while listens() && began.elapsed() < HUNG_AFTER * 10 {
            std::thread::sleep(Duration::from_millis(10));
        }
        listens()
    });
    assert!(!answered.unwrap(), "taken away before it was answered");
}

#[test]
fn a_pod_is_withdrawn_when_it_is_known_to_be_gone_and_not_when_its_path_is() {
    let kernel = Kernel::default();
    let (mut agent, _taken) = with_a_worker(&kernel);
    let known = || kernel.0.lock().unwrap().pods.contains_key(&COOKIE);
    let folder = tempfile::tempdir().unwrap();
    let (netns, other) = (folder.path().join("web-1"), folder.path().join("other"));
    let renew = || {
        std::fs::write(&other, "").unwrap();
        std::fs::rename(&other, &netns).unwrap();
    };
    renew();
    let listed = listed_at(&netns);
    take_in(&mut agent, &listed);

    let moved = folder.path().join("moved");
    std::fs::rename(&netns, &moved).unwrap();
    agent.reconcile();
    assert!(known() && agent.enrolled.contains_key(&listed.key()));
    std::fs::rename(&moved, &netns).unwrap();
    agent.reconcile();
    assert!(known() && agent.enrolled.contains_key(&listed.key()));

    // Listed otherwise, at a path that is not there yet: refused until it is.
    agent.wanted = vec![listed_at(&moved)];
    agent.reconcile();
    assert!(known() && agent.enrolled.is_empty());
    take_in(&mut agent, &listed);
    renew();
    agent.reconcile();
    assert!(!known(), "the path leads to another namespace");

    take_in(&mut agent, &listed);
    agent.wanted = vec![];
    agent.reconcile();
    assert!(!known(), "it is listed no more");
}

/// Labels change with every rollout: that is no reason to refuse a connection.
#[test]
fn a_pod_that_is_listed_otherwise_where_it_was_keeps_its_listener() {
    let kernel = Kernel::default();
    let (mut agent, mut taken) = with_a_worker(&kernel);
    let folder = tempfile::tempdir().unwrap();
    let (netns, also) = (folder.path().join("web-1"), folder.path().join("also"));
    std::fs::write(&netns, "").unwrap();
    std::fs::hard_link(&netns, &also).unwrap();
    take_in(&mut agent, &listed_at(&netns));
    let first = taken.try_recv().unwrap();

    let mut listed = listed_at(&also);
    listed.labels.insert("version".into(), "v2".into());
    listed.addresses = vec!["10.9.0.9".parse().unwrap()];
    agent.wanted = vec![listed.clone()];
    agent.reconcile();
    let second = taken.try_recv().unwrap();
    let at = |listener: &PodListener| listener.socket.local_addr().unwrap();
    assert_eq!(at(&first), at(&second), "the same socket");
    assert_eq!(second.pod.addresses, listed.addresses);
    let workload = second.pod.workload.as_ref().unwrap();
    assert_eq!(&*workload.version, "v2");
    assert!(kernel.0.lock().unwrap().pods[&COOKIE], "without a gap");
    agent.reconcile();
    assert!(taken.try_recv().is_err(), "and then no more");

    // Nobody takes it: it is served as before, and tried again.
    drop(taken);
    let (pods, mut later) = mpsc::channel(8);
    let mut other = listed.clone();
    other.labels.clear();
    agent.wanted = vec![other.clone()];
    agent.reconcile();
    assert!(agent.enrolled[&listed.key()].as_listed == listed);
    agent.workers[0].pods = pods;
    agent.reconcile();
    assert!(agent.enrolled[&listed.key()].as_listed == other);
    assert_eq!(later.try_recv().unwrap().pod.addresses, listed.addresses);
}

#[test]
fn a_pod_that_would_not_be_steered_is_not_enrolled_in_silence() {
    let (kernel, in_force) = (Kernel::default(), InForce::default());
    let mut agent = agent(&kernel, &in_force);
    // Folders will do: what counts is which is below which.
    let cgroups = tempfile::tempdir().unwrap();
    let folder = |name: &str| cgroups.path().join(name);
    for name in ["kubepods/web-1", "system/x"] {
        std::fs::create_dir_all(folder(name)).unwrap();
    }
    std::os::unix::fs::symlink(folder("kubepods"), folder("also")).unwrap();
    agent.place.cgroup = folder("kubepods");
    let netns = folder("netns");
    std::fs::write(&netns, "").unwrap();
    let host = folder("host");
    std::os::unix::fs::symlink("/proc/self/ns/net", &host).unwrap();
    let (netns, host) = (netns.to_str().unwrap(), host.to_str().unwrap());
    for (cgroup, netns, expected) in [
        ("system/x", netns, "is not below"),
        ("kubepods/../system/x", netns, "is not below"),
        ("kubepods/gone", netns, "kubepods/gone: No such file"),
        (
            "kubepods/web-1",
            "/nowhere/netns",
            "/nowhere/netns: No such file",
        ),
        ("kubepods/web-1", host, "is the host's"),
        (
            "kubepods/web-1",
            "/proc/self/ns/net",
            "is that of a process in cgroup",
        ),
        // By its other name it is below; the file is no namespace.
        ("also/web-1", netns, "can not be entered"),
    ] {
        let mut pod = listed_at(Path::new(netns));
        pod.cgroup = folder(cgroup);
        agent.wanted = vec![pod];
        agent.reconcile();
        let words = failing(&agent);
        assert!(words.contains(expected), "{cgroup} {netns}: {words}");
        assert!(
            words.contains("its connections go direct, past policy"),
            "{words}"
        );
    }
    agent.wanted = vec![];
    agent.reconcile();
    assert!(agent.failing.is_empty());
}

/// Why the only pod is not enrolled, and what follows.
fn failing(agent: &Agent<Kernel>) -> String {
    let mut failing = agent.failing.values();
    failing.next().map_or_else(String::new, |f| f.words.clone())
}

#[test]
fn a_pod_that_fails_keeps_what_may_be_it_from_being_forgotten_and_nothing_else() {
    let kernel = Kernel::default();
    kernel.0.lock().unwrap().pods = BTreeMap::from([(1, false), (2, false)]);
    let (mut agent, _taken) = with_a_worker(&kernel);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web-1");
    agent.wanted = vec![listed_at(&path)];
    agent.reconcile();
    // Nobody knows which of the two it is, if it is one.
    assert_eq!(kernel.0.lock().unwrap().pods.len(), 2);
    assert!(failing(&agent).contains("unless the kernel knows it from before"));

    // Once it was enrolled by this agent it is known by its name.
    std::fs::write(&path, "").unwrap();
    take_in(&mut agent, &listed_at(&path));
    agent.wanted = vec![listed_at(&folder.path().join("moved"))];
    agent.reconcile();
    let left: Vec<u64> = kernel.0.lock().unwrap().pods.keys().copied().collect();
    assert_eq!(left, [COOKIE], "the strangers went, and it is not direct");
    assert!(failing(&agent).contains("so each service's failure mode applies"));
}

/// It may be between two of its containers, or have come after what is known was written: it stays refused.
#[test]
fn what_the_kernel_knows_from_before_is_not_forgotten_for_a_list_that_may_lack_it() {
    let kernel = Kernel::default();
    kernel.0.lock().unwrap().pods = BTreeMap::from([(1, false)]);
    let (mut agent, _taken) = with_a_worker(&kernel);
    let known = || kernel.0.lock().unwrap().pods.contains_key(&1);
    let list = |is_complete| PodList {
        pods: vec![],
        is_complete,
    };
    agent.follow(list(false));
    agent.retry();
    assert!(known());
    agent.follow(list(true));
    assert!(!known());
}

#[test]
fn more_pods_than_there_is_room_for_are_told_with_the_remedy() {
    let kernel = Kernel::default();
    kernel.0.lock().unwrap().pods_max = Some(1);
    kernel.0.lock().unwrap().pods = BTreeMap::from([(1, false)]);
    let (mut agent, _taken) = with_a_worker(&kernel);
    let folder = tempfile::tempdir().unwrap();
    let netns = folder.path().join("netns");
    std::fs::write(&netns, "").unwrap();
    let mut pod = listed_at(&netns);
    pod.cgroup = folder.path().into();
    agent.place.cgroup = folder.path().into();
    let namespace = || Site::Pod(Namespace::open(&netns, folder.path()).unwrap());
    let full = agent.enrol_in(&pod, namespace(), Ok(2)).err().unwrap();
    let words = full.to_string();
    assert!(
        words.contains("1 pods are enrolled") && words.contains("--pods-max"),
        "{words}"
    );
    // One that has its place already is not kept out: it fails only at being no namespace.
    let known = agent.enrol_in(&pod, namespace(), Ok(1)).err().unwrap();
    assert!(known.to_string().contains("can not be entered"), "{known}");
}

#[test]
fn policy_sees_the_listed_addresses_and_a_pod_without_any_is_not_enrolled() {
    let kernel = Kernel::default();
    let (mut agent, _taken) = with_a_worker(&kernel);
    let folder = tempfile::tempdir().unwrap();
    let netns = folder.path().join("web-1");
    std::fs::write(&netns, "").unwrap();
    let mut listed = listed_at(&netns);
    listed.addresses = vec!["10.9.0.9".parse().unwrap()];
    take_in(&mut agent, &listed);
    let pod = &agent.enrolled[&listed.key()].pod;
    assert_eq!(
        pod.addresses, listed.addresses,
        "not those of its interfaces"
    );

    let inside = Inside {
        addresses: vec![],
        ..inside()
    };
    let namespace = Namespace::open(&netns, folder.path()).unwrap();
    let without = agent.take_in(
        &listed_at(&netns),
        Site::Pod(namespace),
        inside,
        Egress::nowhere(),
    );
    assert!(matches!(without, Err(EnrolError::NoAddress)));
}

#[test]
fn pods_of_a_worker_that_hangs_or_ended_go_to_another() {
    let kernel = Kernel::default();
    let ((first, taken_first), (second, mut taken)) = (mpsc::channel(8), mpsc::channel(8));
    let (steady, silent) = (Arc::<Beat>::default(), Arc::<Beat>::default());
    let thread = |pods, beat: &Arc<Beat>| ServingThread {
        pods,
        beat: beat.clone(),
    };
    let workers = vec![thread(first, &silent), thread(second, &steady)];
    let mut agent = Agent::new(kernel.clone(), place(), InForce::default(), workers, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let netns = folder.path().join("web-1");
    std::fs::write(&netns, "").unwrap();
    let listed = listed_at(&netns);
    take_in(&mut agent, &listed);
    assert_eq!(agent.enrolled[&listed.key()].worker, Some(0));

    // The second one beats, the first does not.
    let later = Instant::now() + HUNG_AFTER * 2;
    steady.beat(later);
    assert_eq!(agent.watchdog.look(later), [Change::Hung(0)]);
    agent.relieve(0);
    assert_eq!(agent.enrolled[&listed.key()].worker, Some(1));
    assert!(taken.try_recv().is_ok(), "it was handed the listener");
    assert!(kernel.0.lock().unwrap().pods[&COOKIE], "without a gap");

    // Ended, as by a panic, it takes nothing any more, and nobody is left to go to.
    drop(taken_first);
    drop(taken);
    let later = later + HUNG_AFTER * 2;
    assert_eq!(agent.watchdog.look(later), [Change::Hung(1)]);
    agent.relieve(1);
    assert!(
        !kernel.0.lock().unwrap().pods[&COOKIE],
        "refused, not hanging"
    );
    let again = listed_at(&netns);
    agent.enrolled.clear();
    take_in(&mut agent, &again);
    assert_eq!(agent.enrolled[&again.key()].worker, None);
    assert!(
        !kernel.0.lock().unwrap().pods[&COOKIE],
        "known, and refused"
    );
}
