//! Who may import whom (DESIGN section 3), checked over `cargo metadata` and the source text. It
//! does not judge what the code does with what it imports.

// A panic here is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DepKindInfo, DependencyKind, Metadata, MetadataCommand};

/// Workspace crates each crate may use outside its tests.
const WORKSPACE_IMPORTS: &[(&str, &[&str])] = &[
    ("cairn-config-schema", &[]),
    ("cairn-routing", &["cairn-config-schema"]),
    ("cairn-authz", &["cairn-config-schema"]),
    ("cairn-kernel-redirect", &["cairn-config-schema"]),
    (
        "cairn-filters",
        &["cairn-config-schema", "cairn-routing", "cairn-authz"],
    ),
    (
        "cairn-waypoint",
        &[
            "cairn-config-schema",
            "cairn-routing",
            "cairn-authz",
            "cairn-filters",
            "cairn-kernel-redirect",
        ],
    ),
    (
        "cairn-conformance",
        &[
            "cairn-config-schema",
            "cairn-routing",
            "cairn-authz",
            "cairn-filters",
            "cairn-waypoint",
        ],
    ),
    (
        "cairn-benches",
        &[
            "cairn-config-schema",
            "cairn-routing",
            "cairn-authz",
            "cairn-filters",
            "cairn-waypoint",
        ],
    ),
    (
        "cairn-fuzz",
        &["cairn-config-schema", "cairn-authz", "cairn-filters"],
    ),
];

/// Crates whose code has no clock, socket, file, thread, randomness or async.
const PURE: &[(&str, &str)] = &[
    ("cairn-config-schema", "config-schema/src"),
    ("cairn-routing", "routing/src"),
    ("cairn-authz", "authz/src"),
];

/// What must not be in the normal dependency tree of a pure crate, at any depth. `kube`,
/// `kube-core` and `kube-derive` are not here: `gateway-api` declares its types with them, and
/// without the features `client` and `runtime` they hold no IO.
const IMPURE_PACKAGES: &[&str] = &[
    "async-trait",
    "fastrand",
    "futures",
    "getrandom",
    "h2",
    "hyper",
    "hyper-util",
    "kube-client",
    "kube-runtime",
    "mio",
    "notify",
    "pingora-core",
    "pingora-http",
    "pingora-proxy",
    "rand",
    "rustls",
    "socket2",
    "tokio",
    "tokio-rustls",
    "tracing",
    "uuid",
];

/// What must not be named in the source of a pure crate.
const IMPURE_PATHS: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::stdout",
    "println!",
    "eprintln!",
    "async fn",
    ".await",
];

/// A name that may be used only in some places.
struct Confined {
    /// Text that begins a path: `pingora` finds `pingora_core::`, `use pingora_http::...`.
    names: &'static [&'static str],
    /// Folders or files, relative to the workspace.
    places: &'static [&'static str],
    why: &'static str,
}

const CONFINED: &[Confined] = &[
    Confined {
        names: &[
            "pingora_core",
            "pingora_proxy",
            "pingora_http",
            "pingora_error",
        ],
        places: &["waypoint/src/proxy/"],
        why: "the HTTP engine is an implementation detail of proxy/",
    },
    Confined {
        names: &["rustls", "tokio_rustls"],
        places: &["waypoint/src/tls/"],
        why: "TLS is set up in one place, with one provider",
    },
    Confined {
        names: &["x509_parser"],
        places: &["waypoint/src/tls/", "waypoint/src/pki/"],
        why: "only who checks or makes certificates looks into them",
    },
    Confined {
        names: &["rcgen"],
        places: &["waypoint/src/pki/"],
        why: "only the small CA for trying things out makes certificates",
    },
    Confined {
        names: &["kube", "k8s_openapi", "gateway_api"],
        places: &[
            "config-schema/src/",
            "waypoint/src/source/kube/",
            "waypoint/src/controller/",
        ],
        why: "past parsing, everything speaks in the snapshot's terms",
    },
    Confined {
        names: &["aya", "libc"],
        places: &["kernel-redirect/src/"],
        why: "the kernel's own interfaces are called in one crate",
    },
    Confined {
        names: &["notify"],
        places: &["waypoint/src/source/", "waypoint/src/tls/"],
        why: "only sources and identities watch files",
    },
];

/// Crates that bring tests and measurements: clients and servers of their own, so not confined.
const OUTSIDE: &[&str] = &["conformance", "benches", "fuzz"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

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

/// Every crate takes the workspace's lints, which forbid unsafe code; the one that may hold some takes
/// the same but denies it, so that each block has to say why it is there.
#[test]
fn only_the_kernel_redirect_may_hold_unsafe_code() {
    let manifest = |path: &str| std::fs::read_to_string(workspace().join(path)).unwrap();
    assert!(manifest("Cargo.toml").contains("unsafe_code = \"forbid\""));
    for (name, _) in WORKSPACE_IMPORTS {
        let folder = name.strip_prefix("cairn-").unwrap();
        let text = manifest(&format!("{folder}/Cargo.toml"));
        if *name == "cairn-kernel-redirect" {
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

/// Whether `code` has a path that begins with the crate `name`.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = &code[..at];
        let after = &code[at + name.len()..];
        let inside = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        !inside && after.starts_with("::")
    })
}

/// Lines of code with their numbers, comments and the tests at the file's end left out.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or("")))
}

fn workspace_sources() -> Vec<PathBuf> {
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

fn rust_files(folder: &Path) -> Vec<PathBuf> {
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

fn shown(file: &Path) -> String {
    file.strip_prefix(workspace())
        .unwrap()
        .to_string_lossy()
        .into_owned()
}
