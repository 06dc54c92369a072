//! Golden cases: `case.yaml` as a user writes it, `requests.yaml` with what is asked and what must
//! come out, run by the engine of the data path. See `../../golden/README.md`. Opens no socket.

// A panic here is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ask;
mod diagnostics;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use cairn_conformance::golden::format::Stage;
use cairn_conformance::golden::mesh::Mesh;
use cairn_conformance::golden::{cases, root, stages};

/// What is wrong with one case; empty when all is as expected.
fn run(case: &Path) -> Vec<String> {
    let stages = match stages(case) {
        Ok(stages) => stages,
        Err(error) => return vec![error],
    };
    let mut wrong = Vec::new();
    let mut mesh = Mesh::default();
    for stage in &stages {
        let snapshot = mesh.load(case, stage);
        wrong.extend(diagnostics::compare(stage, &snapshot.diagnostics));
        for (at, ask) in stage.asks.iter().enumerate() {
            let ask = ask.with_defaults(&stage.default);
            for difference in ask::run(&snapshot, &ask) {
                wrong.push(format!("ask {at} ({}): {difference}", ask.shown()));
            }
        }
    }
    wrong
}

#[test]
fn every_case_comes_out_as_written() {
    let cases = cases();
    println!("{} cases", cases.len());
    let failed: Vec<String> = cases
        .iter()
        .flat_map(|(name, case)| run(case).into_iter().map(move |w| format!("{name}: {w}")))
        .collect();
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

/// What policies.md 1.7 lists and a waypoint has to do with: neither a command of `helm` (Y8) nor a page (Y29).
const MANIFESTS: RangeInclusive<u32> = 1..=28;

#[test]
fn every_manifest_has_a_case() {
    let mut named: BTreeSet<u32> = [8].into();
    for folder in [root().join("manifests"), root().join("../translate")] {
        for case in std::fs::read_dir(folder).unwrap() {
            let files = std::fs::read_dir(case.unwrap().path());
            for file in files.into_iter().flatten() {
                let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
                named.extend(text.lines().next().into_iter().flat_map(manifests));
            }
        }
    }
    assert!(named.into_iter().eq(MANIFESTS));
}

/// `# Articles Y18 to Y20 and Y22: ...` as numbers.
fn manifests(line: &str) -> Vec<u32> {
    let Some(list) = line.strip_prefix("# Article") else {
        return Vec::new();
    };
    let mut found: Vec<u32> = Vec::new();
    let mut is_range = false;
    for word in list.split([' ', ',', ':', '.', '(', ')']) {
        let number = word.strip_prefix('Y').and_then(|text| text.parse().ok());
        if let Some(number) = number {
            let first = found
                .last()
                .filter(|_| is_range)
                .map_or(number, |last| last + 1);
            found.extend(first..=number);
        }
        is_range = word == "to";
    }
    found
}

#[test]
fn a_list_of_manifests_is_understood() {
    assert_eq!(
        manifests("# Articles Y18 to Y20, and Y22 (Y3): x"),
        [18, 19, 20, 22, 3]
    );
    assert!(manifests("# Of Y5").is_empty());
}

#[test]
fn a_wrong_expectation_is_noticed() {
    let case = root().join("authorization/order");
    let stage: Stage = serde_saphyr::from_str(
        "asks:\n- {from: shop/viewer, send: GET /admin, expect: {verdict: allow, by: none, route: shop/x#0, answer: 404}}\n",
    )
    .unwrap();
    let snapshot = Mesh::default().load(&case, &stage);
    let ask = stage.asks.first().unwrap().with_defaults(&stage.default);
    let differences = ask::run(&snapshot, &ask);
    assert_eq!(differences.len(), 4, "{differences:?}");
}
