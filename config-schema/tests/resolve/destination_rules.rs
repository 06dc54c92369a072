//! DestinationRules: which one holds, and what is made of its fields (specs/istio-waypoint.md 4.7,
//! specs/policies.md 2.7).

use cairn_config_schema::diagnostics::{Code, Diagnostic, Severity};
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{
    Balancer, ClusterKey, ClusterSettings, HashBy, HashTable, ProxyProtocol, Snapshot, TlsTrust,
};

use cairn_config_schema::store::{SourceFile, Store};

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
    let key = ClusterKey::new(key(service), port);
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

fn tls(written: &str) -> (ClusterSettings, Snapshot) {
    let written = format!("tls: {{{written}}}");
    let snapshot = shop_with(&[&policy("shop/web", WEB, &written)]);
    (settings(&snapshot, "shop/web", 80), snapshot)
}

/// HBONE stays whatever the mode is; `ISTIO_MUTUAL` takes nothing else (specs/istio-waypoint.md 4.7).
#[test]
fn tls_of_the_mesh_asks_for_the_tunnel_and_nothing_more() {
    for (mode, tunnel_only) in [("ISTIO_MUTUAL", true), ("DISABLE", false)] {
        let (settings, snapshot) = tls(&format!("mode: {mode}"));
        assert_eq!((settings.tls, settings.refused), (None, None), "{mode}");
        assert_eq!(settings.tunnel_only, tunnel_only, "{mode}");
        assert!(findings(&snapshot).is_empty(), "{mode}");
    }
}

/// Such a rule is not as if it were absent: plain text would take the place of TLS.
#[test]
fn a_rule_that_asks_for_tls_for_a_host_that_is_none_closes_what_it_could_be_for() {
    for (host, web, api) in [
        ("*shop.svc.cluster.local", true, true),
        ("*web.shop.svc.cluster.local", true, false),
        ("w*.shop.svc.cluster.local", true, true),
        ("*.web.*", true, true),
        ("*i.shop.svc.cluster.local", false, true),
        ("", true, true),
        ("*example.com", false, false),
    ] {
        for asked in [
            "tls: {mode: SIMPLE}",
            "tls: {mode: ISTIO_MUTUAL}",
            "tls: {mode: NONSENSE}",
            "portLevelSettings: [{port: {number: 9}, tls: {mode: SIMPLE}}]",
        ] {
            let snapshot = shop_with(&[&policy("shop/web", host, asked)]);
            for (service, closed) in [("shop/web", web), ("shop/api", api)] {
                let refused = settings(&snapshot, service, 80).refused;
                assert_eq!(refused.is_some(), closed, "'{host}', {asked}: {service}");
            }
            let of_host = |d: &&&Diagnostic| d.path == "spec.host";
            let findings = findings(&snapshot);
            let finding = findings.iter().find(of_host).unwrap();
            assert_eq!(finding.severity, Severity::Error);
            let effect = finding.effect.as_deref().unwrap();
            assert!(effect.starts_with("it asks for TLS: "), "{effect}");
        }
        let snapshot = shop_with(&[&policy("shop/web", host, ROUND)]);
        assert_eq!(
            settings(&snapshot, "shop/web", 80).refused,
            None,
            "'{host}'"
        );
        assert_eq!(finding(&snapshot).1, "spec.host", "'{host}'");
    }
}

/// Of a subset alone, too.
#[test]
fn tls_of_a_subset_counts_for_a_host_that_is_none() {
    let subset = "subsets: [{name: v1, labels: {v: \"1\"}, trafficPolicy: {tls: {mode: SIMPLE}}}]";
    let snapshot = shop_with(&[&rule("shop/web", "*shop.svc.cluster.local", subset)]);
    assert!(settings(&snapshot, "shop/web", 80).refused.is_some());
}

