//! Endpoints by place (specs/istio-waypoint.md 4.1, 4.7; specs/policies.md 2.7): localityLbSetting and
//! trafficDistribution as weights and priorities. How requests follow is in `cairn-routing`.

use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{ClusterKey, Locality, Snapshot};

use super::support::{Ask, key, load, shop};

/// Endpoints of `shop/web`, one a line: address, zone, node, labels of the pod, zones it is meant for.
const ENDPOINTS: [(&str, &str, &str, &str, &str); 5] = [
    (
        "10.1.0.1",
        "a",
        "node-1",
        "topology.kubernetes.io/region: east, version: v1",
        "",
    ),
    (
        "10.1.0.2",
        "a",
        "node-2",
        "topology.kubernetes.io/region: east, version: v2",
        "",
    ),
    (
        "10.1.0.3",
        "b",
        "node-3",
        "topology.kubernetes.io/region: east, version: v1",
        "",
    ),
    (
        "10.1.0.4",
        "c",
        "node-4",
        "topology.kubernetes.io/region: west",
        "",
    ),
    ("10.1.0.5", "d", "node-5", "istio-locality: north.d.x", ""),
];

fn mesh(hints: [&str; 5], more: &[&str]) -> String {
    let mut endpoints = String::new();
    let mut pods = String::new();
    for ((ip, zone, node, labels, _), hint) in ENDPOINTS.into_iter().zip(hints) {
        let name = ip.rsplit('.').next().unwrap();
        let hint = match hint {
            "" => String::new(),
            zone => format!(", hints: {{forZones: [{{name: {zone}}}]}}"),
        };
        endpoints += &format!(
            "- {{addresses: [{ip}], zone: {zone}, nodeName: {node}, targetRef: {{kind: Pod, name: web-{name}, namespace: shop}}{hint}}}\n"
        );
        pods += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-{name}, namespace: shop, labels: {{{labels}}}}}\nspec: {{nodeName: {node}}}\nstatus: {{podIPs: [{{ip: {ip}}}]}}\n"
        );
    }
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{name: http, port: 8000}}, {{name: http-admin, port: 8001}}, {{name: tcp, port: 8002}}]\nendpoints:\n{endpoints}{pods}"
    );
    shop(&[&[slice.as_str()], more].concat())
}

fn resolved(text: &str, locality: Option<&str>, node: Option<&str>) -> Snapshot {
    let options = Options {
        locality: locality.map(Locality::parse),
        node: node.map(str::to_owned),
        ..Options::default()
    };
    resolve(&load(text), &options)
}

/// Last number of the address, priority and weight.
fn placed(snapshot: &Snapshot) -> Vec<(u8, u8, u32)> {
    let endpoints = &snapshot.clusters[&ClusterKey::new(key("shop/web"), 80)];
    let one = |e: &cairn_config_schema::snapshot::Endpoint| match e.address.ip() {
        std::net::IpAddr::V4(ip) => (ip.octets()[3], e.priority, e.weight),
        std::net::IpAddr::V6(_) => panic!("IPv4"),
    };
    endpoints.iter().map(one).collect()
}

fn priorities(snapshot: &Snapshot) -> Vec<u8> {
    placed(snapshot)
        .into_iter()
        .map(|(_, priority, _)| priority)
        .collect()
}

fn rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web, namespace: shop}}\nspec: {{host: web, trafficPolicy: {{{policy}}}}}"
    )
}

const NO_HINTS: [&str; 5] = [""; 5];
const DETECT: &str = "outlierDetection: {}";

fn by_rule(setting: &str, locality: &str) -> Snapshot {
    let rule = rule(&format!(
        "loadBalancer: {{localityLbSetting: {{{setting}}}}}, {DETECT}"
    ));
    resolved(&mesh(NO_HINTS, &[&rule]), Some(locality), Some("node-1"))
}

#[test]
fn the_nearest_go_first_then_the_region_that_fails_over() {
    let snapshot = by_rule("", "east/a");
    assert_eq!(priorities(&snapshot), [0, 0, 2, 3, 3]);
    let snapshot = by_rule("failover: [{from: east, to: north}]", "east/a");
    assert_eq!(priorities(&snapshot), [0, 0, 2, 4, 3]);
    assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
    // As at Istio, outlier detection alone is enough, and `enabled: false` turns it off.
    let rule_alone = resolved(&mesh(NO_HINTS, &[&rule(DETECT)]), Some("east/a"), None);
    assert_eq!(priorities(&rule_alone), [0, 0, 2, 3, 3]);
    assert_eq!(priorities(&by_rule("enabled: false", "east/a")), [0; 5]);
}

