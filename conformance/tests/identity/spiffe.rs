//! Certificates from the SPIFFE Workload API: updates, an agent that leaves and comes back, federation, and
//! what is not taken (specs/istio-waypoint.md 3).

use cairn_conformance::client::{self, Connection};
use cairn_conformance::identities::Identities;
use cairn_conformance::process::until;
use cairn_waypoint::pki::{Authority, Leaf};
use tonic::Status;

use crate::mesh::Mesh;
use crate::workload_api::{Agent, Update, update};

const WAYPOINT: &str = "spiffe://cluster.local/ns/shop/sa/waypoint";

async fn start(mesh: &mut Mesh) {
    let endpoint = format!("unix:{}", mesh.file("agent.sock").display());
    mesh.lab
        .start_as_told(&["--spiffe-endpoint", &endpoint])
        .await;
}

fn proper(mesh: &Mesh) -> Update {
    update(mesh.lab.identities.authority(), WAYPOINT)
}

#[tokio::test]
async fn what_the_agent_sends_is_served_with_and_updates_fail_no_request() {
    let mut mesh = Mesh::new();
    let agent = Agent::start(&mesh.file("agent.sock"), Ok(proper(&mesh)));
    start(&mut mesh).await;
    let client = mesh.client().await;
    let to = client.to("web", 80);
    let mut kept = Connection::http1(to).await;
    for _ in 0..5 {
        let before = mesh.shown().await;
        agent.says(Ok(proper(&mesh)));
        loop {
            assert_eq!(kept.get("/").await.unwrap().status(), 200);
            assert_eq!(client::get(to, "/").await.status(), 200);
            if mesh.shown().await != before {
                break;
            }
        }
    }
    assert!(mesh.attempts("success").await >= 6.0);
    mesh.is_in("valid").await;
}

#[tokio::test]
async fn an_agent_may_leave_and_come_back() {
    let mut mesh = Mesh::new();
    start(&mut mesh).await;
    mesh.attempts_beyond("connect", 0.0).await;
    assert_eq!(mesh.probe().await.0, 503);

    let socket = mesh.file("agent.sock");
    let agent = Agent::start(&socket, Ok(proper(&mesh)));
    let client = mesh.client().await;
    let first = mesh.shown().await;

    drop(agent);
    mesh.is_in("failing").await;
    let to = client.to("web", 80);
    assert_eq!(client::get(to, "/").await.status(), 200);
    assert_eq!(mesh.probe().await.0, 200);

    let _agent = Agent::start(&socket, Ok(proper(&mesh)));
    until("what the agent sends now is shown", async || {
        mesh.shown().await != first
    })
    .await;
    mesh.is_in("valid").await;
    assert_eq!(client::get(to, "/").await.status(), 200);
}

#[tokio::test]
async fn an_identity_of_somebody_else_is_not_taken() {
    let mut mesh = Mesh::new();
    mesh.lab.variable("POD_NAMESPACE", "shop");
    mesh.lab.variable("SERVICE_ACCOUNT", "waypoint");
    let roots = mesh.lab.identities.authority();
    let other = "spiffe://cluster.local/ns/shop/sa/web";
    let agent = Agent::start(&mesh.file("agent.sock"), Ok(update(roots, other)));
    start(&mut mesh).await;
    mesh.attempts_beyond("answer", 0.0).await;
    assert_eq!(mesh.probe().await.0, 503);
    let log = mesh.cairn().process.stderr();
    assert!(log.contains(&format!("gives {other}, and none of them is {WAYPOINT}")));

    agent.says(Err(Status::permission_denied("no identity issued")));
    mesh.look();
    mesh.attempts_beyond("refused", 0.0).await;
    let log = mesh.cairn().process.stderr();
    assert!(log.contains("it needs a registration entry"));

    // Of several, the waypoint's own is taken, whatever is first.
    let mut several = update(mesh.lab.identities.authority(), other);
    several.svids.extend(proper(&mesh).svids);
    agent.says(Ok(several));
    mesh.look();
    mesh.lab.cairn_mut().until_ready().await;
    let good = mesh.shown().await;

    // What is wrong later leaves it.
    let before = mesh.attempts("answer").await;
    let elsewhere = "spiffe://other.example/ns/shop/sa/waypoint";
    agent.says(Ok(update(mesh.lab.identities.authority(), elsewhere)));
    mesh.attempts_beyond("answer", before).await;
    assert_eq!(mesh.shown().await, good);
}

/// A partner's roots vouch for identities of the partner's trust domain, if the mesh accepts that at all, and
/// for no others (SPIFFE Federation, section 4).
#[tokio::test]
async fn partners_roots_vouch_for_their_own_trust_domain_alone() {
    let mut mesh = Mesh::new();
    let partner = Identities::new(&mesh.file("partner"));
    let said = proper(&mesh).federated_with("partner.example", partner.authority());
    let _agent = Agent::start(&mesh.file("agent.sock"), Ok(said));
    start(&mut mesh).await;
    mesh.lab.cairn_mut().until_ready().await;

    let of = |authority: &Authority, id: &str| {
        let identity = cairn_config_schema::identity::Identity::parse(id).unwrap();
        let day = cairn_conformance::identities::DAY;
        authority.issue_leaf(&Leaf::of(&identity, day)).unwrap()
    };
    let ours = mesh.lab.identities.authority();
    let (theirs_by_them, theirs_by_us, ours_by_them, ours_by_us) = (
        of(
            partner.authority(),
            "spiffe://partner.example/ns/shop/sa/viewer",
        ),
        of(ours, "spiffe://partner.example/ns/shop/sa/viewer"),
        of(
            partner.authority(),
            "spiffe://cluster.local/ns/shop/sa/viewer",
        ),
        of(ours, "spiffe://cluster.local/ns/shop/sa/viewer"),
    );
    assert!(mesh.accepts(&ours_by_us).await);
    for stranger in [&theirs_by_them, &theirs_by_us, &ours_by_them] {
        assert!(!mesh.accepts(stranger).await, "not accepted by the mesh");
    }
    let aliases = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
                   data:\n  mesh: |\n    trustDomainAliases: [partner.example]\n";
    mesh.lab.write("mesh-config", aliases);
    until("the partner is accepted", async || {
        mesh.accepts(&theirs_by_them).await
    })
    .await;
    assert!(mesh.accepts(&ours_by_us).await);
    assert!(!mesh.accepts(&theirs_by_us).await, "we are not the partner");
    assert!(!mesh.accepts(&ours_by_them).await, "the partner is not us");
}
