//! The ConfigMap `istio`: MeshConfig is YAML inside the YAML, in `data.mesh`. Reads what Cairn
//! honours; of the rest it names what would change a waypoint (specs/istio-waypoint.md 4.11).

use serde::de::DeserializeOwned;

use super::fault::{Fault, closest};
use super::mesh_providers;
use super::node::{Entry, Mark, Node, Style, Value, duplicates};
use super::path::{Path, walk};
use super::read::read;
use super::tree;
use crate::diagnostics::{Code, Severity};
use crate::resources::PathHasher;
use crate::resources::istio::MeshConfigSpec;

const HONOURED: [&str; 11] = [
    "accessLogEncoding",
    "accessLogFile",
    "accessLogFormat",
    "defaultProviders",
    "trustDomain",
    "trustDomainAliases",
    "rootNamespace",
    "pathNormalization",
    "connectTimeout",
    "extensionProviders",
    "defaultHttpRetryPolicy",
];

/// Fields that change what Istio's own waypoint does, and do not change Cairn.
const NOT_HONOURED: [&str; 12] = [
    "caCertificates",
    "defaultConfig",
    "defaultDestinationRuleExportTo",
    "defaultServiceExportTo",
    "defaultVirtualServiceExportTo",
    "enableEnvoyAccessLogService",
    "enableTracing",
    "hboneIdleTimeout",
    "localityLbSetting",
    "protocolDetectionTimeout",
    "serviceEntryVisibility",
    "tcpKeepalive",
];

/// Fields that are for sidecars, gateways or the control plane.
const NOT_FOR_WAYPOINTS: [&str; 35] = [
    "ca",
    "certificates",
    "configSources",
    "disableEnvoyListenerLog",
    "discoverySelectors",
    "dnsRefreshRate",
    "enableAutoMtls",
    "enablePrometheusMerge",
    "h2UpgradePolicy",
    "inboundClusterStatName",
    "inboundTrafficPolicy",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "meshMTLS",
    "mixerCheckServer",
    "mixerReportServer",
    "outboundClusterStatName",
    "outboundTrafficPolicy",
    "policyCheckFailOpen",
    "proxyHttpPort",
    "proxyInboundListenPort",
    "proxyListenPort",
    "reportBatchMaxEntries",
    "reportBatchMaxTime",
    "sdsUdsPath",
    "serviceScopeConfigs",
    "serviceSettings",
    "sidecarToTelemetrySessionAffinity",
    "thriftConfig",
    "tlsDefaults",
    "verifyCertificateAtClient",
    "defaultTrafficPolicy",
    "networks",
];

/// Names of all fields that are known: those that are honoured, those that are not, and those for others.
pub fn mesh_fields() -> [&'static [&'static str]; 3] {
    [&HONOURED, &NOT_HONOURED, &NOT_FOR_WAYPOINTS]
}

/// Reads `data.mesh`.
pub(super) fn mesh_config(node: &Node<'_>, faults: &mut Vec<Fault>) -> Option<MeshConfigSpec> {
    let Some(entry) = mesh_entry(node) else {
        let at = node.entry("data").map_or(node.at, Entry::at);
        faults.push(Fault::error(
            Code::MissingField,
            "`data.mesh` is missing",
            "data.mesh",
            at,
        ));
        return None;
    };
    let (data, at) = (Path::ROOT.key("data"), entry.at());
    let text: String = read(&entry.value, at, &data.key("mesh"), &[], faults)?;
    let root = match tree::build(&text) {
        Ok(Some(root)) => root,
        Ok(None) => return Some(MeshConfigSpec::default()),
        Err(error) => {
            let at = outer(&entry.value, error.at);
            faults.push(Fault::error(error.code, error.message, "data.mesh", at));
            return None;
        }
    };
    let mut inner = Vec::new();
    let spec = fields(&root, &mut inner);
    for fault in inner {
        faults.push(Fault {
            at: outer(&entry.value, fault.at),
            path: inner_path(&fault.path),
            ..fault
        });
    }
    Some(spec)
}

/// Tells the positions inside `data.mesh`, with the hashes of their paths.
pub(super) fn positions(node: &Node<'_>, note: &mut dyn FnMut(u32, Mark)) {
    let Some(entry) = mesh_entry(node) else {
        return;
    };
    let text = entry.value.text().unwrap_or_default();
    if let Ok(Some(root)) = tree::build(text) {
        walk(&root, &mut |path, _, at| {
            let path = path.to_string();
            if HONOURED.iter().any(|field| path.starts_with(field)) {
                note(PathHasher::of(&inner_path(&path)), outer(&entry.value, at));
            }
            true
        });
    }
}

fn mesh_entry<'n>(node: &'n Node<'n>) -> Option<&'n Entry<'n>> {
    node.get("data")?.entry("mesh")
}

