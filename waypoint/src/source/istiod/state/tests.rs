//! What is known after istiod told this and that, within bounds.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::limits::XDS_IDENTITIES_MAX;
use crate::source::istiod::messages::{Address, AddressKind, Any, Service, Workload};

fn resource(name: &str, version: u32, kind: AddressKind) -> Resource {
    Resource {
        name: name.into(),
        version: version.to_string(),
        resource: Some(Any {
            type_url: ADDRESS_TYPE.into(),
            value: Address { kind: Some(kind) }.encode_to_vec(),
        }),
    }
}

/// A workload; `protocol` 7 is none.
fn workload(name: &str, version: u32, protocol: i32) -> Resource {
    let workload = Workload {
        uid: name.into(),
        tunnel_protocol: protocol,
        node: format!("node-{version}"),
        ..Workload::default()
    };
    resource(name, version, AddressKind::Workload(Box::new(workload)))
}

fn service(name: &str) -> Resource {
    let service = Service {
        hostname: name.into(),
        ..Service::default()
    };
    resource(name, 1, AddressKind::Service(service))
}

fn answer(resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        resources,
        type_url: ADDRESS_TYPE.into(),
        nonce: "n".into(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
    }
}

const BOUNDS: Bounds = Bounds {
    resources: 3,
    bytes: 200,
    resume_bytes: 100,
};

fn state() -> State {
    State::new(BOUNDS, false, "home")
}

