//! Certificates of istiod's CA, with tokens that the API server made.

use std::time::Duration;

use cairn_conformance::client;
use cairn_conformance::process::until;

use super::world::World;

/// For a day, as who the token is; every other token is refused, and the reason is told.
#[tokio::test]
#[ignore = "needs an istiod: make istiod"]
async fn the_ca_certifies_whose_token_it_is_and_refuses_others() {
    let Some(world) = World::start().await else {
        return;
    };
    world.account("waypoint").await;
    world.gateway().await;
    let ours = world.token("waypoint", Some("istio-ca")).await;
    let ours = ours.to_str().unwrap();
    let mut cairn = world.waypoint("proper", &["--ca-token", ours]).await;
    cairn.until_ready().await;
    let log = cairn.process.stderr();
    let identity = format!(
        "identity=spiffe://cluster.local/ns/{}/sa/waypoint",
        world.namespace
    );
    assert!(log.contains(&identity), "{log}");
    let expiry = cairn.metric("cairn_certificate_expiry_timestamp_seconds", &[]);
    let expiry = Duration::from_secs_f64(expiry.await);
    let left = expiry - std::time::UNIX_EPOCH.elapsed().unwrap();
    let day = Duration::from_secs(24 * 3600);
    assert!(
        left < day && left > day - Duration::from_secs(600),
        "{left:?}"
    );
    drop(cairn);

    let others = world.token("waypoint", None).await;
    let others = others.to_str().unwrap();
    let not_accepted = "the CA does not accept the token";
    for (name, flags, words) in [
        ("audience", &["--ca-token", others][..], not_accepted),
        (
            "cluster",
            &["--ca-token", ours, "--ca-cluster", "west"],
            not_accepted,
        ),
        (
            "name",
            &["--ca-token", ours, "--ca-server-name", "istiod.other.svc"],
            "is not who it should be",
        ),
    ] {
        let cairn = world.waypoint(name, flags).await;
        until(words, async || cairn.process.stderr().contains(words)).await;
        let answer = client::get(cairn.ready, "/healthz/ready").await;
        assert_eq!(answer.status(), 503, "{name}");
    }
}
