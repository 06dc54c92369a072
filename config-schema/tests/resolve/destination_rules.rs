//! DestinationRules: which one holds, and what is made of its fields (specs/istio-waypoint.md 4.7,
//! specs/policies.md 2.7).

use cairn_config_schema::diagnostics::{Code, Diagnostic, Severity};
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{
    Balancer, ClusterKey, ClusterSettings, HashBy, HashTable, Snapshot,
};

use super::support::{key, load, shop, shop_with};

fn rule(place: &str, host: &str, spec: &str) -> String {
    let (namespace, name) = place.split_once('/').unwrap();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{host: \"{host}\", {spec}}}"
    )
}

fn policy(place: &str, host: &str, policy: &str) -> String {
    rule(place, host, &format!("trafficPolicy: {{{policy}}}"))
}

fn settings(snapshot: &Snapshot, service: &str, port: u16) -> ClusterSettings {
    let key = ClusterKey {
        service: key(service),
        port,
    };
    let settings = snapshot.cluster_settings.get(&key).cloned();
    (*settings.unwrap_or_default()).clone()
}

fn balancer(snapshot: &Snapshot, service: &str) -> Balancer {
    settings(snapshot, service, 80).balancing.balancer
}

fn findings(snapshot: &Snapshot) -> Vec<&Diagnostic> {
    let of_rules = |d: &&Diagnostic| {
        let object = d.object.as_ref();
        object.is_some_and(|o| o.kind.as_str() == "DestinationRule")
    };
    snapshot.diagnostics.iter().filter(of_rules).collect()
}

/// The only finding on DestinationRules: severity, path, message.
fn finding(snapshot: &Snapshot) -> (Severity, &str, &str) {
    let [finding] = findings(snapshot)[..] else {
        panic!("{:#?}", findings(snapshot));
    };
    (finding.severity, &finding.path, &finding.message)
}

const ROUND: &str = "loadBalancer: {simple: ROUND_ROBIN}";
const RANDOM: &str = "loadBalancer: {simple: RANDOM}";
const WEB: &str = "web.shop.svc.cluster.local";

#[test]
fn a_service_without_a_rule_has_the_defaults() {
    let snapshot = shop_with(&[&policy("shop/web", "web", ROUND)]);
    assert_eq!(balancer(&snapshot, "shop/web"), Balancer::RoundRobin);
    assert_eq!(
        settings(&snapshot, "shop/api", 80),
        ClusterSettings::default()
    );
    assert!(findings(&snapshot).is_empty());
}

#[test]
fn a_host_is_a_name_of_the_rules_namespace_a_full_one_or_a_pattern() {
    for (host, holds) in [
        ("web", true),
        (WEB, true),
        ("WEB.shop.svc.cluster.local.", true),
        ("*.shop.svc.cluster.local", true),
        ("*", true),
        ("*.other.svc.cluster.local", false),
        ("web.shop", false),
    ] {
        let snapshot = shop_with(&[&policy("shop/web", host, RANDOM)]);
        assert_eq!(
            balancer(&snapshot, "shop/web") == Balancer::Random,
            holds,
            "{host}"
        );
        assert_eq!(findings(&snapshot).is_empty(), holds, "{host}");
    }
}

#[test]
fn an_exact_host_comes_before_a_pattern_and_a_longer_pattern_before_a_shorter_one() {
    let exact = policy("shop/a", WEB, ROUND);
    let long = policy("shop/b", "*.shop.svc.cluster.local", RANDOM);
    let short = policy("shop/c", "*", "loadBalancer: {simple: LEAST_REQUEST}");
    let snapshot = shop_with(&[&short, &long, &exact]);
    assert_eq!(balancer(&snapshot, "shop/web"), Balancer::RoundRobin);
    assert_eq!(balancer(&snapshot, "shop/api"), Balancer::Random);
}

