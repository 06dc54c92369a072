//! VirtualServices and subsets: what is made of them that no answer shows (specs/policies.md 2.6, 2.7).
//! What they answer is in the golden cases `virtual-service`.

use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{
    Balancer, ClusterKey, Filter, HttpRule, RetryPolicy, Snapshot, Timeouts,
};

use super::support::{key, load, shop, shop_with};

const RULE: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    connectionPool: {http: {http2MaxRequests: 7}}
    portLevelSettings: [{port: {number: 8080}, connectionPool: {http: {http2MaxRequests: 9}}}]
  subsets:
  - {name: plain, labels: {version: v1}}
  - {name: own, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, portLevelSettings: [{port: {number: 81}, outlierDetection: {}}]}}
";

fn routes(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web, namespace: shop}}\nspec: {{hosts: [web], http: [{http}]}}"
    )
}

fn lead_to(subset: &str, port: u16) -> String {
    routes(&format!(
        "{{route: [{{destination: {{host: web, subset: {subset}, port: {{number: {port}}}}}}}]}}"
    ))
}

fn subset(name: &str, port: u16) -> ClusterKey {
    ClusterKey::new(key("shop/web"), port).with_subset(name.into())
}

fn first_rule(snapshot: &Snapshot) -> HttpRule {
    let service = &snapshot.services[&key("shop/web")];
    service.ports[0].routes[0].rules[0].clone()
}

/// A subset goes field by field before what holds for the host.
#[test]
fn a_subset_inherits_what_it_does_not_say() {
    let snapshot = shop_with(&[RULE, &lead_to("own", 80)]);
    let own = &snapshot.cluster_settings[&subset("own", 80)];
    assert_eq!(own.balancing.balancer, Balancer::RoundRobin);
    assert_eq!(own.limits.requests_max, Some(7));
    let snapshot = shop_with(&[RULE, &lead_to("plain", 80)]);
    let plain = &snapshot.cluster_settings[&subset("plain", 80)];
    assert_eq!(plain.balancing.balancer, Balancer::Random);
    assert_eq!(plain.limits.requests_max, Some(7));
}

/// Of either alphabet and with or without padding, as protobuf's JSON takes them.
#[test]
fn the_body_of_an_answer_is_a_text_or_bytes_in_base64() {
    for (body, expected) in [
        ("{string: tea}", &b"tea"[..]),
        ("{bytes: dGVh}", b"tea"),
        ("{bytes: \"_-8=\"}", b"\xff\xef"),
        ("{bytes: /+8}", b"\xff\xef"),
        ("{}", b""),
    ] {
        let rule = routes(&format!(
            "{{directResponse: {{status: 200, body: {body}}}}}"
        ));
        let rule = first_rule(&shop_with(&[&rule]));
        let [Filter::Respond(direct)] = &rule.filters[..] else {
            panic!("{body}: {rule:?}");
        };
        assert_eq!(&*direct.body, expected, "{body}");
    }
}

/// A subset has effect only if a route names it (specs/policies.md 2.7).
#[test]
fn a_subset_that_no_route_leads_to_is_no_cluster() {
    let snapshot = shop_with(&[RULE, &lead_to("plain", 80)]);
    let subsets = snapshot.clusters.keys().filter_map(|k| k.subset.clone());
    assert_eq!(subsets.collect::<Vec<_>>(), ["plain".into()]);
    let snapshot = shop_with(&[RULE]);
    assert!(snapshot.clusters.keys().all(|k| k.subset.is_none()));
}

/// `timeout`, `retries` (specs/policies.md 2.6): attempts are those after the first.
#[test]
fn timeouts_and_retries_are_the_rules() {
    let to_web = "route: [{destination: {host: web}}]";
    let rule = |text: &str| first_rule(&shop_with(&[&routes(&format!("{{{text}, {to_web}}}"))]));
    let read = rule(
        "timeout: 2s, retries: {attempts: 3, perTryTimeout: 500ms, retryOn: \"gateway-error,409\"}",
    );
    let timeouts = Timeouts {
        request_ms: Some(2_000),
        attempt_ms: Some(500),
    };
    assert_eq!(read.traffic.timeouts, timeouts);
    let retry = read.traffic.retry.unwrap();
    assert_eq!(retry.retries_max, 3);
    assert!(retry.on.status(503) && retry.on.status(409) && !retry.on.status(500));
    assert!(!retry.on.reset && !retry.on.timeout);
    assert_eq!(retry.back_off.spread_ms, 25);

    let off = rule("timeout: 0s, retries: {attempts: 0}");
    assert_eq!(off.traffic.timeouts, Timeouts::default());
    assert_eq!(off.traffic.retry.unwrap().retries_max, 0);
    let silent = rule("name: silent").traffic.retry;
    assert_eq!(silent.unwrap_or(RetryPolicy::DEFAULT), RetryPolicy::DEFAULT);
}

/// What is served by no waypoint keeps its VirtualService for whoever serves it.
#[test]
fn without_a_waypoint_nothing_is_attached() {
    let mut resources = load(&shop(&[&lead_to("plain", 80), RULE]));
    resources.gateways.clear();
    let snapshot = resolve(&resources, &Options::default());
    let ports = snapshot.services.values().flat_map(|s| &s.ports);
    assert!(ports.into_iter().all(|port| port.routes.is_empty()));
}

/// Left out, preflights of other origins go to the service at Istio, and are answered here.
#[test]
fn what_becomes_of_preflights_that_match_no_origin_is_told() {
    let told = |field: &str| {
        let rule = routes(&format!(
            "{{corsPolicy: {{allowOrigins: [{{exact: 'https://a.example'}}]{field}}}, route: [{{destination: {{host: web}}}}]}}"
        ));
        let snapshot = shop_with(&[&rule]);
        let words = "unmatchedPreflights is not said";
        let mut findings = snapshot.diagnostics.iter();
        findings.any(|finding| finding.message.contains(words))
    };
    assert!(told(""));
    assert!(!told(", unmatchedPreflights: FORWARD"));
    assert!(!told(", unmatchedPreflights: IGNORE"));
}
