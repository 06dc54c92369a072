//! Which Gateway this process serves, and what that Gateway says (specs/istio-waypoint.md 1.2, 1.3).
//! Which services are attached to it is in `attachment`.

use std::sync::Arc;

use super::{Findings, Options, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::ObjectKey;
use crate::resources::gateway_api::{GatewayClassSpec, GatewaySpec};
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::Waypoint;

/// Classes that are a waypoint's by name (specs/istio-waypoint.md 1.1, DESIGN section 8).
const CLASSES: [&str; 2] = ["cairn-waypoint", "istio-waypoint"];
const CONTROLLER: &str = "cairn.dev/waypoint-controller";
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
const XFCC: &str = "ambient.istio.io/xfcc-include-client-identity";
const NO_XFCC: (bool, &str) = (false, "x-forwarded-client-cert is not written");
const STRICT: &str = "cairn.dev/strict";
const STRICT_ALL_THE_SAME: (bool, &str) = (true, "strict mode is on");
const EFFECT_NONE: &str = "every tunnel is refused";
const HINT_FLAG: &str = "name the Gateway with --gateway NAMESPACE/NAME";

/// The Gateway served, with what attaching needs of it.
pub(super) struct Chosen<'a> {
    /// As the snapshot has it, policies still missing.
    pub waypoint: Waypoint,
    /// The Gateway object.
    pub object: &'a Object<GatewaySpec>,
    /// Index of the HBONE listener in `spec.listeners`.
    pub listener: usize,
}

impl Chosen<'_> {
    /// Namespace and name of the Gateway.
    pub fn key(&self) -> &ObjectKey {
        &self.object.origin.key
    }
}

/// Chooses the Gateway and reads it. `None`: there is none to serve, and a finding says why.
pub(super) fn choose<'a>(
    resources: &'a Resources,
    options: &Options,
    findings: &mut Findings,
) -> Option<Chosen<'a>> {
    let object = match &options.gateway {
        Some(key) => named(resources, key, findings)?,
        None => only_one(resources, findings)?,
    };
    let listener = hbone_listener(object, findings)?;
    warn_of_meaningless_fields(object, listener, findings);
    tell_of_fields_for_others(object, findings);
    tell_of_class_parameters(resources, object, findings);
    let class: Arc<str> = object.spec.gateway_class_name.as_str().into();
    let traffic = served_traffic(resources, object, findings);
    Some(Chosen {
        waypoint: Waypoint {
            origin: object.origin.clone(),
            class,
            serves_services: matches!(traffic, Ok(Traffic::Service | Traffic::All)),
            serves_workloads: matches!(traffic, Ok(Traffic::Workload | Traffic::All)),
            xfcc_include_client_identity: switch(object, XFCC, NO_XFCC, findings),
            strict: switch(object, STRICT, STRICT_ALL_THE_SAME, findings) || options.strict,
            policies: Vec::new(),
            blocked: traffic.err(),
        },
        object,
        listener,
    })
}

/// The reason to refuse everything when of a file or document nothing is known.
pub(super) fn block_on_unreadable(
    resources: &Resources,
    findings: &mut Findings,
) -> Option<Arc<str>> {
    let mut first = None;
    for (reason, location) in &resources.unreadable {
        findings.push(
            Diagnostic::error(Code::Unreadable, &**reason)
                .with_effect(format!(
                    "{EFFECT_NONE} until it is mended, for it may be a policy on anything"
                ))
                .at(location.clone()),
        );
        first.get_or_insert_with(|| match location {
            Some(location) => Arc::from(format!("{location}: {reason}")),
            None => reason.clone(),
        });
    }
    first
}

fn named<'a>(
    resources: &'a Resources,
    key: &ObjectKey,
    findings: &mut Findings,
) -> Option<&'a Object<GatewaySpec>> {
    match resources.gateways.get(key) {
        Some(Loaded::Good(object) | Loaded::KeptLastGood(object)) => {
            if !is_ours(resources, &object.spec.gateway_class_name) {
                let class = class_in_words(resources, object);
                let finding = Diagnostic::warning(
                    Code::BadValue,
                    format!("{class} is not a waypoint class of ours"),
                )
                .with_effect("another controller may own this Gateway; it is served all the same")
                .with_hint("use gatewayClassName: cairn-waypoint");
                findings.push(object.mark(finding, "spec.gatewayClassName"));
            }
            Some(object)
        }
        Some(Loaded::Broken(broken)) => {
            findings.push(Diagnostic {
                code: Code::NoGateway,
                ..unreadable(broken, EFFECT_NONE)
            });
            None
        }
        None => {
            let known = list(resources.gateways.keys());
            findings.push(
                Diagnostic::error(Code::NoGateway, format!("there is no Gateway {key}"))
                    .with_effect(EFFECT_NONE)
                    .with_hint(if known.is_empty() {
                        "the configuration has no Gateway at all".to_owned()
                    } else {
                        format!("--gateway names one of: {known}")
                    }),
            );
            None
        }
    }
}