/// "Lookup: rule for the host in waypoint ns, service ns, root ns" (specs/istio-waypoint.md 4.7).
#[test]
fn the_waypoints_namespace_comes_before_the_root_namespace_and_others_do_not_count() {
    let own = policy("shop/web", WEB, ROUND);
    let root = policy("istio-system/all", "*.cluster.local", RANDOM);
    let foreign = policy(
        "elsewhere/web",
        WEB,
        "loadBalancer: {consistentHash: {useSourceIp: true}}",
    );
    let snapshot = shop_with(&[&own, &root, &foreign]);
    assert_eq!(balancer(&snapshot, "shop/web"), Balancer::RoundRobin);
    assert_eq!(balancer(&snapshot, "shop/api"), Balancer::Random);
    let (severity, _, message) = finding(&snapshot);
    assert_eq!(severity, Severity::Warning);
    assert!(message.contains("is in force by another rule"), "{message}");
}

#[test]
fn a_rule_that_is_not_exported_here_is_not_seen() {
    for (export_to, seen) in [
        ("[\".\"]", false),
        ("[\"*\"]", true),
        ("[shop]", true),
        ("[elsewhere]", false),
        ("[]", true),
    ] {
        let spec = format!("exportTo: {export_to}, trafficPolicy: {{{RANDOM}}}");
        let snapshot = shop_with(&[&rule("istio-system/web", WEB, &spec)]);
        assert_eq!(
            balancer(&snapshot, "shop/web") == Balancer::Random,
            seen,
            "{export_to}"
        );
    }
}

#[test]
fn of_two_rules_for_one_host_the_older_holds_and_the_other_is_told_of() {
    let first = policy("shop/a", WEB, ROUND);
    let second = policy("shop/b", "web", RANDOM);
    let snapshot = shop_with(&[&second, &first]);
    assert_eq!(balancer(&snapshot, "shop/web"), Balancer::RoundRobin);
    let codes: Vec<Code> = findings(&snapshot).iter().map(|f| f.code).collect();
    assert!(codes.contains(&Code::Conflict), "{codes:?}");
}

/// "portLevelSettings override destination level without inheritance" (specs/policies.md 2.7).
#[test]
fn a_port_with_settings_of_its_own_inherits_nothing() {
    let snapshot = shop_with(&[&policy(
        "shop/web",
        WEB,
        "loadBalancer: {simple: RANDOM}, connectionPool: {http: {http2MaxRequests: 7}}, portLevelSettings: [{port: {number: 8080}, connectionPool: {tcp: {maxConnections: 3, connectTimeout: 2s}}}]",
    )]);
    let all = settings(&snapshot, "shop/web", 80);
    assert_eq!(all.balancing.balancer, Balancer::Random);
    assert_eq!(all.limits.requests_max, Some(7));
    let port = settings(&snapshot, "shop/web", 8080);
    assert_eq!(port.balancing.balancer, Balancer::LeastRequest);
    assert_eq!(port.limits.requests_max, None);
    assert_eq!(port.limits.connections_max, Some(3));
    assert_eq!(port.connect_timeout_ms, Some(2_000));
}

#[test]
fn consistent_hash_has_a_key_and_a_table() {
    let ring = HashTable::Ring { points_min: 1_024 };
    let cookie = HashBy::Cookie {
        name: "who".into(),
        path: Some("/".into()),
        ttl_s: Some(0),
    };
    for (written, by, table) in [
        ("useSourceIp: true", HashBy::SourceIp, ring),
        (
            "httpQueryParameterName: user",
            HashBy::Query("user".into()),
            ring,
        ),
        (
            "httpHeaderName: X-User, ringHash: {minimumRingSize: 9}",
            HashBy::Header(http::header::HeaderName::from_static("x-user")),
            HashTable::Ring { points_min: 9 },
        ),
        (
            "httpCookie: {name: who, path: /, ttl: 0s}, maglev: {tableSize: 5003}",
            cookie,
            HashTable::Maglev { size: 5_003 },
        ),
    ] {
        let hash = format!("loadBalancer: {{consistentHash: {{{written}}}}}");
        let snapshot = shop_with(&[&policy("shop/web", WEB, &hash)]);
        let Balancer::Hash(hash) = balancer(&snapshot, "shop/web") else {
            panic!("{written}");
        };
        assert_eq!((hash.by, hash.table), (by, table), "{written}");
        assert!(findings(&snapshot).is_empty(), "{written}");
    }
}

