//! AuthorizationPolicies and what they are attached to (specs/istio-waypoint.md 4.0).

use std::sync::Arc;

use cairn_config_schema::diagnostics::{Code, Severity};
use cairn_config_schema::snapshot::{Action, Snapshot};

use super::support::{Ask, GATEWAY, WEB, documents, resolved, shop, shop_with};

fn policy(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}"
    )
}

pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
const ON_WEB: &str = "targetRefs: [{group: \"\", kind: Service, name: web}]";
const ON_API: &str = "targetRefs: [{group: \"\", kind: Service, name: api}]";
const ON_GATEWAY: &str =
    "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]";
const ON_CLASS: &str =
    "targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: cairn-waypoint}]";

/// The policies of a service.
pub fn names(snapshot: &Snapshot, service: &str) -> Vec<String> {
    let policies = snapshot.policies(service);
    policies.iter().map(|p| p.origin.to_string()).collect()
}

#[test]
fn a_policy_on_a_service_applies_to_it_alone() {
    let snapshot = shop_with(&[&policy("shop/p", &format!("{ON_WEB}, rules: [{{}}]"))]);
    assert_eq!(names(&snapshot, "shop/web"), ["AuthorizationPolicy/shop/p"]);
    assert!(names(&snapshot, "shop/api").is_empty());
    assert!(snapshot.way().policies.is_empty());
    assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
}

/// An ALLOW policy without rules is how one denies everything; a DENY policy without rules is how
/// one thinks one does (as in Istio, it matches nothing).
#[test]
fn a_deny_policy_without_rules_is_warned_of() {
    for (rest, warned) in [
        ("action: DENY", true),
        ("action: DENY, rules: []", true),
        ("action: DENY, rules: [{}]", false),
        ("action: AUDIT", true),
        ("action: ALLOW", false),
        ("rules: []", false),
    ] {
        let snapshot = shop_with(&[&policy("shop/p", &format!("{ON_WEB}, {rest}"))]);
        assert!(snapshot.policy("shop/web").broken.is_none(), "{rest}");
        let expected = match warned {
            true => vec!["warning missing-field AuthorizationPolicy/shop/p spec.rules"],
            false => vec![],
        };
        assert_eq!(snapshot.said(), expected, "{rest}");
    }
}

#[test]
fn a_policy_on_the_gateway_or_its_class_applies_to_everything_served_and_is_shared() {
    let snapshot = shop_with(&[
        &policy("shop/g", ON_GATEWAY),
        &policy("istio-system/c", ON_CLASS),
        &policy("shop/w", ON_WEB),
    ]);
    assert_eq!(
        names(&snapshot, "shop/web"),
        [
            "AuthorizationPolicy/istio-system/c",
            "AuthorizationPolicy/shop/g",
            "AuthorizationPolicy/shop/w",
        ]
    );
    assert_eq!(names(&snapshot, "shop/api").len(), 2);
    assert_eq!(snapshot.way().policies.len(), 2);
    assert!(Arc::ptr_eq(
        snapshot.policies("shop/web")[0],
        snapshot.policies("shop/api")[0]
    ));
}

#[test]
fn several_targets_are_a_union_and_the_single_form_counts() {
    let both = "targetRefs: [{group: \"\", kind: Service, name: web}, {group: \"\", kind: Service, name: api}]";
    let snapshot = shop_with(&[&policy("shop/p", both)]);
    assert_eq!(names(&snapshot, "shop/web").len(), 1);
    assert_eq!(names(&snapshot, "shop/api").len(), 1);

    let single = "targetRef: {group: \"\", kind: Service, name: web}";
    let snapshot = shop_with(&[&policy("shop/p", single)]);
    assert_eq!(names(&snapshot, "shop/web").len(), 1);
}

#[test]
fn a_policy_on_gateway_and_service_applies_once() {
    let both = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}, {group: \"\", kind: Service, name: web}]";
    let snapshot = shop_with(&[&policy("shop/p", both)]);
    assert_eq!(names(&snapshot, "shop/web").len(), 1);
}

#[test]
fn each_kind_of_target_has_its_rule_on_the_policys_namespace() {
    for (name, spec, code) in [
        // A Gateway or Service is looked for in the policy's own namespace,
        ("bank/p", ON_GATEWAY, "error target-not-found"),
        ("bank/p", ON_WEB, "error target-not-found"),
        // a class only from the root namespace,
        ("shop/p", ON_CLASS, "error not-attached"),
    ] {
        let snapshot = shop_with(&[&policy(name, spec)]);
        assert!(names(&snapshot, "shop/web").is_empty());
        assert_eq!(
            snapshot.said(),
            [format!(
                "{code} AuthorizationPolicy/{name} spec.targetRefs[0]"
            )]
        );
    }
    // and no targetRef leaves the namespace.
    let spec = "targetRefs: [{group: \"\", kind: Service, name: web, namespace: shop}]";
    let snapshot = shop_with(&[&policy("bank/p", spec)]);
    assert!(names(&snapshot, "shop/web").is_empty());
    assert_eq!(
        snapshot.said(),
        ["error not-attached AuthorizationPolicy/bank/p spec.targetRefs[0].namespace"]
    );
    let snapshot = shop_with(&[&policy("shop/p", spec)]);
    assert_eq!(names(&snapshot, "shop/web").len(), 1);
}

