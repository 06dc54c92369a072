//! The list of pods of a node agent.

use std::path::Path;
use std::sync::Arc;

use cairn_config_schema::parse::{NodePod, node_pods};

use super::support::line;

const WEB: &str = "
- name: web-1
  namespace: shop
  serviceAccount: web
  labels: {app: web}
  netns: /run/netns/web-1
  cgroup: /sys/fs/cgroup/kubepods/web-1
";

fn read(text: &str) -> Result<Vec<NodePod>, Vec<String>> {
    node_pods(text, &Arc::from("pods.yaml")).map_err(|findings| findings.iter().map(line).collect())
}

#[test]
fn a_list_is_read_from_yaml_and_json() {
    let pods = read(WEB).unwrap();
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].key().to_string(), "shop/web-1");
    assert_eq!(pods[0].service_account, "web");
    assert_eq!(pods[0].netns, Path::new("/run/netns/web-1"));
    let json = r#"[{"name": "web-1", "namespace": "shop", "serviceAccount": "web", "labels": {"app": "web"},
        "netns": "/run/netns/web-1", "cgroup": "/sys/fs/cgroup/kubepods/web-1"}]"#;
    assert_eq!(read(json).unwrap(), pods);
}

#[test]
fn no_pods_are_an_empty_list_and_not_an_empty_file() {
    for text in ["[]", "# none yet\n[]\n"] {
        assert_eq!(read(text), Ok(Vec::new()), "{text:?}");
    }
    for text in ["", "\n", "# none yet\n", "---\n", "--- \n...\n", "null\n"] {
        let findings = read(text).expect_err(text);
        assert_eq!(findings.len(), 1, "{text:?}: {findings:?}");
    }
    assert!(read("").unwrap_err()[0].contains("there is no list"));
}

#[test]
fn everything_wrong_is_said_with_its_place() {
    for (from, to, expected) in [
        (
            "serviceAccount",
            "serviceAcount",
            "4:3 error unknown-field [0].serviceAcount",
        ),
        ("  namespace: shop\n", "", "2:3 error missing-field [0]"),
        ("name: web-1", "name: 7", "2:9 error wrong-type [0].name"),
        ("name: web-1", "name: a/b", "2:9 error bad-value [0].name"),
        (
            "/run/netns/web-1",
            "netns/web-1",
            "6:10 error bad-value [0].netns",
        ),
        ("- name: web-1\n ", "name: web-1\n", "error"),
    ] {
        let findings = read(&WEB.replacen(from, to, 1)).unwrap_err();
        let found = findings.iter().any(|f| f.contains(expected));
        assert!(found, "{to}: {findings:#?}");
    }
}

#[test]
fn two_entries_can_not_be_one_pod_or_share_a_network() {
    let twice = read(&format!("{WEB}{WEB}")).unwrap_err();
    assert!(twice[0].contains("comes twice"), "{twice:#?}");
    let other = WEB.replacen("name: web-1", "name: web-2", 1);
    let shared = read(&format!("{WEB}{other}")).unwrap_err();
    assert!(
        shared[0].contains("item 0 has the same network namespace"),
        "{shared:#?}"
    );
}

#[test]
fn a_second_document_is_not_skipped() {
    let findings = read(&format!("{WEB}---\n[]\n")).unwrap_err();
    assert!(findings[0].contains("second document"), "{findings:#?}");
}
