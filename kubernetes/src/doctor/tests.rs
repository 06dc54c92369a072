//! Golden cases: what is in the cluster, and the matrix as people read it.

use super::*;
use crate::cluster::{SHOP, documents};

/// A Service with a policy behind the waypoint; its pod is in the mesh.
const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: ClusterIP, clusterIP: 10.96.1.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.1.7], targetRef: {kind: Pod, name: web-1, namespace: shop}}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: web, containers: [{name: web, image: web}]}
status: {podIP: 10.244.1.7, phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: '', name: web}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
";

pub(super) fn shop() -> String {
    format!("{SHOP}---{WEB}")
}

fn of(yaml: &str) -> Matrix {
    examine(&Cluster::of(documents(yaml), Vec::new()), None, None)
}

fn with(more: &str) -> Matrix {
    of(&format!("{}---\n{more}", shop()))
}

/// The only Service's ways, each as `from: outcome, why`.
fn ways(matrix: &Matrix) -> Vec<(From, Outcome)> {
    let [service] = matrix.services.as_slice() else {
        panic!("{matrix:?}")
    };
    service.ways.iter().map(|w| (w.from, w.outcome)).collect()
}

fn outcome(matrix: &Matrix, from: From) -> Outcome {
    let found = ways(matrix).into_iter().find(|(f, _)| *f == from);
    found.unwrap_or_else(|| panic!("{from:?} in {matrix:?}")).1
}

#[test]
fn a_waypoint_alone_leaves_the_pods_open() {
    let matrix = of(&shop());
    assert_eq!(
        ways(&matrix),
        [
            (From::MeshByService, Outcome::Enforced),
            (From::MeshByPod, Outcome::Bypass),
            (From::OutsideOfMesh, Outcome::Bypass),
        ]
    );
    assert!(matrix.has_gaps());
    let web = &matrix.services[0];
    assert_eq!(web.policies, ["AuthorizationPolicy/shop/readers"]);
    assert_eq!(web.waypoint.as_deref(), Some("shop/waypoint"));
    assert_eq!(
        web.ways[1].why,
        "Pod shop/web-1: no AuthorizationPolicy keeps others than the waypoint from it"
    );
    let remedy = web.remedy.as_ref().unwrap();
    assert_eq!(
        remedy.named(),
        "AuthorizationPolicy shop/web-only-from-waypoint"
    );
    assert_eq!(
        remedy.0["spec"],
        serde_json::json!({
            "selector": {"matchLabels": {"app": "web"}},
            "action": "ALLOW",
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/waypoint"]}}]}],
        })
    );
}

/// What is printed to be applied closes what it says it closes, for whoever comes.
#[test]
fn the_remedy_closes_every_way_to_the_pods() {
    let exposed = shop().replace("type: ClusterIP", "type: NodePort");
    let before = of(&exposed);
    assert_eq!(outcome(&before, From::NodePort), Outcome::Bypass);
    let remedy = before.remedies()[0].0.to_string();
    let after = of(&format!("{exposed}---\n{remedy}"));
    assert_eq!(
        ways(&after),
        [
            (From::MeshByService, Outcome::Enforced),
            (From::MeshByPod, Outcome::NotReachable),
            (From::OutsideOfMesh, Outcome::NotReachable),
            (From::NodePort, Outcome::NotReachable),
        ]
    );
    assert!(
        !after.has_gaps() && after.remedies().is_empty(),
        "{after:?}"
    );
}

/// A lock counts only if it is whole: every source of every rule is the waypoint.
#[test]
fn a_policy_that_lets_in_one_more_is_no_lock() {
    let policy = |rules: &str| {
        format!(
            "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: lock, namespace: shop}}
spec: {{selector: {{matchLabels: {{app: web}}}}, {rules}}}
"
        )
    };
    let by_pod = |rules: &str| outcome(&with(&policy(rules)), From::MeshByPod);
    let (closed, open) = (Outcome::NotReachable, Outcome::Bypass);
    let own = "cluster.local/ns/shop/sa/waypoint";
    for (rules, expected) in [
        (
            format!("rules: [{{from: [{{source: {{principals: [{own}]}}}}]}}]"),
            closed,
        ),
        (
            format!("rules: [{{when: [{{key: source.principal, values: [{own}]}}]}}]"),
            closed,
        ),
        (
            format!("action: DENY, rules: [{{from: [{{source: {{notPrincipals: [{own}]}}}}]}}]"),
            closed,
        ),
        ("rules: []".to_owned(), closed),
        (
            format!("rules: [{{from: [{{source: {{principals: [{own}, a/ns/b/sa/c]}}}}]}}]"),
            open,
        ),
        (
            "rules: [{from: [{source: {principals: ['cluster.local/ns/shop/sa/*']}}]}]".to_owned(),
            open,
        ),
        (
            "rules: [{from: [{source: {namespaces: [shop]}}]}]".to_owned(),
            open,
        ),
        (
            format!(
                "rules: [{{from: [{{source: {{principals: [{own}]}}}}, {{source: {{namespaces: [shop]}}}}]}}]"
            ),
            open,
        ),
        (
            format!(
                "action: DENY, rules: [{{from: [{{source: {{notPrincipals: [{own}]}}}}], to: [{{operation: {{ports: ['1']}}}}]}}]"
            ),
            open,
        ),
        (
            format!("action: DENY, rules: [{{from: [{{source: {{notPrincipals: ['*{own}']}}}}]}}]"),
            open,
        ),
        (
            "action: DENY, rules: [{from: [{source: {notPrincipals: ['*']}}]}]".to_owned(),
            open,
        ),
    ] {
        assert_eq!(by_pod(&rules), expected, "{rules}");
    }
}

