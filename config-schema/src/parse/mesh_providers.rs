//! `extensionProviders` of the mesh configuration. A mistake in one breaks that one alone: the policies
//! that name it deny, and everything else of the mesh stays as written.

use serde::de::DeserializeOwned;

use super::fault::Fault;
use super::node::{Entry, Node, Value};
use super::path::Path;
use super::read::read;
use crate::diagnostics::{Code, Severity};
use crate::resources::istio::{ExtensionProviderKind, ExtensionProviderSpec};

const HTTP: &str = "envoyExtAuthzHttp";
const GRPC: &str = "envoyExtAuthzGrpc";

const OPEN_TELEMETRY: &str = "opentelemetry";
const FILE_LOG: &str = "envoyFileAccessLog";
const OTEL_LOG: &str = "envoyOtelAls";
const HTTP_ENTRY_LOG: &str = "envoyHttpAls";
const TCP_ENTRY_LOG: &str = "envoyTcpAls";
const PROMETHEUS: &str = "prometheus";

const KNOWN: [&str; 8] = [
    HTTP,
    GRPC,
    OPEN_TELEMETRY,
    FILE_LOG,
    OTEL_LOG,
    HTTP_ENTRY_LOG,
    TCP_ENTRY_LOG,
    PROMETHEUS,
];

/// Providers that nothing is told and nobody is asked.
const OTHERS: [&str; 8] = [
    "datadog",
    "lightstep",
    "opencensus",
    "sds",
    "skywalking",
    "stackdriver",
    "zipkin",
    "envoyExtProc",
];

/// Fields of a provider that say that it is one of those.
pub fn other_providers() -> &'static [&'static str] {
    &OTHERS
}

/// Reads the list.
pub(super) fn read_all(entry: &Entry<'_>, faults: &mut Vec<Fault>) -> Vec<ExtensionProviderSpec> {
    let at_list = Path::ROOT.key("extensionProviders");
    if entry.value.is_null() {
        return Vec::new();
    }
    if !matches!(entry.value.value, Value::List(_)) {
        let message = "expected a list of providers";
        let path = at_list.to_string();
        faults.push(Fault::error(Code::WrongType, message, path, entry.at()));
        return Vec::new();
    }
    let items = entry.value.items().iter().enumerate();
    let one = |(index, item): (usize, &Node<'_>)| provider(item, &at_list.index(index), faults);
    items.map(one).collect()
}

fn provider(item: &Node<'_>, path: &Path<'_>, faults: &mut Vec<Fault>) -> ExtensionProviderSpec {
    let mut own = Vec::new();
    let name = item.get("name").and_then(Node::text).unwrap_or_default();
    let kind = kind(item, path, &mut own);
    // One broken provider is no reason to refuse the whole mesh, as an error here would be.
    let is_asked = item.get(HTTP).or(item.get(GRPC)).is_some();
    let effect = match name {
        "" => "nobody can name it".to_owned(),
        name if is_asked => format!("what CUSTOM policies of provider '{name}' match is denied"),
        name => format!("provider '{name}' is told nothing"),
    };
    let broken = own.iter().find(|f| f.severity == Severity::Error);
    let kind = match broken {
        Some(fault) => ExtensionProviderKind::Broken(fault.message.clone()),
        None => kind,
    };
    for mut fault in own {
        if fault.severity == Severity::Error {
            fault = fault
                .with_severity(Severity::Warning)
                .with_effect(effect.as_str());
        }
        faults.push(fault);
    }
    ExtensionProviderSpec {
        name: name.to_owned(),
        kind,
    }
}

fn kind(item: &Node<'_>, path: &Path<'_>, faults: &mut Vec<Fault>) -> ExtensionProviderKind {
    let broken = || ExtensionProviderKind::Broken("it can not be read".to_owned());
    let mut wrong = |code, message: String, at| {
        faults.push(Fault::error(code, message, path.to_string(), at));
    };
    if item
        .get("name")
        .and_then(Node::text)
        .is_none_or(str::is_empty)
    {
        wrong(
            Code::MissingField,
            "an extension provider has no `name`".to_owned(),
            item.at,
        );
    }
    let kinds: Vec<&Entry<'_>> = (item.entries().iter())
        .filter(|entry| entry.key != "name")
        .collect();
    let [entry] = kinds.as_slice() else {
        let message = match kinds.len() {
            0 => "the provider does not say what it is".to_owned(),
            n => format!("a provider is one thing, and this one has {n} fields that say what"),
        };
        wrong(Code::Conflict, message, item.at);
        return broken();
    };
    match &*entry.key {
        HTTP => typed(entry, path, faults).map_or_else(broken, ExtensionProviderKind::Http),
        GRPC => typed(entry, path, faults).map_or_else(broken, ExtensionProviderKind::Grpc),
        OPEN_TELEMETRY => {
            typed(entry, path, faults).map_or_else(broken, ExtensionProviderKind::OpenTelemetry)
        }
        FILE_LOG => typed(entry, path, faults).map_or_else(broken, ExtensionProviderKind::FileLog),
        OTEL_LOG => typed(entry, path, faults).map_or_else(broken, ExtensionProviderKind::OtelLog),
        HTTP_ENTRY_LOG => {
            typed(entry, path, faults).map_or_else(broken, ExtensionProviderKind::HttpEntryLog)
        }
        TCP_ENTRY_LOG => {
            typed(entry, path, faults).map_or_else(broken, ExtensionProviderKind::TcpEntryLog)
        }
        PROMETHEUS => ExtensionProviderKind::Prometheus,
        other if OTHERS.contains(&other) => {
            let message = format!("provider `{other}` of the mesh configuration is not honoured");
            let path = path.key(&entry.key).to_string();
            let fault = Fault::error(Code::Unsupported, message, path, entry.key_at);
            faults.push(fault.with_severity(Severity::Info));
            ExtensionProviderKind::Other(other.to_owned())
        }
        _ => {
            let path = path.key(&entry.key).to_string();
            let mut known = KNOWN.to_vec();
            known.extend(OTHERS);
            faults.push(Fault::unknown_field(&entry.key, &known, path, entry.key_at));
            broken()
        }
    }
}

fn typed<T: DeserializeOwned>(
    entry: &Entry<'_>,
    path: &Path<'_>,
    faults: &mut Vec<Fault>,
) -> Option<Box<T>> {
    let path = path.key(&entry.key);
    read(&entry.value, entry.at(), &path, &[], faults).map(Box::new)
}
