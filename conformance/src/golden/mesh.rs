//! The configuration of a case as its stages go by: what `cairn run` does with files, without the
//! files being watched.

use std::path::Path;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::Snapshot;
use cairn_config_schema::store::{SourceFile, Store};

use super::format::Stage;

/// What is in force.
#[derive(Debug, Default)]
pub struct Mesh {
    store: Store,
}

impl Mesh {
    /// The snapshot after the files of `stage` have been read.
    pub fn load(&mut self, case: &Path, stage: &Stage) -> Snapshot {
        self.load_files(stage, &files(case, stage))
    }

    /// The same with the files' texts given.
    pub fn load_files(&mut self, stage: &Stage, files: &[(String, String)]) -> Snapshot {
        if stage.fresh {
            self.store = Store::default();
        }
        let sources: Vec<_> = files
            .iter()
            .map(|(name, text)| SourceFile {
                path: name.as_str().into(),
                content: Ok(text.as_bytes().into()),
            })
            .collect();
        let update = self.store.update(&sources);
        let gateway = stage.gateway.as_deref().map(|text| {
            let (namespace, name) = text.split_once('/').expect("gateway: namespace/name");
            ObjectKey::new(namespace, name)
        });
        let mut snapshot = resolve(
            &update.resources,
            &Options {
                gateway,
                version: 1,
                ..Options::default()
            },
        );
        snapshot.diagnostics.extend(update.diagnostics);
        let faults = cairn_waypoint::telemetry::settings::faults(&snapshot);
        snapshot.diagnostics.extend(faults);
        if stage.lints {
            let found = cairn_authz::lint::lint(&update.resources, &snapshot);
            snapshot.diagnostics.extend(found);
        }
        snapshot
    }
}

/// Names and texts of the files of a stage. The case's file is always called `case.yaml`, so that a
/// later stage is an edit, not another file.
pub fn files(case: &Path, stage: &Stage) -> Vec<(String, String)> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let mut files = Vec::new();
    if stage.mesh != "none" {
        let name = format!("{}.yaml", stage.mesh);
        let text = read(&super::root().join("mesh").join(&name));
        files.push((name, text));
    }
    files.push(("case.yaml".to_owned(), read(&case.join(&stage.file))));
    files
}
