//! The agent without a kernel: what it flags, and what it does when workers hang.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Mutex;

use cairn_config_schema::resolve::Options;
use cairn_kernel_redirect::{EnrolledPod, LeftOut, LeftOutReason, ServicesReport};

use super::*;
use crate::listener::admit::{Asked, Refusal};
use crate::node::Namespace;
use crate::node::namespace::Inside;
use crate::node::watchdog::HUNG_AFTER;
use crate::publish::Publisher;
use crate::source::SourceFile;
use crate::upstream::Egress;

/// Remembers what it was told.
#[derive(Clone, Default)]
struct Kernel(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    services: Vec<FlaggedService>,
    room: Option<usize>,
    fails: bool,
    /// Enrolled pods, and whether somebody listens for them.
    pods: BTreeMap<u64, bool>,
}

impl Steering for Kernel {
    fn services(&self) -> Result<Vec<FlaggedService>, RedirectError> {
        Ok(self.0.lock().unwrap().services.clone())
    }

    fn named_slots(&self) -> Vec<(u32, SocketAddr)> {
        Vec::new()
    }

    fn pods(&self) -> Result<Vec<u64>, RedirectError> {
        Ok(self.0.lock().unwrap().pods.keys().copied().collect())
    }

    fn set_services(&mut self, wanted: &[FlaggedService]) -> Result<ServicesReport, RedirectError> {
        let mut state = self.0.lock().unwrap();
        if state.fails {
            return Err(RedirectError::Pin {
                path: "/nowhere".into(),
                doing: "writing",
                source: std::io::ErrorKind::Other.into(),
            });
        }
        let room = state.room.unwrap_or(usize::MAX);
        state.services = wanted.iter().take(room).copied().collect();
        let left_out = wanted.iter().skip(room).map(|service| LeftOut {
            service: *service,
            reason: LeftOutReason::MapFull,
        });
        Ok(ServicesReport {
            left_out: left_out.collect(),
            ..ServicesReport::default()
        })
    }

    fn enrol(&mut self, pod: &EnrolledPod, _: BorrowedFd<'_>) -> Result<(), RedirectError> {
        let mut state = self.0.lock().unwrap();
        state.pods.insert(pod.netns_cookie, true);
        Ok(())
    }

    fn suspend(&mut self, netns_cookie: u64) -> Result<(), RedirectError> {
        let mut state = self.0.lock().unwrap();
        state.pods.entry(netns_cookie).and_modify(|l| *l = false);
        Ok(())
    }

    fn withdraw(&mut self, netns_cookie: u64) -> Result<(), RedirectError> {
        self.0.lock().unwrap().pods.remove(&netns_cookie);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), RedirectError> {
        Ok(())
    }
}

const MESH: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: cairn-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.1.1, ports: [{name: http, port: 80}, {name: tcp-db, port: 5432}]}
";

const API: &str = "---
apiVersion: v1
kind: Service
metadata:
  name: api
  namespace: shop
  labels: {istio.io/use-waypoint: waypoint}
  annotations: {cairn.dev/redirect-failure: open}
spec: {clusterIP: 10.96.1.2, ports: [{name: http, port: 80}]}
";

fn publish(publisher: &mut Publisher, yaml: &str) {
    let file = SourceFile {
        path: "mesh.yaml".into(),
        text: Ok(yaml.into()),
    };
    publisher.publish(&[file], Instant::now());
}

fn place() -> Place {
    Place {
        bpffs: "/nowhere".into(),
        cgroup: "/sys/fs/cgroup/kubepods".into(),
    }
}

fn agent(kernel: &Kernel, in_force: &InForce) -> Agent<Kernel> {
    Agent::new(kernel.clone(), place(), in_force.clone(), vec![], None).unwrap()
}

fn flagged(kernel: &Kernel) -> Vec<(String, u32, bool)> {
    let state = kernel.0.lock().unwrap();
    let row = |s: &FlaggedService| (format!("{}:{}", s.address, s.port), s.slot, s.fail_open);
    state.services.iter().map(row).collect()
}

#[test]
fn flagged_services_follow_the_configuration() {
    let (kernel, in_force) = (Kernel::default(), InForce::default());
    let mut publisher = Publisher::new(Options::default(), in_force.clone());
    let mut agent = agent(&kernel, &in_force);
    publish(&mut publisher, &format!("{MESH}{API}"));
    agent.flag_services();
    let both = [
        ("10.96.1.1:80".to_owned(), 1, false),
        ("10.96.1.2:80".to_owned(), 2, true),
    ];
    assert_eq!(flagged(&kernel), both, "and not the TCP port");
    let slots = agent.shared.load();
    assert_eq!(slots.address(2), Some("10.96.1.2:80".parse().unwrap()));

    publish(&mut publisher, MESH);
    agent.flag_services();
    assert_eq!(flagged(&kernel), [both[0].clone()]);
}

