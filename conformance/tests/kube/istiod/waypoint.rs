//! Whether istiod leads ztunnels to a waypoint of Cairn, and whether its controllers and ours leave each other alone.

use std::collections::BTreeSet;
use std::time::Duration;

use cairn_conformance::cluster::collection;
use cairn_conformance::net::free_port;
use cairn_conformance::process::{Process, tied, until};
use cairn_conformance::workspace;
use cairn_waypoint::istiod::ControlPlane;
use cairn_waypoint::source::istiod::messages::{
    ADDRESS_TYPE, DeltaDiscoveryRequest, DeltaDiscoveryResponse, GatewayAddress,
    GatewayDestination, METHOD, Node,
};
use http::uri::PathAndQuery;
use prost::Message;
use serde_json::Value;
use tonic::{Extensions, Request};
use tonic_prost::ProstCodec;

use super::world::{GATEWAY_API, World};

/// How long nothing may be written once everything is settled.
const SETTLED: Duration = Duration::from_secs(60);

/// Without a write for so long, the first ones are over.
const SETTLING: Duration = Duration::from_secs(5);

/// What a ztunnel reads of a service: its name, namespace and waypoint.
#[derive(Clone, PartialEq, prost::Message)]
struct Address {
    #[prost(message, optional, tag = "2")]
    service: Option<Service>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "7")]
    waypoint: Option<GatewayAddress>,
}

/// The controller as a process, which makes waypoints that get certificates and workloads from istiod.
async fn controller(world: &World) -> Process {
    let loopback = "127.0.0.1".parse().unwrap();
    let [metrics, ready] =
        [(); 2].map(|()| std::net::SocketAddr::new(loopback, free_port(loopback)));
    let istiod = world.istiod.address();
    let mut command = tied(&workspace::cairn());
    command
        .args(["controller", "--image=cairn:test", "--namespace=default"])
        .arg(format!("--kubeconfig={}", world.cluster.admin().display()))
        .arg(format!("--metrics-addr={metrics}"))
        .arg(format!("--ready-addr={ready}"))
        .arg(format!("--ca-address={istiod}"))
        .args(["--discovery=istiod", &format!("--xds-address={istiod}")]);
    let mut process = Process::start("controller", command, world.cluster.folder());
    process.listening(ready).await;
    process
}