#[test]
fn the_root_namespace_is_that_of_the_mesh_config() {
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: roots}\ndata:\n  mesh: \"trustDomain: td\"";
    let snapshot = shop_with(&[config, &policy("roots/c", ON_CLASS)]);
    assert_eq!(names(&snapshot, "shop/web").len(), 1);
    let snapshot = shop_with(&[config, &policy("istio-system/c", ON_CLASS)]);
    assert!(names(&snapshot, "shop/web").is_empty());
}

#[test]
fn targets_that_are_not_ours_or_unknown_are_told_apart() {
    let other = GATEWAY
        .replace("name: waypoint", "name: ingress")
        .replace("cairn-waypoint", "nginx");
    for (namespace, reference, expected) in [
        (
            "shop",
            "{group: gateway.networking.k8s.io, kind: Gateway, name: ingress}",
            "info not-for-waypoint",
        ),
        (
            "shop",
            "{group: gateway.networking.k8s.io, kind: Gateway, name: gone}",
            "error target-not-found",
        ),
        (
            "istio-system",
            "{group: gateway.networking.k8s.io, kind: GatewayClass, name: nginx}",
            "info not-for-waypoint",
        ),
        (
            "istio-system",
            "{group: gateway.networking.k8s.io, kind: GatewayClass, name: gone}",
            "error target-not-found",
        ),
        (
            "shop",
            "{group: \"\", kind: Service, name: gone}",
            "error target-not-found",
        ),
        (
            "shop",
            "{group: networking.istio.io, kind: ServiceEntry, name: x}",
            "error unsupported",
        ),
        (
            "shop",
            "{group: \"\", kind: Gateway, name: waypoint}",
            "error unsupported",
        ),
        (
            "shop",
            "{group: apps, kind: Deployment, name: web}",
            "error unsupported",
        ),
    ] {
        let name = format!("{namespace}/p");
        let snapshot = shop_with(&[
            &other,
            &policy(&name, &format!("targetRefs: [{reference}]")),
        ]);
        assert_eq!(
            snapshot.said(),
            [format!(
                "{expected} AuthorizationPolicy/{name} spec.targetRefs[0]"
            )],
            "{reference}"
        );
        assert!(names(&snapshot, "shop/web").is_empty());
    }
}

#[test]
fn a_policy_on_a_service_that_is_not_served_is_enforced_by_nobody() {
    let snapshot = resolved(&documents(&[GATEWAY, WEB, &policy("shop/p", ON_WEB)]));
    assert!(names(&snapshot, "shop/web").is_empty());
    let finding = snapshot.finding(Code::NotEnforced);
    assert_eq!(finding.severity, Severity::Warning);
    let effect = finding.effect.as_deref().unwrap();
    assert!(effect.contains("nothing enforces"), "{effect}");
}

#[test]
fn a_policy_on_a_service_of_another_waypoint_is_that_ones() {
    let other = GATEWAY
        .replace("name: waypoint", "name: other")
        .replace("cairn-waypoint", "some-class");
    let web = WEB.replace(
        "namespace: shop}",
        "namespace: shop, labels: {istio.io/use-waypoint: other}}",
    );
    let jwt = format!("{ON_WEB}, rules: [{{from: [{{source: {{requestPrincipals: [a]}}}}]}}]");
    let snapshot = resolved(&documents(&[
        GATEWAY,
        &other,
        &web,
        &policy("shop/p", &jwt),
    ]));
    assert_eq!(
        snapshot.said(),
        ["info not-for-waypoint AuthorizationPolicy/shop/p spec.targetRefs[0]"]
    );
}

#[test]
fn a_policy_with_a_selector_or_without_target_is_not_for_the_waypoint() {
    for (spec, path) in [
        ("selector: {matchLabels: {app: web}}", " spec.selector"),
        ("rules: [{}]", ""),
        ("targetRefs: []", ""),
    ] {
        let snapshot = shop_with(&[&policy("shop/p", spec)]);
        assert!(names(&snapshot, "shop/web").is_empty());
        assert_eq!(
            snapshot.said(),
            [format!(
                "warning not-for-waypoint AuthorizationPolicy/shop/p{path}"
            )]
        );
        let hint = snapshot.diagnostics[0].hint.as_deref().unwrap();
        assert!(hint.contains("targetRefs"), "{hint}");
    }
}

