//! deploy/monitoring holds to the code: every metric that a rule or a dashboard names exists, Prometheus
//! accepts the rules, and each alert has its section in the runbook.

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
use std::process::Command;

use cairn_conformance::prometheus::{program, with_pods_from};
use cairn_conformance::workspace;
use serde_json::Value;

fn text(path: &str) -> String {
    let path = workspace::root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names of all metrics in the code, those of the process among them.
fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in [
        "istio",
        "own",
        "destinations",
        "policy",
        "node",
        "controller",
    ] {
        let code = text(&format!("waypoint/src/telemetry/names/{file}.rs"));
        let quoted = code.split('"').skip(1).step_by(2);
        let is_metric = |word: &&str| {
            ["istio_", "cairn_", "hubble_"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
        };
        names.extend(quoted.filter(is_metric).map(str::to_owned));
    }
    assert!(names.len() > 60, "the names were not found: {names:?}");
    for of_process in [
        "cpu_seconds_total",
        "resident_memory_bytes",
        "open_fds",
        "max_fds",
    ] {
        names.insert(format!("process_{of_process}"));
    }
    names
}

/// Every word of an expression that is the name of a metric of ours, without the ends of histograms.
fn named(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let ours = words.filter(|word| {
        let is_ours = ["istio_", "cairn_", "hubble_", "process_"];
        is_ours.iter().any(|prefix| word.starts_with(prefix))
    });
    let bare = |word: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        let end = ends.iter().find_map(|end| word.strip_suffix(end));
        end.unwrap_or(word).to_owned()
    };
    ours.map(bare).collect()
}

const RULES: &str = "deploy/monitoring/prometheus-rules.yaml";

fn rules() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&text(RULES)).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let of_group = |group: &Value| group["rules"].as_array().unwrap().clone();
    groups.iter().flat_map(of_group).collect()
}

#[test]
fn rules_name_only_metrics_that_there_are() {
    let (names, rules) = (names(), rules());
    let recorded: BTreeSet<&str> = rules.iter().filter_map(|r| r["record"].as_str()).collect();
    for rule in &rules {
        let expression = rule["expr"].as_str().unwrap();
        let found = named(expression);
        let by_record = recorded.iter().any(|record| expression.contains(record));
        assert!(!found.is_empty() || by_record, "{expression}");
        for name in found {
            assert!(names.contains(&name), "{name} in {expression}");
        }
    }
}

#[test]
fn dashboards_name_only_metrics_that_there_are() {
    let names = names();
    for file in ["grafana-users", "grafana-operators"] {
        let dashboard = text(&format!("deploy/monitoring/{file}.json"));
        let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(panels.len() >= 10);
        for panel in panels {
            let targets = panel["targets"].as_array().unwrap();
            let expressions = targets
                .iter()
                .map(|target| target["expr"].as_str().unwrap());
            for expression in expressions {
                let found = named(expression);
                assert!(!found.is_empty(), "{expression}");
                for name in found {
                    assert!(names.contains(&name), "{name} in {expression}");
                }
            }
        }
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbook() {
    let runbook = text("docs/runbook.md");
    let rules = rules();
    let alerts: Vec<&Value> = rules
        .iter()
        .filter(|rule| rule["alert"].is_string())
        .collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        let name = alert["alert"].as_str().unwrap();
        assert!(
            runbook.contains(&format!("\n## {name}\n")),
            "no section {name}"
        );
        let link = format!("docs/runbook.md#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook"], link.as_str());
        assert!(alert["annotations"]["summary"].is_string());
    }
}

/// Runs promtool on a file and gives what it says, good or bad.
fn promtool(arguments: &[&str], file: &Path) -> (bool, String) {
    let output = Command::new(program("promtool"))
        .args(arguments)
        .arg(file)
        .output()
        .expect("promtool: run conformance/setup.sh");
    let said = [&output.stdout[..], &output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn prometheus_accepts_rules_and_configuration() {
    let here = |file: &str| workspace::root().join(file);
    let scrape = here("deploy/monitoring/prometheus-scrape.yaml");
    for (what, file) in [("rules", here(RULES)), ("config", scrape)] {
        let (accepted, said) = promtool(&["check", what], &file);
        assert!(accepted, "{}: {said}", file.display());
    }
}

/// Debian's Prometheus is built without Kubernetes: a file stands for what it would find there. That the
/// rest does what it should is tested with a real one (e2e: prometheus).
#[test]
fn prometheus_accepts_the_configuration_for_kubernetes() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prometheus.yaml");
    fs::write(&config, with_pods_from(&folder.path().join("pods.json"))).unwrap();
    fs::write(folder.path().join("pods.json"), "[]").unwrap();
    fs::write(folder.path().join("prometheus-rules.yaml"), text(RULES)).unwrap();
    let (accepted, said) = promtool(&["check", "config"], &config);
    assert!(accepted, "{said}");
    assert!(said.contains("rules found"), "{said}");
}

/// Each alert has a case in which it fires, with its words, and they are right.
#[test]
fn each_alert_fires_when_it_should() {
    const TESTS: &str = "deploy/monitoring/prometheus-rules.test.yaml";
    let (passed, said) = promtool(&["test", "rules"], &workspace::root().join(TESTS));
    assert!(passed, "{said}");
    let tests: Value = serde_saphyr::from_str(&text(TESTS)).unwrap();
    let cases = tests["tests"].as_array().unwrap().iter();
    let fired: BTreeSet<&str> = cases
        .flat_map(|case| case["alert_rule_test"].as_array().unwrap())
        .filter(|case| !case["exp_alerts"].as_array().unwrap().is_empty())
        .map(|case| case["alertname"].as_str().unwrap())
        .collect();
    let rules = rules();
    let alerts: BTreeSet<&str> = rules.iter().filter_map(|r| r["alert"].as_str()).collect();
    assert_eq!(fired, alerts);
}
