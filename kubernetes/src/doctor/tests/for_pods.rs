//! Waypoints for pods, endpoints that are no pods, shares of others, and what the waypoint is told.

use super::*;

/// `istio.io/waypoint-for: all`: at the address of a pod the waypoint asks its own policies, not a Service's.
fn serving_all() -> String {
    shop().replace(
        "metadata: {name: waypoint, namespace: shop, uid: gateway-1, generation: 2}\nspec:\n  gatewayClassName",
        "metadata: {name: waypoint, namespace: shop, uid: gateway-1, labels: {istio.io/waypoint-for: all}}\nspec:\n  gatewayClassName",
    )
}

const OF_GATEWAY: (&str, &str) = (
    "targetRefs: [{kind: Service, group: '', name: web}]",
    "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]",
);

#[test]
fn a_waypoint_for_pods_holds_its_own_policies_there_and_no_services() {
    let of_service = of(&serving_all());
    assert_eq!(outcome(&of_service, From::MeshByService), Outcome::Enforced);
    assert_eq!(outcome(&of_service, From::MeshByPod), Outcome::Bypass);
    let why = &of_service.services[0].ways[1].why;
    assert!(why.contains("AuthorizationPolicy/shop/readers"), "{why}");

    // The lock lets in the waypoint, and the waypoint asks nobody: it closes nothing here.
    let remedy = of_service.remedies()[0].0.to_string();
    let locked = of(&format!("{}---\n{remedy}", serving_all()));
    assert_eq!(outcome(&locked, From::MeshByPod), Outcome::Bypass);
    assert_eq!(outcome(&locked, From::OutsideOfMesh), Outcome::NotReachable);

    let own = serving_all().replace(OF_GATEWAY.0, OF_GATEWAY.1);
    assert_eq!(outcome(&of(&own), From::MeshByPod), Outcome::Enforced);
    let nowhere = own.replace(
        "addresses: [{type: IPAddress, value: 10.96.1.9}]",
        "addresses: []",
    );
    assert_eq!(outcome(&of(&nowhere), From::MeshByPod), Outcome::Bypass);
}

/// The hint of a headless Service leads to what is enforced.
#[test]
fn a_headless_service_is_served_by_its_pods_with_a_policy_of_the_gateway() {
    let headless = serving_all().replace("clusterIP: 10.96.1.1", "clusterIP: None");
    let of_service = of(&headless);
    assert_eq!(outcome(&of_service, From::MeshByService), Outcome::Bypass);
    let close = of_service.services[0].ways[0].close.as_ref().unwrap();
    assert!(
        close.contains("target the policy at the Gateway"),
        "{close}"
    );
    let own = of(&headless.replace(OF_GATEWAY.0, OF_GATEWAY.1));
    assert_eq!(outcome(&own, From::MeshByService), Outcome::Enforced);
}

/// A gateway sends to the pods themselves, whoever serves their addresses in the mesh.
#[test]
fn an_ingress_goes_past_a_waypoint_for_pods() {
    let own = serving_all().replace(OF_GATEWAY.0, OF_GATEWAY.1);
    let virtual_service = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: web, namespace: shop}, \
        spec: {hosts: [web.example.com], gateways: [edge], http: [{route: [{destination: {host: web}}]}]}}";
    let matrix = of(&format!("{own}---\n{virtual_service}"));
    assert_eq!(outcome(&matrix, From::MeshByPod), Outcome::Enforced);
    assert_eq!(outcome(&matrix, From::Ingress), Outcome::Bypass);
}

/// An EndpointSlice that somebody wrote by hand: a machine, with nobody in front of it.
#[test]
fn an_endpoint_that_is_no_pods_is_open() {
    let remedy = of(&shop()).remedies()[0].0.to_string();
    let by_hand = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
        metadata: {name: web-2, namespace: shop, labels: {kubernetes.io/service-name: web}}, \
        ports: [{name: http, port: 8080}], endpoints: [{addresses: [192.0.2.7]}]}";
    let matrix = with(&format!("{remedy}\n---\n{by_hand}"));
    assert_eq!(outcome(&matrix, From::MeshByPod), Outcome::Bypass);
    assert_eq!(outcome(&matrix, From::OutsideOfMesh), Outcome::Bypass);
    let why = &matrix.services[0].ways[1].why;
    assert!(why.contains("192.0.2.7:8080"), "{why}");
}

