//! What golden cases and the inputs in golden/fields/ show of fields: a field works where the snapshot is
//! another one without it; it is rejected or warned of where a finding says so at its path.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_config_schema::diagnostics::{Code, Diagnostic, Severity};
use cairn_config_schema::snapshot::Snapshot;
use cairn_conformance::golden::format::Stage;
use cairn_conformance::golden::mesh::{Mesh, files};
use cairn_conformance::golden::{cases, root, stages};
use serde_json::Value;

use super::kinds::Table;

/// What is known of one field.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// A case in which the snapshot depends on it.
    pub works: Option<String>,
    /// A case in which an object is an error without it: it is as good as what it is a part of.
    pub required: Option<String>,
    /// A case in which its value is an error: a field that is never honoured may be refused so.
    bad: Option<String>,
    /// A case in which it is not honoured, which is an error.
    pub rejected: Option<String>,
    /// A case in which it is not honoured, which is said.
    pub warned: Option<String>,
    /// Cases in which nothing depends on it.
    vain: usize,
}

/// In so many cases nothing may depend on a field; then the inputs in golden/fields/ are looked at alone. Each
/// takes a configuration to resolve.
const VAIN_MAX: usize = 12;

/// By field.
type Fields = BTreeMap<String, Shown>;

/// All that is shown, by table.
pub struct Evidence(BTreeMap<usize, Fields>);

/// A state of a case's configuration.
struct Setting {
    name: String,
    stage: Stage,
    /// File by file, object by object.
    files: Vec<(String, Vec<Value>)>,
    /// The objects whose fields it shows, by file and place: not those of the mesh below a case, which show
    /// theirs once.
    shows: Vec<(usize, usize)>,
    snapshot: String,
    findings: Vec<Diagnostic>,
}

impl Evidence {
    /// Looks at every case, in two threads, each at a table.
    pub fn gather(tables: &[Table]) -> Self {
        let settings = settings();
        let (next, all) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        let look = || loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(table) = tables.get(at) else { break };
            let mut found = Fields::new();
            for setting in &settings {
                setting.show(table, &mut found);
            }
            all.lock().unwrap().insert(at, found);
        };
        std::thread::scope(|scope| {
            scope.spawn(look);
            look();
        });
        Self(all.into_inner().unwrap())
    }

    /// What is known of a field.
    pub fn of(&self, table: usize, field: &str) -> Shown {
        let shown = self.0.get(&table).and_then(|fields| fields.get(field));
        let mut shown = shown.cloned().unwrap_or_default();
        if shown.works.is_none() && shown.required.is_none() && shown.warned.is_none() {
            shown.rejected = shown.rejected.or(shown.bad.take());
        }
        shown
    }
}

/// Cases first, so that it is they which are named.
fn settings() -> Vec<Setting> {
    let mut found = Vec::new();
    for (name, case) in cases() {
        for stage in stages(&case).unwrap() {
            found.extend(Setting::new(&name, &stage, &files(&case, &stage)));
        }
    }
    // Inputs that are there for their fields alone.
    for (folder, mesh) in [("fields", "shop"), ("mesh", "none")] {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        let file = |entry: std::io::Result<DirEntry>| entry.unwrap().file_name();
        let mut files: Vec<_> = entries.map(file).collect();
        files.sort();
        for file in files {
            found.extend(of_file(folder, file.to_str().unwrap(), mesh));
        }
    }
    found
}

/// What follows this line are objects that are shown one at a time, beside what is before it: together they
/// would hide each other, and cost a lot.
const EACH: &str = "# Each by itself:\n";

/// Kinds that the policies there are for.
const SUBJECTS: [&str; 3] = ["Pod", "Service", "EndpointSlice"];

