//! XBackendTrafficPolicies (GEP-1619, GEP-3388, specs/gateway-api.md 3). What is said of bad ones is in the
//! golden case backend-traffic-policy/targets.

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    ClusterKey, ClusterSettings, RetryBudget, RetryWindow, SessionCarrier, Snapshot,
};

use super::support::{Ask, shop_with};

fn policy(name: &str, target: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{targetRefs: [{{group: '', kind: Service, name: {target}}}], {spec}}}"
    )
}

fn settings(snapshot: &Snapshot, service: &str, port: u16) -> ClusterSettings {
    let key = ClusterKey::new(ObjectKey::new("shop", service), port);
    snapshot.cluster_settings[&key].as_ref().clone()
}

#[test]
fn sessions_and_budgets_are_those_of_every_port() {
    let text = policy(
        "p",
        "web",
        "sessionPersistence: {sessionName: cart}, retryConstraint: {}",
    );
    let snapshot = shop_with(&[&text]);
    assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
    let ports: Vec<u16> = snapshot
        .service("shop/web")
        .ports
        .iter()
        .map(|p| p.number)
        .collect();
    assert!(ports.len() > 1);
    for port in ports {
        let settings = settings(&snapshot, "web", port);
        let session = settings.session.unwrap();
        assert_eq!(
            session.carrier,
            SessionCarrier::Cookie {
                name: "cart".into(),
                permanent: false
            }
        );
        // The API's defaults.
        let window = RetryWindow {
            interval_ms: 10_000,
            least_count: 10,
            least_interval_ms: 1_000,
        };
        let expected = RetryBudget {
            basis_points: 2_000,
            concurrency_min: 0,
            window: Some(window),
        };
        assert_eq!(settings.retry_budget, expected);
    }
    let api = ClusterKey::new(ObjectKey::new("shop", "api"), 80);
    assert!(!snapshot.cluster_settings.contains_key(&api), "not named");
}

#[test]
fn a_budget_of_a_destination_rule_counts_requests_in_flight() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d, namespace: shop}\nspec: {host: web, trafficPolicy: {retryBudget: {percent: 0.5, minRetryConcurrency: 7}, portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}}";
    let snapshot = shop_with(&[rule]);
    assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
    let expected = RetryBudget {
        basis_points: 50,
        concurrency_min: 7,
        window: None,
    };
    // A port can not have one of its own.
    assert_eq!(settings(&snapshot, "web", 80).retry_budget, expected);
}