#[test]
fn tls_of_the_applications_own_names_the_host_and_who_vouches_for_it() {
    let (settings, snapshot) = tls("mode: SIMPLE");
    let origination = settings.tls.unwrap();
    assert_eq!(origination.trust, TlsTrust::System);
    assert_eq!(origination.server_name.as_deref(), Some(WEB));
    assert!(origination.names.is_empty() && origination.client.is_none());
    assert!(findings(&snapshot).is_empty());

    let (settings, _) = tls(
        "mode: MUTUAL, caCertificates: /ca.pem, clientCertificate: /own.pem, privateKey: /own.key, sni: db.example, subjectAltNames: [db-1.example]",
    );
    let origination = settings.tls.unwrap();
    assert_eq!(origination.trust, TlsTrust::File("/ca.pem".into()));
    assert_eq!(origination.server_name.as_deref(), Some("db.example"));
    assert_eq!(*origination.names, ["db-1.example".into()]);
    let client = origination.client.as_ref().unwrap();
    assert_eq!((&*client.chain, &*client.key), ("/own.pem", "/own.key"));
}

/// Plain text where TLS was asked for is no default to fall back to.
#[test]
fn tls_that_can_not_be_given_closes_the_service() {
    for (written, at) in [
        ("mode: MUTUAL", "mode"),
        ("mode: MUTUAL, clientCertificate: /own.pem", "mode"),
        ("mode: SIMPLE, credentialName: web-tls", "credentialName"),
        ("mode: SIMPLE, caCrl: /crl.pem", "caCrl"),
        ("mode: STRICT", "mode"),
    ] {
        let (settings, snapshot) = tls(written);
        assert!(
            settings.refused.is_some() && settings.tls.is_none(),
            "{written}"
        );
        let (severity, path, _) = finding(&snapshot);
        let expected = format!("spec.trafficPolicy.tls.{at}");
        assert_eq!((severity, path), (Severity::Error, &*expected), "{written}");
    }
}

#[test]
fn what_weakens_tls_is_said() {
    let (settings, snapshot) =
        tls("mode: SIMPLE, insecureSkipVerify: true, caCertificates: /ca.pem");
    assert_eq!(settings.tls.unwrap().trust, TlsTrust::Unverified);
    let (severity, path, _) = finding(&snapshot);
    let expected = "spec.trafficPolicy.tls.insecureSkipVerify";
    assert_eq!((severity, path), (Severity::Warning, expected));
    let (settings, snapshot) = tls("mode: SIMPLE, clientCertificate: /own.pem");
    assert!(settings.tls.unwrap().client.is_none());
    assert_eq!(finding(&snapshot).1, "spec.trafficPolicy.tls.mode");
}

/// It is none of what a port has of its own, so that it holds for ports, too.
#[test]
fn the_proxy_protocol_holds_for_all_ports_and_a_version_that_is_none_closes_the_service() {
    let rule = policy(
        "shop/web",
        WEB,
        "proxyProtocol: {version: V2}, portLevelSettings: [{port: {number: 8080}, loadBalancer: {simple: RANDOM}}]",
    );
    let snapshot = shop_with(&[&rule]);
    for port in [80, 8080] {
        let settings = settings(&snapshot, "shop/web", port);
        assert_eq!(settings.proxy_protocol, Some(ProxyProtocol::V2), "{port}");
    }
    assert!(findings(&snapshot).is_empty());
    let snapshot = shop_with(&[&policy("shop/web", WEB, "proxyProtocol: {version: V3}")]);
    assert!(settings(&snapshot, "shop/web", 80).refused.is_some());
    assert_eq!(
        finding(&snapshot).1,
        "spec.trafficPolicy.proxyProtocol.version"
    );
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

/// Plain text must not take the place of TLS because nobody can read who asked for it.
#[test]
fn a_rule_that_can_not_be_read_closes_the_host_it_may_have_wanted_tls_for() {
    for (spec, web, api) in [
        (
            "{host: web, trafficPolicy: {tls: {mode: SIMPLE, oops: 1}}}",
            true,
            false,
        ),
        (
            "{host: web, trafficPolicy: {tsl: {mode: SIMPLE}}}",
            true,
            false,
        ),
        (
            "{hots: web, trafficPolicy: {tls: {mode: SIMPLE}}}",
            true,
            true,
        ),
        // What it says of balancing is no danger to be without.
        (
            "{host: web, trafficPolicy: {loadBalancer: {oops: 1}, connectionPool: {tcp: {maxConnections: 1}}}}",
            false,
            false,
        ),
    ] {
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web, namespace: shop}}\nspec: {spec}"
        );
        let file = SourceFile {
            path: "config.yaml".into(),
            content: Ok(shop(&[&rule]).into_bytes().into()),
        };
        let resources = Store::default().update(&[file]).resources;
        let snapshot = resolve(&resources, &Options::default());
        let refused = |service| settings(&snapshot, service, 80).refused.is_some();
        assert_eq!(
            (refused("shop/web"), refused("shop/api")),
            (web, api),
            "{spec}"
        );
        let told = findings(&snapshot);
        assert!(told.iter().any(|d| d.code == Code::Unreadable), "{told:#?}");
    }
}