fn of_file(folder: &str, file: &str, mesh: &str) -> Vec<Setting> {
    let path = root().join(folder);
    let name = format!("{folder}/{file}");
    let text = std::fs::read_to_string(path.join(file)).unwrap();
    let gateway = (text.lines().next()).and_then(|line| line.strip_prefix("# --gateway "));
    let gateway = gateway.unwrap_or("null");
    let stage = format!("{{file: {file}, mesh: {mesh}, gateway: {gateway}}}");
    let stage = serde_saphyr::from_str(&stage).unwrap();
    let mut files = files(&path, &stage);
    let Some((together, each)) = text.split_once(EACH) else {
        return Setting::new(&name, &stage, &files).into_iter().collect();
    };
    let with = |object: &str| {
        files.pop();
        files.push((file.to_owned(), format!("{together}{object}")));
        Setting::new(&name, &stage, &files)
    };
    let mut settings: Vec<_> = each.split("\n---\n").filter_map(with).collect();
    // What they are for shows its fields once.
    for setting in settings.iter_mut().skip(1) {
        let kind = |at: usize| {
            setting
                .files
                .last()
                .map(|(_, objects)| &objects[at]["kind"])
        };
        let is_for = |at| kind(at).is_some_and(|kind| SUBJECTS.iter().any(|k| kind == k));
        setting.shows.retain(|(_, at)| !is_for(*at));
    }
    settings
}

/// The snapshot as text, without its findings, which are given beside.
fn resolve(stage: &Stage, files: &[(String, Vec<Value>)]) -> (String, Vec<Diagnostic>) {
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|(file, objects)| {
            let objects = objects.iter().map(|object| closed(object).to_string());
            (file.clone(), objects.collect::<Vec<_>>().join("\n---\n"))
        })
        .collect();
    let mut snapshot: Snapshot = Mesh::default().load_files(stage, &texts);
    let findings = std::mem::take(&mut snapshot.diagnostics);
    (format!("{snapshot:?}"), findings)
}

/// With the mesh configuration, a text in the text, as a part of the object.
fn opened(mut object: Value) -> Value {
    if let Some(text) = object.pointer("/data/mesh").and_then(Value::as_str)
        && let Ok(inner) = serde_saphyr::from_str::<Value>(text)
        && inner.is_object()
    {
        object["data"]["mesh"] = inner;
    }
    object
}

fn closed(object: &Value) -> Value {
    let mut object = object.clone();
    if object.pointer("/data/mesh").is_some_and(Value::is_object) {
        object["data"]["mesh"] = object["data"]["mesh"].to_string().into();
    }
    object
}

impl Setting {
    /// `None`: a text is no YAML, on purpose, and has no fields.
    fn new(name: &str, stage: &Stage, files: &[(String, String)]) -> Option<Self> {
        let parsed: Option<Vec<_>> = files
            .iter()
            .map(|(file, text)| {
                let objects = serde_saphyr::from_multiple::<Value>(text).ok()?;
                let objects: Vec<_> = objects.into_iter().map(opened).collect();
                Some((file.clone(), objects))
            })
            .collect();
        let files = parsed?;
        let (snapshot, findings) = resolve(stage, &files);
        let last = files.len() - 1;
        Some(Self {
            name: name.to_owned(),
            stage: stage.clone(),
            shows: (0..files[last].1.len()).map(|at| (last, at)).collect(),
            files,
            snapshot,
            findings,
        })
    }

    fn show(&self, table: &Table, found: &mut Fields) {
        let object = |(file, at): (usize, usize)| &self.files[file].1[at];
        let of_table = |object: &Value| {
            let text = |key: &str| object[key].as_str().unwrap_or_default();
            table.has(text("apiVersion"), text("kind"))
        };
        let shows = self.shows.iter().copied();
        let shows: Vec<_> = shows.filter(|place| of_table(object(*place))).collect();
        if shows.is_empty() {
            return;
        }
        for field in &table.fields {
            if !shows.iter().any(|place| has(object(*place), field)) {
                continue;
            }
            self.of_field(
                table,
                field,
                &shows,
                found.entry(field.clone()).or_default(),
            );
        }
    }

