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
use std::process::Command;

use cairn_conformance::prometheus::program;
use cairn_conformance::workspace;
use serde_json::Value;

fn text(path: &str) -> String {
    let path = workspace::root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names of all metrics in the code, those of the process among them.
fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in ["istio", "own", "destinations", "policy", "node"] {
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

#[test]
fn prometheus_accepts_rules_and_configuration() {
    for (what, file) in [
        ("rules", RULES),
        ("config", "deploy/monitoring/prometheus-scrape.yaml"),
    ] {
        let output = Command::new(program("promtool"))
            .args(["check", what])
            .arg(workspace::root().join(file))
            .output()
            .expect("promtool: run conformance/setup.sh");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{file}: {said}{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}