fn nodes(state: &State) -> Vec<(String, String)> {
    let told = state.discovered("own".into(), "".into());
    let each = told.workloads.iter();
    each.map(|(name, w)| (name.to_string(), w.node.to_string()))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let each = expected.iter();
    each.map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

fn taken(changed: bool) -> Applied {
    Applied {
        changed,
        ..Applied::default()
    }
}

#[test]
fn resources_come_change_and_go() {
    let mut state = state();
    let both = vec![workload("a", 1, 0), workload("b", 1, 1), service("c")];
    assert_eq!(state.apply(answer(both, &[]), true), taken(true));
    assert_eq!(nodes(&state), pairs(&[("a", "node-1"), ("b", "node-1")]));
    let versions = state.versions().unwrap();
    assert_eq!(versions["a"], "1");
    assert_eq!(versions.len(), 3);
    let next = answer(vec![workload("a", 2, 0)], &["b", "unknown"]);
    assert_eq!(state.apply(next, false), taken(true));
    assert_eq!(nodes(&state), pairs(&[("a", "node-2")]));
    assert_eq!(state.versions().unwrap()["a"], "2");
    let same = answer(vec![workload("a", 2, 0), service("c")], &[]);
    assert_eq!(state.apply(same, false), taken(false), "nothing new");
}

#[test]
fn what_can_not_be_understood_is_refused_by_name_and_the_last_good_version_stays() {
    let mut state = state();
    state.apply(answer(vec![workload("a", 1, 0)], &[]), true);
    let mixed = answer(vec![workload("a", 2, 7), workload("b", 2, 1)], &[]);
    let applied = state.apply(mixed, false);
    assert!(applied.changed);
    let reason = applied.refused.unwrap();
    assert_eq!(reason, "a: tunnel_protocol 7 is not known here");
    assert_eq!(nodes(&state), pairs(&[("a", "node-1"), ("b", "node-2")]));
    assert_eq!(state.versions().unwrap()["a"], "1", "istiod tells it again");
    assert_eq!(state.counts().refused, 1);
    state.apply(answer(vec![workload("a", 3, 0)], &[]), false);
    assert_eq!(state.counts().refused, 0);
    let other = DeltaDiscoveryResponse {
        type_url: "other".into(),
        ..answer(Vec::new(), &["a"])
    };
    assert!(state.apply(other, false).refused.is_some());
    assert_eq!(nodes(&state).len(), 2, "nothing of it is looked at");
}

#[test]
fn beyond_the_bounds_what_is_new_is_refused_and_what_is_known_stays() {
    let mut state = state();
    let many = (0..5).map(|n| workload(&format!("w{n}"), 1, 0)).collect();
    let refused = state.apply(answer(many, &[]), true).refused.unwrap();
    assert_eq!(nodes(&state).len(), 3);
    assert!(
        refused.contains("w3: there are 3 resources already"),
        "{refused}"
    );
    assert!(refused.contains("w4: "), "{refused}");
    let mut large = workload("w0", 2, 0);
    let padded = Workload {
        uid: "w0".into(),
        canonical_name: "x".repeat(200),
        ..Workload::default()
    };
    large.resource = resource("w0", 2, AddressKind::Workload(Box::new(padded))).resource;
    let refused = state
        .apply(answer(vec![large], &[]), false)
        .refused
        .unwrap();
    assert!(refused.contains("have 200 bytes already"), "{refused}");
    assert_eq!(state.versions().unwrap()["w0"], "1");
}

/// Who is asked for, and is gone, is named in full; only what is told of it is cut.
#[test]
fn what_was_refused_is_known_by_its_whole_name() {
    let bounds = Bounds {
        bytes: 10_000,
        resume_bytes: 1_000,
        ..BOUNDS
    };
    let mut state = State::new(bounds, false, "home");
    let (first, second) = ("w".repeat(300), format!("{}\n", "w".repeat(300)));
    let both = vec![workload(&first, 1, 7), workload(&second, 1, 7)];
    let told = state.apply(answer(both, &[]), true).refused.unwrap();
    assert!(told.len() < 600, "{}", told.len());
    assert_eq!(state.counts().refused, 2);
    let versions = state.versions().unwrap();
    assert!(versions.contains_key(&first) && versions.contains_key(&second));
    state.apply(answer(Vec::new(), &[&first, &second]), false);
    assert_eq!(state.counts().refused, 0);
    // What would be too much to ask for is not kept.
    let long = workload(&"w".repeat(2_000), 1, 7);
    state.apply(answer(vec![long], &[]), false);
    assert_eq!(state.counts().refused, 0);
    assert_eq!(state.refused.bytes, 0);
}

/// istiod says that something is gone only of what it knows to be known; what was refused must not be counted for ever.
#[test]
fn what_was_refused_is_forgotten_when_it_is_gone() {
    let mut state = state();
    let both = vec![workload("a", 1, 0), workload("b", 1, 7)];
    assert!(state.apply(answer(both, &[]), true).refused.is_some());
    assert_eq!(state.counts().refused, 1);
    let versions = state.versions().unwrap();
    assert_eq!((&*versions["a"], &*versions["b"]), ("1", ""));
    // On a stream that resumes it is named as gone.
    state.apply(answer(Vec::new(), &["b"]), false);
    assert_eq!(state.counts().refused, 0);
    assert_eq!(state.versions().unwrap().len(), 1);
    // On one that does not, it is not named.
    state.apply(answer(vec![workload("b", 2, 7)], &[]), false);
    assert_eq!(state.counts().refused, 1);
    state.apply(answer(vec![workload("a", 1, 0)], &[]), true);
    assert_eq!(state.counts().refused, 0);
}

/// Then istiod is asked for everything, and what it does not tell is gone.
#[test]
fn too_many_names_to_resume_by_are_told_anew() {
    let bounds = Bounds {
        resume_bytes: 20,
        bytes: 2_000,
        ..BOUNDS
    };
    let mut state = State::new(bounds, false, "home");
    state.apply(answer(vec![workload("a", 1, 0)], &[]), true);
    assert!(state.versions().is_some());
    state.apply(answer(vec![workload("b", 1, 0), service("c")], &[]), false);
    assert_eq!(state.versions(), None);
    let whole = answer(vec![workload("b", 1, 0)], &[]);
    assert_eq!(state.apply(whole, true), taken(true));
    assert_eq!(nodes(&state), pairs(&[("b", "node-1")]));
}

/// The API server tells of them, too: what it alone is believed in costs nothing, and the rest has its own mark.
#[test]
fn of_pods_of_the_own_cluster_only_counts_what_counts() {
    let pod = |change: &dyn Fn(&mut Workload)| {
        let mut pod = Workload {
            uid: "home//Pod/shop/web-1".into(),
            name: "web-1".into(),
            ..Workload::default()
        };
        change(&mut pod);
        resource(
            "home//Pod/shop/web-1",
            1,
            AddressKind::Workload(Box::new(pod)),
        )
    };
    let bounds = Bounds {
        bytes: 2_000,
        ..BOUNDS
    };
    let mut state = State::new(bounds, false, "home");
    let new = state.apply(answer(vec![pod(&|_| ())], &[]), true);
    assert!(new.own_changed && !new.changed);
    let ready = pod(&|pod| {
        pod.status = 1;
        pod.node = "n2".into();
        pod.workload_name = "web".into();
        pod.services = [("shop/web".to_owned(), Default::default())].into();
    });
    assert_eq!(
        state.apply(answer(vec![ready], &[]), false),
        Applied::default()
    );
    let captured = pod(&|pod| pod.tunnel_protocol = 1);
    let captured = state.apply(answer(vec![captured], &[]), false);
    assert!(captured.own_changed && !captured.changed);
    assert_eq!(captured.own.len(), 1);
    let gone = state.apply(answer(Vec::new(), &["home//Pod/shop/web-1"]), false);
    assert!(gone.own_changed && !gone.changed);
}

/// Who may answer for a service of which nothing else counts.
#[test]
fn of_services_it_counts_who_may_answer() {
    let service = |sans: &[&str]| {
        let service = Service {
            namespace: "shop".into(),
            hostname: "web.shop".into(),
            subject_alt_names: sans.iter().map(|san| (*san).to_owned()).collect(),
            ..Service::default()
        };
        resource("shop/web.shop", 1, AddressKind::Service(service))
    };
    let bounds = Bounds {
        bytes: 2_000,
        ..BOUNDS
    };
    let mut state = State::new(bounds, false, "home");
    assert_eq!(
        state.apply(answer(vec![service(&["no SPIFFE ID"])], &[]), true),
        taken(false)
    );
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    assert_eq!(
        state.apply(answer(vec![service(&[web, "other"])], &[]), false),
        taken(true)
    );
    let told = state.discovered("home".into(), "".into());
    let identities: Vec<&str> = told.identities["shop/web.shop"]
        .iter()
        .map(|i| i.uri())
        .collect();
    assert_eq!(identities, [web]);
    assert_eq!(
        state.apply(answer(vec![service(&[web, "other"])], &[]), false),
        taken(false)
    );
    assert_eq!(
        state.apply(answer(Vec::new(), &["shop/web.shop"]), false),
        taken(true)
    );
    assert!(
        state
            .discovered("home".into(), "".into())
            .identities
            .is_empty()
    );
}

proptest! {
    /// Against a map that is filled by hand: what is known, and what it is counted as.
    #[test]
    fn the_books_are_right(
        steps in prop::collection::vec((0..5u8, 1..4u32, 0..4u8), 0..40),
    ) {
        let bounds = Bounds { resources: 100, bytes: 100_000, resume_bytes: 100_000 };
        let mut state = State::new(bounds, false, "home");
        let mut plain: BTreeMap<String, Option<u32>> = BTreeMap::new();
        for (name, version, what) in steps {
            let name = format!("r{name}");
            match what {
                0 => {
                    plain.remove(&name);
                    state.apply(answer(Vec::new(), &[&name]), false);
                }
                1 => {
                    plain.insert(name.clone(), None);
                    state.apply(answer(vec![service(&name)], &[]), false);
                }
                2 => {
                    plain.insert(name.clone(), Some(version));
                    state.apply(answer(vec![workload(&name, version, 0)], &[]), false);
                }
                _ => {
                    state.apply(answer(vec![workload(&name, version, 7)], &[]), false);
                }
            }
        }
        let expected: Vec<(String, String)> = plain.iter()
            .filter_map(|(name, version)| Some((name.clone(), format!("node-{}", (*version)?))))
            .collect();
        prop_assert_eq!(nodes(&state), expected.clone());
        let counts = state.counts();
        prop_assert_eq!(counts.workloads, expected.len());
        prop_assert_eq!(counts.workloads + counts.services, plain.len());
        let bytes: usize = state.known.values().map(|known| known.bytes).sum();
        prop_assert_eq!(counts.bytes, bytes);
    }
}

/// Each request to a gateway compares them.
#[test]
fn too_many_who_may_answer_for_a_service_are_refused_whole() {
    let service = |count: usize| {
        let names = (0..count).map(|n| format!("spiffe://cluster.local/ns/shop/sa/web-{n}"));
        let service = Service {
            namespace: "shop".into(),
            hostname: "web.shop".into(),
            subject_alt_names: names.collect(),
            ..Service::default()
        };
        resource("shop/web.shop", 1, AddressKind::Service(service))
    };
    let mut state = State::new(Bounds::OURS, false, "home");
    let known = |state: &State| {
        let told = state.discovered("home".into(), "".into());
        told.identities["shop/web.shop"].len()
    };
    let whole = state.apply(answer(vec![service(XDS_IDENTITIES_MAX)], &[]), true);
    assert_eq!(whole, taken(true));
    let beyond = state.apply(answer(vec![service(XDS_IDENTITIES_MAX + 1)], &[]), false);
    let refused = beyond.refused.expect("it is refused");
    assert!(refused.contains("101 identities may answer"), "{refused}");
    assert_eq!(known(&state), XDS_IDENTITIES_MAX, "the last good version");
}
