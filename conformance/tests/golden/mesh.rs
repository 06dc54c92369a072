//! The configuration of a case as its stages go by: what `cairn run` does with files, without the
//! files being watched.

use std::path::Path;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::Snapshot;
use cairn_config_schema::store::{SourceFile, Store};

use crate::format::Stage;

#[derive(Default)]
pub struct Mesh {
    store: Store,
}

impl Mesh {
    /// The snapshot after the files of `stage` have been read.
    pub fn load(&mut self, case: &Path, stage: &Stage) -> Snapshot {
        if stage.fresh {
            self.store = Store::default();
        }
        let mut files = Vec::new();
        if stage.mesh != "none" {
            let name = format!("{}.yaml", stage.mesh);
            let path = crate::golden().join("mesh").join(&name);
            files.push(file(&name, &path));
        }
        // The name stays `case.yaml` so that a later stage is an edit, not another file.
        files.push(file("case.yaml", &case.join(&stage.file)));
        let update = self.store.update(&files);
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
        snapshot
    }
}

fn file(name: &str, path: &Path) -> SourceFile<'static> {
    let content = std::fs::read(path);
    SourceFile {
        path: name.into(),
        content: content
            .map(Into::into)
            .map_err(|e| format!("{}: {e}", path.display()).into()),
    }
}
