//! `cairn translate` as a program: what it prints for the examples of `conformance/translate`, and that what it
//! prints is written back with nothing lost (specs/policies.md 1.7, Y28).

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cairn_conformance::workspace;

const MESHES: [&str; 3] = ["istio", "cilium", "gateway"];

fn root() -> PathBuf {
    workspace::root().join("conformance/translate")
}

/// Runs in the folder of the examples, so that paths in reports are short.
fn translate(to: &str, files: &[&Path]) -> Output {
    let mut cairn = Command::new(workspace::cairn());
    cairn
        .current_dir(root())
        .args(["translate", "--to", to, "-f"]);
    cairn.args(files).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The examples: the folder, and for which mesh it is.
fn examples() -> Vec<(PathBuf, &'static str)> {
    let folders = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut examples = Vec::new();
    for folder in folders.filter(|path| path.is_dir()) {
        let there = |mesh: &&&str| folder.join(format!("{mesh}.yaml")).exists();
        let to = *MESHES.iter().find(there).unwrap();
        examples.push((PathBuf::from(folder.file_name().unwrap()), to));
    }
    examples.sort();
    examples
}

#[test]
fn the_examples_are_translated_as_written() {
    let mut wrong = Vec::new();
    let examples = examples();
    assert!(examples.len() > 5);
    for (folder, to) in examples {
        let output = translate(to, &[Path::new("mesh.yaml"), &folder.join("policy.yaml")]);
        let report = format!(
            "{}exit code {}\n",
            text(&output.stderr),
            output.status.code().unwrap()
        );
        for (file, found) in [
            (format!("{to}.yaml"), text(&output.stdout)),
            ("report.txt".to_owned(), report),
        ] {
            let path = root().join(&folder).join(file);
            if std::env::var_os("CAIRN_WRITE").is_some() {
                fs::write(&path, &found).unwrap();
            }
            if fs::read_to_string(&path).unwrap_or_default() != found {
                wrong.push(format!("{}\nfound:\n{found}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is printed can be read again, and what lost nothing on the way there loses nothing on the way back.
#[test]
fn what_was_translated_whole_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = 0;
    for (example, to) in examples().into_iter().filter(|(_, to)| *to != "gateway") {
        let mesh = root().join("mesh.yaml");
        let there = translate(to, &[&mesh, &example.join("policy.yaml")]);
        if there.status.code() != Some(0) {
            continue;
        }
        let written = folder.path().join("there.yaml");
        fs::write(&written, &there.stdout).unwrap();
        let other = if to == "istio" { "cilium" } else { "istio" };
        let back = translate(other, &[&mesh, &written]);
        let told = text(&back.stderr);
        // The policy that closes the pods is ztunnel's, and stays.
        let lost = told
            .lines()
            .filter(|line| line.contains("not translated") && !line.contains("-by-waypoint"));
        assert_eq!(lost.count(), 0, "{}: {told}", example.display());
        assert!(!back.stdout.is_empty(), "{}: {told}", example.display());
        whole += 1;
    }
    assert!(whole > 2, "{whole}");
}

#[test]
fn input_that_is_not_understood_is_not_translated() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.yaml");
    fs::write(&file, "kind: [").unwrap();
    let mesh = root().join("mesh.yaml");
    let output = translate("istio", &[&mesh, &file]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty());
    let missing = translate("istio", &[&mesh, Path::new("nowhere.yaml")]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    let policy = Path::new("network-policy/policy.yaml");
    let unasked = translate("istio", &[&mesh, policy, Path::new("--requests=0")]);
    assert_eq!(unasked.status.code(), Some(2), "{unasked:?}");
    assert!(unasked.stdout.is_empty());
    let without_waypoint = translate("istio", &[Path::new("network-policy/policy.yaml")]);
    assert_eq!(
        without_waypoint.status.code(),
        Some(2),
        "{without_waypoint:?}"
    );
}

#[test]
fn json_says_whether_the_engine_agreed() {
    let mesh = root().join("mesh.yaml");
    let policy = Path::new("network-policy/policy.yaml");
    let output = translate("istio", &[&mesh, policy, Path::new("--output=json")]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["refuted"], false);
    assert_eq!(report["objects"].as_array().unwrap().len(), 2);
}

/// Whoever follows a page exports every kind that is looked at.
#[test]
fn every_page_exports_the_kinds_that_are_looked_at() {
    let help = Command::new(workspace::cairn())
        .args(["translate", "--help"])
        .output()
        .unwrap();
    let kinds = |text: &str| {
        // A help text breaks its lines where the terminal does.
        let mut words = text.split_whitespace();
        let list = words.find(|word| word.starts_with("gateways,")).unwrap();
        list.to_owned()
    };
    let wanted = kinds(&text(&help.stdout));
    for guard in [
        "authorizationpolicies",
        "peerauthentications",
        "requestauthentications",
        "networkpolicies",
        "ciliumclusterwidenetworkpolicies",
        "workloadentries",
    ] {
        assert!(wanted.split(',').any(|kind| kind == guard), "{guard}");
    }
    for page in [
        "translate.md",
        "migrate-from-cilium.md",
        "migrate-from-istio.md",
    ] {
        let page = fs::read_to_string(workspace::root().join("docs").join(page)).unwrap();
        assert_eq!(kinds(&page), wanted);
    }
}
