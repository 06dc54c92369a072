//! Where things stand in the workspace: the binary under test, real Envoy, scripts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("conformance/ has a parent")
        .to_path_buf()
}

/// The binary under test: `CAIRN_BIN`, else it is built first, so that a test never runs
/// yesterday's code.
pub fn cairn() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> PathBuf {
    if let Some(path) = std::env::var_os("CAIRN_BIN") {
        return path.into();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "-p", "cairn-waypoint", "--bin", "cairn"])
        .current_dir(root())
        .status()
        .expect("cargo runs");
    assert!(status.success(), "cairn does not build");
    target().join("debug/cairn")
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Python of the virtual environment.
pub fn python() -> PathBuf {
    installed(root().join("target/venv/bin/python"))
}

/// Envoy itself, not the Python script that starts it.
pub fn envoy() -> PathBuf {
    let libraries = installed(root().join("target/venv/lib"));
    let python = std::fs::read_dir(libraries)
        .expect("target/venv/lib")
        .next()
        .expect("a Python version")
        .expect("target/venv/lib");
    installed(python.path().join("site-packages/envoy/_bin/envoy"))
}

/// Python with a generated client of Hubble's API, and the folder of what was generated. `None`: there was no
/// Go to get the protocol definition with.
pub fn hubble_client() -> Option<(PathBuf, PathBuf)> {
    let folder = root().join("target/hubble");
    let client = folder.join("client");
    client
        .exists()
        .then(|| (folder.join("venv/bin/python"), client))
}

/// The Kubernetes control plane as one program, or why there is none.
pub fn control_plane() -> Result<PathBuf, String> {
    let program = root().join("target/kube/cluster");
    match program.exists() {
        true => Ok(program),
        false => Err("there is no target/kube/cluster: `make setup` makes it".to_owned()),
    }
}

/// Istio's control plane as a program, or why there is none.
pub fn istiod() -> Result<PathBuf, String> {
    let program = root().join("target/istiod/pilot-discovery");
    match program.exists() {
        true => Ok(program),
        false => {
            Err("there is no target/istiod/pilot-discovery: `make istiod` makes it".to_owned())
        }
    }
}

/// Helm's engine, or why there is none.
pub fn helm() -> Result<PathBuf, String> {
    let program = root().join("target/helm");
    match program.exists() {
        true => Ok(program),
        false => Err("there is no target/helm: `make setup` makes it".to_owned()),
    }
}

/// Definitions of the kinds of the Gateway API, Istio and Cilium.
pub fn definitions() -> PathBuf {
    installed(root().join("target/kube/crds"))
}

/// kubectl, of the control plane's version.
pub fn kubectl() -> PathBuf {
    installed(root().join("target/kube/venv/bin/kubectl"))
}

fn installed(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{} is missing: run `make setup` first",
        path.display()
    );
    path
}
