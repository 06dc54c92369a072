//! Where `targetRefs` of a policy lead (specs/istio-waypoint.md 4.0): Gateway, GatewayClass, Service,
//! ServiceEntry, each with its rule on the policy's namespace.

use std::collections::BTreeMap;
use std::fmt;

use super::{Findings, dry_run, unreadable, waypoint};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::ObjectKey;
use crate::resources::{Broken, Object, Place, Resources, TargetRef};
use crate::snapshot::{Binding, Mesh, Service, Waypoint};

const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
const ISTIO_GROUP: &str = "networking.istio.io";
const EFFECT_NOTHING: &str = "the policy is not enforced by this targetRef";

/// `targetRefs` and the deprecated `targetRef`, each with its path.
pub(super) fn target_refs<'t>(
    several: &'t Option<Vec<TargetRef>>,
    one: &'t Option<TargetRef>,
) -> Vec<(String, &'t TargetRef)> {
    let several = several.iter().flatten().enumerate();
    let several = several.map(|(index, target)| (format!("spec.targetRefs[{index}]"), target));
    let one = one.iter();
    several
        .chain(one.map(|target| ("spec.targetRef".to_owned(), target)))
        .collect()
}

/// What a policy reaches at this waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everything the waypoint serves.
    Waypoint,
    /// One service.
    Service(ObjectKey),
    /// The hosts of one ServiceEntry that are served here, each a service.
    Entry(ObjectKey, Vec<ObjectKey>),
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waypoint => f.write_str("everything this waypoint serves"),
            Self::Service(key) | Self::Entry(key, _) => write!(f, "{key}"),
        }
    }
}

impl Reach {
    /// The services, unless it is everything.
    pub fn services(&self) -> &[ObjectKey] {
        match self {
            Self::Waypoint => &[],
            Self::Service(key) => std::slice::from_ref(key),
            Self::Entry(_, hosts) => hosts,
        }
    }
}

/// Where a policy applies, in words for findings.
pub(super) fn scope(reaches: &[Reach]) -> String {
    let words: Vec<String> = reaches.iter().map(ToString::to_string).collect();
    match words.as_slice() {
        [] => "its targets (none of them served here)".to_owned(),
        words => words.join(", "),
    }
}

/// What targets are looked up in.
pub(super) struct Targets<'a> {
    /// All objects.
    pub resources: &'a Resources,
    /// For the root namespace.
    pub mesh: &'a Mesh,
    /// The waypoint served.
    pub waypoint: Option<&'a Waypoint>,
    /// All services, with their bindings.
    pub services: &'a BTreeMap<ObjectKey, Service>,
}

impl<'a> Targets<'a> {
    /// These.
    pub fn new(
        resources: &'a Resources,
        mesh: &'a Mesh,
        waypoint: Option<&'a Waypoint>,
        services: &'a BTreeMap<ObjectKey, Service>,
    ) -> Self {
        Self {
            resources,
            mesh,
            waypoint,
            services,
        }
    }

    /// What targets lead to: as a whole, and, each with its path, by a name of a part that Cairn can not tell
    /// apart, so that what the policy says for the part is unknown for the whole.
    pub fn reached<T>(
        &self,
        policy: &Object<T>,
        refs: Vec<(String, &TargetRef)>,
        findings: &mut Findings,
    ) -> (Vec<Reach>, Vec<(String, Reach)>) {
        let (mut whole, mut limited) = (Vec::new(), Vec::new());
        for (path, target) in refs {
            let Some(reach) = self.follow(policy, &path, target, findings) else {
                continue;
            };
            if target.section_name.is_some() || target.port.is_some() {
                limited.push((path, reach));
            } else {
                whole.push(reach);
            }
        }
        (whole, limited)
    }

