//! Who is on the roll while pods come, start late, end, and are deleted with or without their processes.

use super::*;
use crate::node::cluster::find::place as place_of;

/// A node by hand: cgroups by uid, with the namespace that is found by them.
#[derive(Default)]
pub struct ByHand {
    /// By uid; `None`: its folder is there, and no process in it.
    pub pods: BTreeMap<String, Option<u64>>,
    /// Namespaces whose path leads nowhere any more.
    pub lost: BTreeSet<u64>,
    pub is_refused: bool,
}

impl Node for ByHand {
    fn cgroups(&mut self) -> BTreeMap<String, Vec<PathBuf>> {
        let folder = |uid: &String| (uid.clone(), vec![PathBuf::from(format!("/c/{uid}"))]);
        self.pods.keys().map(folder).collect()
    }

    fn find(&mut self, cgroups: &[PathBuf]) -> Found {
        let Some(cgroup) = cgroups.first() else {
            return Found::Nobody;
        };
        let uid = cgroup.file_name().unwrap().to_str().unwrap();
        match self.pods[uid] {
            None => Found::Nobody,
            Some(_) if self.is_refused => Found::Unclear {
                netns: "/proc/7/ns/net".into(),
                cgroup: cgroup.clone(),
                error: std::io::ErrorKind::PermissionDenied.into(),
            },
            Some(inode) => Found::At(place_of(inode, cgroup)),
        }
    }

    fn leads(&self, place: &Place) -> bool {
        let mut lost = self.lost.iter();
        !lost.any(|inode| place_of(*inode, &place.cgroup) == *place)
    }
}