#[test]
fn labels_count_from_the_first() {
    let setting =
        "failoverPriority: [topology.kubernetes.io/region, version=v1, kubernetes.io/hostname]";
    assert_eq!(priorities(&by_rule(setting, "east/a")), [0, 2, 1, 3, 3]);
    let unknown = by_rule("failoverPriority: [version]", "east/a");
    assert_eq!(
        priorities(&unknown)[..2],
        [0, 0],
        "as the rule's outlier detection has it"
    );
    let path = "spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[0]";
    assert_eq!(
        unknown.said(),
        [format!("error bad-value DestinationRule/shop/web {path}")]
    );
}

#[test]
fn shares_are_spread_over_the_endpoints_of_a_place() {
    let shares = "distribute: [{from: west/*, to: {'*': 100}}, {from: east/*, to: {east/a/*: 80, east/*: 0, west: 20}}]";
    let snapshot = by_rule(shares, "east/a");
    assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
    // Of two places the narrower one counts; what has no share gets nothing.
    let expected = vec![(1, 0, 40_000), (2, 0, 40_000), (4, 0, 20_000)];
    assert_eq!(placed(&snapshot), expected);
    // For a waypoint elsewhere nothing is said; where nobody is, nobody is preferred.
    assert_eq!(placed(&by_rule(shares, "south/a")).len(), 5);
    assert_eq!(
        placed(&by_rule(
            "distribute: [{from: '*', to: {mars: 100}}]",
            "east/a"
        ))
        .len(),
        5
    );
}

#[test]
fn what_is_wrong_with_a_setting_is_said_and_nobody_is_preferred() {
    let base = "spec.trafficPolicy.loadBalancer.localityLbSetting";
    for (setting, said) in [
        (
            "distribute: [{from: a//b, to: {a: 100}}]",
            "error bad-value {} .distribute[0].from",
        ),
        (
            "distribute: [{from: a, to: {a: 90}}]",
            "error bad-value {} .distribute[0].to",
        ),
        (
            "distribute: [{from: a, to: {'*/b': 100}}]",
            "error bad-value {} .distribute[0].to",
        ),
    ] {
        let snapshot = by_rule(setting, "east/a");
        let at = said.replace("{} ", &format!("DestinationRule/shop/web {base}"));
        assert_eq!(snapshot.said(), [at], "{setting}");
        assert_eq!(placed(&snapshot).len(), 5);
    }
    let without = rule("loadBalancer: {localityLbSetting: {failover: [{from: east, to: west}]}}");
    let snapshot = resolved(&mesh(NO_HINTS, &[&without]), Some("east/a"), None);
    assert_eq!(
        snapshot.said(),
        [format!(
            "warning missing-field DestinationRule/shop/web {base}"
        )]
    );
    assert_eq!(priorities(&snapshot), [0; 5]);
    // Where the waypoint is, nobody knows.
    let with = rule(&format!(
        "loadBalancer: {{localityLbSetting: {{}}}}, {DETECT}"
    ));
    let lost = resolved(&mesh(NO_HINTS, &[&with]), None, None);
    assert_eq!(
        lost.said(),
        [format!(
            "warning unsupported DestinationRule/shop/web {base}"
        )]
    );
    assert_eq!(priorities(&lost), [0; 5]);
}

fn distributed(
    how: &str,
    hints: [&str; 5],
    locality: Option<&str>,
    node: Option<&str>,
) -> Snapshot {
    let text = mesh(hints, &[]);
    let text = text.replace(
        "spec:\n  clusterIP: 10.0.0.1\n",
        &format!("spec:\n  clusterIP: 10.0.0.1\n  trafficDistribution: {how}\n"),
    );
    resolved(&text, locality, node)
}

#[test]
fn a_service_may_prefer_its_zone_or_its_node() {
    for how in ["PreferClose", "PreferSameZone"] {
        let snapshot = distributed(how, NO_HINTS, Some("east/a"), Some("node-1"));
        assert_eq!(priorities(&snapshot), [1, 1, 2, 3, 3], "{how}");
    }
    // The zone follows from the node.
    let snapshot = distributed("PreferSameNode", NO_HINTS, None, Some("node-2"));
    assert_eq!(priorities(&snapshot), [1, 0, 2, 3, 3]);
    let lost = distributed("PreferSameZone", NO_HINTS, None, Some("node-9"));
    assert_eq!(
        lost.said(),
        ["warning unsupported Service/shop/web spec.trafficDistribution"]
    );
    assert_eq!(priorities(&lost), [0; 5]);
}

#[test]
fn an_endpoint_is_for_the_zones_that_its_slice_names() {
    let hints = ["b", "a", "a", "c", "d"];
    let snapshot = distributed("PreferClose", hints, Some("east/a"), None);
    assert_eq!(priorities(&snapshot), [2, 1, 1, 3, 3]);
}
