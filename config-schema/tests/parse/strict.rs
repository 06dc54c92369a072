//! Fields and values: nothing unknown, nothing of the wrong type, everything with its place.

use crate::support::{findings, load};

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: web
  namespace: shop
spec:
";

fn route(spec: &str) -> Vec<String> {
    findings(&format!("{ROUTE}{spec}"))
}

const POLICY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
";

fn policy(spec: &str) -> Vec<String> {
    findings(&format!("{POLICY}{spec}"))
}

#[test]
fn an_unknown_field_is_named_with_what_was_probably_meant() {
    assert_eq!(
        route(
            "  rules:
  - backendRefs:
    - name: a
      port: 80
    - name: b
      port: 80
      wieght: 10
"
        ),
        [
            "13:7 error unknown-field spec.rules[0].backendRefs[1].wieght: \
             there is no field `wieght` here | did you mean `weight`?"
        ]
    );
    assert_eq!(
        policy("  selector: {matchLabels: {app: web}}\n  frobnicate: true\n"),
        [
            "6:3 error unknown-field spec.frobnicate: there is no field `frobnicate` here | \
             known here: action, provider, rules, selector, targetRef, targetRefs"
        ]
    );
}

#[test]
fn all_that_is_wrong_is_reported_not_only_the_first() {
    assert_eq!(
        route(
            "  hostname: [a.example]
  rules:
  - matches:
    - path: {type: Prefix, value: /}
      method: FETCH
    backendRefs:
    - name: a
      port: \"80\"
    - port: 80
  - name: 7
    timeout: {}
"
        ),
        [
            "7:3 error unknown-field spec.hostname: there is no field `hostname` here | \
             did you mean `hostnames`?",
            "10:20 error bad-value spec.rules[0].matches[0].path.type: \
             `Prefix` is not a value of this field | did you mean `PathPrefix`?",
            "11:15 error bad-value spec.rules[0].matches[0].method: `FETCH` is not a value of \
             this field | one of: GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH",
            "14:13 error wrong-type spec.rules[0].backendRefs[0].port: \
             expected a whole number, found the string \"80\" | remove the quotes: 80",
            "15:7 error missing-field spec.rules[0].backendRefs[1].name: `name` is missing",
            "16:11 error wrong-type spec.rules[1].name: \
             expected a string, found the number 7 | quote it: \"7\"",
            "17:5 error unknown-field spec.rules[1].timeout: there is no field `timeout` here | \
             did you mean `timeouts`?",
        ]
    );
}

#[test]
fn a_number_or_truth_value_is_no_string_until_it_is_quoted() {
    assert_eq!(
        policy("  rules:\n  - to: [{operation: {ports: [80], methods: [on, \"GET\", 'no']}}]\n"),
        [
            "6:31 error wrong-type spec.rules[0].to[0].operation.ports[0]: \
             expected a string, found the number 80 | quote it: \"80\"",
            "6:46 error wrong-type spec.rules[0].to[0].operation.methods[0]: \
             expected a string, found the truth value on | quote it: \"on\"",
        ]
    );
    assert_eq!(
        findings(
            "apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels:
    istio.io/use-waypoint: yes
    version: 1.10
    empty:
  annotations:
    istio.io/dry-run: 'true'
"
        ),
        [
            "6:28 error wrong-type metadata.labels[istio.io/use-waypoint]: \
             expected a string, found the truth value yes | quote it: \"yes\"",
            "7:14 error wrong-type metadata.labels.version: \
             expected a string, found the number 1.10 | quote it: \"1.10\"",
            "8:5 error wrong-type metadata.labels.empty: expected a string, found nothing",
        ]
    );
}

#[test]
fn maps_lists_and_numbers_are_not_taken_for_each_other() {
    assert_eq!(
        route("  rules: {}\n"),
        ["7:3 error wrong-type spec.rules: expected a list, found a map"]
    );
    assert_eq!(
        route("  rules:\n  - backendRefs: [{name: a, port: 70000}]\n  - []\n"),
        ["9:5 error wrong-type spec.rules[1]: expected a map, found a list"]
    );
    assert_eq!(
        route("  rules:\n  - backendRefs: [{name: a, port: 5000000000, weight: 010}]\n"),
        [
            "8:35 error bad-value spec.rules[0].backendRefs[0].port: \
             the number 5000000000 is not a whole number in range",
            "8:55 error bad-value spec.rules[0].backendRefs[0].weight: `010` is a different \
             number to different readers of YAML | write it without leading zeros and underscores",
        ]
    );
    assert_eq!(
        policy("  targetRefs: web\n  rules:\n"),
        ["5:15 error wrong-type spec.targetRefs: expected a list, found the string \"web\""]
    );
}

