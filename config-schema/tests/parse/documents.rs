//! Documents of a file, lists, and texts that are no YAML.

use crate::support::{findings, load};

const NAMESPACES: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";

fn names(text: &str) -> Vec<String> {
    let (resources, _) = load(text);
    resources
        .namespaces
        .keys()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_syntax_error_leaves_the_other_documents_alive() {
    let text = format!(
        "{NAMESPACES}---\nkind: Deployment\napiVersion: apps/v1\nspec: [\n---\n{}",
        NAMESPACES.replace("name: a", "name: b")
    );
    assert_eq!(names(&text), ["a", "b"]);
    assert_eq!(
        findings(&text),
        ["7:7 error syntax-error : not valid YAML: unclosed bracket '['"]
    );
    let (resources, _) = load(&text);
    assert_eq!(
        resources.unreadable,
        [],
        "a Deployment could not have mattered"
    );
}

#[test]
fn space_comments_crlf_and_byte_order_mark_are_fine() {
    for text in ["", "\n\n# nothing\n", "---\n---\n...\n", "\u{feff}# mark\n"] {
        assert_eq!(findings(text), Vec::<String>::new(), "{text:?}");
    }
    let crlf = format!("\u{feff}---\n{NAMESPACES}bogus: 1\n").replace('\n', "\r\n");
    assert_eq!(
        findings(&crlf),
        [
            "5:1 error unknown-field bogus: there is no field `bogus` here | \
             known here: apiVersion, kind, metadata, spec, status"
        ]
    );
    assert_eq!(names(&NAMESPACES.replace('\n', "\r\n")), ["a"]);
}

#[test]
fn json_is_read_with_its_places() {
    let text = "{\n\t\"apiVersion\": \"v1\", \"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"a\", \"labels\": {\"x\": \"\\ud83d\\ude00\\/\", \"y\": 1}}\n}\n";
    assert_eq!(
        findings(text),
        ["3:67 error wrong-type metadata.labels.y: \
             expected a string, found the number 1 | quote it: \"1\""]
    );
    assert_eq!(names(&text.replace(": 1}", ": \"1\"}")), ["a"]);
}

#[test]
fn lists_are_expanded() {
    let (resources, found) = load(
        "apiVersion: v1
kind: List
metadata: {resourceVersion: \"\"}
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: a}
- apiVersion: v1
  kind: ServiceList
  items:
  - metadata: {name: s, namespace: a}
    spec: {ports: [{port: 80, bogus: 1}]}
  - metadata: {name: t, namespace: a}
    spec: {ports: [{port: 80}]}
- metadata: {name: nobody}
",
    );
    assert_eq!(
        found,
        [
            "12:31 error unknown-field spec.ports[0].bogus: there is no field `bogus` here | \
             known here: appProtocol, name, nodePort, port, protocol, targetPort",
            "15:3 error missing-field : `kind` is missing",
        ]
    );
    assert_eq!(resources.counts().map(|(_, n)| n).iter().sum::<usize>(), 3);
    assert_eq!(resources.unreadable.len(), 1);
}

#[test]
fn an_empty_list_is_fine_and_one_without_items_is_not() {
    assert_eq!(
        findings("apiVersion: v1\nkind: List\nitems: []\n"),
        Vec::<String>::new()
    );
    assert_eq!(
        findings("apiVersion: v1\nkind: List\nitmes: []\n"),
        [
            "3:1 error unknown-field itmes: there is no field `itmes` here | \
             did you mean `items`?",
            "1:1 error missing-field : `items` is missing",
        ]
    );
}

#[test]
fn what_is_no_object_is_refused() {
    assert_eq!(
        findings("- a\n"),
        ["1:1 error wrong-type : this is no Kubernetes object: a map is expected"]
    );
    assert_eq!(
        findings("metadata: {name: a}\n"),
        ["1:1 error missing-field : `kind` is missing"]
    );
    assert_eq!(
        findings("apiVersion: v1\nkind: Namespace\nmetadata: {}\n"),
        ["3:1 error missing-field : this Namespace has no `metadata.name`"]
    );
}

/// Taken for one of `default` it would deny there, and nothing where it was meant to.
#[test]
fn a_policy_whose_namespace_cannot_be_told_is_of_unknown_scope() {
    let spec = "spec:\n  targetRefs: [{kind: Service, group: '', name: web}]\n  action: DENY\n";
    for metadata in [
        "metadata: {name: a, namespace: [shop]}\n",
        "metadata: {name: a, namespce: shop}\n",
        "metadata: {name: a}\nnamespace: shop\n",
        "metadata: {name: a}\nMetadata: {namespace: shop}\n",
        "metadata:\n  name: a\n  namespace shop\n",
        "metadata:\n  name: a\n\tnamespace: shop\n",
        "metadata:\n  name: a\n   namespace: shop\n",
        "metadata:\n  name: a\n  namespace: \"shop\n",
        "metadata:\n  name: a\n  namespace: {{ .Values.namespace }}\n",
    ] {
        let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n";
        let (resources, found) = load(&format!("{head}{metadata}{spec}"));
        assert!(resources.authorization_policies.is_empty(), "{metadata}");
        assert_eq!(resources.unreadable.len(), 1, "{metadata}: {found:?}");
        assert!(found.iter().any(|f| f.contains(" error ")), "{metadata}");
    }
}

#[test]
fn bytes_that_are_no_text_make_the_file_unreadable() {
    use cairn_config_schema::store::{SourceFile, Store};
    let file = SourceFile {
        path: "f.yaml".into(),
        content: Ok(b"kind: \xff".as_slice().into()),
    };
    let update = Store::default().update(&[file]);
    let [(reason, Some(at))] = &update.resources.unreadable[..] else {
        panic!("{:?}", update.resources.unreadable);
    };
    assert_eq!(at.to_string(), "f.yaml:1:1");
    assert_eq!(
        &**reason,
        "cannot read f.yaml: the file is not UTF-8: see byte 6"
    );
    assert!(update.diagnostics.is_empty(), "resolving makes the finding");
}

#[test]
fn bombs_are_refused_by_the_limits() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}", level - 1);
        let row = [below.as_str(); 10].join(", ");
        text += &format!("a{level}: &a{level} [{row}]\n");
    }
    let found = findings(&text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("error limit-exceeded : the document has more than"),
        "{found:?}"
    );
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let found = findings(&deep);
    assert!(
        found[0].starts_with("1:129 error limit-exceeded : lists and maps"),
        "{found:?}"
    );
    let deep: String = (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    let found = findings(&deep);
    assert!(
        found[0].starts_with("129:129 error limit-exceeded : lists"),
        "{found:?}"
    );
}