    /// What a target leads to. `None`: to nothing here, which a finding says.
    pub fn follow<T>(
        &self,
        policy: &Object<T>,
        path: &str,
        target: &TargetRef,
        findings: &mut Findings,
    ) -> Option<Reach> {
        let own = &policy.origin.key.namespace;
        if let Some(other) = target.namespace.as_ref().filter(|other| ***other != **own) {
            let finding = Diagnostic::error(
                Code::NotAttached,
                format!("a policy of {own} can not target an object of {other}"),
            )
            .with_effect(EFFECT_NOTHING)
            .with_hint(format!("put the policy into the namespace {other}"));
            findings.push(policy.mark(finding, &format!("{path}.namespace")));
            return None;
        }
        let result = match (target.group.as_str(), target.kind.as_str()) {
            (GATEWAY_GROUP, "Gateway") => self.gateway(policy, target),
            (GATEWAY_GROUP, "GatewayClass") => self.gateway_class(policy, target),
            ("" | "core", "Service") => self.service(policy, target),
            (ISTIO_GROUP, "ServiceEntry") => self.entry(policy, target),
            (_, "ServiceEntry") => Err(unsupported(
                target,
                &format!("the group of ServiceEntry is {ISTIO_GROUP}"),
            )),
            (_, "Gateway" | "GatewayClass") => Err(unsupported(
                target,
                &format!("the group of {} is {GATEWAY_GROUP}", target.kind),
            )),
            (_, "Service") => Err(unsupported(target, "the group of Service is \"\"")),
            _ => Err(unsupported(
                target,
                "a target is a Gateway, a GatewayClass, a Service or a ServiceEntry",
            )),
        };
        match result {
            Ok(reach) => Some(reach),
            Err(finding) => {
                findings.push(policy.mark(*finding, path));
                None
            }
        }
    }

    /// What a policy that can not be read reaches, as far as its targets could be; all that it could if
    /// not. `denied` says what becomes of a scope. With an object that says nothing but whose it is.
    pub fn follow_broken<T: Default>(
        &self,
        broken: &Broken,
        denied: impl Fn(&str) -> String,
        findings: &mut Findings,
    ) -> (Object<T>, Vec<Reach>) {
        let place = broken.location.as_ref();
        let object = Object {
            origin: broken.origin.clone(),
            meta: Default::default(),
            spec: T::default(),
            place: place.map_or_else(Place::default, Place::of),
        };
        let reaches = match &broken.targets {
            None => self.all_of_namespace(&broken.origin.key.namespace),
            Some(refs) => (refs.iter().enumerate())
                .filter_map(|(index, target)| {
                    let path = format!("spec.targetRefs[{index}]");
                    self.follow(&object, &path, target, findings)
                })
                .collect(),
        };
        let effect = match reaches.as_slice() {
            [] => "this waypoint serves nothing that it is for".to_owned(),
            reaches => dry_run::effect(broken.dry_run, denied(&scope(reaches))),
        };
        findings.push(unreadable(broken, effect));
        (object, reaches)
    }

    fn gateway<T>(&self, policy: &Object<T>, target: &TargetRef) -> Result<Reach, Box<Diagnostic>> {
        let key = ObjectKey {
            namespace: policy.origin.key.namespace.clone(),
            name: target.name.as_str().into(),
        };
        if waypoint::is_this(self.waypoint, &key) {
            return Ok(Reach::Waypoint);
        }
        if self.resources.gateways.contains_key(&key) {
            return Err(for_another(format!("Gateway {key} is not this waypoint")).into());
        }
        let hint = match self.waypoint {
            Some(own) => format!("this waypoint is the Gateway {}", own.origin.key),
            None => "name a Gateway of the policy's own namespace".to_owned(),
        };
        Err(not_found(format!("there is no Gateway {key}"))
            .with_hint(hint)
            .into())
    }

    fn gateway_class<T>(
        &self,
        policy: &Object<T>,
        target: &TargetRef,
    ) -> Result<Reach, Box<Diagnostic>> {
        let (name, root) = (target.name.as_str(), &self.mesh.root_namespace);
        if policy.origin.key.namespace != *root {
            let message =
                format!("a policy on a GatewayClass belongs into the root namespace, {root}");
            return Err(Diagnostic::error(Code::NotAttached, message)
                .with_effect(EFFECT_NOTHING)
                .into());
        }
        if self.waypoint.is_some_and(|own| *own.class == *name) {
            return Ok(Reach::Waypoint);
        }
        let known = self
            .resources
            .gateway_classes
            .contains_key(&ObjectKey::new("", name));
        let by_gateway = self.resources.gateways.values().any(|loaded| {
            let gateway = loaded.object();
            gateway.is_some_and(|gateway| gateway.spec.gateway_class_name == name)
        });
        let hint = match self.waypoint {
            Some(own) => format!("this waypoint is of class {}", own.class),
            None => "name the class of a waypoint".to_owned(),
        };
        Err(match known || by_gateway {
            true => for_another(format!("this waypoint is not of class {name}")),
            false => not_found(format!("there is no GatewayClass {name}")),
        }
        .with_hint(hint)
        .into())
    }

