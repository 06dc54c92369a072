//! What a document holds: kind and name of each object, the expansion of lists, and what cannot be
//! told. The objects themselves are read in `subject.rs`.

use std::sync::Arc;

use super::catalog::{self, Class};
use super::fault::{Fault, closest};
use super::names::Names;
use super::node::{Mark, Node, TreeError, Value};
use super::split::Document;
use super::{Item, Parsed, ca_bundle, salvage, subject};
use crate::diagnostics::{Code, Diagnostic, Location};
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resources::Broken;

/// Reads the objects of one document.
pub(super) struct Reader<'d> {
    document: &'d Document<'d>,
    file: Arc<str>,
    names: &'d mut Names,
    parsed: Parsed,
}

/// The apiVersion and kind that items of a typed list (`ServiceList`) have without saying so.
#[derive(Clone, Copy)]
pub(super) struct Inherited<'n> {
    api_version: &'n str,
    kind: &'n str,
}

impl<'d> Reader<'d> {
    pub fn new(document: &'d Document<'d>, file: Arc<str>, names: &'d mut Names) -> Self {
        Self {
            document,
            file,
            names,
            parsed: Parsed::default(),
        }
    }

    pub fn finish(self) -> Parsed {
        self.parsed
    }

    /// Reads one object, or every object of a list.
    pub fn object(&mut self, node: &Node<'_>, inherited: Option<Inherited<'_>>) {
        if !matches!(node.value, Value::Map(_)) {
            let message = "this is no Kubernetes object: a map is expected";
            return self.unreadable(node.at, Code::WrongType, message, None);
        }
        if let Some((path, at)) = identity_twice(node) {
            let message = format!("`{path}` comes twice, so it cannot be told what this is");
            return self.unreadable(at, Code::SyntaxError, &message, None);
        }
        let text = |key: &str| node.get(key).and_then(Node::text).filter(|t| !t.is_empty());
        let Some(kind) = text("kind").or(inherited.map(|i| i.kind)) else {
            return self.unreadable(node.at, Code::MissingField, "`kind` is missing", None);
        };
        let api_version = text("apiVersion").or(inherited.map(|i| i.api_version));
        if let Some(of) = kind.strip_suffix("List")
            && (of.is_empty() || node.get("items").is_some() || catalog::named(of).is_some())
        {
            return self.list(node, api_version.unwrap_or_default(), of);
        }
        let Some(api_version) = api_version else {
            let kind = catalog::named(kind);
            let Some(kind) = kind else {
                let message = "`apiVersion` is missing";
                return self.unreadable(node.at, Code::MissingField, message, None);
            };
            let fault = Fault::error(
                Code::MissingField,
                "`apiVersion` is missing",
                "apiVersion",
                node.at,
            );
            return self.broken_as(kind, node, fault);
        };
        self.classified(node, api_version, kind);
    }

    fn classified(&mut self, node: &Node<'_>, api_version: &str, kind: &str) {
        let at = node.entry("kind").map_or(node.at, |e| e.at());
        match catalog::classify(api_version, kind) {
            Class::Read(kind) => self.read(kind, node),
            Class::WrongVersion { kind, expected } => {
                let at = node.entry("apiVersion").map_or(node.at, |e| e.at());
                let message = format!("{kind} is not read from apiVersion {api_version}");
                let fault = Fault::error(Code::BadValue, message, "apiVersion", at);
                self.broken_as(kind, node, fault.with_hint(format!("write {expected}")));
            }
            Class::NotRead => {
                let kind = format!("{kind} ({api_version})").into_boxed_str();
                if !self.parsed.kinds_not_read.iter().any(|(k, _)| *k == kind) {
                    let location = self.location(at);
                    self.parsed.kinds_not_read.push((kind, location));
                }
            }
            Class::NotEnforced { effect } => {
                let name = display_name(node);
                let message =
                    format!("{kind} {name} has no effect: Cairn does not read this kind yet");
                let finding = Diagnostic::warning(Code::NotEnforced, message)
                    .with_effect(effect)
                    .at(Some(self.location(at)));
                self.parsed.diagnostics.push(finding);
            }
            Class::Misspelt(meant) => {
                let message = format!("there is no kind `{kind}` in {api_version}");
                let hint = format!("did you mean `{meant}`?");
                self.unreadable(at, Code::UnknownKind, &message, Some(hint));
            }
        }
    }