#[test]
fn a_service_without_a_waypoint_is_told_how_to_get_one() {
    let matrix = of(&shop().replace("labels: {istio.io/use-waypoint: waypoint}", "labels: {}"));
    let way = &matrix.services[0].ways[0];
    assert_eq!(way.outcome, Outcome::Bypass);
    assert_eq!(
        way.close.as_deref(),
        Some("cairn attach -n shop --service web")
    );
    assert_eq!(
        matrix.services[0].policies,
        ["AuthorizationPolicy/shop/readers"]
    );
}

/// specs/istio-waypoint.md 1.9: without an address clients go past, without a ready pod they fail.
#[test]
fn a_waypoint_that_is_not_there_yet_fails_open_and_one_that_was_fails_closed() {
    let none = of(&shop().replace(
        "addresses: [{type: IPAddress, value: 10.96.1.9}]",
        "addresses: []",
    ));
    assert_eq!(outcome(&none, From::MeshByService), Outcome::Bypass);
    let ready =
        "status: {podIP: 10.244.1.9, phase: Running, conditions: [{type: Ready, status: 'True'}]}";
    let dead = of(&shop().replace(ready, &ready.replace("'True'", "'False'")));
    assert_eq!(outcome(&dead, From::MeshByService), Outcome::NotReachable);
}

#[test]
fn a_headless_service_is_past_every_waypoint() {
    let matrix = of(&shop().replace("clusterIP: 10.96.1.1", "clusterIP: None"));
    assert_eq!(outcome(&matrix, From::MeshByService), Outcome::Bypass);
}

#[test]
fn strict_mtls_closes_plain_text_and_nothing_else() {
    let peer = |spec: &str| {
        let matrix = with(&format!(
            "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: strict, namespace: shop}}, spec: {spec}}}"
        ));
        (
            outcome(&matrix, From::OutsideOfMesh),
            outcome(&matrix, From::MeshByPod),
        )
    };
    let (closed, open) = (Outcome::NotReachable, Outcome::Bypass);
    assert_eq!(peer("{mtls: {mode: STRICT}}"), (closed, open));
    assert_eq!(peer("{mtls: {mode: PERMISSIVE}}"), (open, open));
    assert_eq!(
        peer("{mtls: {mode: STRICT}, portLevelMtls: {'8080': {mode: DISABLE}}}"),
        (open, open)
    );
    assert_eq!(
        peer("{selector: {matchLabels: {app: api}}, mtls: {mode: STRICT}}"),
        (open, open)
    );
}

/// A PeerAuthentication of a port alone leaves the other ports to the level above.
#[test]
fn a_port_that_is_opened_is_open_under_a_strict_namespace() {
    let strict = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: all, namespace: shop}, spec: {mtls: {mode: STRICT}}}";
    let plain = |of_port: &str| {
        let of_pod = format!(
            "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: port, namespace: shop}}, spec: {of_port}}}"
        );
        outcome(
            &with(&format!("{strict}\n---\n{of_pod}")),
            From::OutsideOfMesh,
        )
    };
    let port = |app: &str, mode: &str| {
        plain(&format!(
            "{{selector: {{matchLabels: {{app: {app}}}}}, portLevelMtls: {{'8080': {{mode: {mode}}}}}}}"
        ))
    };
    assert_eq!(port("web", "PERMISSIVE"), Outcome::Bypass);
    assert_eq!(port("web", "STRICT"), Outcome::NotReachable);
    assert_eq!(port("api", "PERMISSIVE"), Outcome::NotReachable);
}

#[test]
fn an_ingress_goes_past_the_waypoint_unless_the_service_says_otherwise() {
    let edge = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: ingress}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge, namespace: ingress}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";
    let matrix = with(edge);
    assert_eq!(outcome(&matrix, From::Ingress), Outcome::Bypass);
    let close = matrix.services[0]
        .ways
        .last()
        .unwrap()
        .close
        .clone()
        .unwrap();
    assert!(
        close.contains("istio.io/ingress-use-waypoint=true"),
        "{close}"
    );

    let labelled = shop().replace("{name: web, namespace: shop}\nspec: {type", "{name: web, namespace: shop, labels: {istio.io/ingress-use-waypoint: 'true'}}\nspec: {type");
    let matrix = of(&format!("{labelled}---\n{edge}"));
    assert_eq!(outcome(&matrix, From::Ingress), Outcome::Enforced);

    let foreign = edge.replace("istio.io/gateway-controller", "example.com/ingress");
    let matrix = of(&format!("{labelled}---\n{foreign}"));
    assert_eq!(
        outcome(&matrix, From::Ingress),
        Outcome::Bypass,
        "nobody knows that it heeds the label"
    );
}

#[test]
fn a_pod_outside_of_the_mesh_has_nobody_who_asks() {
    let bare = shop().replace(", annotations: {ambient.istio.io/redirection: enabled}", "");
    let matrix = of(&bare);
    assert_eq!(outcome(&matrix, From::MeshByPod), Outcome::Bypass);
    let close = matrix.services[0].ways[1].close.clone().unwrap();
    assert!(close.contains("istio.io/dataplane-mode=ambient"), "{close}");
    let remedy = matrix.remedies()[0].0.to_string();
    let after = of(&format!("{bare}---\n{remedy}"));
    assert_eq!(
        outcome(&after, From::MeshByPod),
        Outcome::Bypass,
        "no ztunnel, no policy"
    );
}

#[test]
fn a_service_without_a_policy_has_nothing_to_lose() {
    let shop = shop();
    let readers = shop.rfind("---").unwrap();
    assert!(of(&shop[..readers]).services.is_empty());
}

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
