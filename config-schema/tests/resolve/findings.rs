//! The list of findings as a whole: order, repetitions, limits; and what resolving costs.

use std::time::{Duration, Instant};

use cairn_config_schema::diagnostics::{Code, Diagnostic, Location, Severity};
use cairn_config_schema::limits::DIAGNOSTICS_PER_OBJECT_MAX;
use cairn_config_schema::origin::{Kind, Origin};
use cairn_config_schema::resolve::{Options, resolve, worst_first};

use super::support::{Ask, key, load, shop, shop_with};

fn at(line: u32, finding: Diagnostic) -> Diagnostic {
    finding.at(Some(Location {
        file: "a.yaml".into(),
        line,
        column: 1,
    }))
}

#[test]
fn the_worst_comes_first_then_the_place() {
    let mut findings = vec![
        at(1, Diagnostic::warning(Code::Conflict, "third")),
        Diagnostic::error(Code::NoGateway, "second"),
        Diagnostic::new(Severity::Info, Code::Conflict, "fourth"),
        at(9, Diagnostic::error(Code::Conflict, "first")),
    ];
    worst_first(&mut findings);
    let order: Vec<_> = findings.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(order, ["first", "second", "third", "fourth"]);
}

#[test]
fn repetitions_are_dropped() {
    let mut findings = vec![at(1, Diagnostic::warning(Code::Conflict, "same")); 3];
    worst_first(&mut findings);
    assert_eq!(findings.len(), 1);
}

#[test]
fn one_object_has_a_limited_number_and_the_rest_is_counted() {
    let object = Origin {
        kind: Kind::HTTPRoute,
        key: key("shop/r"),
    };
    let total = DIAGNOSTICS_PER_OBJECT_MAX + 7;
    let mut findings: Vec<Diagnostic> = (0..total)
        .map(|i| Diagnostic::error(Code::BadValue, format!("{i}")).of(object.clone(), ""))
        .collect();
    worst_first(&mut findings);
    assert_eq!(findings.len(), DIAGNOSTICS_PER_OBJECT_MAX + 1);
    let last = findings.last().unwrap();
    assert_eq!(last.code, Code::LimitExceeded);
    assert!(last.message.starts_with("7 more"), "{}", last.message);
    // Sorting again, after findings of the parser were added, counts nothing twice.
    let before = findings.clone();
    worst_first(&mut findings);
    assert_eq!(findings, before);
}

#[test]
fn the_same_resources_give_the_same_snapshot() {
    let yaml = shop(&[
        "apiVersion: v1\nkind: Service\nmetadata: {name: bad, namespace: shop}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}",
    ]);
    let text = || serde_json::to_string(&resolve(&load(&yaml), &Options::default())).unwrap();
    assert_eq!(text(), text());
    let options = Options {
        version: 7,
        ..Options::default()
    };
    assert_eq!(resolve(&load(&yaml), &options).version, 7);
}

#[test]
fn every_error_and_warning_says_its_effect() {
    let snapshot = shop_with(&[
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: [{group: \"\", kind: Service, name: web}], rules: [{retry: {attempts: -1}, backendRefs: [{name: gone, port: 1}]}]}",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {rules: [{}]}",
    ]);
    assert_eq!(snapshot.diagnostics.len(), 3);
    for finding in &snapshot.diagnostics {
        assert!(finding.effect.is_some(), "{finding:?}");
    }
}

/// The goal is well under 100 ms in a release build; a debug build on a busy machine is allowed
/// twenty times that, which a quadratic scan would still exceed by far.
#[test]
fn a_large_configuration_resolves_in_time() {
    let (services, endpoints, routes) = (1_000, 10, 5_000);
    let mut documents = vec![shop(&[])];
    for s in 0..services {
        let (high, low) = (s / 250, s % 250);
        documents.push(format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s{s}, namespace: shop}}\nspec: {{clusterIP: 10.8.{high}.{low}, ports: [{{name: http, port: 80}}]}}"));
        let addresses: Vec<String> = (0..endpoints)
            .map(|e| format!("{{addresses: [10.{}.{high}.{low}]}}", 100 + e))
            .collect();
        documents.push(format!("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{s}, namespace: shop, labels: {{kubernetes.io/service-name: s{s}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{}]", addresses.join(", ")));
    }
    for r in 0..routes {
        let service = r % services;
        documents.push(format!("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{r}, namespace: shop}}\nspec: {{parentRefs: [{{group: \"\", kind: Service, name: s{service}}}], rules: [{{matches: [{{path: {{value: /p{r}}}}}], backendRefs: [{{name: s{service}, port: 80}}]}}]}}"));
    }
    let resources = load(&documents.join("\n---\n"));
    let start = Instant::now();
    let snapshot = resolve(&resources, &Options::default());
    let taken = start.elapsed();
    assert!(snapshot.said().is_empty());
    assert_eq!(snapshot.routes("shop/s7", 80).len(), routes / services);
    assert_eq!(snapshot.endpoints("shop/s7", 80).len(), endpoints);
    assert!(taken < Duration::from_secs(2), "{taken:?}");
}
