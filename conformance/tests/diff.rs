//! `cairn diff` as a program: its exit codes, what it compares, and that it says what it can not know.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cairn_conformance::workspace;
use serde_json::Value;
use tempfile::TempDir;

const MESH: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: cairn-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: waypoint}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.1.1
  ports: [{name: http, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.5]}]
---
";

fn policy(rules: &str) -> String {
    format!(
        "{MESH}apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: readers, namespace: shop}}\n\
         spec: {{targetRefs: [{{kind: Service, group: \"\", name: web}}], rules: {rules}}}\n"
    )
}

/// A folder with `old.yaml`, `new.yaml` and perhaps `access.log`.
fn folder(old: &str, new: &str, log: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("old.yaml", old), ("new.yaml", new), ("access.log", log)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn diff(folder: &Path, arguments: &[&str]) -> Output {
    let mut cairn = Command::new(workspace::cairn());
    let cairn = cairn.arg("diff").args(arguments).current_dir(folder);
    cairn.output().unwrap()
}

const BOTH: [&str; 4] = ["--config", "old.yaml", "--config", "new.yaml"];

fn json(folder: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&BOTH[..], more, &["-o", "json"]].concat();
    let output = diff(folder, &arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&text).unwrap_or_else(|e| {
        panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code(), value)
}

fn line(method: &str, path: &str, verdict: &str) -> String {
    format!(
        "{{\"method\":\"{method}\",\"path\":\"{path}\",\"protocol\":\"HTTP/1.1\",\
         \"authority\":\"web.shop\",\"x_forwarded_for\":null,\"user_agent\":null,\
         \"source_principal\":\"spiffe://cluster.local/ns/shop/sa/client\",\
         \"downstream_local_address\":\"10.96.1.1:80\",\
         \"downstream_remote_address\":\"10.244.0.9:41000\",\"verdict\":\"{verdict}\"}}\n"
    )
}

const GET: &str = "[{to: [{operation: {methods: [GET]}}]}]";
const GET_AND_PUT: &str = "[{to: [{operation: {methods: [GET, PUT]}}]}]";
const GET_ITEMS: &str = "[{to: [{operation: {methods: [GET], paths: [\"/items*\"]}}]}]";

#[test]
fn the_same_configuration_twice_changes_nothing() {
    let folder = folder(&policy(GET_ITEMS), &policy(GET_ITEMS), "");
    let (code, found) = json(folder.path(), &[]);
    assert_eq!(code, Some(0));
    assert_eq!(found["changed"], 0);
    assert_eq!(found["source"], "matrix");
    assert_eq!(found["compared"], found["combinations"]);
}

#[test]
fn a_matrix_finds_what_opens_and_what_closes_and_names_both_sides() {
    let folder = folder(&policy(GET), &policy(GET_AND_PUT), "");
    let (code, found) = json(folder.path(), &[]);
    assert_eq!(code, Some(1));
    let changes = found["changes"].as_array().unwrap();
    assert!(!changes.is_empty());
    for change in changes {
        assert_eq!(change["request"]["method"], "PUT");
        assert_eq!(change["old"]["verdict"], "deny");
        let reason = change["old"]["reason"].as_str().unwrap();
        assert!(reason.contains("nearest allow is AuthorizationPolicy/shop/readers rule 0"));
        assert_eq!(change["new"]["verdict"], "allow");
        assert_eq!(change["new"]["policy"], "AuthorizationPolicy/shop/readers");
        assert_eq!(change["new"]["rule"], 0);
    }
    // Beside the boundary of a path: /item is out, /items and /itemsx are in.
    let folder = self::folder(&policy(GET), &policy(GET_ITEMS), "");
    let (_, found) = json(folder.path(), &[]);
    let closed = found["changes"].as_array().unwrap().iter();
    let closed: Vec<&str> = closed
        .map(|c| c["request"]["path"].as_str().unwrap())
        .collect();
    assert!(closed.contains(&"/item"), "{closed:?}");
    assert!(
        !closed.contains(&"/items") && !closed.contains(&"/itemsx"),
        "{closed:?}"
    );
}

/// Each side is asked in its own protocol: neither calls what clients of the other send malformed.
#[test]
fn a_port_that_changes_its_protocol_is_asked_in_that_of_each_side() {
    let http = policy(GET);
    let tcp = |rules: &str| policy(rules).replace("name: http, port: 80", "name: tcp, port: 80");
    let verdicts = |old: &str, new: &str| {
        let (code, found) = json(folder(old, new, "").path(), &[]);
        let changes = found["changes"].as_array().unwrap().iter();
        let verdict = |side: &Value| side["verdict"].as_str().unwrap().to_owned();
        let verdicts = changes.map(|change| (verdict(&change["old"]), verdict(&change["new"])));
        // What both allow is listed too: the one is routed, and the other goes on as a stream.
        let verdicts: BTreeSet<_> = verdicts.filter(|(old, new)| old != new).collect();
        (code, verdicts)
    };
    let changed = |old: &str, new: &str| {
        let change = (old.to_owned(), new.to_owned());
        (Some(1), BTreeSet::from([change]))
    };
    assert_eq!(verdicts(&http, &tcp("[{}]")), changed("deny", "allow"));
    assert_eq!(verdicts(&tcp("[{}]"), &http), changed("allow", "deny"));
    // Nobody asks a stream for its method.
    assert_eq!(verdicts(&http, &tcp(GET)), changed("allow", "deny"));

    // Without HTTP on either side, clients are all that there is to ask.
    let (_, found) = json(folder(&tcp("[{}]"), &tcp("[]"), "").path(), &[]);
    let changes = found["changes"].as_array().unwrap();
    assert!(!changes.is_empty());
    assert!(
        changes
            .iter()
            .all(|change| change["request"]["tcp"] == true)
    );
}

/// What a provider would say is not known: `ask` is a verdict of its own, and another one is a change.
#[test]
fn who_has_to_be_asked_is_part_of_the_verdict() {
    let mesh = |provider: &str| {
        policy("[{}]")
            + &format!(
                "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: asked, namespace: shop}}\n\
                 spec:\n  targetRefs: [{{kind: Service, group: \"\", name: web}}]\n  action: CUSTOM\n  \
                 provider: {{name: {provider}}}\n  rules: [{{}}]\n\
                 ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
                 data:\n  mesh: |\n    extensionProviders:\n    \
                 - {{name: first, envoyExtAuthzHttp: {{service: web.shop.svc.cluster.local, port: 80}}}}\n    \
                 - {{name: second, envoyExtAuthzHttp: {{service: web.shop.svc.cluster.local, port: 80}}}}\n"
            )
    };
    let folder = folder(&policy("[{}]"), &mesh("first"), "");
    let (code, found) = json(folder.path(), &[]);
    assert_eq!(code, Some(1));
    let change = &found["changes"][0];
    assert_eq!(change["old"]["verdict"], "allow");
    assert_eq!(change["new"]["verdict"], "ask", "{change}");
    assert_eq!(change["new"]["asks"][0], "first");
    assert_eq!(change["new"]["policy"], "AuthorizationPolicy/shop/asked");
    let folder = self::folder(&mesh("first"), &mesh("second"), &line("GET", "/", "deny"));
    let (code, found) = json(folder.path(), &["--access-log", "access.log"]);
    assert_eq!((code, &found["changed"]), (Some(1), &Value::from(1)));
    // A denial that was recorded may have been the provider's.
    let folder = self::folder(&mesh("first"), &mesh("first"), &line("GET", "/", "deny"));
    let (code, found) = json(folder.path(), &["--access-log", "access.log"]);
    assert_eq!((code, &found["changes"][0]), (Some(0), &Value::Null));
}

#[test]
fn a_matrix_that_is_cut_says_so() {
    let folder = folder(&policy(GET), &policy(GET_AND_PUT), "");
    let arguments = [&BOTH[..], &["--requests", "3"]].concat();
    let output = diff(folder.path(), &arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("compared   3 requests"), "{text}");
    assert!(text.contains("cut: "), "{text}");
}

#[test]
fn a_recorded_log_is_judged_and_what_it_does_not_tell_is_said() {
    let new = "[{to: [{operation: {methods: [GET]}}], when: [{key: \"request.headers[x-team]\", values: [a]}]}]";
    let log = [
        line("GET", "/", "allow"),
        line("GET", "/", "allow"),
        line("PUT", "/", "deny"),
        line("POST", "/", "allow"),
        "what is this\n".to_owned(),
        line("GET", "/early", "allow").replace("\"verdict\":\"allow\"", "\"verdict\":null"),
    ]
    .concat();
    let folder = folder(&policy(GET), &policy(new), &log);
    let (code, found) = json(folder.path(), &["--access-log", "access.log"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        (&found["compared"], &found["changed"]),
        (&3.into(), &1.into())
    );
    let changes = found["changes"].as_array().unwrap();
    let verdict = changes.iter().find(|c| c["what"] == "verdict").unwrap();
    assert_eq!(
        (&verdict["line"], &verdict["times"]),
        (&1.into(), &2.into())
    );
    assert_eq!(verdict["not_told"], serde_json::json!(["header x-team"]));
    // POST was allowed when it was recorded, and the old configuration denies it.
    let recorded = changes.iter().find(|c| c["what"] == "recorded").unwrap();
    assert_eq!(recorded["request"]["method"], "POST");
    assert_eq!(recorded["recorded"], "allow");
    let skipped = &found["not_compared"];
    assert_eq!(
        skipped["no line of Cairn's access log in JSON"]["first_line"],
        5
    );
    assert_eq!(skipped["ended before policy was asked"]["lines"], 1);
}

#[test]
fn what_goes_elsewhere_is_information_and_no_change() {
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                 metadata: {name: web, namespace: shop}\n\
                 spec: {parentRefs: [{kind: Service, group: \"\", name: web}], \
                 rules: [{matches: [{path: {value: /}}], backendRefs: [{name: web, port: 80}]}]}\n";
    let old = policy(GET);
    let folder = folder(&old, &format!("{old}{route}"), &line("GET", "/", "allow"));
    let (code, found) = json(folder.path(), &["--access-log", "access.log"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        (&found["changed"], &found["rerouted"]),
        (&0.into(), &1.into())
    );
}

#[test]
fn a_service_that_goes_is_a_change() {
    let folder = folder(
        &policy(GET),
        &policy(GET).replace("use-waypoint: waypoint", "use-waypoint: other"),
        &line("GET", "/", "allow"),
    );
    let (code, found) = json(folder.path(), &["--access-log", "access.log"]);
    assert_eq!(code, Some(1));
    assert_eq!(found["changes"][0]["new"]["verdict"], "refused");
}

#[test]
fn wrong_usage_is_told_apart_from_a_change() {
    let folder = folder(&policy(GET), &policy(GET), "");
    for arguments in [
        &["--config", "old.yaml"][..],
        &["--config", "old.yaml", "--config", "missing.yaml"],
        &[
            "--config", "old.yaml", "--config", "new.yaml", "--config", "new.yaml",
        ],
        &[],
    ] {
        let output = diff(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}
