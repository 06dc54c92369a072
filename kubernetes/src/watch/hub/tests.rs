//! What the hub gives, and when.

use std::sync::Arc;

use futures::FutureExt;

use super::Hub;
use crate::kinds::watched_kind;
use crate::watch::api::{Collection, KindRef};
use crate::watch::refusal::{Reason, Refusal};
use crate::watch::{Change, Pending};

fn of(kind: &str) -> Collection {
    Collection {
        kind: KindRef(watched_kind(kind).unwrap()),
        namespace: None,
        name: None,
    }
}

fn put(kind: &str, name: &str) -> Vec<Change> {
    let path = format!("kubernetes:{kind}/shop/{name}");
    vec![Change::put(path.into(), "{}".into())]
}

fn broke() -> Refusal {
    Refusal {
        reason: Reason::Broken,
        message: "broke".to_owned(),
    }
}

/// A hub of Services, policies and Pods.
struct Here {
    hub: Hub,
    services: Collection,
    policies: Collection,
    pods: Collection,
}

impl Here {
    fn new(keeps: bool) -> Self {
        let [services, policies, pods] = ["Service", "AuthorizationPolicy", "Pod"].map(of);
        let all = [services.clone(), policies.clone(), pods.clone()];
        Self {
            hub: Hub::new(all, keeps),
            services,
            policies,
            pods,
        }
    }

    /// Names of what was given since the last time.
    fn given(&self) -> Vec<String> {
        let changes = self.hub.changes().objects.into_iter();
        let name = |change: Change| change.path.rsplit('/').next().map(str::to_owned);
        changes.filter_map(name).collect()
    }

    fn follow_all(&self) {
        for collection in [&self.services, &self.policies, &self.pods] {
            self.hub.listed(collection, Vec::new(), 0);
            self.hub.connected(collection);
        }
        assert!(self.hub.synced());
        self.given();
    }
}

/// Whoever takes endpoints later is woken once, and again for what is in a hurry.
#[test]
fn endpoints_are_told_once_until_they_are_taken_and_others_at_once() {
    let here = Here::new(false);
    here.follow_all();
    let mut news = here.hub.news.subscribe();
    let mut is_told = || {
        let is_told = news.has_changed().unwrap();
        news.mark_unchanged();
        is_told
    };
    let push = |collection: &Collection, kind: &str, name: &str| {
        here.hub.push(collection, put(kind, name), 1);
    };
    assert_eq!(here.hub.pending(), Pending::Nothing);
    push(&here.pods, "Pod", "a");
    assert!(is_told());
    push(&here.pods, "Pod", "b");
    assert!(!is_told(), "it was told of the first");
    assert_eq!(here.hub.pending(), Pending::Endpoints);
    push(&here.services, "Service", "web");
    assert!(is_told(), "a Service waits for nothing");
    assert_eq!(here.hub.pending(), Pending::Others);
    push(&here.policies, "AuthorizationPolicy", "p");
    push(&here.pods, "Pod", "c");
    assert!(!is_told());
    assert_eq!(here.given(), ["p", "a", "b", "c", "web"]);
    assert_eq!(here.hub.pending(), Pending::Nothing);
    push(&here.pods, "Pod", "d");
    assert!(is_told(), "what was told was taken");
}

/// A Service opted in while the process was away is served with its policy or not yet.
#[test]
fn what_comes_after_stored_state_comes_together() {
    let here = Here::new(false);
    here.hub.restore(put("Service", "stored"));
    assert_eq!(here.given(), ["stored"]);
    here.hub.listed(&here.services, put("Service", "web"), 1);
    here.hub.connected(&here.services);
    here.hub.listed(&here.pods, put("Pod", "web-1"), 1);
    here.hub.connected(&here.pods);
    assert_eq!(here.given(), ["web-1"], "pods do not wait");
    assert!(!here.hub.synced());
    let policy = put("AuthorizationPolicy", "of-web");
    here.hub.listed(&here.policies, policy, 1);
    assert!(
        here.given().is_empty(),
        "what came since the list is missing"
    );
    let mut news = here.hub.news.subscribe();
    here.hub.connected(&here.policies);
    assert!(news.changed().now_or_never().is_some());
    assert_eq!(here.given(), ["of-web", "web"]);
    assert!(here.hub.synced());
}

