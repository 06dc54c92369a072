//! Which service ports the kernel redirect steers.

use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::resources::Loaded;
use cairn_config_schema::snapshot::Snapshot;

use super::support::{
    GATEWAY, NAMESPACE, WEB, broken, documents, key, load, resolved, shop, shop_with,
};

fn addresses(snapshot: &Snapshot) -> Vec<String> {
    let ports = snapshot.l7_ports().expect("it is known what to flag");
    ports.iter().map(|p| p.address.to_string()).collect()
}

#[test]
fn http_ports_of_an_attached_service_and_no_others() {
    let found = addresses(&shop_with(&[]));
    assert_eq!(found, ["10.0.0.1:80", "10.0.0.1:8080", "10.0.0.2:80"]);
}

#[test]
fn what_no_waypoint_serves_is_left_alone() {
    let unattached = NAMESPACE.replace("{istio.io/use-waypoint: waypoint}", "{}");
    let service = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
";
    let snapshot = resolved(&documents(&[GATEWAY, &unattached, service]));
    assert_eq!(addresses(&snapshot), [""; 0]);
    let snapshot = resolved(&documents(&[NAMESPACE, service]));
    assert_eq!(addresses(&snapshot), [""; 0]);
}

#[test]
fn what_to_flag_is_not_known_while_no_gateway_can_be_chosen() {
    let second = GATEWAY.replace("name: waypoint", "name: another");
    assert_eq!(shop_with(&[&second]).l7_ports(), None, "which of the two?");

    let other_class = shop(&[]).replace("cairn-waypoint", "cairn-waypiont");
    assert_eq!(resolved(&other_class).l7_ports(), None);

    let broken_gateway = broken(Kind::Gateway, "shop/waypoint", None);
    let mut resources = load(&documents(&[NAMESPACE, WEB]));
    let nobody = resolve(&resources, &Options::default());
    assert_eq!(nobody.l7_ports(), Some(Vec::new()), "no Gateway at all");
    let gateway = key("shop/waypoint");
    (resources.gateways).insert(gateway, Loaded::Broken(broken_gateway));
    let unreadable = resolve(&resources, &Options::default());
    assert_eq!(unreadable.l7_ports(), None);

    let mut resources = load(&documents(&[NAMESPACE, WEB]));
    resources.unreadable.push(("nonsense".into(), None));
    let unreadable = resolve(&resources, &Options::default());
    assert_eq!(unreadable.l7_ports(), None, "it may have been a Gateway");
    assert_eq!(Snapshot::default().l7_ports(), None, "nothing was read yet");
}

#[test]
fn an_undeclared_port_counts_once_it_has_a_route() {
    let service = "
apiVersion: v1
kind: Service
metadata: {name: raw, namespace: shop}
spec: {clusterIP: 10.0.0.3, ports: [{port: 7000}, {port: 7001}]}
";
    let without = addresses(&shop_with(&[service]));
    assert!(!without.iter().any(|a| a.starts_with("10.0.0.3")));
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: raw, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: raw, port: 7000}]
  rules: [{backendRefs: [{name: raw, port: 7000}]}]
";
    let with = addresses(&shop_with(&[service, route]));
    assert!(with.contains(&"10.0.0.3:7000".to_owned()), "{with:?}");
    assert!(!with.contains(&"10.0.0.3:7001".to_owned()), "{with:?}");
}

#[test]
fn a_policy_counts_on_tcp_ports_too_for_nobody_else_enforces_it() {
    let policy = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  rules: [{from: [{source: {namespaces: [shop]}}]}]
";
    let found = addresses(&shop_with(&[policy]));
    assert!(found.contains(&"10.0.0.1:9000".to_owned()), "{found:?}");
    // Of the service it targets only.
    assert_eq!(
        found.iter().filter(|a| a.starts_with("10.0.0.2")).count(),
        1
    );
}

#[test]
fn a_service_may_ask_to_go_past_a_proxy_that_is_gone() {
    let service = |annotation: &str| {
        format!(
            "
apiVersion: v1
kind: Service
metadata:
  name: open
  namespace: shop
  annotations: {{cairn.dev/redirect-failure: {annotation}}}
spec: {{clusterIP: 10.0.0.3, ports: [{{name: http, port: 80}}]}}
"
        )
    };
    let fails_open = |annotation| {
        let snapshot = shop_with(&[&service(annotation)]);
        let ports = snapshot.l7_ports().unwrap();
        let port = ports.iter().find(|p| &*p.service.name == "open");
        (port.unwrap().fails_open, snapshot.diagnostics.len())
    };
    assert_eq!(fails_open("open"), (true, fails_open("closed").1));
    assert!(!fails_open("closed").0);
    let (open, findings) = fails_open("Open");
    assert!(!open, "what is not understood does not pass policy by");
    assert_eq!(findings, fails_open("closed").1 + 1);
}

/// A Service with an undeclared port, its pod, and where that is.
const RAW: &str = "
apiVersion: v1
kind: Service
metadata: {name: raw, namespace: shop}
spec: {clusterIP: 10.0.0.3, selector: {app: raw}, ports: [{port: 7000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: raw-1, namespace: shop, labels: {app: raw}}
spec: {serviceAccountName: raw, containers: [{name: app, image: raw}]}
status: {phase: Running, podIP: 10.1.0.3, podIPs: [{ip: 10.1.0.3}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: raw-1, namespace: shop, labels: {kubernetes.io/service-name: raw}}
addressType: IPv4
ports: [{port: 7000}]
endpoints: [{addresses: [10.1.0.3], targetRef: {kind: Pod, name: raw-1, namespace: shop}}]
";

fn raw_is_flagged(more: &str) -> bool {
    let found = addresses(&shop_with(&[RAW, more]));
    found.contains(&"10.0.0.3:7000".to_owned())
}

#[test]
fn a_network_policy_counts_when_it_asks_what_is_said() {
    let policy = |rules: &str| {
        format!(
            "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: raw, namespace: shop}}
spec:
  endpointSelector: {{matchLabels: {{app: raw}}}}
  ingress:
  - toPorts:
    - ports: [{{port: '7000', protocol: TCP}}]
      {rules}
"
        )
    };
    assert!(!raw_is_flagged(&policy("")), "the CNI enforces it");
    assert!(raw_is_flagged(&policy("rules: {http: [{method: GET}]}")));
}

#[test]
fn tokens_are_asked_for_by_nobody_but_the_proxy() {
    let authentication = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: raw, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: raw}]
  jwtRules: [{issuer: me, jwks: '{\"keys\":[]}'}]
";
    assert!(!raw_is_flagged(&RAW.replace("raw", "other")));
    assert!(raw_is_flagged(authentication));
}