#[test]
fn outlier_detection_has_istios_defaults() {
    let snapshot = shop_with(&[&policy(
        "shop/web",
        WEB,
        "outlierDetection: {minHealthPercent: 30, maxEjectionPercent: 100}",
    )]);
    let settings = settings(&snapshot, "shop/web", 80);
    let rules = settings.outlier_detection.unwrap();
    assert_eq!(
        (rules.consecutive_5xx, rules.consecutive_gateway_errors),
        (5, 0)
    );
    assert_eq!(
        (rules.interval_ms, rules.base_ejection_ms),
        (10_000, 30_000)
    );
    assert_eq!(
        (
            rules.ejected_percent_max,
            settings.balancing.panic_threshold_percent
        ),
        (100, 30)
    );
}

/// Plain text where TLS was asked for is no default to fall back to.
#[test]
fn tls_of_the_applications_own_closes_the_service() {
    for (mode, refused) in [
        ("SIMPLE", true),
        ("MUTUAL", true),
        ("ISTIO_MUTUAL", false),
        ("DISABLE", false),
    ] {
        let tls = format!("tls: {{mode: {mode}}}");
        let snapshot = shop_with(&[&policy("shop/web", WEB, &tls)]);
        assert_eq!(
            settings(&snapshot, "shop/web", 80).refused.is_some(),
            refused,
            "{mode}"
        );
        assert_eq!(findings(&snapshot).is_empty(), !refused, "{mode}");
    }
}

#[test]
fn a_bad_value_is_told_of_and_leaves_the_default() {
    for (written, path) in [
        ("loadBalancer: {simple: FASTEST}", "loadBalancer.simple"),
        (
            "loadBalancer: {simple: RANDOM, warmup: {duration: 10s}}",
            "loadBalancer.warmup",
        ),
        (
            "loadBalancer: {consistentHash: {}}",
            "loadBalancer.consistentHash",
        ),
        (
            "loadBalancer: {consistentHash: {httpCookie: {name: \"a;b\"}, useSourceIp: true}}",
            "loadBalancer.consistentHash.httpCookie",
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}}",
            "loadBalancer.consistentHash.maglev.tableSize",
        ),
        (
            "outlierDetection: {interval: soon}",
            "outlierDetection.interval",
        ),
        (
            "outlierDetection: {maxEjectionPercent: 101}",
            "outlierDetection.maxEjectionPercent",
        ),
        (
            "connectionPool: {http: {http2MaxRequests: -1}}",
            "connectionPool.http.http2MaxRequests",
        ),
        (
            "connectionPool: {tcp: {idleTimeout: 5s}}",
            "connectionPool.tcp.idleTimeout",
        ),
        ("proxyProtocol: {version: V2}", "proxyProtocol"),
    ] {
        let snapshot = shop_with(&[&policy("shop/web", WEB, written)]);
        let (_, at, _) = finding(&snapshot);
        assert_eq!(at, format!("spec.trafficPolicy.{path}"), "{written}");
        assert!(settings(&snapshot, "shop/web", 80).refused.is_none());
    }
}

#[test]
fn without_a_waypoint_no_rule_is_read() {
    let yaml = shop(&[&policy("shop/web", WEB, RANDOM)]);
    let options = Options {
        gateway: Some(key("shop/another")),
        ..Options::default()
    };
    assert!(resolve(&load(&yaml), &options).cluster_settings.is_empty());
}