#[test]
fn what_changes_while_a_kind_can_not_be_followed_waits_for_it() {
    for keeps in [false, true] {
        let here = Here::new(keeps);
        here.follow_all();
        here.hub.failed(&here.policies, broke());
        let mut news = here.hub.news.subscribe();
        here.hub.push(&here.services, put("Service", "web"), 1);
        assert!(news.changed().now_or_never().is_none());
        assert!(here.given().is_empty() && here.hub.objects().is_empty());
        here.hub
            .push(&here.policies, put("AuthorizationPolicy", "p"), 1);
        here.hub.connected(&here.policies);
        assert!(news.changed().now_or_never().is_some());
        match keeps {
            true => assert_eq!(here.hub.objects().len(), 2),
            false => assert_eq!(here.given(), ["p", "web"]),
        }
    }
}

/// A kind that is gone for certain is not waited for.
#[test]
fn a_kind_that_is_missing_holds_nothing_back() {
    let here = Here::new(false);
    here.follow_all();
    here.hub.failed(&here.policies, broke());
    here.hub.push(&here.services, put("Service", "web"), 1);
    here.hub.absent(&here.policies);
    assert_eq!(here.given(), ["web"]);
    // It is there again, and can not be read yet.
    here.hub.failed(&here.policies, broke());
    here.hub.push(&here.services, put("Service", "new"), 2);
    assert!(here.given().is_empty());
}

/// Whoever begins without stored state gives nothing before everything is followed.
#[test]
fn the_first_state_is_whole() {
    let here = Here::new(false);
    here.hub.listed(&here.services, put("Service", "web"), 1);
    here.hub.connected(&here.services);
    here.hub.listed(&here.pods, put("Pod", "web-1"), 1);
    here.hub.connected(&here.pods);
    here.hub.listed(&here.policies, Vec::new(), 0);
    assert!(here.given().is_empty() && !here.hub.synced());
    assert_eq!(here.hub.waiting(), ["AuthorizationPolicy: not watched yet"]);
    here.hub.connected(&here.policies);
    let given: Vec<Arc<str>> = here
        .hub
        .changes()
        .objects
        .into_iter()
        .map(|c| c.path)
        .collect();
    assert_eq!(given.len(), 2);
}

/// Whoever may write a BackendTLSPolicy must not keep a waypoint from becoming ready.
#[test]
fn what_objects_name_keeps_nobody_from_starting_once_it_is_refused() {
    let policies = of("BackendTLSPolicy");
    let hub = Hub::new([policies.clone()], false);
    let text = r#"{"metadata":{"namespace":"shop","name":"p"},"spec":{"validation":{"caCertificateRefs":[
        {"kind":"ConfigMap","name":"ca"}]}}}"#;
    let policy = Change::put("kubernetes:BackendTLSPolicy/shop/p".into(), text.into());
    hub.listed(&policies, vec![policy], 1);
    hub.connected(&policies);
    assert!(!hub.synced(), "its certificates are waited for");
    assert_eq!(hub.changes().objects.len(), 0);
    let named = hub.named();
    hub.failed(&named[0], Refusal::malformed("no"));
    assert!(hub.synced());
    assert_eq!(hub.waiting(), [""; 0]);
    assert_eq!(hub.changes().objects.len(), 1);
    // One that is followed from the start is waited for, whatever the server says.
    let hub = Hub::new(named.clone(), false);
    hub.failed(&named[0], Refusal::malformed("no"));
    assert!(!hub.synced());
}
