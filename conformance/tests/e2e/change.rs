//! Things change while requests run: endpoints die, certificates rotate, files are edited.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cairn_conformance::app::App;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::hbone::{Tls, Tunnel};
use cairn_conformance::identities;
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::process::until;

async fn two_pods() -> (Lab, [App; 2]) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let a = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    let b = lab.pod("web", "web-b", Reach::Hbone, |at| App::http("b", at));
    lab.start().await;
    (lab, [a, b])
}

#[tokio::test]
async fn a_killed_endpoint_costs_no_request() {
    let (mut lab, [mut a, _b]) = two_pods().await;
    let client = lab.client("shop/viewer").await;
    let mut connection = Connection::http1(client.to("web", 80)).await;
    let mut apps = BTreeSet::new();
    for at in 0..60 {
        if at == 20 {
            // Nobody has told the waypoint yet: it is the retry that saves the request.
            a.kill();
        }
        let answer = connection.get("/x/y").await.unwrap();
        assert_eq!(answer.status(), 200, "request {at}");
        let app = client::echo(&answer).app;
        assert!(at < 20 || app == "b", "request {at} was answered by {app}");
        apps.insert(app);
    }
    assert_eq!(apps.len(), 2, "both were used before");

    // Now Kubernetes knows: no attempt goes there any more.
    lab.remove_pod("web-a");
    lab.cairn()
        .metric_reaches("cairn_snapshot_version", &[], 2.0)
        .await;
    for _ in 0..20 {
        let answer = connection.get("/x/z").await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    for line in lab.cairn().access_log() {
        if line["path"] == "/x/z" {
            assert_eq!(line["attempts"], 1, "{line}");
        }
    }
}

#[tokio::test]
async fn a_killed_destination_tunnel_costs_no_request() {
    let mut lab = Lab::new();
    lab.own_tunnels();
    lab.service("web", &[Port::new("http", 80)]);
    let _a = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    let _b = lab.pod("web", "web-b", Reach::Hbone, |at| App::http("b", at));
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let mut connection = Connection::http1(client.to("web", 80)).await;
    for at in 0..40 {
        if at == 20 {
            lab.kill_tunnel("web-a");
        }
        let answer = connection.get("/x/y").await.unwrap();
        assert_eq!(answer.status(), 200, "request {at}");
        let app = client::echo(&answer).app;
        assert!(at < 20 || app == "b", "request {at} was answered by {app}");
    }
}

#[tokio::test]
async fn a_request_that_an_endpoint_has_begun_is_not_sent_again() {
    let (lab, [mut a, mut b]) = two_pods().await;
    let client = lab.client("shop/viewer").await;
    let to = client.to("web", 80);
    let waiting = tokio::spawn(async move { client::get(to, "/wait/60000").await });
    until("an application has the request", async || {
        a.requests() + b.requests() == 1
    })
    .await;
    if a.requests() == 1 {
        a.kill();
    } else {
        b.kill();
    }
    assert_eq!(waiting.await.unwrap().status(), 503);
    assert_eq!(
        a.requests() + b.requests(),
        1,
        "the other endpoint never saw it"
    );
}

#[tokio::test]
async fn a_connection_that_an_application_closed_is_not_used_again() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http_once("a", at));
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let mut connection = Connection::http1(client.to("web", 80)).await;
    for at in 0..20 {
        let answer = connection.get("/").await.unwrap();
        assert_eq!(answer.status(), 200, "request {at}");
        until("the waypoint has noticed", async || {
            lab.cairn().metric("cairn_upstream_streams", &[]).await == 0.0
        })
        .await;
    }
    assert_eq!(app.requests(), 20);
}

#[tokio::test]
async fn all_endpoints_gone_is_a_503() {
    let (lab, [mut a, mut b]) = two_pods().await;
    a.kill();
    b.kill();
    let client = lab.client("shop/viewer").await;
    let answer = client::get(client.to("web", 80), "/").await;
    assert_eq!(answer.status(), 503);
    let line = lab
        .cairn()
        .logged("the 503", |l| l["response_code"] == 503)
        .await;
    assert!(line["attempts"].as_u64().unwrap() >= 2, "{line}");
}

#[tokio::test]
async fn a_rotated_certificate_is_shown_to_new_connections_and_cuts_none() {
    let (lab, _apps) = two_pods().await;
    let client = lab.client("shop/viewer").await;
    let mut before = Connection::http1(client.to("web", 80)).await;
    assert_eq!(before.get("/").await.unwrap().status(), 200);
    let old = shown(&lab).await;

    let renewed = lab.identities.issue("shop/waypoint");
    identities::write(&lab.waypoint_identity(), &renewed);
    until("the new certificate is shown", async || {
        shown(&lab).await != old
    })
    .await;

    let answer = before.get("/").await.unwrap();
    assert_eq!(
        answer.status(),
        200,
        "the connection from before still works"
    );
    let fresh = lab.client("shop/fresh").await;
    let answer = client::get(fresh.to("web", 80), "/").await;
    assert_eq!(answer.status(), 200);
}

