//! The agent without a kernel: what it flags, and what it does when workers hang.

use std::os::fd::BorrowedFd;
use std::sync::Mutex;

use cairn_config_schema::resolve::Options;
use cairn_kernel_redirect::{LeftOut, LeftOutReason, ServicesReport};

use super::*;
use crate::publish::Publisher;
use crate::source::SourceFile;

/// Remembers what it was told.
#[derive(Clone, Default)]
struct Kernel(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    services: Vec<FlaggedService>,
    room: Option<usize>,
}

impl Steering for Kernel {
    fn services(&self) -> Result<Vec<FlaggedService>, RedirectError> {
        Ok(self.0.lock().unwrap().services.clone())
    }

    fn named_slots(&self) -> Vec<(u32, SocketAddr)> {
        Vec::new()
    }

    fn pods(&self) -> Result<Vec<u64>, RedirectError> {
        Ok(Vec::new())
    }

    fn set_services(&mut self, wanted: &[FlaggedService]) -> Result<ServicesReport, RedirectError> {
        let mut state = self.0.lock().unwrap();
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

    fn enrol(&mut self, _: &EnrolledPod, _: BorrowedFd<'_>) -> Result<(), RedirectError> {
        Ok(())
    }

    fn suspend(&mut self, _: u64) -> Result<(), RedirectError> {
        Ok(())
    }

    fn withdraw(&mut self, _: u64) -> Result<(), RedirectError> {
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