    /// Reads the items of a list; `of` is their kind in a typed list, empty in a `List`.
    fn list(&mut self, node: &Node<'_>, api_version: &str, of: &str) {
        for entry in node.entries() {
            const KNOWN: [&str; 4] = ["apiVersion", "kind", "metadata", "items"];
            if !KNOWN.contains(&&*entry.key) {
                let fault =
                    Fault::unknown_field(&entry.key, &KNOWN, entry.key.to_string(), entry.key_at);
                let finding = subject::finding(fault, &self.file, None);
                self.parsed.diagnostics.push(finding);
            }
        }
        let inherited = (!of.is_empty()).then_some(Inherited {
            api_version,
            kind: of,
        });
        match node.entry("items") {
            Some(entry) if entry.value.is_null() => {}
            Some(entry) => match &entry.value.value {
                Value::List(items) => {
                    for item in items {
                        self.object(item, inherited);
                    }
                }
                _ => self.unreadable(entry.at(), Code::WrongType, "`items` is not a list", None),
            },
            None => self.unreadable(node.at, Code::MissingField, "`items` is missing", None),
        }
    }

    /// Reads an object of a known kind.
    fn read(&mut self, kind: Kind, node: &Node<'_>) {
        let kind = match kind {
            Kind::ConfigMap if is_mesh_config(node) => Kind::ConfigMap,
            Kind::ConfigMap if ca_bundle::is_one(node) => Kind::CaBundle,
            Kind::ConfigMap => return,
            kind => kind,
        };
        let Some(origin) = self.origin(kind, node) else {
            return;
        };
        let item = subject::read(node, origin, &self.file, self.names, &mut self.parsed);
        self.parsed.items.push(item);
    }

    /// An object that is known to be broken before its fields are looked at.
    fn broken_as(&mut self, kind: Kind, node: &Node<'_>, fault: Fault) {
        if kind == Kind::ConfigMap && !is_mesh_config(node) {
            return;
        }
        let Some(origin) = self.origin(kind, node) else {
            return;
        };
        let item = subject::broken(node, origin, vec![fault], &self.file, &mut self.parsed);
        self.parsed.items.push(item);
    }

    /// Kind, namespace and name. Without a name the object is nobody's.
    fn origin(&mut self, kind: Kind, node: &Node<'_>) -> Option<Origin> {
        let metadata = node.get("metadata");
        let text = |key: &str| {
            let value = metadata?.get(key)?;
            value.text().filter(|t| !t.is_empty() && !value.is_null())
        };
        let Some(name) = text("name") else {
            let at = node.entry("metadata").map_or(node.at, |e| e.at());
            let message = format!("this {kind} has no `metadata.name`");
            self.unreadable(at, Code::MissingField, &message, None);
            return None;
        };
        if catalog::is_policy(kind)
            && let Some(at) = garbled_namespace(node)
        {
            let message = format!("the namespace of {kind} {name} cannot be told");
            self.unreadable(at, Code::BadValue, &message, None);
            return None;
        }
        let namespace = match (catalog::is_namespaced(kind), text("namespace")) {
            (true, namespace) => self.names.share(namespace.unwrap_or("default")),
            (false, _) => self.names.share(""),
        };
        // EndpointSlices name Pods, and labels the Services that are named like them.
        let key = ObjectKey::new(namespace, self.names.share(name));
        Some(Origin { kind, key })
    }