/// The leaf that Cairn shows to a new connection.
async fn shown(lab: &Lab) -> Vec<u8> {
    let tls = Tls::of(&lab.identities.folder_of("shop/viewer"));
    let stream = tls.connect(lab.cairn().hbone, lab.client_address());
    let stream = stream.await.unwrap();
    let (_, session) = stream.get_ref();
    session.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_broken_certificate_file_leaves_the_old_one_in_force() {
    let (lab, _apps) = two_pods().await;
    std::fs::write(lab.waypoint_identity().join("cert-chain.pem"), "not PEM").unwrap();
    until("the failure is told", async || {
        lab.cairn().process.stderr().contains("cert-chain.pem")
    })
    .await;
    let client = lab.client("shop/viewer").await;
    assert_eq!(client::get(client.to("web", 80), "/").await.status(), 200);
}

fn deny(path: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: deny, namespace: shop}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: web}}]
  action: DENY
  rules: [{{to: [{{operation: {{paths: [{path}]}}}}]}}]
"
    )
}

#[tokio::test]
async fn a_saved_file_is_in_force_at_once_and_a_broken_one_is_not() {
    let (lab, _apps) = two_pods().await;
    let client = lab.client("shop/viewer").await;
    let to = client.to("web", 80);
    assert_eq!(client::get(to, "/a").await.status(), 200);

    lab.write("deny", &deny("/a"));
    let begin = Instant::now();
    until("/a is denied", async || {
        client::get(to, "/a").await.status() == 403
    })
    .await;
    // 200 ms is the promise; the rest is for a machine that runs other tests.
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );

    lab.write("deny", &deny("/b").replace("paths", "path"));
    until("the error is told", async || {
        lab.cairn()
            .metric("cairn_config_diagnostics", &["error"])
            .await
            > 0.0
    })
    .await;
    assert_eq!(
        client::get(to, "/a").await.status(),
        403,
        "the last good version"
    );
    assert_eq!(client::get(to, "/b").await.status(), 200);

    lab.write("deny", &deny("/b"));
    until("/b is denied", async || {
        client::get(to, "/b").await.status() == 403
    })
    .await;
    assert_eq!(client::get(to, "/a").await.status(), 200);

    lab.remove("deny");
    until("/b is allowed", async || {
        client::get(to, "/b").await.status() == 200
    })
    .await;
}

#[tokio::test]
async fn a_configmap_mount_that_swaps_its_symlink_is_a_change() {
    let (lab, _apps) = two_pods().await;
    let mount = lab.config().join("mounted");
    let version = |name: &str, path: &str| {
        let folder = mount.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("deny.yaml"), deny(path)).unwrap();
        std::os::unix::fs::symlink(name, mount.join("..data_tmp")).unwrap();
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    version("..2026_01", "/one");
    std::os::unix::fs::symlink("..data/deny.yaml", mount.join("deny.yaml")).unwrap();
    let client = lab.client("shop/viewer").await;
    let to = client.to("web", 80);
    until("/one is denied", async || {
        client::get(to, "/one").await.status() == 403
    })
    .await;
    version("..2026_02", "/two");
    until("/two is denied", async || {
        client::get(to, "/two").await.status() == 403
    })
    .await;
    assert_eq!(client::get(to, "/one").await.status(), 200);
}

#[tokio::test]
async fn a_removed_service_ends_new_tunnels_only() {
    let (lab, _apps) = two_pods().await;
    let client = lab.client("shop/viewer").await;
    let mut open = Connection::http1(client.to("web", 80)).await;
    assert_eq!(open.get("/").await.unwrap().status(), 200);
    lab.remove("service-web");
    let tls = Tls::of(&lab.identities.folder_of("shop/viewer"));
    until("the service is refused", async || {
        let mut tunnel = Tunnel::connect(&tls, lab.cairn().hbone, lab.client_address())
            .await
            .unwrap();
        tunnel.open("10.96.1.1:80").await.is_err()
    })
    .await;
    // What is open may be answered or refused, but never allowed by a policy that is gone.
    if let Ok(answer) = open.get("/").await {
        assert!(answer.status() == 503 || answer.status() == 404 || answer.status() == 200);
    }
}
