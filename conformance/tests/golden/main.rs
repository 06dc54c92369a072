//! Golden cases: `case.yaml` as a user writes it, `requests.yaml` with what is asked and what must
//! come out, run by the engine of the data path. See `../../golden/README.md`. Opens no socket.

// A panic here is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ask;
mod diagnostics;
mod format;
mod mesh;

use std::path::{Path, PathBuf};

use format::Stage;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Every folder with a `requests.yaml`, sorted.
fn cases(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if folder.join("requests.yaml").exists() {
        found.push(folder.to_path_buf());
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(cases(&path));
        }
    }
    found.sort();
    found
}

/// What is wrong with one case; empty when all is as expected.
fn run(case: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(case.join("requests.yaml")).unwrap();
    let stages: Vec<Stage> = match serde_saphyr::from_multiple(&text) {
        Ok(stages) => stages,
        Err(error) => return vec![format!("requests.yaml: {error}")],
    };
    let mut wrong = Vec::new();
    let mut mesh = mesh::Mesh::default();
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
    let filter = std::env::var("GOLDEN").unwrap_or_default();
    let root = golden();
    let mut failed = Vec::new();
    let mut count = 0;
    for case in cases(&root) {
        let name = case.strip_prefix(&root).unwrap().display().to_string();
        if !name.contains(&filter) {
            continue;
        }
        count += 1;
        failed.extend(run(&case).into_iter().map(|w| format!("{name}: {w}")));
    }
    assert!(count > 0, "no case matches GOLDEN={filter}");
    println!("{count} cases");
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[test]
fn a_wrong_expectation_is_noticed() {
    let case = golden().join("authorization/order");
    let stage: Stage = serde_saphyr::from_str(
        "asks:\n- {from: shop/viewer, send: GET /admin, expect: {verdict: allow, by: none, route: shop/x#0, answer: 404}}\n",
    )
    .unwrap();
    let snapshot = mesh::Mesh::default().load(&case, &stage);
    let ask = stage.asks.first().unwrap().with_defaults(&stage.default);
    let differences = ask::run(&snapshot, &ask);
    assert_eq!(differences.len(), 4, "{differences:?}");
}
