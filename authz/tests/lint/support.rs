//! From YAML to findings.

use cairn_authz::lint::lint;
use cairn_config_schema::diagnostics::{Code, Diagnostic};
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::resources::Resources;
use cairn_config_schema::snapshot::Snapshot;
use cairn_config_schema::store::{SourceFile, Store};

pub fn load(yaml: &str) -> (Resources, Snapshot) {
    let file = SourceFile {
        path: "f.yaml".into(),
        content: Ok(yaml.as_bytes().into()),
    };
    let update = Store::default().update(&[file]);
    let snapshot = resolve(&update.resources, &Options::default());
    (update.resources, snapshot)
}

pub fn findings(yaml: &str) -> Vec<Diagnostic> {
    let (resources, snapshot) = load(yaml);
    lint(&resources, &snapshot)
}

/// The messages of one lint.
pub fn said(yaml: &str, code: Code) -> Vec<String> {
    let found = findings(yaml).into_iter().filter(|f| f.code == code);
    found.map(|f| f.message).collect()
}
