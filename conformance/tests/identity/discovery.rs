//! Workloads of other clusters from istiod: told, changed, gone, refused, and in force while istiod is away
//! (specs/istio-waypoint.md 6; docs/kube-source.md).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use cairn_conformance::app::App;
use cairn_conformance::client;
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use cairn_conformance::process::until;
use cairn_waypoint::source::istiod::messages::Service;

use crate::ca::NAME;
use crate::istiod::{Istiod, uid, workload};
use crate::mesh::token;

/// `shop/web` with one pod here, and an application with a tunnel in another cluster, which nothing but istiod tells of.
pub struct World {
    pub lab: Lab,
    pub istiod: Istiod,
    pub near: App,
    far: App,
}

impl World {
    pub fn new() -> Self {
        let mut lab = Lab::new();
        lab.service("web", &[Port::new("http", 80)]);
        let near = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("near", at));
        // Has a tunnel with the identity shop/far, and no object.
        lab.service("far", &[Port::new("http", 80)]);
        let far = lab.pod("far", "far-a", Reach::Hbone, |at| App::http("far", at));
        lab.remove("service-far");
        lab.remove("endpoints-far");
        let root = lab.identities.authority().root_cert_pem();
        std::fs::write(lab.folder().join("root-cert.pem"), root).expect("a file");
        let world = Self {
            istiod: Istiod::new(lab.free_address(), lab.identities.authority()),
            lab,
            near,
            far,
        };
        world.write_token("1");
        world
    }

    /// What is sent to istiod.
    fn write_token(&self, number: &str) {
        let text = token("shop", "waypoint", number);
        let new = self.lab.folder().join(".token.new");
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, self.lab.folder().join("token")).expect("a rename");
    }

    /// Starts the waypoint, which may not get ready.
    pub async fn start_unready(&mut self, more: &[&str]) {
        let file = |name: &str| self.lab.folder().join(name).display().to_string();
        let flags = [
            (
                "--identity-dir",
                self.lab.waypoint_identity().display().to_string(),
            ),
            ("--discovery", "istiod".to_owned()),
            ("--xds-address", self.istiod.address.to_string()),
            ("--ca-server-name", NAME.to_owned()),
            ("--ca-roots", file("root-cert.pem")),
            ("--ca-token", file("token")),
            ("--ca-cluster", "home".to_owned()),
        ];
        let flags: Vec<&str> = flags.iter().flat_map(|(k, v)| [*k, v.as_str()]).collect();
        let flags = [&flags[..], &["--xds-allow-local"], more].concat();
        self.lab.start_as_told(&flags).await;
    }

    async fn start(&mut self) -> Client {
        self.start_unready(&[]).await;
        self.lab.cairn_mut().until_ready().await;
        self.lab.client("shop/viewer").await
    }

    /// Waits until the waypoint is not ready, for a reason in these words.
    async fn unready(&self, words: &str) {
        let ready = self.lab.cairn().ready;
        until(words, async || {
            let answer = client::get(ready, "/healthz/ready").await;
            answer.status() == 503 && client::text(&answer).contains(words)
        })
        .await;
    }

    fn far(&self, name: &str) -> cairn_waypoint::source::istiod::messages::Workload {
        workload(name, "far", self.far.address)
    }
}

/// Who answers each of twenty requests; all of them are answered.
pub async fn answering(to: SocketAddr) -> BTreeSet<String> {
    let mut apps = BTreeSet::new();
    for _ in 0..20 {
        let answer = client::get(to, "/").await;
        assert_eq!(answer.status(), 200, "{}", client::text(&answer));
        apps.insert(client::echo(&answer).app);
    }
    apps
}

pub async fn answered_by(to: SocketAddr, apps: &[&str]) {
    until(&format!("{apps:?} answer, and nobody else"), async || {
        answering(to).await.iter().eq(apps)
    })
    .await;
}

