//! Golden cases: `case.yaml` as a user writes it, `requests.yaml` with what is asked and what must
//! come out, run by the engine of the data path. See `../../golden/README.md`. Opens no socket.

// A panic here is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ask;
mod diagnostics;

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
