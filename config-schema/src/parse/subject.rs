//! One object whose kind and name are known: its metadata and specification, and whether it is
//! good or broken.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use super::fault::Fault;
use super::names::Names;
use super::node::{Node, duplicates};
use super::object::location;
use super::path::{Path, walk};
use super::read::read as read_typed;
use super::{
    Item, Parsed, ca_bundle, calico, cilium, kube, mesh, salvage, selection, service_entry,
};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::limits::DIAGNOSTICS_PER_OBJECT_MAX;
use crate::origin::{Kind, Origin};
use crate::resources::authentication::RequestAuthenticationSpec;
use crate::resources::cairn::TrafficPolicySpec;
use crate::resources::calico::{CalicoPolicySpec, NetworkSetSpec, TierSpec};
use crate::resources::cilium::CiliumPolicySpec;
use crate::resources::cilium_envoy::CiliumEnvoyConfigSpec;
use crate::resources::destination_rule::DestinationRuleSpec;
use crate::resources::gateway_api::{
    BackendTlsPolicySpec, GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec,
    TcpRouteSpec, TlsRouteSpec, XBackendTrafficPolicySpec,
};
use crate::resources::istio::AuthorizationPolicySpec;
use crate::resources::kube::NetworkPolicySpec;
use crate::resources::service_entry::WorkloadEntrySpec;
use crate::resources::telemetry::TelemetrySpec;
use crate::resources::virtual_service::VirtualServiceSpec;
use crate::resources::{Broken, Clusterwide, Meta, Object, PathHasher, Place, Spec, Staged};

/// A copy of the object that `kubectl apply` leaves in it; as large as the object, and never read.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Reads an object. What is wrong with it goes to the diagnostics.
pub(super) fn read(
    node: &Node<'_>,
    origin: Origin,
    file: &Arc<str>,
    names: &mut Names,
    parsed: &mut Parsed,
) -> Item {
    let mut faults = keys_twice(node);
    unknown_outermost(origin.kind, node, &mut faults);
    let meta = metadata(&origin, node, names, &mut faults);
    let mut subject = Subject {
        node,
        origin,
        meta,
        faults,
        file,
        parsed,
    };
    let faults = &mut subject.faults;
    match subject.origin.kind {
        Kind::GatewayClass => subject.required::<GatewayClassSpec>(),
        Kind::Gateway => subject.required::<GatewaySpec>(),
        Kind::HTTPRoute => subject.required::<HttpRouteSpec>(),
        Kind::GRPCRoute => subject.required::<GrpcRouteSpec>(),
        Kind::BackendTLSPolicy => subject.required::<BackendTlsPolicySpec>(),
        Kind::CaBundle => {
            let spec = ca_bundle::read(node, faults);
            subject.settle(spec)
        }
        Kind::TLSRoute => subject.required::<TlsRouteSpec>(),
        Kind::TCPRoute => subject.required::<TcpRouteSpec>(),
        Kind::AuthorizationPolicy => subject.optional::<AuthorizationPolicySpec>(),
        Kind::RequestAuthentication => subject.optional::<RequestAuthenticationSpec>(),
        Kind::DestinationRule => subject.optional::<DestinationRuleSpec>(),
        Kind::XBackendTrafficPolicy => subject.required::<XBackendTrafficPolicySpec>(),
        Kind::VirtualService => subject.optional::<VirtualServiceSpec>(),
        Kind::ServiceEntry => {
            let spec = service_entry::read(node, faults);
            subject.settle(spec)
        }
        Kind::WorkloadEntry => subject.optional::<WorkloadEntrySpec>(),
        Kind::CiliumEnvoyConfig => subject.required::<CiliumEnvoyConfigSpec>(),
        Kind::CiliumClusterwideEnvoyConfig => {
            let spec = required_spec::<CiliumEnvoyConfigSpec>(subject.node, &mut subject.faults);
            subject.settle(spec.map(Clusterwide))
        }
        Kind::TrafficPolicy => subject.required::<TrafficPolicySpec>(),
        Kind::Telemetry => subject.optional::<TelemetrySpec>(),
        Kind::KubeNetworkPolicy => subject.required::<NetworkPolicySpec>(),
        Kind::CiliumNetworkPolicy
        | Kind::CiliumClusterwideNetworkPolicy
        | Kind::NetworkPolicy
        | Kind::GlobalNetworkPolicy
        | Kind::StagedNetworkPolicy
        | Kind::StagedGlobalNetworkPolicy => subject.network_policy(),
        Kind::Tier => subject.optional::<TierSpec>(),
        Kind::NetworkSet => subject.optional::<NetworkSetSpec>(),
        Kind::GlobalNetworkSet => {
            let spec = optional_spec::<NetworkSetSpec>(subject.node, &mut subject.faults);
            subject.settle(spec.map(Clusterwide))
        }
        Kind::Namespace => {
            let spec = kube::namespace(node, faults);
            tolerate_newer_kubernetes(faults);
            subject.settle(spec)
        }
        Kind::Service => {
            let spec = kube::service(node, faults, names);
            subject.settle(spec)
        }
        Kind::EndpointSlice => {
            let spec =
                kube::endpoint_slice(node, &subject.origin, subject.meta.as_ref(), faults, names);
            tolerate_newer_kubernetes(faults);
            subject.settle(spec)
        }
        Kind::Pod => {
            let spec = kube::pod(node, faults, names);
            tolerate_newer_kubernetes(faults);
            subject.settle(spec)
        }
        Kind::ConfigMap => {
            let spec = mesh::mesh_config(node, faults);
            subject.settle(spec)
        }
    }
}