#[test]
fn the_warning_is_stronger_when_ztunnel_can_not_enforce_the_rules_as_written() {
    let said = |spec: &str| {
        let snapshot = shop_with(&[&policy("shop/p", spec)]);
        let finding = snapshot.finding(Code::NotForWaypoint).clone();
        (finding.message, finding.effect.unwrap())
    };
    let (message, effect) = said("rules: [{from: [{source: {namespaces: [a]}}]}]");
    assert!(!message.contains("HTTP"), "{message}");
    assert!(
        effect.contains("ztunnel enforces it, at L4 only"),
        "{effect}"
    );
    for rule in [
        "to: [{operation: {methods: [GET]}}]",
        "to: [{operation: {notPaths: [/a]}}]",
        "from: [{source: {requestPrincipals: [a]}}]",
        "when: [{key: \"request.headers[x]\", values: [a]}]",
    ] {
        let (message, effect) = said(&format!("rules: [{{{rule}}}]"));
        assert!(message.contains("HTTP"), "{rule}: {message}");
        assert!(effect.contains("allow nothing"), "{rule}: {effect}");
        let (_, effect) = said(&format!("action: DENY, rules: [{{{rule}}}]"));
        assert!(effect.contains("deny more"), "{rule}: {effect}");
    }
    let (_, effect) = said("action: AUDIT, rules: [{}]");
    assert!(effect.contains("nothing enforces"), "{effect}");
}

#[test]
fn a_selector_beside_target_refs_denies_the_targets() {
    let spec = format!("{ON_WEB}, selector: {{matchLabels: {{app: web}}}}, rules: [{{}}]");
    let snapshot = shop_with(&[&policy("shop/p", &spec)]);
    assert!(snapshot.policy("shop/web").broken.is_some());
    assert_eq!(
        snapshot.said(),
        ["error conflict AuthorizationPolicy/shop/p spec.selector"]
    );
}

#[test]
fn a_section_name_denies_its_target_and_leaves_the_others() {
    let spec = "targetRefs: [{group: \"\", kind: Service, name: web, sectionName: http}, {group: \"\", kind: Service, name: api}], rules: [{}]";
    let snapshot = shop_with(&[&policy("shop/p", spec)]);
    assert!(snapshot.policy("shop/web").broken.is_some());
    assert!(snapshot.policy("shop/api").broken.is_none());
    let finding = snapshot.finding(Code::Unsupported);
    assert_eq!(finding.path, "spec.targetRefs[0].sectionName");
    assert_eq!(
        finding.effect.as_deref(),
        Some("everything for shop/web is denied")
    );
}

#[test]
fn actions_are_those_of_istio() {
    let acting = |action: &str| {
        shop_with(&[&policy(
            "shop/p",
            &format!("{ON_WEB}{action}, rules: [{{}}]"),
        )])
    };
    assert_eq!(acting("").policy("shop/web").action, Action::Allow);
    assert_eq!(
        acting(", action: ALLOW").policy("shop/web").action,
        Action::Allow
    );
    assert_eq!(
        acting(", action: DENY").policy("shop/web").action,
        Action::Deny
    );

    let custom = acting(", action: CUSTOM, provider: {name: x}");
    assert_eq!(custom.policy("shop/web").action, Action::Custom);
    let effect = custom
        .finding(Code::BackendNotFound)
        .effect
        .as_deref()
        .unwrap();
    assert!(effect.contains("are denied"), "{effect}");

    let audit = acting(", action: AUDIT");
    assert_eq!(audit.policy("shop/web").action, Action::Audit);
    assert_eq!(audit.said(), [""; 0]);

    let unknown = acting(", action: Allow");
    assert!(unknown.policy("shop/web").broken.is_some());
    assert_eq!(
        unknown.said(),
        ["error bad-value AuthorizationPolicy/shop/p spec.action"]
    );
}

#[test]
fn no_rules_and_empty_rules_are_kept_and_null_rules_skipped() {
    let rules = |rules: &str| {
        let snapshot = shop_with(&[&policy("shop/p", &format!("{ON_WEB}{rules}"))]);
        (
            snapshot.policy("shop/web").rules.len(),
            snapshot.said().len(),
        )
    };
    assert_eq!(rules(""), (0, 0));
    assert_eq!(rules(", rules: []"), (0, 0));
    assert_eq!(rules(", rules: [{}]"), (1, 0));
    assert_eq!(rules(", rules: [null, {}]"), (1, 1));
}

#[test]
fn the_dry_run_annotation_is_read_strictly() {
    let dry = |value: &str| {
        let yaml = policy("shop/p", ON_WEB).replace(
            "namespace: shop}",
            &format!("namespace: shop, annotations: {{istio.io/dry-run: \"{value}\"}}}}"),
        );
        let snapshot = shop_with(&[&yaml]);
        (snapshot.policy("shop/web").dry_run, snapshot.said().len())
    };
    assert_eq!(dry("true"), (true, 0));
    assert_eq!(dry("false"), (false, 0));
    assert_eq!(dry("yes"), (false, 1));
}

#[test]
fn services_that_are_not_served_have_no_policies() {
    let yaml = documents(&[GATEWAY, WEB, &policy("shop/g", ON_GATEWAY)]);
    let snapshot = resolved(&yaml);
    assert_eq!(snapshot.way().policies.len(), 1);
    assert!(names(&snapshot, "shop/web").is_empty());
    assert!(
        resolved(&shop(&[&policy("shop/a", ON_API)]))
            .policy("shop/api")
            .broken
            .is_none()
    );
}
