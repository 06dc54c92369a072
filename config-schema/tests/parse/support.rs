//! Loading a text and writing its findings one a line.

use std::sync::Arc;

use cairn_config_schema::diagnostics::Diagnostic;
use cairn_config_schema::resources::Resources;
use cairn_config_schema::store::{SourceFile, Store};

/// A file with this text.
pub fn file(path: &str, text: &str) -> SourceFile<'static> {
    SourceFile {
        path: Arc::from(path),
        content: Ok(text.as_bytes().to_vec().into()),
    }
}

/// What a fresh store makes of one file `f.yaml`.
pub fn load(text: &str) -> (Resources, Vec<String>) {
    let update = Store::default().update(&[file("f.yaml", text)]);
    let findings = update.diagnostics.iter().map(line).collect();
    (update.resources, findings)
}

/// The findings of one file `f.yaml`.
pub fn findings(text: &str) -> Vec<String> {
    load(text).1
}

/// `line:column severity code path: message | hint`
pub fn line(d: &Diagnostic) -> String {
    let place = d
        .location
        .as_ref()
        .map_or_else(|| "-".to_owned(), |l| format!("{}:{}", l.line, l.column));
    let severity = serde_json::to_value(d.severity).unwrap();
    let code = serde_json::to_value(d.code).unwrap();
    let hint = d
        .hint
        .as_ref()
        .map_or_else(String::new, |h| format!(" | {h}"));
    let (severity, code) = (severity.as_str().unwrap(), code.as_str().unwrap());
    format!("{place} {severity} {code} {}: {}{hint}", d.path, d.message)
}
