//! The ConfigMap `istio`: YAML inside YAML, with the places of the outer text.

use cairn_config_schema::resources::istio::MeshConfigSpec;

use crate::support::{findings, load};

fn config_map(mesh: &str) -> String {
    let lines: String = mesh.lines().map(|l| format!("    {l}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: istio\n  namespace: istio-system\n\
         data:\n  meshNetworks: 'networks: {{}}'\n  mesh: |-\n{lines}"
    )
}

#[test]
fn what_is_honoured_is_read() {
    let (resources, found) = load(&config_map(
        "trustDomain: td1
trustDomainAliases:
- old-td
rootNamespace: istio-config
pathNormalization:
  normalization: MERGE_SLASHES
connectTimeout: 1m30s
enablePrometheusMerge: true",
    ));
    assert_eq!(found, Vec::<String>::new());
    let mesh = resources
        .mesh_config
        .values()
        .next()
        .unwrap()
        .object()
        .unwrap()
        .clone();
    assert_eq!(
        mesh.spec,
        MeshConfigSpec {
            trust_domain: Some("td1".into()),
            trust_domain_aliases: vec!["old-td".into()],
            root_namespace: Some("istio-config".into()),
            path_normalization: Some("MERGE_SLASHES".into()),
            connect_timeout_ms: Some(90_000),
            default_http_retry_policy: None,
            extension_providers: Vec::new(),
            ..MeshConfigSpec::default()
        }
    );
    let at = |path: &str| mesh.place.locate(path).map(|l| (l.line, l.column)).unwrap();
    assert_eq!(at("data.mesh.trustDomainAliases[0]"), (11, 7));
    assert_eq!(at("data.mesh.pathNormalization.normalization"), (14, 22));
}

#[test]
fn findings_point_into_the_inner_text() {
    assert_eq!(
        findings(&config_map(
            "\nenableTracing: true
trustDomian: td1
connectTimeout: 10
trustDomainAliases: td2
pathNormalization: {normalisation: NONE}
somethingNew: 1"
        )),
        [
            "10:5 info unsupported data.mesh.enableTracing: \
             `enableTracing` of the mesh configuration is not honoured",
            "11:5 error unknown-field data.mesh.trustDomian: \
             there is no field `trustDomian` here | did you mean `trustDomain`?",
            "12:21 error wrong-type data.mesh.connectTimeout: \
             expected a string, found the number 10 | quote it: \"10\"",
            "13:25 error wrong-type data.mesh.trustDomainAliases: \
             expected a list, found the string \"td2\"",
            "14:25 error unknown-field data.mesh.pathNormalization.normalisation: \
             there is no field `normalisation` here | did you mean `normalization`?",
            "15:5 warning unknown-field data.mesh.somethingNew: \
             `somethingNew` is no field of the mesh configuration that Cairn knows",
        ]
    );
    assert_eq!(
        findings(&config_map("trustDomain: td1\nconnectTimeout: ten")),
        ["10:21 error bad-value data.mesh.connectTimeout: \
             `ten` is no duration of a millisecond or more | for instance 10s, 500ms or 1m30s"]
    );
    assert_eq!(
        findings(&config_map("a: [\nb: 1")),
        ["9:8 error syntax-error data.mesh: not valid YAML: unclosed bracket '['"]
    );
}

#[test]
fn a_quoted_mesh_text_is_read_with_the_place_of_its_beginning() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: \"trustDomain: td1\\nconnectTimeout: ten\\n\"\n";
    assert_eq!(
        findings(text),
        ["5:9 error bad-value data.mesh.connectTimeout: \
             `ten` is no duration of a millisecond or more | for instance 10s, 500ms or 1m30s"]
    );
}

#[test]
fn a_mesh_configuration_without_text_is_broken() {
    let head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\n";
    assert_eq!(
        findings(head),
        ["1:1 error missing-field data.mesh: `data.mesh` is missing"]
    );
    assert_eq!(
        findings(&format!("{head}data:\n  mesh:\n    trustDomain: a\n")),
        ["5:3 error wrong-type data.mesh: expected a string, found a map"]
    );
    assert_eq!(
        findings(&format!("{head}data: {{mesh: ''}}\n")),
        Vec::<String>::new()
    );
}