fn only_one<'a>(
    resources: &'a Resources,
    findings: &mut Findings,
) -> Option<&'a Object<GatewaySpec>> {
    let candidates: Vec<&Arc<Object<GatewaySpec>>> = resources
        .gateways
        .values()
        .filter_map(Loaded::object)
        .filter(|object| is_ours(resources, &object.spec.gateway_class_name))
        .collect();
    if let [only] = candidates.as_slice() {
        return Some(only);
    }
    let broken = resources
        .gateways
        .values()
        .filter_map(|loaded| match loaded {
            Loaded::Broken(broken) => Some(broken.origin.key.to_string()),
            _ => None,
        });
    let broken: Vec<String> = broken.collect();
    let message = if !candidates.is_empty() {
        let names = list(candidates.iter().map(|object| &object.origin.key));
        format!("several Gateways could be this waypoint: {names}")
    } else if !broken.is_empty() {
        format!("the Gateway can not be read: {}", broken.join(", "))
    } else {
        let others = resources.gateways.values().filter_map(Loaded::object);
        let others: Vec<String> = others
            .map(|o| format!("{} is of {}", o.origin.key, class_in_words(resources, o)))
            .collect();
        let colon = if others.is_empty() { "" } else { ": " };
        let wanted = CLASSES.join(" or ");
        format!(
            "there is no Gateway of class {wanted}{colon}{}",
            others.join(", ")
        )
    };
    findings.push(
        Diagnostic::error(Code::NoGateway, message)
            .with_effect(EFFECT_NONE)
            .with_hint(HINT_FLAG),
    );
    None
}

/// Whether Gateways of this class are ours to serve.
fn is_ours(resources: &Resources, class: &str) -> bool {
    CLASSES.contains(&class)
        || class_object(resources, class)
            .and_then(Loaded::object)
            .is_some_and(|object| object.spec.controller_name == CONTROLLER)
}

/// The class of a Gateway that is another controller's, with that controller if it is told.
fn class_in_words(resources: &Resources, gateway: &Object<GatewaySpec>) -> String {
    let class = &gateway.spec.gateway_class_name;
    match class_object(resources, class).and_then(Loaded::object) {
        Some(object) => format!(
            "class '{class}' (controller {})",
            object.spec.controller_name
        ),
        None => format!("class '{class}'"),
    }
}

fn class_object<'a>(resources: &'a Resources, class: &str) -> Option<&'a Loaded<GatewayClassSpec>> {
    resources.gateway_classes.get(&ObjectKey::new("", class))
}

fn hbone_listener(object: &Object<GatewaySpec>, findings: &mut Findings) -> Option<usize> {
    let listeners = &object.spec.listeners;
    let hbone = |port: Option<i32>| {
        listeners
            .iter()
            .position(|l| l.protocol == "HBONE" && port.is_none_or(|port| l.port == port))
    };
    let Some(found) = hbone(Some(15008)).or_else(|| hbone(None)) else {
        // The words are those of Istio's status message, which users search for (1.2).
        let finding = Diagnostic::error(
            Code::NoGateway,
            "expected a listener on port 15008 with protocol HBONE",
        )
        .with_effect(EFFECT_NONE)
        .with_hint("listeners: [{name: mesh, port: 15008, protocol: HBONE}]");
        findings.push(object.mark(finding, "spec.listeners"));
        return None;
    };
    for (index, listener) in listeners.iter().enumerate() {
        let path = format!("spec.listeners[{index}]");
        let (name, port) = (&listener.name, listener.port);
        if index != found {
            let finding = Diagnostic::warning(
                Code::Unsupported,
                format!("listener '{name}' is not used; a waypoint has one HBONE listener"),
            )
            .with_effect(format!("nothing listens on port {port} for it"));
            findings.push(object.mark(finding, &path));
        } else if port != 15008 {
            let finding = Diagnostic::warning(
                Code::BadValue,
                format!("the HBONE listener is on port {port}, clients dial 15008"),
            )
            .with_effect("the listening address is that of --hbone-addr whatever is written here");
            findings.push(object.mark(finding, &format!("{path}.port")));
        }
    }
    Some(found)
}

fn warn_of_meaningless_fields(
    object: &Object<GatewaySpec>,
    listener: usize,
    findings: &mut Findings,
) {
    let spec = &object.spec;
    let Some(hbone) = spec.listeners.get(listener) else {
        return;
    };
    let prefix = format!("spec.listeners[{listener}]");
    let kinds = hbone
        .allowed_routes
        .as_ref()
        .is_some_and(|allowed| allowed.kinds.as_ref().is_some_and(|k| !k.is_empty()));
    for (set, path) in [
        (hbone.hostname.is_some(), format!("{prefix}.hostname")),
        (hbone.tls.is_some(), format!("{prefix}.tls")),
        (kinds, format!("{prefix}.allowedRoutes.kinds")),
        (spec.tls.is_some(), "spec.tls".to_owned()),
        (
            spec.allowed_listeners.is_some(),
            "spec.allowedListeners".to_owned(),
        ),
        (spec.default_scope.is_some(), "spec.defaultScope".to_owned()),
    ] {
        if set {
            let finding = Diagnostic::warning(
                Code::Unsupported,
                format!("{path} means nothing at a waypoint"),
            )
            .with_effect("it changes nothing");
            findings.push(object.mark(finding, &path));
        }
    }
}

