//! Golden cases as data: where they are, what may be written in them, and what the engine of the
//! data path says to each ask. Compares nothing; the suites do.

pub mod chain;
pub mod engine;
pub mod format;
pub mod mesh;
pub mod tokens;

use std::path::{Path, PathBuf};

use format::Stage;

/// Folder of the cases.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Every folder with a `requests.yaml` whose name has `GOLDEN` in it, sorted, with its name.
pub fn cases() -> Vec<(String, PathBuf)> {
    let filter = std::env::var("GOLDEN").unwrap_or_default();
    let mut found = Vec::new();
    collect(&root(), &mut found);
    found.sort();
    let named = found.into_iter().map(|path| {
        let name = path.strip_prefix(root()).expect("below the root");
        (name.display().to_string(), path)
    });
    let wanted: Vec<_> = named.filter(|(name, _)| name.contains(&filter)).collect();
    assert!(!wanted.is_empty(), "no case matches GOLDEN={filter}");
    wanted
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.join("requests.yaml").exists() {
        found.push(folder.to_path_buf());
    }
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        }
    }
}

/// The stages of a case.
///
/// # Errors
/// What is wrong with its `requests.yaml`.
pub fn stages(case: &Path) -> Result<Vec<Stage>, String> {
    let text = std::fs::read_to_string(case.join("requests.yaml")).map_err(|e| e.to_string())?;
    serde_saphyr::from_multiple(&text).map_err(|e| format!("requests.yaml: {e}"))
}