#[test]
fn an_agent_that_starts_again_keeps_the_slots_that_are_in_the_kernel() {
    let (kernel, in_force) = (Kernel::default(), InForce::default());
    kernel.0.lock().unwrap().services = vec![FlaggedService {
        address: "10.96.1.1".parse().unwrap(),
        port: 80,
        fail_open: false,
        slot: 41,
    }];
    let mut publisher = Publisher::new(Options::default(), in_force.clone());
    publish(&mut publisher, &format!("{MESH}{API}"));
    agent(&kernel, &in_force).flag_services();
    let slots: Vec<u32> = flagged(&kernel).iter().map(|row| row.1).collect();
    assert_eq!(slots, [41, 42]);
}

#[test]
fn a_full_map_is_no_secret() {
    let (kernel, in_force) = (Kernel::default(), InForce::default());
    kernel.0.lock().unwrap().room = Some(1);
    let mut publisher = Publisher::new(Options::default(), in_force.clone());
    publish(&mut publisher, &format!("{MESH}{API}"));
    let mut agent = agent(&kernel, &in_force);
    agent.flag_services();
    assert_eq!(agent.left_out, 1);
}

#[test]
fn without_a_gateway_to_choose_what_is_flagged_stays() {
    let (kernel, in_force) = (Kernel::default(), InForce::default());
    let mut publisher = Publisher::new(Options::default(), in_force.clone());
    let mut agent = agent(&kernel, &in_force);
    publish(&mut publisher, MESH);
    agent.flag_services();
    let web = [("10.96.1.1:80".to_owned(), 1, false)];
    assert_eq!(flagged(&kernel), web);

    let gateway = MESH.split("---").next().unwrap();
    let second = gateway.replace("name: waypoint", "name: another");
    publish(&mut publisher, &format!("{MESH}---{second}"));
    agent.flag_services();
    assert_eq!(flagged(&kernel), web, "which of the two is not known");
    assert!(agent.told_unknown);
    let steered = Asked::Address("10.96.1.1:80".parse().unwrap());
    let refusal = in_force.runtime.load().find(&steered).err();
    assert_eq!(refusal, Some(Refusal::NoGateway));

    publish(&mut publisher, &MESH.replace(gateway, ""));
    agent.flag_services();
    assert_eq!(flagged(&kernel), [], "no Gateway at all");
    assert!(!agent.told_unknown);
}

#[test]
fn what_could_not_be_flagged_is_tried_again() {
    let (kernel, in_force) = (Kernel::default(), InForce::default());
    let mut publisher = Publisher::new(Options::default(), in_force.clone());
    let mut agent = agent(&kernel, &in_force);
    publish(&mut publisher, MESH);
    kernel.0.lock().unwrap().fails = true;
    agent.flag_services();
    agent.retry();
    assert_eq!(flagged(&kernel), []);
    kernel.0.lock().unwrap().fails = false;
    agent.retry();
    assert_eq!(flagged(&kernel).len(), 1);
    assert_eq!(agent.unflagged, None, "and then no more");
}

/// A pod whose namespace is a plain file at `netns`, which nobody enters.
fn listed_at(netns: &Path) -> NodePod {
    NodePod {
        name: "web-1".into(),
        namespace: "shop".into(),
        service_account: "web".into(),
        labels: BTreeMap::new(),
        netns: netns.into(),
        cgroup: "/sys/fs/cgroup/kubepods/web-1".into(),
    }
}

const COOKIE: u64 = 7;

/// Enrols a pod as if its namespace had been visited.
fn take_in(agent: &mut Agent<Kernel>, listed: &NodePod) {
    let inside = Inside {
        listener: std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
        cookie: COOKIE,
        addresses: vec!["10.1.0.1".parse().unwrap()],
    };
    let namespace = Namespace::open(&listed.netns).unwrap();
    let enrolled = agent.take_in(listed, namespace, inside, Egress::nowhere());
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
    (agent.unwrap(), taken)
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

#[test]
fn a_pod_that_would_not_be_steered_is_not_enrolled_in_silence() {
    let (kernel, in_force) = (Kernel::default(), InForce::default());
    let mut agent = agent(&kernel, &in_force);
    let pod = |cgroup: &str, netns: &str| NodePod {
        name: "web-1".into(),
        namespace: "shop".into(),
        service_account: "web".into(),
        labels: BTreeMap::new(),
        netns: netns.into(),
        cgroup: cgroup.into(),
    };
    let inside = "/sys/fs/cgroup/kubepods/web-1";
    for (pod, expected) in [
        (
            pod("/sys/fs/cgroup/system/x", "/run/netns/x"),
            "is not below",
        ),
        (
            pod(inside, "/nowhere/netns"),
            "/nowhere/netns: No such file",
        ),
        (pod(inside, "/proc/self/ns/net"), "is the host's"),
    ] {
        agent.wanted = vec![pod];
        agent.reconcile();
        let words: Vec<_> = agent.failing.values().collect();
        assert!(words[0].contains(expected), "{words:?}");
    }
    agent.wanted = vec![];
    agent.reconcile();
    assert!(agent.failing.is_empty());
}