fn keys_twice(node: &Node<'_>) -> Vec<Fault> {
    let twice = duplicates(node).into_iter().map(|twice| {
        // Not the number of the line: nodes count from the start of their document or list item.
        let first = match twice.at.line.saturating_sub(twice.first.line) {
            0 => "in the same line".to_owned(),
            1 => "one line above".to_owned(),
            lines => format!("{lines} lines above"),
        };
        let message = format!("the key comes twice in one map, first {first}");
        Fault::error(Code::SyntaxError, message, twice.path, twice.at)
    });
    twice.collect()
}

/// A cluster may be newer than this program, and then its Pods, Namespaces and EndpointSlices, which
/// users do not write by hand, have fields we never heard of: that is said, and the object stays in
/// force. A field that is nearly one we know is a slip of the pen all the same. Services stay
/// strict: their ports decide what policy can see.
fn tolerate_newer_kubernetes(faults: &mut [Fault]) {
    for fault in faults {
        let slip = fault
            .hint
            .as_ref()
            .is_some_and(|h| h.starts_with("did you mean"));
        if fault.code == Code::UnknownField && fault.path.starts_with("spec.") && !slip {
            fault.severity = Severity::Warning;
        }
    }
}

/// An object that is broken whatever its fields say.
pub(super) fn broken(
    node: &Node<'_>,
    origin: Origin,
    faults: Vec<Fault>,
    file: &Arc<str>,
    parsed: &mut Parsed,
) -> Item {
    let subject = Subject {
        node,
        origin,
        meta: None,
        faults,
        file,
        parsed,
    };
    subject.settle::<crate::resources::kube::NamespaceSpec>(None)
}

/// A fault as a diagnostic.
pub(super) fn finding(fault: Fault, file: &Arc<str>, origin: Option<&Origin>) -> Diagnostic {
    Diagnostic {
        severity: fault.severity,
        code: fault.code,
        message: fault.message,
        effect: fault.effect,
        hint: fault.hint,
        location: Some(location(file, fault.at)),
        object: origin.cloned(),
        path: fault.path,
    }
}

struct Subject<'s> {
    node: &'s Node<'s>,
    origin: Origin,
    meta: Option<Meta>,
    faults: Vec<Fault>,
    file: &'s Arc<str>,
    parsed: &'s mut Parsed,
}