#[tokio::test]
async fn a_workload_that_istiod_alone_knows_gets_requests_until_it_is_gone() {
    let mut world = World::new();
    world.istiod.tell(&[world.far("web-9")]);
    world.istiod.start().await;
    let viewer = world.start().await;
    let to = viewer.to("web", 80);
    answered_by(to, &["far", "near"]).await;
    world.istiod.all_taken().await;
    let (bearer, cluster) = world.istiod.calls()[0].clone();
    assert_eq!(bearer, format!("Bearer {}", token("shop", "waypoint", "1")));
    assert_eq!(cluster, "home");
    let hello = &world.istiod.hellos()[0];
    let node = hello.node.as_ref().unwrap();
    assert!(
        node.id
            .starts_with("waypoint~127.0.0.1~waypoint.shop~shop.svc"),
        "{}",
        node.id
    );
    assert!(hello.initial_resource_versions.is_empty());
    let cairn = world.lab.cairn();
    assert_eq!(cairn.metric("cairn_xds_connected", &[]).await, 1.0);
    let known = ["kind=\"workload\""];
    assert_eq!(cairn.metric("cairn_xds_resources", &known).await, 1.0);

    let mut unhealthy = world.far("web-9");
    unhealthy.status = 1;
    world.istiod.tell(&[unhealthy]);
    answered_by(to, &["near"]).await;
    world.istiod.tell(&[world.far("web-9")]);
    answered_by(to, &["far", "near"]).await;
    world.istiod.forget(&[&uid("web-9")]);
    answered_by(to, &["near"]).await;
    assert!(world.near.requests() > 0);
}

#[tokio::test]
async fn while_istiod_is_away_what_it_told_stays_and_then_only_what_changed_is_told() {
    let mut world = World::new();
    let kept: Vec<_> = (1..4)
        .map(|n| {
            let mut kept = world.far(&format!("kept-{n}"));
            kept.services.clear();
            kept.addresses = vec![vec![10, 2, 0, n]];
            kept
        })
        .collect();
    world.istiod.tell(&kept);
    world.istiod.tell(&[world.far("web-9")]);
    world.istiod.start().await;
    let viewer = world.start().await;
    let to = viewer.to("web", 80);
    answered_by(to, &["far", "near"]).await;

    world.istiod.stop().await;
    let cairn = world.lab.cairn();
    cairn.metric_falls_to("cairn_xds_connected", &[], 0.0).await;
    // Every one of them is answered.
    assert_eq!(answering(to).await.len(), 2);
    assert!(cairn.is_ready().await);

    world.write_token("2");
    world.istiod.forget(&[&uid("web-9")]);
    world.istiod.start().await;
    answered_by(to, &["near"]).await;
    let hello = world.istiod.hellos().pop().unwrap();
    assert_eq!(hello.initial_resource_versions.len(), 4);
    assert_eq!(hello.initial_resource_versions[&uid("kept-1")], "1");
    let last = world.istiod.first_answers().pop().unwrap();
    assert_eq!(last, (0, vec![uid("web-9")]));
    let (bearer, _) = world.istiod.calls().pop().unwrap();
    let second = token("shop", "waypoint", "2");
    assert_eq!(bearer, format!("Bearer {second}"), "it is read again");
    cairn.metric_reaches("cairn_xds_connected", &[], 1.0).await;
    for line in cairn.access_log() {
        assert_eq!(line["response_code"], 200, "{line}");
    }
}

#[tokio::test]
async fn what_can_not_be_understood_is_refused_by_name_and_the_rest_counts() {
    let mut world = World::new();
    world.istiod.start().await;
    let viewer = world.start().await;
    let to = viewer.to("web", 80);
    answered_by(to, &["near"]).await;
    let mut strange = world.far("strange");
    strange.tunnel_protocol = 7;
    world.istiod.tell(&[strange, world.far("web-9")]);
    let reason = world.istiod.refusal().await;
    assert_eq!(
        reason,
        format!("{}: tunnel_protocol 7 is not known here", uid("strange"))
    );
    answered_by(to, &["far", "near"]).await;
    let cairn = world.lab.cairn();
    let refused = ["kind=\"refused\""];
    assert_eq!(cairn.metric("cairn_xds_resources", &refused).await, 1.0);
    let log = cairn.process.stderr();
    assert!(log.contains("tunnel_protocol 7 is not known here"));
}

