//! Services of other networks: through the gateway there, by a tunnel in a tunnel, both ended by real Envoys
//! (specs/istio-waypoint.md 2.6; docs/kube-source.md).

use std::net::SocketAddr;

use cairn_conformance::app::App;
use cairn_conformance::client;
use cairn_conformance::envoy::ServiceTunnel;
use cairn_conformance::lab::Client;
use cairn_conformance::process::{Process, until};
use cairn_waypoint::source::istiod::messages::{
    GatewayAddress, GatewayDestination, NetworkAddress, Service, Workload,
};

use crate::discovery::{World, answered_by, answering};
use crate::istiod::workload;

const WEB: &str = "web.shop.svc.cluster.local";
const STAND_IN: &str = "net-2/SplitHorizonWorkload/istio-system/eastwest/shop/web";

/// `shop/web` with one pod here, and one in `net-2`, behind the gateway of that network.
struct Networks {
    world: World,
    far: App,
    gateway: Process,
    behind: Process,
    gateway_address: SocketAddr,
}

impl Networks {
    /// `gateway` and `behind` are the identities (`namespace/account`) of the two that end tunnels.
    async fn new(gateway: &str, behind: &str) -> Self {
        let world = World::new();
        let far = App::http("beyond", world.lab.free_address());
        let (gateway_address, inner) = (world.lab.free_address(), world.lab.free_address());
        let authority = format!("{WEB}:80");
        let start = async |name, identity: &str, listen, to| {
            let tunnel = ServiceTunnel {
                identity: &world.lab.identities.folder_of(identity),
                listen,
                authority: &authority,
                to,
            };
            tunnel.start(name, world.lab.folder()).await
        };
        let behind = start("behind", behind, inner, far.address).await;
        let gateway = start("gateway", gateway, gateway_address, inner).await;
        Self {
            world,
            far,
            gateway,
            behind,
            gateway_address,
        }
    }

    /// Has istiod tell of both, as it does with a service that is `istio.io/global`.
    async fn start(&mut self) -> Client {
        let istiod = &self.world.istiod;
        istiod.tell(&[self.gateway_workload(), self.stand_in()]);
        istiod.tell_service(&Service {
            name: "web".to_owned(),
            namespace: "shop".to_owned(),
            hostname: WEB.to_owned(),
            subject_alt_names: vec!["spiffe://cluster.local/ns/shop/sa/far".to_owned()],
        });
        self.world.istiod.start().await;
        self.world.start_unready(&["--network", "net-1"]).await;
        self.world.lab.cairn_mut().until_ready().await;
        self.world.lab.client("shop/viewer").await
    }

    /// No more than istiod tells of one: neither a cluster, nor a trust domain, nor a tunnel.
    fn gateway_workload(&self) -> Workload {
        Workload {
            uid: self.gateway_uid(),
            namespace: "istio-system".to_owned(),
            network: "net-2".to_owned(),
            service_account: "eastwest".to_owned(),
            addresses: workload("eastwest", "eastwest", self.gateway_address).addresses,
            ..Workload::default()
        }
    }

    fn gateway_uid(&self) -> String {
        let (ip, port) = (self.gateway_address.ip(), self.gateway_address.port());
        format!("NetworkGateway/net-2/{ip}/{port}")
    }

    fn stand_in(&self) -> Workload {
        let at = workload("web", "", self.gateway_address);
        let address = NetworkAddress {
            network: "net-2".to_owned(),
            address: at.addresses[0].clone(),
        };
        Workload {
            uid: STAND_IN.to_owned(),
            network: "net-2".to_owned(),
            addresses: Vec::new(),
            network_gateway: Some(GatewayAddress {
                destination: Some(GatewayDestination::Address(address)),
                hbone_mtls_port: self.gateway_address.port().into(),
            }),
            ..at
        }
    }
}

const ASKED: &str =
    "spiffe://cluster.local/ns/shop/sa/waypoint web.shop.svc.cluster.local:80 waypoint net-1";

#[tokio::test]
async fn a_service_of_another_network_is_reached_by_a_tunnel_in_a_tunnel() {
    let mut networks = Networks::new("istio-system/eastwest", "shop/far").await;
    let viewer = networks.start().await;
    let to = viewer.to("web", 80);
    answered_by(to, &["beyond", "near"]).await;
    // Both were asked for the service by its name, by the waypoint, and told from which network.
    for envoy in [&networks.gateway, &networks.behind] {
        until("the stream is logged", async || !envoy.stdout().is_empty()).await;
        let log = envoy.stdout();
        assert!(log.lines().all(|line| line == ASKED), "{log}");
    }
    let cairn = networks.world.lab.cairn();
    assert!(cairn.metric("cairn_inner_tunnels", &[]).await >= 1.0);
    let at_gateway = networks.gateway_address.to_string();
    for line in cairn.access_log() {
        assert_eq!(line["response_code"], 200, "{line}");
    }
    let through = cairn.logged("a request that went there", |line| {
        line["upstream_host"] == at_gateway.as_str()
    });
    let line = through.await;
    assert_eq!(
        line["destination_principal"], "spiffe://cluster.local/ns/istio-system/sa/eastwest",
        "{line}"
    );
    let clusters = client::get_as("localhost", cairn.admin, "/clusters").await;
    let clusters = client::text(&clusters);
    assert!(
        clusters.contains("web.shop.svc.cluster.local:80"),
        "{clusters}"
    );

    // When nobody tells who the gateway is, nothing goes there.
    let istiod = &networks.world.istiod;
    istiod.forget(&[&networks.gateway_uid()]);
    answered_by(to, &["near"]).await;
    istiod.tell(&[networks.gateway_workload()]);
    answered_by(to, &["beyond", "near"]).await;
    let mut unhealthy = networks.stand_in();
    unhealthy.status = 1;
    istiod.tell(&[unhealthy]);
    answered_by(to, &["near"]).await;
}

/// The gateway is gone: requests go elsewhere, and its tunnels end.
#[tokio::test]
async fn a_gateway_that_dies_takes_its_tunnels_with_it() {
    let mut networks = Networks::new("istio-system/eastwest", "shop/far").await;
    let viewer = networks.start().await;
    let to = viewer.to("web", 80);
    answered_by(to, &["beyond", "near"]).await;
    drop(networks.gateway);
    let cairn = networks.world.lab.cairn();
    cairn.metric_falls_to("cairn_inner_tunnels", &[], 0.0).await;
    assert!(answering(to).await.iter().eq(["near"]));
}

/// Whoever has the address of the gateway, or stands behind it, gets nothing with another certificate.
#[tokio::test]
async fn who_is_not_expected_gets_nothing() {
    for (gateway, behind) in [
        ("istio-system/other", "shop/far"),
        ("istio-system/eastwest", "shop/other"),
    ] {
        let mut networks = Networks::new(gateway, behind).await;
        let viewer = networks.start().await;
        let to = viewer.to("web", 80);
        // Nothing of a request was sent, so that each goes to the other endpoint.
        for _ in 0..3 {
            assert!(answering(to).await.iter().eq(["near"]));
        }
        assert_eq!(networks.far.requests(), 0);
        let log = networks.behind.stdout();
        assert!(log.is_empty(), "{log}");
        let cairn = networks.world.lab.cairn();
        let tried = cairn.logged("a second attempt", |line| line["attempts"] == 2);
        let line = tried.await;
        assert_eq!(line["response_code"], 200, "{line}");
    }
}