impl Subject<'_> {
    /// An object whose `spec` has to be there.
    fn required<T: Spec + DeserializeOwned>(mut self) -> Item {
        let spec = required_spec::<T>(self.node, &mut self.faults);
        self.settle(spec)
    }

    /// An object that may come without `spec`.
    fn optional<T: Spec + DeserializeOwned + Default>(mut self) -> Item {
        let spec = optional_spec::<T>(self.node, &mut self.faults);
        self.settle(spec)
    }

    /// A policy of Cilium or Calico.
    fn network_policy(mut self) -> Item {
        match self.origin.kind {
            Kind::CiliumNetworkPolicy => {
                let spec = self.cilium();
                self.settle(spec)
            }
            Kind::CiliumClusterwideNetworkPolicy => {
                let spec = self.cilium().map(Clusterwide);
                self.settle(spec)
            }
            Kind::NetworkPolicy => {
                let spec = self.calico();
                self.settle(spec)
            }
            Kind::GlobalNetworkPolicy => {
                let spec = self.calico().map(Clusterwide);
                self.settle(spec)
            }
            Kind::StagedNetworkPolicy => {
                let spec = self.calico().map(Staged);
                self.settle(spec)
            }
            _ => {
                let spec = self.calico().map(Clusterwide).map(Staged);
                self.settle(spec)
            }
        }
    }

    /// The rules of a Cilium policy. What is wrong in its egress parts is told at once, so that it
    /// does not break what the policy says of ingress.
    fn cilium(&mut self) -> Option<CiliumPolicySpec> {
        let mut of_egress = Vec::new();
        let spec = cilium::policy(self.node, &mut self.faults, &mut of_egress);
        self.report_egress(of_egress);
        spec
    }

    /// The rules of a Calico policy, in the same way.
    fn calico(&mut self) -> Option<CalicoPolicySpec> {
        let mut of_egress = Vec::new();
        let spec = calico::policy(self.node, &mut self.faults, &mut of_egress);
        self.report_egress(of_egress);
        spec
    }

    fn report_egress(&mut self, of_egress: Vec<Fault>) {
        let effect = match salvage::is_dry_run(self.origin.kind, self.node) {
            true => "in the dry run what the policy selects may call nobody",
            false => "what the policy selects may call nobody through a waypoint",
        };
        for fault in of_egress.into_iter().take(DIAGNOSTICS_PER_OBJECT_MAX) {
            let fault = fault.with_effect(effect);
            let finding = finding(fault, self.file, Some(&self.origin));
            self.parsed.diagnostics.push(finding);
        }
    }

    /// Good if the specification is there and nothing is an error; broken otherwise.
    fn settle<T: Spec>(mut self, spec: Option<T>) -> Item {
        self.faults.sort_by_key(|f| f.at);
        let error = self.faults.iter().find(|f| f.severity == Severity::Error);
        let reason: Option<Arc<str>> = error.map(|f| f.message.as_str().into());
        self.report();
        match (spec, self.meta.take(), reason) {
            (Some(spec), Some(meta), None) => Item::Good(T::any(Arc::new(Object {
                place: place(self.node, self.origin.kind, self.file),
                origin: self.origin,
                meta,
                spec,
            }))),
            (_, _, reason) => Item::Broken(Arc::new(Broken {
                location: Some(location(self.file, self.node.at)),
                targets: salvage::targets(self.origin.kind, self.node),
                pod_ips: salvage::pod_ips(self.origin.kind, self.node),
                dry_run: salvage::is_dry_run(self.origin.kind, self.node),
                selection: selection::selection(self.origin.kind, self.node).map(Box::new),
                origin: self.origin,
                reason: reason.unwrap_or_else(|| "it cannot be read".into()),
            })),
        }
    }

    fn report(&mut self) {
        let faults = std::mem::take(&mut self.faults);
        let left_out = faults.len().saturating_sub(DIAGNOSTICS_PER_OBJECT_MAX);
        for fault in faults.into_iter().take(DIAGNOSTICS_PER_OBJECT_MAX) {
            let finding = finding(fault, self.file, Some(&self.origin));
            self.parsed.diagnostics.push(finding);
        }
        if left_out > 0 {
            let message = format!("{left_out} more findings about this object are left out");
            let finding = Diagnostic::new(Severity::Info, Code::LimitExceeded, message)
                .at(Some(location(self.file, self.node.at)))
                .of(self.origin.clone(), "");
            self.parsed.diagnostics.push(finding);
        }
    }
}

/// Fields beside `metadata` that the object of a kind has.
fn unknown_outermost(kind: Kind, node: &Node<'_>, faults: &mut Vec<Fault>) {
    let fields: &[&str] = match kind {
        Kind::ConfigMap | Kind::CaBundle => &[
            "apiVersion",
            "kind",
            "metadata",
            "data",
            "binaryData",
            "immutable",
        ],
        Kind::EndpointSlice => &[
            "apiVersion",
            "kind",
            "metadata",
            "addressType",
            "endpoints",
            "ports",
        ],
        Kind::CiliumNetworkPolicy | Kind::CiliumClusterwideNetworkPolicy => {
            &["apiVersion", "kind", "metadata", "spec", "specs", "status"]
        }
        _ => &["apiVersion", "kind", "metadata", "spec", "status"],
    };
    for entry in node.entries() {
        if !fields.contains(&&*entry.key) {
            let path = Path::ROOT.key(&entry.key).to_string();
            faults.push(Fault::unknown_field(&entry.key, fields, path, entry.key_at));
        }
    }
}

