//! The source text of the workspace, and what is code in it. Judges nothing.

use std::path::{Path, PathBuf};

use crate::house::{OUTSIDE, WORKSPACE_IMPORTS};

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// Whether `code` has a path that begins with the crate `name`.
pub fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = &code[..at];
        let after = &code[at + name.len()..];
        let inside = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        !inside && after.starts_with("::")
    })
}

/// Lines of code with their numbers, comments and the tests at the file's end left out.
pub fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or("")))
}

pub fn workspace_sources() -> Vec<PathBuf> {
    let root = workspace();
    let mut files = Vec::new();
    for (name, _) in WORKSPACE_IMPORTS {
        let folder = name.strip_prefix("cairn-").unwrap();
        if !OUTSIDE.contains(&folder) {
            files.extend(rust_files(&root.join(folder).join("src")));
        }
    }
    files
}

pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

pub fn shown(file: &Path) -> String {
    file.strip_prefix(workspace())
        .unwrap()
        .to_string_lossy()
        .into_owned()
}

#[test]
fn the_scan_sees_code_and_not_comments_or_tests() {
    let text = "//! std::fs in a doc\nuse std::fs; // std::env\nlet x = 1;\n#[cfg(test)]\nmod tests { use std::thread; }\n";
    let code: Vec<_> = code_lines(text).collect();
    assert_eq!(code, [(1, ""), (2, "use std::fs; "), (3, "let x = 1;")]);
    assert!(names("use rustls::pki_types::X;", "rustls"));
    assert!(!names("use tokio_rustls::X;", "rustls"));
    assert!(names("    kube::Api::all()", "kube"));
    assert!(!names("use super::resources::kube::ServiceSpec;", "kube"));
    assert!(!names("let kube = 1;", "kube"));
}