#[test]
fn metadata_and_the_outermost_fields_are_strict_too() {
    assert_eq!(
        findings(
            "apiVersion: v1
kind: Service
metadata:
  name: web
  lables: {}
  managedFields: [{whatever: 1}]
specs: {}
spec:
  ports: [{port: 80}]
status: {whatever: 2}
"
        ),
        [
            "5:3 error unknown-field metadata.lables: there is no field `lables` here | \
             did you mean `labels`?",
            "7:1 error unknown-field specs: there is no field `specs` here | did you mean `spec`?",
        ]
    );
}

#[test]
fn a_key_that_comes_twice_is_an_error_at_the_second() {
    assert_eq!(
        route("  rules:\n  - name: a\n    filters: []\n    name: b\n"),
        ["10:5 error syntax-error spec.rules[0].name: \
             the key comes twice in one map, first 2 lines above"]
    );
    let (resources, found) =
        load("apiVersion: v1\nkind: Pod\nkind: Service\nmetadata: {name: a}\n");
    assert_eq!(
        found,
        ["3:1 error syntax-error : `kind` comes twice, so it cannot be told what this is"]
    );
    assert_eq!(resources.unreadable.len(), 1);
}

#[test]
fn null_is_absent_where_a_field_may_be_absent() {
    let (resources, found) = load(&format!(
        "{POLICY}  selector: null\n  targetRefs: ~\n  action:\n  rules:\n  - null\n  - to: null\n"
    ));
    assert_eq!(found, Vec::<String>::new());
    let loaded = resources.authorization_policies.values().next().unwrap();
    let rules = loaded.object().unwrap().spec.rules.clone().unwrap();
    assert_eq!((rules[0].is_none(), rules[1].is_some()), (true, true));
    // `from: [{}]` would match everybody; an item that was forgotten must not.
    assert_eq!(
        policy(
            "  rules:
  - from:
    -
"
        ),
        ["7:6 error wrong-type spec.rules[0].from[0]: expected a map, found nothing"]
    );
}

#[test]
fn a_spec_is_required_where_kubernetes_requires_it() {
    for (api, kind, found) in [
        ("gateway.networking.k8s.io/v1", "HTTPRoute", 1),
        ("gateway.networking.k8s.io/v1", "Gateway", 1),
        ("v1", "Service", 1),
        ("v1", "Pod", 1),
        ("v1", "Namespace", 0),
        ("security.istio.io/v1", "AuthorizationPolicy", 0),
    ] {
        let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\n");
        let expected = vec!["1:1 error missing-field spec: `spec` is missing".to_owned(); found];
        assert_eq!(findings(&text), expected, "{kind}");
    }
}

#[test]
fn yaml_shorthand_is_expanded_as_kubectl_does() {
    let (resources, found) = load(
        "apiVersion: v1
kind: Service
metadata: &meta
  name: web
  labels: &labels {app: web, tier: front}
spec:
  selector: *labels
  ports:
  - &http {name: http, port: 80}
  - <<: *http
    name: admin
    port: !!int 81
",
    );
    assert_eq!(found, Vec::<String>::new());
    let service = resources
        .services
        .values()
        .next()
        .unwrap()
        .object()
        .unwrap()
        .clone();
    let ports: Vec<_> = service
        .spec
        .ports
        .iter()
        .map(|p| (&*p.name, p.port))
        .collect();
    assert_eq!(ports, [("http", 80), ("admin", 81)]);
    assert!(service.spec.has_selector());
}

#[test]
fn positions_of_good_objects_are_kept_for_the_resolver() {
    let (resources, _) = load(&format!(
        "# first\n---\n{ROUTE}  rules:\n  - backendRefs:\n    - name: a\n      port: 80\n"
    ));
    let route = resources
        .http_routes
        .values()
        .next()
        .unwrap()
        .object()
        .unwrap()
        .clone();
    let at = |path: &str| {
        let location = route.place.locate(path).unwrap();
        (location.line, location.column)
    };
    assert_eq!(at(""), (3, 1));
    assert_eq!(at("metadata.namespace"), (7, 14));
    assert_eq!(at("spec.rules[0]"), (10, 5));
    assert_eq!(at("spec.rules[0].backendRefs"), (10, 5));
    assert_eq!(at("spec.rules[0].backendRefs[0].port"), (12, 13));
    assert_eq!(at("spec.rules[0].backendRefs[0].weight"), (11, 7));
}

#[test]
fn findings_about_one_object_are_limited() {
    let rules: String = (0..80).map(|n| format!("  - bogus{n}: 1\n")).collect();
    let found = policy(&format!("  rules:\n{rules}"));
    assert_eq!(found.len(), 51);
    assert_eq!(
        found[50],
        "1:1 info limit-exceeded : 30 more findings about this object are left out"
    );
}