/// The metadata, strictly; what a waypoint needs of it is kept.
fn metadata(
    origin: &Origin,
    node: &Node<'_>,
    names: &mut Names,
    faults: &mut Vec<Fault>,
) -> Option<Meta> {
    let entry = node.entry("metadata")?;
    let path = Path::ROOT.key("metadata");
    let meta: ObjectMeta = read_typed(&entry.value, entry.at(), &path, &["managedFields"], faults)?;
    if !super::catalog::is_namespaced(origin.kind)
        && let Some(namespace) = entry
            .value
            .entry("namespace")
            .filter(|e| !e.value.is_null())
    {
        let message = format!("a {} is in no namespace", origin.kind);
        let fault = Fault::error(
            Code::BadValue,
            message,
            "metadata.namespace",
            namespace.at(),
        );
        faults.push(
            fault
                .with_severity(Severity::Warning)
                .with_hint("remove it"),
        );
    }
    let mut shared = |map: Option<BTreeMap<String, String>>| {
        let ours = map.into_iter().flatten();
        let ours = ours.filter(|(key, _)| key != LAST_APPLIED);
        let texts = ours.map(|(key, value)| (names.share(&key), names.share(&value)));
        let texts = texts.collect();
        names.share_texts(texts)
    };
    Some(Meta {
        labels: shared(meta.labels),
        annotations: shared(meta.annotations),
        created_s: meta.creation_timestamp.map(|t| t.0.as_second()),
        generation: meta.generation,
        programmed: (origin.kind == Kind::Gateway)
            .then(|| condition(node, "Programmed"))
            .flatten(),
    })
}

/// Whether the status has a condition; read leniently, for it is not the user's.
fn condition(node: &Node<'_>, name: &str) -> Option<bool> {
    let conditions = node.get("status")?.get("conditions")?;
    let is_it = |c: &&Node<'_>| c.get("type").and_then(Node::text) == Some(name);
    let condition = conditions.items().iter().find(is_it)?;
    match condition.get("status")?.text()? {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

/// A `spec` that has to be there.
pub(super) fn required_spec<T: DeserializeOwned>(
    node: &Node<'_>,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    match node.entry("spec") {
        Some(e) => read_typed(&e.value, e.at(), &Path::ROOT.key("spec"), &[], faults),
        None => {
            let fault = Fault::error(Code::MissingField, "`spec` is missing", "spec", node.at);
            faults.push(fault);
            None
        }
    }
}

/// A `spec` whose absence means that nothing is set.
pub(super) fn optional_spec<T: DeserializeOwned + Default>(
    node: &Node<'_>,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    match node.entry("spec").filter(|e| !e.value.is_null()) {
        Some(e) => read_typed(&e.value, e.at(), &Path::ROOT.key("spec"), &[], faults),
        None => Some(T::default()),
    }
}

/// The positions of an object, as far as its kind needs them.
fn place(node: &Node<'_>, kind: Kind, file: &Arc<str>) -> Place {
    let mut positions = Vec::new();
    let mut note = |path: &Path<'_>, at: super::node::Mark| {
        let mut hasher = PathHasher::default();
        let _ = write!(hasher, "{path}"); // writing into a hash cannot fail
        positions.push((hasher.finish(), (at.line, at.column)));
    };
    match kind {
        Kind::Pod | Kind::EndpointSlice => note(&Path::ROOT, node.at),
        _ => walk(node, &mut |path, _, at| {
            let is_for_others = path.is_key_of_root("status") || path.is_managed_fields();
            if !is_for_others {
                note(path, at);
            }
            !is_for_others
        }),
    }
    if kind == Kind::ConfigMap {
        mesh::positions(node, &mut |path, at| {
            positions.push((path, (at.line, at.column)))
        });
    }
    Place::new(file.clone(), 0, positions)
}