    fn service<T>(&self, policy: &Object<T>, target: &TargetRef) -> Result<Reach, Box<Diagnostic>> {
        let key = ObjectKey {
            namespace: policy.origin.key.namespace.clone(),
            name: target.name.as_str().into(),
        };
        let Some(service) = self.services.get(&key) else {
            return Err(match self.resources.services.contains_key(&key) {
                true => not_found(format!("Service {key} can not be read"))
                    .with_hint("mend the Service; until then it is not served"),
                false => not_found(format!("there is no Service {key}"))
                    .with_hint("a policy is in the namespace of the Service it targets"),
            }
            .into());
        };
        bound(service, "Service", &key)?;
        Ok(Reach::Service(key))
    }

    /// The hosts of a ServiceEntry have one binding, that of the object.
    fn entry<T>(&self, policy: &Object<T>, target: &TargetRef) -> Result<Reach, Box<Diagnostic>> {
        let key = ObjectKey {
            namespace: policy.origin.key.namespace.clone(),
            name: target.name.as_str().into(),
        };
        let hosts = self.services.values();
        let hosts: Vec<&Service> = hosts
            .filter(|s| s.is_entry() && s.origin.key == key)
            .collect();
        let Some(first) = hosts.first() else {
            return Err(match self.resources.service_entries.contains_key(&key) {
                true => not_found(format!("no host of ServiceEntry {key} is in force"))
                    .with_hint("mend the ServiceEntry; until then it is not served"),
                false => not_found(format!("there is no ServiceEntry {key}"))
                    .with_hint("a policy is in the namespace of the ServiceEntry it targets"),
            }
            .into());
        };
        bound(first, "ServiceEntry", &key)?;
        let hosts = hosts.iter().map(|host| host.key.clone()).collect();
        Ok(Reach::Entry(key, hosts))
    }

    /// Everything that a policy of this namespace could reach.
    pub fn all_of_namespace(&self, namespace: &str) -> Vec<Reach> {
        let mut reaches = Vec::new();
        let own_gateway = |own: &Waypoint| *own.origin.key.namespace == *namespace;
        let by_class = *self.mesh.root_namespace == *namespace;
        if self
            .waypoint
            .is_some_and(|own| by_class || own_gateway(own))
        {
            reaches.push(Reach::Waypoint);
        }
        reaches.extend(
            (self.services.values())
                .filter(|service| *service.key.namespace == *namespace)
                .filter(|service| service.binding == Binding::Served)
                .map(|service| Reach::Service(service.key.clone())),
        );
        reaches
    }
}

/// Whether this waypoint serves it.
fn bound(service: &Service, kind: &str, key: &ObjectKey) -> Result<(), Box<Diagnostic>> {
    let unbound = |why: String| {
        Diagnostic::warning(Code::NotEnforced, why)
            .with_effect(format!("nothing enforces the policy for this {kind}"))
            .with_hint(format!(
                "label the {kind} or its namespace istio.io/use-waypoint"
            ))
            .into()
    };
    match &service.binding {
        Binding::Served => Ok(()),
        Binding::Other(gateway) => {
            let why = format!("{kind} {key} belongs to another waypoint, {gateway}");
            Err(for_another(why).into())
        }
        Binding::Unbound => Err(unbound(format!("{kind} {key} is bound to no waypoint"))),
        Binding::Refused(why) => Err(unbound(format!("{kind} {key} is not served: {why}"))),
    }
}

fn for_another(message: String) -> Diagnostic {
    Diagnostic::new(Severity::Info, Code::NotForWaypoint, message)
        .with_effect("this waypoint does not enforce the policy by this targetRef")
}

fn not_found(message: String) -> Diagnostic {
    Diagnostic::error(Code::TargetNotFound, message).with_effect(EFFECT_NOTHING)
}

fn unsupported(target: &TargetRef, why: &str) -> Box<Diagnostic> {
    let TargetRef {
        kind, group, name, ..
    } = target;
    let message = format!("target {kind} '{name}' (group '{group}'): {why}");
    Diagnostic::error(Code::Unsupported, message)
        .with_effect(EFFECT_NOTHING)
        .into()
}