#[test]
fn an_alias_inside_its_own_anchor_is_refused() {
    let found = findings("a: &a [1, *a]\n");
    assert_eq!(
        found,
        ["1:11 error syntax-error : an alias refers to the node it stands in"]
    );
}

#[test]
fn a_pod_of_a_newer_kubernetes_stays_in_force_and_a_slip_of_the_pen_does_not() {
    let pod = |field: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: b}}\nspec:\n  {field}: x\n  containers: []\n"
        )
    };
    let (resources, found) = load(&pod("inventedNextYear"));
    assert!(
        found[0].starts_with("5:3 warning unknown-field spec.inventedNextYear"),
        "{found:?}"
    );
    assert!(resources.pods.values().all(|p| p.object().is_some()));
    let (resources, found) = load(&pod("serviceAcountName"));
    assert!(
        found[0].starts_with("5:3 error unknown-field spec.serviceAcountName"),
        "{found:?}"
    );
    assert!(resources.pods.values().all(|p| p.object().is_none()));
}

#[test]
fn what_a_service_asks_for_in_vain_is_said_and_the_service_stays_in_force() {
    let (resources, found) = load(
        "apiVersion: v1
kind: Service
metadata: {name: a, namespace: b}
spec:
  sessionAffinity: ClientIP
  trafficDistribution: PreferMoon
  ports: [{port: 80}]
",
    );
    assert!(
        found[0]
            .starts_with("5:20 warning unsupported spec.sessionAffinity: ClientIP has no effect"),
        "{found:?}"
    );
    assert!(
        found[1]
            .starts_with("6:24 warning bad-value spec.trafficDistribution: there is no traffic"),
        "{found:?}"
    );
    assert!(resources.services.values().all(|s| s.object().is_some()));
}
