//! One object whose kind and name are known: its metadata and specification, and whether it is
//! good or broken.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::fault::Fault;
use super::names::Names;
use super::node::{Node, duplicates};
use super::object::location;
use super::path::{Path, walk};
use super::read::read as read_typed;
use super::{
    Item, Parsed, ca_bundle, calico, cilium, kube, kube_pods, mesh, metadata, salvage, selection,
    service_entry,
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
    let meta = metadata::read(&origin, node, names, &mut faults);
    let subject = Subject {
        node,
        origin,
        meta,
        faults,
        file,
        parsed,
    };
    subject.read(names)
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
    fn read(self, names: &mut Names) -> Item {
        match self.origin.kind {
            Kind::GatewayClass => self.required::<GatewayClassSpec>(),
            Kind::Gateway => self.required::<GatewaySpec>(),
            Kind::HTTPRoute => self.required::<HttpRouteSpec>(),
            Kind::GRPCRoute => self.required::<GrpcRouteSpec>(),
            Kind::TLSRoute => self.required::<TlsRouteSpec>(),
            Kind::TCPRoute => self.required::<TcpRouteSpec>(),
            Kind::BackendTLSPolicy => self.required::<BackendTlsPolicySpec>(),
            Kind::XBackendTrafficPolicy => self.required::<XBackendTrafficPolicySpec>(),
            Kind::AuthorizationPolicy => self.optional::<AuthorizationPolicySpec>(),
            Kind::RequestAuthentication => self.optional::<RequestAuthenticationSpec>(),
            Kind::VirtualService => self.optional::<VirtualServiceSpec>(),
            Kind::DestinationRule => self.optional::<DestinationRuleSpec>(),
            Kind::ServiceEntry => self.by(service_entry::read),
            Kind::WorkloadEntry => self.optional::<WorkloadEntrySpec>(),
            Kind::Telemetry => self.optional::<TelemetrySpec>(),
            Kind::TrafficPolicy => self.required::<TrafficPolicySpec>(),
            Kind::CiliumEnvoyConfig => self.required::<CiliumEnvoyConfigSpec>(),
            Kind::CiliumClusterwideEnvoyConfig => {
                let read = required_spec::<CiliumEnvoyConfigSpec>;
                self.by(|node, faults| read(node, faults).map(Clusterwide))
            }
            Kind::CiliumNetworkPolicy
            | Kind::CiliumClusterwideNetworkPolicy
            | Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy => self.network_policy(),
            Kind::Tier => self.optional::<TierSpec>(),
            Kind::NetworkSet => self.optional::<NetworkSetSpec>(),
            Kind::GlobalNetworkSet => {
                let read = optional_spec::<NetworkSetSpec>;
                self.by(|node, faults| read(node, faults).map(Clusterwide))
            }
            Kind::KubeNetworkPolicy => self.required::<NetworkPolicySpec>(),
            Kind::Namespace => self.tolerantly(kube::namespace),
            Kind::Service => self.by(|node, faults| kube::service(node, faults, names)),
            Kind::EndpointSlice => self.endpoint_slice(names),
            Kind::Pod => self.tolerantly(|node, faults| kube_pods::pod(node, faults, names)),
            Kind::ConfigMap => self.by(mesh::mesh_config),
            Kind::CaBundle => self.by(ca_bundle::read),
        }
    }

    /// An object that is more than its `spec`, or kept as less.
    fn by<T: Spec>(mut self, read: impl FnOnce(&Node<'_>, &mut Vec<Fault>) -> Option<T>) -> Item {
        let spec = read(self.node, &mut self.faults);
        self.settle(spec)
    }

    /// One that a newer cluster may have written.
    fn tolerantly<T: Spec>(
        mut self,
        read: impl FnOnce(&Node<'_>, &mut Vec<Fault>) -> Option<T>,
    ) -> Item {
        let spec = read(self.node, &mut self.faults);
        tolerate_newer_kubernetes(&mut self.faults);
        self.settle(spec)
    }

    fn endpoint_slice(mut self, names: &mut Names) -> Item {
        let (meta, faults) = (self.meta.as_ref(), &mut self.faults);
        let spec = kube::endpoint_slice(self.node, &self.origin, meta, faults, names);
        tolerate_newer_kubernetes(faults);
        self.settle(spec)
    }

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
                uid: metadata::uid(self.node),
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