    /// A text that is no YAML, or breaks a limit: there is no tree. Kind and name may still be told
    /// from its lines.
    pub fn damaged(&mut self, error: &TreeError) {
        self.parsed.is_damaged = true;
        let header = salvage::header(self.document.text);
        let kind = header.kind.as_deref().unwrap_or_default();
        let class = catalog::classify(header.api_version.as_deref().unwrap_or_default(), kind);
        let origin = match class {
            // Absent and unreadable look the same here, and `default` may be the wrong place to deny.
            Class::Read(kind) | Class::WrongVersion { kind, .. }
                if catalog::is_policy(kind) && header.namespace.is_none() =>
            {
                None
            }
            Class::Read(kind) | Class::WrongVersion { kind, .. } => {
                let namespace = match (catalog::is_namespaced(kind), &header.namespace) {
                    (true, namespace) => namespace.as_deref().unwrap_or("default"),
                    (false, _) => "",
                };
                let mut key = |name: &str| ObjectKey::new(self.names.share(namespace), name);
                header.name.as_deref().map(|name| Origin {
                    kind,
                    key: key(name),
                })
            }
            _ => None,
        };
        let mut finding = Diagnostic::error(error.code, error.message.clone());
        finding.hint.clone_from(&error.hint);
        finding.location = Some(self.location(error.at));
        let is_other_config_map =
            |o: &Origin| o.kind == Kind::ConfigMap && &*o.key.name != MESH_CONFIG;
        match origin {
            Some(mut origin) => {
                // Whether it had certificates, nobody can tell: those that it had stay in force.
                if is_other_config_map(&origin) {
                    origin.kind = Kind::CaBundle;
                }
                finding.object = Some(origin.clone());
                let pod_ips = salvage::pod_ips_of_text(origin.kind, self.document.text);
                let targets = salvage::targets_of_text(origin.kind, self.document.text);
                self.parsed.items.push(Item::Broken(Arc::new(Broken {
                    pod_ips,
                    location: finding.location.clone(),
                    reason: error.message.as_str().into(),
                    targets,
                    // An annotation in a text that is no YAML is not to be trusted.
                    dry_run: origin.kind.is_staged(),
                    selection: None,
                    uid: None,
                    origin,
                })));
            }
            None if header.kind.is_some() && is_harmless(&class, kind) => {}
            None => {
                let reason = error.message.as_str().into();
                self.parsed
                    .unreadable
                    .push((reason, self.location(error.at)));
            }
        }
        self.parsed.diagnostics.push(finding);
    }

    /// A part of the document of which nothing can be known.
    fn unreadable(&mut self, at: Mark, code: Code, message: &str, hint: Option<String>) {
        let location = self.location(at);
        let mut finding = Diagnostic::error(code, message).at(Some(location.clone()));
        finding.hint = hint;
        self.parsed.diagnostics.push(finding);
        self.parsed.unreadable.push((message.into(), location));
    }

    fn location(&self, at: Mark) -> Location {
        location(&self.file, at)
    }
}

/// A place in the document.
pub(super) fn location(file: &Arc<str>, at: Mark) -> Location {
    Location {
        file: file.clone(),
        line: at.line,
        column: at.column,
    }
}

/// Name of the ConfigMap with the mesh configuration; others are not for Cairn.
const MESH_CONFIG: &str = "istio";

fn is_mesh_config(node: &Node<'_>) -> bool {
    let name = node.get("metadata").and_then(|m| m.get("name"));
    // Without a name it may be the one.
    name.and_then(Node::text)
        .is_none_or(|name| name == MESH_CONFIG)
}

/// Whether a document of this kind could not have mattered had it been readable.
fn is_harmless(class: &Class, kind: &str) -> bool {
    matches!(class, Class::NotRead | Class::NotEnforced { .. }) && !kind.ends_with("List")
}

/// A second key that makes it doubtful which object this is.
fn identity_twice(node: &Node<'_>) -> Option<(&'static str, Mark)> {
    let twice = |node: &Node<'_>, key: &str| {
        let mut same = node.entries().iter().filter(|e| e.key == key);
        same.nth(1).map(|e| e.key_at)
    };
    for key in ["apiVersion", "kind", "metadata", "items"] {
        if let Some(at) = twice(node, key) {
            return Some((key, at));
        }
    }
    let metadata = node.get("metadata")?;
    let name = twice(metadata, "name").map(|at| ("metadata.name", at));
    name.or_else(|| twice(metadata, "namespace").map(|at| ("metadata.namespace", at)))
}

/// What stands in the place of a namespace and is none: a list or map, or a key that was probably
/// meant for it. A policy that denies by its brokenness must not do so in `default` instead.
fn garbled_namespace(node: &Node<'_>) -> Option<Mark> {
    let metadata = node.get("metadata")?;
    if let Some(entry) = metadata.entry("namespace") {
        let is_told = entry.value.is_null() || entry.value.text().is_some();
        return (!is_told).then(|| entry.at());
    }
    let stray = |node: &Node<'_>, meant: &[&str]| {
        let mut entries = node.entries().iter();
        let near = |key: &str| closest(key, meant.iter().copied()).is_some();
        let found = entries.find(|e| e.key != "metadata" && near(&e.key));
        found.map(|e| e.key_at)
    };
    stray(metadata, &["namespace"]).or_else(|| stray(node, &["namespace", "metadata"]))
}

/// `namespace/name` of an object that is not read, as far as it has them.
fn display_name(node: &Node<'_>) -> String {
    let text = |key: &str| node.get("metadata")?.get(key)?.text();
    match (text("namespace"), text("name")) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (None, Some(name)) => name.to_owned(),
        _ => "without a name".to_owned(),
    }
}