/// Fields that whoever deploys a waypoint acts upon, and the waypoint itself does not.
fn tell_of_fields_for_others(object: &Object<GatewaySpec>, findings: &mut Findings) {
    let spec = &object.spec;
    let addresses = spec.addresses.as_ref().is_some_and(|a| !a.is_empty());
    for (set, field, effect) in [
        (
            addresses,
            "addresses",
            "this process listens at --hbone-addr whatever is written here",
        ),
        (
            spec.infrastructure.is_some(),
            "infrastructure",
            "nothing is deployed for this Gateway, so its labels, annotations and parameters go nowhere",
        ),
    ] {
        if set {
            let message = format!("`{field}` of a Gateway has no effect yet");
            let finding =
                Diagnostic::new(Severity::Info, Code::Unsupported, message).with_effect(effect);
            findings.push(object.mark(finding, &format!("spec.{field}")));
        }
    }
}

/// Parameters of a class are for all its Gateways; the controller reads those of a Gateway alone.
fn tell_of_class_parameters(
    resources: &Resources,
    gateway: &Object<GatewaySpec>,
    findings: &mut Findings,
) {
    let class = class_object(resources, &gateway.spec.gateway_class_name);
    let Some(class) = class.and_then(Loaded::object) else {
        return;
    };
    if class.spec.parameters_ref.is_some() {
        let message = "`parametersRef` of a GatewayClass is not read";
        let finding = Diagnostic::warning(Code::Unsupported, message)
            .with_effect("waypoints of this class are deployed as without it")
            .with_hint("spec.infrastructure.parametersRef of each Gateway");
        findings.push(class.mark(finding, "spec.parametersRef"));
    }
}

/// What a waypoint serves.
enum Traffic {
    Service,
    Workload,
    All,
    None,
}

/// The label on the Gateway, else on its class, else `service`. `Err` is the reason to refuse
/// everything, for it can not be known what the waypoint is for.
fn served_traffic(
    resources: &Resources,
    object: &Object<GatewaySpec>,
    findings: &mut Findings,
) -> Result<Traffic, Arc<str>> {
    if let Some(value) = object.meta.labels.get(WAYPOINT_FOR) {
        return read_traffic(object, value, findings);
    }
    match class_object(resources, &object.spec.gateway_class_name) {
        Some(Loaded::Good(class) | Loaded::KeptLastGood(class)) => {
            match class.meta.labels.get(WAYPOINT_FOR) {
                Some(value) => read_traffic(class, value, findings),
                None => Ok(Traffic::Service),
            }
        }
        Some(Loaded::Broken(broken)) => {
            let effect = format!("{EFFECT_NONE}, for its label {WAYPOINT_FOR} is unknown");
            let finding = unreadable(broken, effect);
            let reason = finding.message.as_str().into();
            findings.push(finding);
            Err(reason)
        }
        None => Ok(Traffic::Service),
    }
}

fn read_traffic<T>(
    object: &Object<T>,
    value: &str,
    findings: &mut Findings,
) -> Result<Traffic, Arc<str>> {
    match value {
        "service" => Ok(Traffic::Service),
        "workload" => Ok(Traffic::Workload),
        "all" => Ok(Traffic::All),
        "none" => Ok(Traffic::None),
        unknown => {
            let reason = format!("label {WAYPOINT_FOR} has the unknown value '{unknown}'");
            let finding = Diagnostic::error(Code::BadValue, reason.clone())
                .with_effect(EFFECT_NONE)
                .with_hint("service, workload, all or none");
            findings.push(object.mark(finding, &format!("metadata.labels[{WAYPOINT_FOR}]")));
            Err(reason.into())
        }
    }
}

/// An annotation that is "true" or "false"; what it counts for when it is neither, and what to say.
fn switch(
    object: &Object<GatewaySpec>,
    name: &str,
    (otherwise, effect): (bool, &str),
    findings: &mut Findings,
) -> bool {
    match object.meta.annotations.get(name).map(|value| &**value) {
        Some("true") => true,
        None | Some("false") => false,
        Some(other) => {
            let finding = Diagnostic::warning(
                Code::BadValue,
                format!("annotation {name} is '{other}', neither \"true\" nor \"false\""),
            )
            .with_effect(effect);
            findings.push(object.mark(finding, &format!("metadata.annotations[{name}]")));
            otherwise
        }
    }
}

/// Whether a key is that of the Gateway served.
pub(super) fn is_this(waypoint: Option<&Waypoint>, key: &ObjectKey) -> bool {
    waypoint.is_some_and(|waypoint| waypoint.origin.key == *key)
}

fn list<'a>(keys: impl Iterator<Item = &'a ObjectKey>) -> String {
    let names: Vec<String> = keys.map(ToString::to_string).collect();
    names.join(", ")
}