/// Settings or a subset that are there already are not in force, but what they ask for must not be missing.
#[test]
fn what_is_there_already_and_asks_for_tls_closes_it() {
    const TLS: &str = "tls: {mode: SIMPLE}";
    let refused = |spec: &str| {
        settings(
            &shop_with(&[&rule("shop/web", "web", spec)]),
            "shop/web",
            80,
        )
        .refused
        .is_some()
    };
    let ports = |first: &str, second: &str| {
        format!(
            "trafficPolicy: {{portLevelSettings: [{{port: {{number: 80}}, {first}}}, {{port: {{number: 80}}, {second}}}]}}"
        )
    };
    for (first, second, closed) in [
        (ROUND, TLS, true),
        (TLS, ROUND, false),
        (TLS, TLS, false),
        (TLS, "tls: {mode: SIMPLE, sni: other.example}", true),
        (TLS, "tls: {mode: ISTIO_MUTUAL}", true),
        (ROUND, RANDOM, false),
    ] {
        let spec = ports(first, second);
        assert_eq!(refused(&spec), closed, "{spec}");
    }
    // Of a subset: that of the host, its own, and both where a port is merged from them.
    let subsets = |of_host: &str, first: &str, second: &str| {
        format!(
            "{of_host} subsets: [{{name: v1, labels: {{version: v1}}, trafficPolicy: {{{first}}}}}, {second}]"
        )
    };
    let again = |policy: &str| {
        format!("{{name: v1, labels: {{version: v1}}, trafficPolicy: {{{policy}}}}}")
    };
    let port = "portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]";
    let twice = format!("{},", ports(ROUND, TLS));
    let other = "{name: v2}".to_owned();
    for (of_host, first, second, closed) in [
        ("", ROUND, again(TLS), true),
        ("", ROUND, again(port), true),
        ("", TLS, again(ROUND), false),
        ("", ROUND, again(RANDOM), false),
        (
            "trafficPolicy: {tls: {mode: SIMPLE}},",
            ROUND,
            again(RANDOM),
            false,
        ),
        (&*twice, ROUND, other.clone(), true),
        (&*twice, TLS, other, false),
    ] {
        let spec = subsets(of_host, first, &second);
        let lead = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec: {hosts: [web], http: [{route: [{destination: {host: web, port: {number: 80}, subset: v1}}]}]}";
        let snapshot = shop_with(&[&rule("shop/web", "web", &spec), lead]);
        let key = ClusterKey::new(key("shop/web"), 80).with_subset("v1".into());
        let settings = &snapshot.cluster_settings[&key];
        assert_eq!(settings.refused.is_some(), closed, "{spec}");
    }
}
