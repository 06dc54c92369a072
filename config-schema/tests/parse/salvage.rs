//! What is still known of an object that cannot be read, so that it fails closed in its own scope.

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resources::{Loaded, Resources, TargetRef};

use crate::support::load;

fn targets(resources: &Resources) -> Option<Vec<TargetRef>> {
    match resources
        .authorization_policies
        .get(&ObjectKey::new("shop", "web"))
    {
        Some(Loaded::Broken(broken)) => broken.targets.clone(),
        other => panic!("a broken policy is expected: {other:?}"),
    }
}

const HEAD: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: web
  namespace: shop
";

#[test]
fn a_broken_policy_keeps_its_targets() {
    let (resources, found) = load(&format!(
        "{HEAD}spec:\n  targetRefs:\n  - {{kind: Service, group: \"\", name: web}}\n  rules: 1\n"
    ));
    assert_eq!(found.len(), 1);
    let found = targets(&resources).unwrap();
    assert_eq!(
        (found[0].kind.as_str(), found[0].name.as_str()),
        ("Service", "web")
    );
}

#[test]
fn a_policy_whose_targets_cannot_be_told_may_be_aimed_at_anything() {
    let (resources, _) = load(&format!("{HEAD}spec:\n  targetRefs: 1\n"));
    assert_eq!(targets(&resources), None);
}

#[test]
fn a_syntax_error_leaves_kind_and_name_to_be_told_from_the_lines() {
    let (resources, found) = load(&format!(
        "# one\n---\n{HEAD}spec:\n  rules: [\n  - to: x: y\n"
    ));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("10:"), "{found:?}");
    assert_eq!(targets(&resources), None);
    assert_eq!(resources.unreadable, []);
}

#[test]
fn a_syntax_error_that_hides_kind_or_name_is_unreadable() {
    for text in [
        "apiVersion: v1\nkind: List\nitems: [\n",
        "apiVersion: v1\nkind: Pod\nspec: [\n",
        "kind: [\n",
        "{kind: Pod, metadata: {name: a}\n",
    ] {
        let (resources, found) = load(text);
        assert_eq!((resources.unreadable.len(), found.len()), (1, 1), "{text}");
    }
}

#[test]
fn a_broken_virtual_service_keeps_its_hosts_and_whether_it_may_mean_connections() {
    for (fields, means_connections) in [
        ("http: 1", false),
        ("http: 1, tcp: []", true),
        ("http: 1, tls: 2", true),
        // Perhaps `tcp`.
        ("http: 1, tpc: []", true),
    ] {
        let (resources, _) = load(&format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: web, namespace: shop}}\nspec: {{hosts: [web], {fields}}}\n"
        ));
        let key = ObjectKey::new("shop", "web");
        let Some(Loaded::Broken(broken)) = resources.virtual_services.get(&key) else {
            panic!("a broken VirtualService is expected: {fields}");
        };
        let targets = broken.targets.clone().unwrap();
        let kinds: Vec<_> = targets.iter().map(|t| t.kind.as_str()).collect();
        let expected: &[&str] = match means_connections {
            true => &["host", "streams"],
            false => &["host"],
        };
        assert_eq!(kinds, expected, "{fields}");
    }
}