/// specs/istio-waypoint.md 1.3: the canary takes its share of the connections.
#[test]
fn a_share_for_another_waypoint_is_not_enforced_here() {
    let canary = |name: &str, weight: &str| {
        let labelled = shop().replace(
            "metadata: {name: web, namespace: shop}\nspec: {type",
            &format!(
                "metadata: {{name: web, namespace: shop, labels: {{istio.io/use-waypoint-canary: {name}}}, \
                 annotations: {{istio.io/use-waypoint-canary-weight: '{weight}'}}}}\nspec: {{type"
            ),
        );
        let gateways = ["istio-waypoint", "cairn-waypoint"].map(|class| {
            format!(
                "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: of-{class}, namespace: shop}}, \
                 spec: {{gatewayClassName: {class}, listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}}}\n"
            )
        });
        outcome(
            &of(&format!("{labelled}{}", gateways.concat())),
            From::MeshByService,
        )
    };
    assert_eq!(canary("of-istio-waypoint", "10"), Outcome::Elsewhere);
    assert_eq!(canary("of-cairn-waypoint", "10"), Outcome::Bypass);
    assert_eq!(canary("gone", "10"), Outcome::Bypass);
    assert_eq!(canary("gone", "many"), Outcome::Bypass, "not to be read");
    assert_eq!(canary("gone", "0"), Outcome::Enforced);
    assert_eq!(canary("waypoint", "10"), Outcome::Enforced, "itself");
}

/// `cairn controller --trust-domain`: what is printed lets in the waypoint as its certificate names it.
#[test]
fn the_remedy_names_the_trust_domain_that_the_waypoint_is_told() {
    let env = "env: [{name: TRUST_DOMAIN, value: td.example}]";
    let in_pod = shop().replace(
        "{name: cairn, image: cairn}",
        &format!("{{name: cairn, image: cairn, {env}}}"),
    );
    let in_deployment = shop().replace(
        "spec: {replicas: 2}",
        &format!("spec: {{template: {{spec: {{containers: [{{name: cairn, {env}}}]}}}}}}"),
    );
    for shop in [&in_pod, &in_deployment] {
        let matrix = of(shop);
        assert_eq!(
            matrix.remedies()[0].0["spec"]["rules"][0]["from"][0]["source"]["principals"][0],
            "td.example/ns/shop/sa/waypoint"
        );
    }
    // What a pod says that only has the label is no waypoint's.
    let stranger = format!(
        "{}---\n{{apiVersion: v1, kind: Pod, metadata: {{name: a, namespace: shop, \
         labels: {{gateway.networking.k8s.io/gateway-name: waypoint}}}}, spec: {{containers: [{{name: c, {env}}}]}}}}\n",
        shop()
    );
    let found = of(&stranger);
    let own = &found.remedies()[0].0["spec"]["rules"][0]["from"][0];
    assert_eq!(
        own["source"]["principals"][0],
        "cluster.local/ns/shop/sa/waypoint"
    );
    // Two that are told of: nobody knows which is in the certificate.
    let mesh = |domain: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio, namespace: istio-system}}, data: {{mesh: 'trustDomain: {domain}'}}}}\n"
        )
    };
    let disputed = of(&format!("{in_pod}{}", mesh("mesh.example")));
    assert!(disputed.remedies().is_empty(), "{disputed:?}");
    let close = disputed.services[0].ways[1].close.as_ref().unwrap();
    assert!(close.contains("--trust-domain"), "{close}");
    let agreed = of(&format!("{in_pod}{}", mesh("td.example")));
    assert_eq!(agreed.remedies().len(), 1);
}
