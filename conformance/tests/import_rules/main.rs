//! Who may import whom (DESIGN section 3), checked over `cargo metadata` and the source text. It
//! does not judge what the code does with what it imports.

// A panic here is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod house;
mod sources;

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DepKindInfo, DependencyKind, Metadata, MetadataCommand};

use house::{CONFINED, IMPURE_PACKAGES, IMPURE_PATHS, PURE, WORKSPACE_IMPORTS};
use sources::{code_lines, names, rust_files, shown, workspace, workspace_sources};

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(workspace().join("Cargo.toml"))
        // Packages of other platforms are not fetched by a build.
        .other_options([
            "--offline".to_owned(),
            "--filter-platform".to_owned(),
            format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .exec()
        .unwrap()
}

/// Names of the packages that `package` needs to be built, at any depth.
fn normal_tree(metadata: &Metadata, package: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<_, _> = metadata
        .resolve
        .iter()
        .flat_map(|r| &r.nodes)
        .map(|n| (&n.id, n))
        .collect();
    let mut open: Vec<_> = metadata
        .packages
        .iter()
        .filter(|p| *p.name == package)
        .map(|p| &p.id)
        .collect();
    assert!(!open.is_empty(), "no package {package}");
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let normal = nodes[id]
                .deps
                .iter()
                .filter(|d| d.dep_kinds.iter().any(is_needed))
                .filter(|d| !is_only_named(&metadata[id].name, &d.name));
            open.extend(normal.map(|d| &d.pkg));
        }
    }
    seen.into_iter()
        .map(|id| metadata[id].name.to_string())
        .collect()
}

/// `cargo metadata` lists what a feature would give to a dependency if it were there (`rand_core?/std`);
/// `cargo tree` shows that it is not.
fn is_only_named(package: &str, dependency: &str) -> bool {
    (package, dependency) == ("signature", "rand_core")
}

/// Needed to build for the systems that Cairn is built for; WebAssembly is none.
fn is_needed(kind: &DepKindInfo) -> bool {
    let target = kind.target.as_ref().map(ToString::to_string);
    let is_wasm = target.is_some_and(|t| t.contains("wasm32") && !t.starts_with("cfg(not"));
    kind.kind == DependencyKind::Normal && !is_wasm
}

#[test]
fn workspace_crates_import_only_what_the_house_allows() {
    let metadata = metadata();
    let members = metadata.workspace_packages();
    let known: BTreeSet<_> = WORKSPACE_IMPORTS.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<_> = members.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(
        found, known,
        "every workspace crate has a line in the table"
    );
    for package in members {
        let (_, allowed) = WORKSPACE_IMPORTS
            .iter()
            .find(|(name, _)| *name == package.name.as_str())
            .unwrap();
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if known.contains(name) && dependency.kind == DependencyKind::Normal {
                assert!(
                    allowed.contains(&name),
                    "{} must not depend on {name}",
                    package.name
                );
            }
        }
    }
}

#[test]
fn pure_crates_have_no_impure_package_in_their_tree() {
    let metadata = metadata();
    for (package, _) in PURE {
        let tree = normal_tree(&metadata, package);
        let impure: Vec<_> = IMPURE_PACKAGES
            .iter()
            .filter(|p| tree.contains(**p))
            .collect();
        assert!(impure.is_empty(), "{package} pulls in {impure:?}");
    }
    // The walk itself must be able to find them.
    let waypoint = normal_tree(&metadata, "cairn-waypoint");
    for package in ["tokio", "pingora-core", "rustls", "mio"] {
        assert!(
            waypoint.contains(package),
            "the walk did not find {package}"
        );
    }
}

#[test]
fn pure_crates_name_no_clock_socket_file_or_thread() {
    let mut offences = Vec::new();
    for (_, folder) in PURE {
        for file in rust_files(&workspace().join(folder)) {
            let text = std::fs::read_to_string(&file).unwrap();
            for (line, code) in code_lines(&text) {
                for name in IMPURE_PATHS.iter().filter(|n| code.contains(**n)) {
                    offences.push(format!("{}:{line}: {name}", shown(&file)));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn confined_names_stay_where_they_belong() {
    let mut offences = Vec::new();
    for file in workspace_sources() {
        let shown = shown(&file);
        let text = std::fs::read_to_string(&file).unwrap();
        for rule in CONFINED {
            if rule.places.iter().any(|p| shown.starts_with(p)) {
                continue;
            }
            for (line, code) in code_lines(&text) {
                if let Some(name) = rule.names.iter().find(|n| names(code, n)) {
                    offences.push(format!("{shown}:{line}: {name} ({})", rule.why));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

/// Every crate takes the workspace's lints, which forbid unsafe code; the two that may hold some (system calls, and
/// what an allocator is declared by) take the same but deny it, so that each block has to say why it is there.
#[test]
fn only_the_kernel_redirect_and_the_allocator_may_hold_unsafe_code() {
    let manifest = |path: &str| std::fs::read_to_string(workspace().join(path)).unwrap();
    assert!(manifest("Cargo.toml").contains("unsafe_code = \"forbid\""));
    for (name, _) in WORKSPACE_IMPORTS {
        let folder = name.strip_prefix("cairn-").unwrap();
        let text = manifest(&format!("{folder}/Cargo.toml"));
        if ["cairn-kernel-redirect", "cairn-allocator"].contains(name) {
            assert!(text.contains("unsafe_code = \"deny\""));
            assert!(text.contains("undocumented_unsafe_blocks = \"deny\""));
        } else {
            assert!(text.contains("[lints]\nworkspace = true"), "{name}");
        }
    }
}

#[test]
fn every_place_in_the_table_exists() {
    for place in CONFINED.iter().flat_map(|rule| rule.places) {
        let planned = ["waypoint/src/source/kube/", "waypoint/src/controller/"];
        assert!(
            planned.contains(place) || workspace().join(place).exists(),
            "{place} is gone: mend the table"
        );
    }
}

#[test]
fn every_source_file_says_what_it_does_first() {
    for file in workspace_sources() {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//! "),
            "{}: the first line says what the file does (DESIGN section 9)",
            shown(&file)
        );
    }
}