pub fn pod(uid: &str, name: &str) -> PodOfNode {
    PodOfNode {
        uid: uid.into(),
        namespace: "shop".into(),
        name: name.into(),
        service_account: "web".into(),
        labels: BTreeMap::new(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        host_network: false,
        has_ended: false,
    }
}

/// Names of those on the roll, with the path of their namespace.
fn names(called: &Called) -> Vec<(String, String)> {
    let name = |pod: &NodePod| (pod.name.clone(), pod.netns.display().to_string());
    called.pods.iter().map(name).collect()
}

fn at(name: &str, inode: u64) -> (String, String) {
    (name.to_owned(), format!("/run/netns/{inode}"))
}

#[test]
fn a_pod_is_on_it_once_its_processes_are_there_and_told_of_when_they_are_late() {
    let (mut roll, mut node) = (Roll::default(), ByHand::default());
    let start = Instant::now();
    roll.take(vec![pod("u1", "web")], start);
    let called = roll.call(&mut node, start);
    assert_eq!((called.awaited, called.overdue), (1, 0));
    assert!(called.pods.is_empty() && roll.is_waiting());

    node.pods.insert("u1".into(), None);
    let called = roll.call(&mut node, start + LATE);
    assert_eq!((called.awaited, called.overdue), (0, 1));
    assert!(roll.is_waiting(), "looked for as often as before");

    node.pods.insert("u1".into(), Some(4));
    let called = roll.call(&mut node, start + LATE * 2);
    assert_eq!(names(&called), [at("web", 4)]);
    assert_eq!((called.awaited, called.overdue), (0, 0));
    assert!(!roll.is_waiting());
    assert_eq!(called.pods[0].service_account, "web");
    assert_eq!(called.pods[0].addresses, pod("u1", "web").addresses);
}

/// Deleted by force, a pod is no object any more, and its processes go on until the kubelet ends them.
#[test]
fn a_pod_stays_until_its_last_process_has_ended() {
    let (mut roll, mut node) = (Roll::default(), ByHand::default());
    let now = Instant::now();
    node.pods.insert("u1".into(), Some(4));
    roll.take(vec![pod("u1", "web")], now);
    roll.call(&mut node, now);

    roll.take(vec![], now);
    let called = roll.call(&mut node, now);
    assert_eq!((names(&called), called.lingering), (vec![at("web", 4)], 1));
    node.pods.insert("u1".into(), None);
    let called = roll.call(&mut node, now);
    assert_eq!((names(&called), called.lingering), (vec![], 0));

    // So does one that the API server has as ended.
    let ended = || PodOfNode {
        has_ended: true,
        ..pod("u2", "job")
    };
    node.pods.insert("u2".into(), Some(5));
    roll.take(vec![pod("u2", "job")], now);
    roll.call(&mut node, now);
    roll.take(vec![ended()], now);
    assert_eq!(names(&roll.call(&mut node, now)), [at("job", 5)]);
    node.pods.remove("u2");
    assert_eq!(names(&roll.call(&mut node, now)), []);
    roll.take(vec![ended()], now);
    assert_eq!(roll.call(&mut node, now), Called::default());

    // Also one that an agent hears of only as ended, or that it knows from an earlier one alone.
    node.pods.insert("u2".into(), Some(5));
    node.pods.insert("u3".into(), Some(6));
    let mut roll = Roll::default();
    roll.take(vec![pod("u3", "web"), pod("u4", "gone")], now);
    roll.take(vec![ended()], now);
    let called = roll.call(&mut node, now);
    assert_eq!(names(&called), [at("job", 5), at("web", 6)]);
    assert_eq!((called.lingering, called.awaited), (2, 0));
    let uids: Vec<&str> = roll.lingering().map(|pod| &*pod.uid).collect();
    assert_eq!(uids, ["u2", "u3"]);
}

/// As with a sandbox that ends and one that is made in its place.
#[test]
fn a_pod_whose_namespace_is_lost_stays_where_it_was_until_it_is_found_elsewhere() {
    let (mut roll, mut node) = (Roll::default(), ByHand::default());
    let now = Instant::now();
    node.pods.insert("u1".into(), Some(4));
    roll.take(vec![pod("u1", "web")], now);
    roll.call(&mut node, now);
    node.lost.insert(4);
    node.pods.insert("u1".into(), None);
    let called = roll.call(&mut node, now + LATE * 2);
    assert_eq!(names(&called), [at("web", 4)]);
    node.pods.insert("u1".into(), Some(5));
    assert_eq!(names(&roll.call(&mut node, now)), [at("web", 5)]);
}

/// The agent then says why it can not be enrolled, and keeps what the kernel knows from before.
#[test]
fn a_pod_that_can_not_be_looked_at_is_on_it_all_the_same() {
    let (mut roll, mut node) = (Roll::default(), ByHand::default());
    let now = Instant::now();
    node.is_refused = true;
    node.pods.insert("u1".into(), Some(4));
    roll.take(vec![pod("u1", "web")], now);
    let called = roll.call(&mut node, now);
    assert_eq!(names(&called), [("web".into(), "/proc/7/ns/net".into())]);
    node.is_refused = false;
    assert_eq!(names(&roll.call(&mut node, now)), [at("web", 4)]);
}

#[test]
fn a_name_is_the_pods_that_the_api_server_has() {
    let (mut roll, mut node) = (Roll::default(), ByHand::default());
    let now = Instant::now();
    node.pods.insert("u1".into(), Some(4));
    roll.take(vec![pod("u1", "db-0")], now);
    roll.call(&mut node, now);
    // Its successor has its name, and no processes yet.
    roll.take(vec![pod("u2", "db-0")], now);
    assert_eq!(names(&roll.call(&mut node, now)), [at("db-0", 4)]);
    node.pods.insert("u2".into(), Some(5));
    let called = roll.call(&mut node, now);
    assert_eq!((names(&called), called.lingering), (vec![at("db-0", 5)], 1));
}

#[test]
fn pods_on_the_hosts_network_and_those_without_an_identity_are_left_out() {
    let (mut roll, mut node) = (Roll::default(), ByHand::default());
    let now = Instant::now();
    let on_host = PodOfNode {
        host_network: true,
        ..pod("u1", "proxy")
    };
    let fixed = PodOfNode {
        service_account: String::new(),
        ..pod("u2", "static")
    };
    for uid in ["u1", "u2"] {
        node.pods.insert(uid.into(), Some(1));
    }
    roll.take(vec![on_host.clone(), fixed.clone()], now);
    let called = roll.call(&mut node, now);
    assert_eq!(names(&called), []);
    assert_eq!((called.left_out, called.awaited), (2, 0));
    let ended = [on_host, fixed].map(|pod| PodOfNode {
        has_ended: true,
        ..pod
    });
    roll.take(ended.into(), now);
    assert_eq!(roll.call(&mut node, now), Called::default());
}

#[test]
fn new_labels_are_listed_at_once() {
    let (mut roll, mut node) = (Roll::default(), ByHand::default());
    let now = Instant::now();
    node.pods.insert("u1".into(), Some(4));
    roll.take(vec![pod("u1", "web")], now);
    roll.call(&mut node, now);
    let mut labelled = pod("u1", "web");
    labelled.labels.insert("version".into(), "v2".into());
    roll.take(vec![labelled], now);
    let called = roll.call(&mut node, now);
    assert_eq!(called.pods[0].labels["version"], "v2");
    assert_eq!(names(&called), [at("web", 4)]);
}
