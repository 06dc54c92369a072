//! Certificates from Istio's CA: had, renewed, refused, waited for (specs/istio-waypoint.md 3).

use std::time::Duration;

use cairn_conformance::client::{self, Connection};
use cairn_conformance::identities::Identities;
use cairn_conformance::process::until;
use cairn_waypoint::pki::Authority;

use crate::ca::{Ca, Mood, NAME};
use crate::mesh::{Mesh, token};

/// A mesh and its CA, which is not started.
fn with_ca() -> (Mesh, Ca) {
    let mesh = Mesh::new();
    let address = mesh.lab.free_address();
    let ca = Ca::new(address, mesh.lab.identities.authority());
    (mesh, ca)
}

/// Starts the waypoint; flags in `more` take the place of those here.
async fn start(mesh: &mut Mesh, ca: &Ca, more: &[&str]) {
    let (address, roots, token) = (
        ca.address.to_string(),
        mesh.file("root-cert.pem"),
        mesh.file("token"),
    );
    let flags = [
        ["--ca-address", address.as_str()],
        ["--ca-server-name", NAME],
        ["--ca-roots", roots.to_str().unwrap()],
        ["--ca-token", token.to_str().unwrap()],
    ];
    let kept = flags.iter().filter(|flag| !more.contains(&flag[0]));
    let mut flags: Vec<&str> = kept.flatten().copied().collect();
    flags.extend(more);
    mesh.lab.start_as_told(&flags).await;
}

#[tokio::test]
async fn the_ca_is_asked_with_the_pods_token_and_what_it_gives_is_served_with() {
    let (mut mesh, mut ca) = with_ca();
    ca.start().await;
    start(&mut mesh, &ca, &["--ca-cluster", "west"]).await;
    let client = mesh.client().await;
    let answer = client::get(client.to("web", 80), "/").await;
    assert_eq!(answer.status(), 200);

    let asked = &ca.asked()[0];
    let token = token("shop", "waypoint", "1");
    assert_eq!(asked.authorization, format!("Bearer {token}"));
    assert_eq!(asked.cluster, "west");
    assert_eq!(asked.request.validity_duration, 24 * 3600);
    assert_eq!(mesh.attempts("success").await, 1.0);
    mesh.is_in("valid").await;
    let log = mesh.cairn().process.stderr();
    assert!(log.contains("Istio CA"), "the choice is logged");
    assert!(!log.contains(&token), "the token is not");
}

#[tokio::test]
async fn renewals_at_half_life_fail_no_request() {
    let (mut mesh, mut ca) = with_ca();
    ca.caps_validity(Duration::from_secs(10));
    ca.start().await;
    start(&mut mesh, &ca, &[]).await;
    let client = mesh.client().await;
    let to = client.to("web", 80);
    let mut kept = Connection::http1(to).await;
    let first = mesh.shown().await;
    let mut requests = 0;
    // A pace, so that the machine's other tests get their turn.
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    while ca.asked().len() < 4 {
        assert_eq!(kept.get("/").await.unwrap().status(), 200, "{requests}");
        assert_eq!(client::get(to, "/").await.status(), 200, "{requests}");
        requests += 1;
        pace.tick().await;
    }
    assert_ne!(mesh.shown().await, first, "a later one is shown");
    assert!(mesh.attempts("success").await >= 3.0);
    for line in mesh.cairn().access_log() {
        assert_eq!(line["response_code"], 200, "{line}");
    }
}

#[tokio::test]
async fn without_a_ca_nobody_is_served_at_the_start_and_everybody_later() {
    let (mut mesh, mut ca) = with_ca();
    start(&mut mesh, &ca, &[]).await;
    mesh.attempts_beyond("connect", 0.0).await;
    let (status, words) = mesh.probe().await;
    assert_eq!(status, 503);
    assert!(words.contains("no certificate yet"), "{words}");
    let hbone = mesh.cairn().hbone;
    let refused = tokio::net::TcpStream::connect(hbone).await;
    assert!(refused.is_err(), "nobody is listened to");
    mesh.is_in("waiting").await;

    // A CA that gives somebody else's certificate is as good as none.
    ca.be(Mood::OtherIdentity);
    ca.start().await;
    mesh.attempts_beyond("answer", 0.0).await;
    assert_eq!(mesh.probe().await.0, 503);
    ca.be(Mood::Proper);
    let client = mesh.client().await;
    let to = client.to("web", 80);
    assert_eq!(client::get(to, "/").await.status(), 200);

    ca.stop().await;
    let before = mesh.attempts("connect").await;
    mesh.look();
    mesh.attempts_beyond("connect", before).await;
    mesh.is_in("failing").await;
    assert_eq!(mesh.probe().await.0, 200, "the old one is valid still");
    let fresh = mesh.lab.client("shop/fresh").await;
    assert_eq!(client::get(fresh.to("web", 80), "/").await.status(), 200);
    ca.start().await;
    mesh.is_in("valid").await;
}

