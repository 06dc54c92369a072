//! The laboratory without Cairn: were Envoy to Envoy not to work, no other test would mean anything.

use std::net::SocketAddr;

use cairn_conformance::app::App;
use cairn_conformance::client;
use cairn_conformance::lab::{Lab, Port, Reach};

#[tokio::test]
async fn a_client_tunnel_reaches_an_app_through_a_destination_tunnel() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.start_destination().await;
    // The client is told that the pod's own HBONE port is its next hop.
    let authority = SocketAddr::to_string(&app.address);
    let client = lab
        .client_of(
            "shop/viewer",
            lab.pod_hbone("web-a"),
            "shop/web",
            [(("web".to_owned(), 80), authority)],
        )
        .await;
    let answer = client::get(client.to("web", 80), "/direct").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(client::echo(&answer).path, "/direct");
}