#[tokio::test]
async fn at_the_first_start_readiness_names_what_is_missed() {
    let mut world = World::new();
    world.istiod.tell(&[world.far("web-9")]);
    world.start_unready(&[]).await;
    world.unready("istiod has not told of workloads yet").await;
    world.unready("can not be reached").await;
    let second = token("shop", "waypoint", "2");
    world.istiod.accepts(&second);
    world.istiod.start().await;
    world.unready("does not accept the token").await;
    let cairn = world.lab.cairn();
    let tokens = ["reason=\"token\""];
    assert!(cairn.metric("cairn_xds_errors_total", &tokens).await >= 1.0);
    let log = cairn.process.stderr();
    assert!(
        !log.contains(&token("shop", "waypoint", "1")),
        "tokens are not logged"
    );

    world.write_token("2");
    world.lab.cairn_mut().until_ready().await;
    let viewer = world.lab.client("shop/viewer").await;
    answered_by(viewer.to("web", 80), &["far", "near"]).await;
}

/// It would serve as if there were nobody in other clusters, and nothing in other networks.
#[tokio::test]
async fn a_first_answer_that_is_refused_whole_makes_nobody_ready() {
    let mut world = World::new();
    let mut strange = world.far("web-9");
    strange.tunnel_protocol = 7;
    world.istiod.tell(&[strange]);
    // Services are in it, too, and say nothing of tunnels.
    let service = |name: &str| Service {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        hostname: format!("{name}.shop.svc.cluster.local"),
        subject_alt_names: Vec::new(),
    };
    world.istiod.tell_service(&service("web"));
    world.istiod.start().await;
    world.start_unready(&[]).await;
    let refused = "everything that it told was refused: east//Pod/shop/web-9: tunnel_protocol 7";
    world.unready(refused).await;
    // Nor does a later answer, of which nothing is refused, but with no workload in it.
    world.istiod.tell_service(&service("api"));
    let services = ["kind=\"service\""];
    let cairn = world.lab.cairn();
    cairn
        .metric_reaches("cairn_xds_resources", &services, 2.0)
        .await;
    world.unready(refused).await;
    world.istiod.tell(&[world.far("web-9")]);
    world.lab.cairn_mut().until_ready().await;
    let viewer = world.lab.client("shop/viewer").await;
    answered_by(viewer.to("web", 80), &["far", "near"]).await;
}

#[tokio::test]
async fn an_address_of_this_cluster_stays_its_owners_whatever_istiod_tells() {
    let mut world = World::new();
    // Somebody else at the address of the pod here; and two at one address elsewhere.
    let thief = workload("thief", "far", world.near.address);
    let mut other = world.far("web-8");
    other.service_account = "other".to_owned();
    world.istiod.tell(&[thief, world.far("web-9"), other]);
    world.istiod.start().await;
    let viewer = world.start().await;
    let to = viewer.to("web", 80);
    // With the thief's identity the tunnel to it would fail.
    assert!(answering(to).await.iter().eq(["near"]));
    let log = world.lab.cairn().process.stderr();
    let owner = format!("{} is that of shop/web-a", world.near.address.ip());
    assert!(log.contains(&owner), "{log}");
    assert!(log.contains("have addresses that several workloads claim"));
    // When one of the two is gone, the other has the address.
    world.istiod.forget(&[&uid("web-8")]);
    answered_by(to, &["far", "near"]).await;
}

/// A policy by labels of callers: what istiod tells of a caller has none, and that does not get it past the policy.
#[tokio::test]
async fn a_caller_without_labels_is_not_let_past_a_policy_that_asks_for_them() {
    let mut world = World::new();
    world.istiod.start().await;
    let viewer = world.start().await;
    let to = viewer.to("web", 80);
    let mut caller = workload("viewer-1", "viewer", SocketAddr::new(viewer.address, 1));
    caller.services.clear();
    world.istiod.tell(&[caller]);
    world.istiod.all_taken().await;
    assert!(
        answering(to).await.iter().eq(["near"]),
        "nothing forbids it"
    );
    world.lab.write(
        "policy",
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: not-from-bad, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromEntities: [all]}]
  ingressDeny: [{fromEndpoints: [{matchLabels: {app: bad}}]}]
",
    );
    until("the policy is in force", async || {
        client::get(to, "/").await.status() == 403
    })
    .await;
    let line = world
        .lab
        .cairn()
        .logged("the denial", |line| line["response_code"] == 403);
    let line = line.await;
    assert_eq!(line["verdict"], "deny", "{line}");
}
