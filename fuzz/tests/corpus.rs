//! Every file of the corpus through its target: what fuzzing found once is tried by every `make test`.

// A panic here is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cairn_fuzz::TARGETS;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn names(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        path.file_stem().unwrap().to_string_lossy().into_owned()
    };
    entries.map(name).collect()
}

/// All files below a folder.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("fuzz_targets")), targets);
    assert_eq!(names(&folder("corpus")), targets);
    for (name, _) in TARGETS {
        assert!(!files(&folder("corpus").join(name)).is_empty(), "{name}");
    }
}

#[test]
fn the_corpus_passes() {
    for (name, target) in TARGETS {
        for file in files(&folder("corpus").join(name)) {
            // The name of the file is in the output of a failed test.
            println!("{}", file.display());
            target(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn golden_cases_pass_the_target_of_configuration() {
    let golden = folder("../conformance/golden");
    let yaml = |file: &PathBuf| file.extension().is_some_and(|e| e == "yaml");
    for file in files(&golden).iter().filter(|file| yaml(file)) {
        println!("{}", file.display());
        cairn_fuzz::snapshot(&fs::read(file).unwrap());
    }
}
