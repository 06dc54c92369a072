//! The agent without a kernel: what it flags, and when it lets go of what was before.

mod kernel;
mod pods;

use std::path::Path;

use cairn_config_schema::resolve::Options;

use self::kernel::Kernel;
use self::pods::listed_at;
use super::*;
use crate::listener::admit::{Asked, Refusal};
use crate::publish::Publisher;
use crate::source::SourceFile;

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
    let agent = Agent::new(kernel.clone(), place(), in_force.clone(), vec![], None);
    complete(agent.unwrap())
}

/// An agent whose list of pods has everybody, as a file's has.
fn complete(mut agent: Agent<Kernel>) -> Agent<Kernel> {
    agent.wanted_is_complete = true;
    agent
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
    let refusal = in_force.runtime.load().find(&steered, Some("shop")).err();
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

#[test]
fn another_layout_is_let_go_once_services_are_flagged_and_its_pods_stay_known() {
    let (kernel, in_force) = (Kernel::default(), InForce::default());
    let mut publisher = Publisher::new(Options::default(), in_force.clone());
    kernel.0.lock().unwrap().pods = BTreeMap::from([(3, false)]);
    let mut agent = agent(&kernel, &in_force);
    publish(&mut publisher, MESH);
    kernel.0.lock().unwrap().fails = true;
    agent.flag_services();
    agent.wanted = vec![listed_at(Path::new("/nowhere/netns"))];
    agent.reconcile();
    agent.settle();
    assert_eq!(
        kernel.0.lock().unwrap().settled,
        0,
        "nothing is flagged yet"
    );

    kernel.0.lock().unwrap().fails = false;
    agent.retry();
    agent.retry();
    let known = || kernel.0.lock().unwrap().pods.contains_key(&3);
    assert_eq!(kernel.0.lock().unwrap().settled, 1, "once");
    assert!(known(), "it may be the pod that is not there yet");
    agent.wanted = vec![];
    agent.retry();
    assert!(!known());
}

#[test]
fn a_fresh_agent_that_can_not_choose_a_gateway_refuses_what_names_one() {
    let (kernel, in_force) = (Kernel::default(), InForce::default());
    let mut publisher = Publisher::new(Options::default(), in_force.clone());
    let gateway = MESH.split("---").next().unwrap();
    let second = gateway.replace("name: waypoint", "name: another");
    let other = "---
apiVersion: v1
kind: Service
metadata: {name: nobodys, namespace: shop}
spec: {clusterIP: 10.96.1.9, ports: [{name: http, port: 80}]}
";
    publish(&mut publisher, &format!("{MESH}{API}---{second}{other}"));
    let mut agent = agent(&kernel, &in_force);
    agent.flag_services();
    assert!(agent.told_unknown && !agent.ever_known);
    let addresses = |kernel: &Kernel| -> Vec<String> {
        let rows = flagged(kernel).into_iter();
        rows.map(|row| row.0).collect()
    };
    let all = ["10.96.1.1:80", "10.96.1.1:5432", "10.96.1.2:80"];
    assert_eq!(
        addresses(&kernel),
        all,
        "whatever names a Gateway, and nothing else"
    );

    publish(&mut publisher, &format!("{MESH}{API}{other}"));
    agent.flag_services();
    assert_eq!(
        addresses(&kernel),
        ["10.96.1.1:80", "10.96.1.2:80"],
        "now it is known"
    );
    publish(&mut publisher, &format!("{MESH}{API}---{second}{other}"));
    agent.flag_services();
    assert_eq!(
        addresses(&kernel),
        ["10.96.1.1:80", "10.96.1.2:80"],
        "and stays"
    );
}