#[tokio::test]
async fn a_certificate_that_expires_makes_the_waypoint_unready_until_there_is_another() {
    let (mut mesh, mut ca) = with_ca();
    ca.caps_validity(Duration::from_secs(8));
    ca.start().await;
    start(&mut mesh, &ca, &[]).await;
    mesh.lab.cairn_mut().until_ready().await;
    ca.stop().await;
    mesh.is_in("expired").await;
    let (status, words) = mesh.probe().await;
    assert_eq!(status, 503);
    assert!(words.contains("the certificate has expired"), "{words}");
    ca.caps_validity(Duration::from_secs(3600));
    ca.start().await;
    mesh.look();
    mesh.lab.cairn_mut().until_ready().await;
    mesh.is_in("valid").await;
}

#[tokio::test]
async fn wrong_answers_are_refused_with_their_reason_and_the_last_good_one_stays() {
    let (mut mesh, mut ca) = with_ca();
    ca.start().await;
    start(&mut mesh, &ca, &[]).await;
    mesh.lab.cairn_mut().until_ready().await;
    let good = mesh.shown().await;
    for (mood, outcome, words) in [
        (
            Mood::OtherIdentity,
            "answer",
            "sa/web, and this waypoint is",
        ),
        (
            Mood::OtherTrustDomain,
            "answer",
            "trust domain other.example",
        ),
        (Mood::OtherKey, "answer", "the key does not go with"),
        (Mood::OtherRoot, "answer", "no chain to the roots"),
        (Mood::Garbage, "answer", "no certificate in it"),
        (Mood::Unauthenticated, "token", "token expired; it must be"),
        (Mood::Refuses, "refused", "no signer"),
    ] {
        ca.be(mood);
        let before = mesh.attempts(outcome).await;
        mesh.look();
        mesh.attempts_beyond(outcome, before).await;
        let said = async || mesh.cairn().process.stderr().contains(words);
        until(&format!("{mood:?} is told: {words}"), said).await;
        assert_eq!(mesh.shown().await, good, "{mood:?}");
    }
}

#[tokio::test]
async fn what_is_missing_or_not_the_ca_is_told_by_its_outcome() {
    for (flags, outcome) in [
        (["--ca-server-name", "other.test"], "tls"),
        (["--ca-roots", "/nonexistent/root-cert.pem"], "roots"),
        (["--ca-token", "/nonexistent/token"], "token"),
    ] {
        let (mut mesh, mut ca) = with_ca();
        ca.start().await;
        start(&mut mesh, &ca, &flags).await;
        mesh.attempts_beyond(outcome, 0.0).await;
        assert_eq!(mesh.probe().await.0, 503, "{flags:?}");
        assert_eq!(ca.asked().len(), 0, "{flags:?}: the token goes to nobody");
    }
}

#[tokio::test]
async fn the_token_is_read_anew_each_time() {
    let (mut mesh, mut ca) = with_ca();
    ca.start().await;
    start(&mut mesh, &ca, &[]).await;
    mesh.lab.cairn_mut().until_ready().await;
    let renewed = token("shop", "waypoint", "2");
    mesh.write("token", &renewed);
    mesh.look();
    ca.asked_times(2).await;
    assert_eq!(ca.asked()[1].authorization, format!("Bearer {renewed}"));
}

#[tokio::test]
async fn a_token_of_another_pod_is_not_sent() {
    let (mut mesh, mut ca) = with_ca();
    ca.start().await;
    mesh.lab.variable("POD_NAMESPACE", "shop");
    mesh.lab.variable("SERVICE_ACCOUNT", "other");
    start(&mut mesh, &ca, &[]).await;
    mesh.attempts_beyond("token", 0.0).await;
    let words = "is for shop/waypoint, and the pod says that it is shop/other";
    let said = async || mesh.cairn().process.stderr().contains(words);
    until(words, said).await;
    assert!(ca.asked().is_empty());
}

/// specs/istio-waypoint.md 3: the roots of the ConfigMap and those of the CA's answer count together, and
/// what the ConfigMap has is taken up at once.
#[tokio::test]
async fn roots_change_step_by_step_and_the_certificate_follows() {
    let (mut mesh, mut ca) = with_ca();
    ca.start().await;
    start(&mut mesh, &ca, &[]).await;
    mesh.lab.cairn_mut().until_ready().await;
    let second = Identities::new(&mesh.file("second"));
    let (old, new) = (
        mesh.lab.identities.issue("shop/viewer"),
        second.issue("shop/viewer"),
    );
    assert!(mesh.accepts(&old).await);
    assert!(!mesh.accepts(&new).await);
    let first = mesh.shown().await;

    let roots = [mesh.lab.identities.authority(), second.authority()];
    let both = roots.map(Authority::root_cert_pem).concat();
    mesh.write("root-cert.pem", &both);
    until("the second root counts", async || mesh.accepts(&new).await).await;
    assert!(mesh.accepts(&old).await);
    assert_eq!(mesh.shown().await, first, "the certificate is good still");
    assert_eq!(ca.asked().len(), 1);

    // Those who have the second root alone would not take the certificate: another is asked for.
    ca.changes_root(second.authority());
    mesh.write("root-cert.pem", second.authority().root_cert_pem());
    ca.asked_times(2).await;
    until("another certificate is shown", async || {
        mesh.shown().await != first
    })
    .await;
    assert!(mesh.accepts(&new).await);
    assert!(!mesh.accepts(&old).await, "the first root has left");
}