fn inner_path(path: &str) -> String {
    match path {
        "" => "data.mesh".to_owned(),
        path => format!("data.mesh.{path}"),
    }
}

/// The place in the document of a place inside the text of `data.mesh`. Exact after `|`; in a
/// quoted or folded text all is at its beginning.
fn outer(value: &Node<'_>, inner: Mark) -> Mark {
    let Value::Scalar(text, Style::Literal) = &value.value else {
        return value.at;
    };
    // The parser gives the place of the first line that is not empty.
    let empty = text.bytes().take_while(|c| *c == b'\n').count();
    let first = value
        .at
        .line
        .saturating_sub(u32::try_from(empty).unwrap_or(0));
    Mark {
        line: first.saturating_add(inner.line).saturating_sub(1),
        column: value
            .at
            .column
            .saturating_add(inner.column)
            .saturating_sub(1),
    }
}

fn fields(root: &Node<'_>, faults: &mut Vec<Fault>) -> MeshConfigSpec {
    let mut spec = MeshConfigSpec::default();
    if !matches!(root.value, Value::Map(_)) {
        faults.push(Fault::error(Code::WrongType, "expected a map", "", root.at));
        return spec;
    }
    for twice in duplicates(root) {
        let message = "the key comes twice in one map";
        faults.push(Fault::error(
            Code::SyntaxError,
            message,
            twice.path,
            twice.at,
        ));
    }
    for entry in root.entries() {
        let path = &*entry.key;
        match path {
            "trustDomain" => spec.trust_domain = read_at(entry, path, faults).flatten(),
            "trustDomainAliases" => {
                let aliases: Option<Option<Vec<String>>> = read_at(entry, path, faults);
                spec.trust_domain_aliases = aliases.flatten().unwrap_or_default();
            }
            "rootNamespace" => spec.root_namespace = read_at(entry, path, faults).flatten(),
            "pathNormalization" => {
                let wanted: Option<Option<PathNormalization>> = read_at(entry, path, faults);
                spec.path_normalization = wanted.flatten().and_then(|n| n.normalization);
            }
            "defaultHttpRetryPolicy" => {
                spec.default_http_retry_policy = read_at(entry, path, faults).flatten()
            }
            "connectTimeout" => spec.connect_timeout_ms = timeout(entry, faults),
            "extensionProviders" => {
                spec.extension_providers = mesh_providers::read_all(entry, faults)
            }
            "defaultProviders" => spec.default_providers = read_at(entry, path, faults).flatten(),
            "accessLogFile" => spec.access_log.file = read_at(entry, path, faults).flatten(),
            "accessLogFormat" => spec.access_log.format = read_at(entry, path, faults).flatten(),
            "accessLogEncoding" => {
                spec.access_log.encoding = read_at(entry, path, faults).flatten();
            }
            _ => unread_field(entry, faults),
        }
    }
    spec
}

#[derive(serde::Deserialize)]
struct PathNormalization {
    normalization: Option<String>,
}

fn read_at<T: DeserializeOwned>(
    entry: &Entry<'_>,
    path: &str,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    read(&entry.value, entry.at(), &Path::ROOT.key(path), &[], faults)
}

fn timeout(entry: &Entry<'_>, faults: &mut Vec<Fault>) -> Option<u64> {
    let text: Option<Option<String>> = read_at(entry, "connectTimeout", faults);
    let text = text.flatten()?;
    let timeout = crate::duration::go_ms(&text).filter(|ms| *ms > 0);
    if timeout.is_none() {
        let message = format!("`{text}` is no duration of a millisecond or more");
        let fault = Fault::error(Code::BadValue, message, "connectTimeout", entry.at());
        faults.push(fault.with_hint("for instance 10s, 500ms or 1m30s"));
    }
    timeout
}

fn unread_field(entry: &Entry<'_>, faults: &mut Vec<Fault>) {
    let name = &*entry.key;
    if NOT_FOR_WAYPOINTS.contains(&name) {
        return;
    }
    let fault = |code, message: String| Fault::error(code, message, name, entry.key_at);
    if NOT_HONOURED.contains(&name) {
        let message = format!("`{name}` of the mesh configuration is not honoured");
        faults.push(fault(Code::Unsupported, message).with_severity(Severity::Info));
    } else if let Some(meant) = closest(name, HONOURED.into_iter()) {
        let message = format!("there is no field `{name}` here");
        let hint = format!("did you mean `{meant}`?");
        faults.push(fault(Code::UnknownField, message).with_hint(hint));
    } else {
        // Istio adds fields with every release; what this version does not know may be one.
        let message = format!("`{name}` is no field of the mesh configuration that Cairn knows");
        faults.push(fault(Code::UnknownField, message).with_severity(Severity::Warning));
    }
}