    /// Adds what it shows of a field that its objects at `shows` have.
    fn of_field(&self, table: &Table, field: &str, shows: &[(usize, usize)], known: &mut Shown) {
        let not_honoured = [Code::Unsupported, Code::NotForWaypoint, Code::NotEnforced];
        let settled = known.works.is_some() || known.required.is_some();
        let given_up = known.vain >= VAIN_MAX && !self.name.starts_with("fields/");
        let of = if self.said(&[Code::BadValue], table, field) == Some(Severity::Error) {
            &mut known.bad
        } else {
            match self.said(&not_honoured, table, field) {
                Some(Severity::Error) => &mut known.rejected,
                Some(_) => &mut known.warned,
                None if settled || given_up => return,
                None => {
                    let mut without = self.files.clone();
                    for (file, at) in shows {
                        remove(&mut without[*file].1[*at], field);
                    }
                    let (snapshot, findings) = resolve(&self.stage, &without);
                    if snapshot == self.snapshot {
                        known.vain += 1;
                        return;
                    }
                    match errors(&findings) > errors(&self.findings) {
                        true => &mut known.required,
                        false => &mut known.works,
                    }
                }
            }
        };
        of.get_or_insert_with(|| self.name.clone());
    }

    /// The worst finding with one of these codes at a field.
    fn said(&self, codes: &[Code], table: &Table, field: &str) -> Option<Severity> {
        let of_field = self.findings.iter().filter(|finding| {
            let kind = finding.object.as_ref().map(|o| o.kind.bare());
            codes.contains(&finding.code)
                && kind.is_some_and(|kind| table.kinds.contains(&kind))
                && is_of_field(&without_numbers(&finding.path), field)
        });
        of_field.map(|finding| finding.severity).max()
    }
}

fn errors(findings: &[Diagnostic]) -> usize {
    let of_objects = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    of_objects.count()
}

/// `spec.rules[3].name` as `spec.rules[].name`.
fn without_numbers(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => continue,
            _ => {}
        }
        plain.push(c);
    }
    plain
}

/// Whether a path is that of a field, in which `*` is any key.
fn is_of_field(path: &str, field: &str) -> bool {
    let (parts, keys) = (path.split('.'), field.split('.'));
    parts.clone().count() == keys.clone().count()
        && parts.zip(keys).all(|(part, key)| key == "*" || part == key)
}

/// Whether an object has a field, in any item of the lists on its way.
fn has(object: &Value, field: &str) -> bool {
    let (first, rest) = field.split_once('.').unwrap_or((field, ""));
    let lists = first.matches("[]").count();
    let Some(map) = object.as_object() else {
        return false;
    };
    let mut values: Vec<&Value> = match first.trim_end_matches("[]") {
        "*" => map.values().collect(),
        name => map.get(name).into_iter().collect(),
    };
    for _ in 0..lists {
        let inner = values.into_iter().filter_map(Value::as_array).flatten();
        values = inner.collect();
    }
    match rest {
        "" => values.iter().any(|value| !value.is_null()),
        rest => values.iter().any(|value| has(value, rest)),
    }
}

/// Takes a field out of an object, in every item of the lists on its way.
pub fn remove(object: &mut Value, field: &str) {
    let (first, rest) = field.split_once('.').unwrap_or((field, ""));
    let lists = first.matches("[]").count();
    let name = first.trim_end_matches("[]");
    let Some(map) = object.as_object_mut() else {
        return;
    };
    if rest.is_empty() && lists == 0 {
        match name {
            "*" => map.clear(),
            name => drop(map.remove(name)),
        }
        return;
    }
    let below: Vec<&mut Value> = match name {
        "*" => map.values_mut().collect(),
        name => map.get_mut(name).into_iter().collect(),
    };
    for value in below {
        let mut items = vec![value];
        for _ in 0..lists {
            let inner = items.into_iter().filter_map(Value::as_array_mut).flatten();
            items = inner.collect();
        }
        for item in items {
            remove(item, rest);
        }
    }
}