/// What istiod tells a ztunnel, once: the waypoint of each service that has one, as `HOSTNAME:PORT`.
async fn waypoints_of_services(world: &World) -> Vec<(String, String)> {
    let plane = ControlPlane {
        address: world.istiod.address().parse().unwrap(),
        server_name: None,
        roots: world.roots.clone(),
        token: world.token("web", Some("istio-ca")).await,
        cluster: "Kubernetes".parse().unwrap(),
    };
    let mut client = plane.connect().await.expect("istiod");
    client.ready().await.expect("istiod");
    let hello = DeltaDiscoveryRequest {
        node: Some(Node {
            id: format!("ztunnel~192.0.2.1~ztunnel.{0}~{0}.svc", world.namespace),
            metadata: None,
        }),
        type_url: ADDRESS_TYPE.to_owned(),
        resource_names_subscribe: vec!["*".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    let asked = futures::StreamExt::chain(
        futures::stream::iter([hello]),
        futures::stream::pending::<DeltaDiscoveryRequest>(),
    );
    let metadata = plane.metadata(plane.token().unwrap());
    let request = Request::from_parts(metadata, Extensions::default(), asked);
    let codec: ProstCodec<DeltaDiscoveryRequest, DeltaDiscoveryResponse> = ProstCodec::default();
    let method = PathAndQuery::from_static(METHOD);
    let answers = client
        .streaming(request, method, codec)
        .await
        .expect("a stream");
    let answer = answers.into_inner().message().await.expect("an answer");
    let resources = answer.expect("an answer").resources;
    let services = resources.into_iter().filter_map(|resource| {
        let bytes = resource.resource?.value;
        let service = Address::decode(bytes.as_slice())
            .expect("an Address")
            .service?;
        let waypoint = service.waypoint?;
        let Some(GatewayDestination::Hostname(host)) = waypoint.destination else {
            return Some((service.name, "an address".to_owned()));
        };
        Some((
            service.name,
            format!("{}:{}", host.hostname, waypoint.hbone_mtls_port),
        ))
    });
    let mut services: Vec<_> = services.collect();
    services.sort();
    services
}

/// Kind, name and version of everything that either control plane may write a status of.
async fn versions(world: &World) -> BTreeSet<String> {
    let mut versions = BTreeSet::new();
    for (api_version, plural) in [
        (GATEWAY_API, "gateways"),
        (GATEWAY_API, "gatewayclasses"),
        (GATEWAY_API, "httproutes"),
        ("security.istio.io/v1", "authorizationpolicies"),
        ("networking.istio.io/v1", "serviceentries"),
        ("v1", "services"),
        ("v1", "namespaces"),
        ("apps/v1", "deployments"),
    ] {
        let list = world
            .cluster
            .api
            .get(&collection(api_version, "", plural))
            .await;
        for item in list.unwrap()["items"].as_array().unwrap() {
            let metadata = &item["metadata"];
            let of = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
            versions.insert(format!("{plural} {} {}", of("name"), of("resourceVersion")));
        }
    }
    versions
}

fn has(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let mut all = conditions.into_iter().flatten();
    all.any(|c| c["type"] == condition && c["status"] == "True")
}

#[tokio::test]
#[ignore = "needs an istiod: make istiod"]
async fn istiod_leads_ztunnels_to_our_waypoint_and_both_leave_each_other_alone() {
    let Some(world) = World::start().await else {
        return;
    };
    let ns = world.namespace.as_str();
    let roles = workspace::root().join("deploy/quickstart/cairn.yaml");
    let apply = ["apply", "--server-side", "-f", roles.to_str().unwrap()];
    world.cluster.kubectl(&apply, "").await.expect("roles");
    let _controller = controller(&world).await;
    world.gateway().await;
    world.cluster.apply(&policies(ns)).await;
    // Nobody is led to a waypoint that is not there yet; this one takes an identity from istiod first.
    let gateways = collection(GATEWAY_API, ns, "gateways");
    let gateway = world
        .cluster
        .api
        .until(&gateways, "waypoint", "is programmed", |gateway| {
            has(gateway, "Programmed") && gateway["status"]["addresses"][0].is_object()
        });
    let gateway = gateway.await;
    assert_eq!(gateway["status"]["addresses"][0]["type"], "Hostname");
    let services = collection("v1", ns, "services");
    for name in ["web", "plain"] {
        for condition in ["istio.io/WaypointBound", "cairn.dev/WaypointBound"] {
            let bound = world
                .cluster
                .api
                .until(&services, name, condition, |service| {
                    has(service, condition)
                });
            bound.await;
        }
    }

    let at = format!("waypoint.{ns}.svc.cluster.local:15008");
    let expected = [
        ("ext".to_owned(), at.clone()),
        ("plain".to_owned(), at.clone()),
        ("web".to_owned(), at),
    ];
    let told = waypoints_of_services(&world).await;
    // The waypoint's own Service leads nowhere.
    assert_eq!(told, expected);

    let mut before = BTreeSet::new();
    until("both have written what they have to say", async || {
        let now = versions(&world).await;
        let is_settled = now == before;
        before = now;
        tokio::time::sleep(if is_settled { Duration::ZERO } else { SETTLING }).await;
        is_settled
    })
    .await;
    tokio::time::sleep(SETTLED).await;
    let after = versions(&world).await;
    let written: Vec<_> = after.difference(&before).collect();
    assert!(written.is_empty(), "{written:?}");
}

/// Objects of which both write statuses.
fn policies(ns: &str) -> String {
    format!(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: {ns}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: web, port: 80}}]
  rules: [{{backendRefs: [{{name: web, port: 80}}]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: web, namespace: {ns}}}
spec:
  targetRefs: [{{group: "", kind: Service, name: web}}]
  rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: ext, namespace: {ns}}}
spec:
  hosts: [ext.example]
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: 192.0.2.7}}]
"#
    )
}
