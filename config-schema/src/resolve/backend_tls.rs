//! BackendTLSPolicies: TLS towards the endpoints of Services and ServiceEntries (GEP-1897,
//! specs/istio-waypoint.md 4.7). What a DestinationRule says of TLS comes before them. A policy that can
//! not be honoured closes what it is for: plain text where TLS was asked for must never be.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::destination_rules::Settings;
use super::{Findings, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::{ObjectKey, Origin};
use crate::resources::gateway_api::{
    BackendTlsPolicySpec, BackendTlsPolicyTargetRefs,
    BackendTlsPolicyValidationCaCertificateRefs as CaReference,
};
use crate::resources::{Broken, Loaded, Object, Resources};
use crate::snapshot::{ClusterKey, ClusterSettings, Service, TlsOrigination, TlsTrust};

type Written = Object<BackendTlsPolicySpec>;
type Services = BTreeMap<ObjectKey, Service>;

const CLOSED: &str = "nothing is sent to what it targets: requests are answered 503";

/// What is asked for, or why nothing may be sent; and who says so.
#[derive(Clone)]
struct Wanted {
    tls: Result<Arc<TlsOrigination>, Arc<str>>,
    origin: Origin,
    /// The targetRef that says so.
    path: String,
}

/// What is wanted for a service, or for one port of it by name.
type Claims = BTreeMap<(ObjectKey, Option<String>), Wanted>;

/// Puts what policies ask for into the settings of clusters.
pub(super) fn apply(
    resources: &Resources,
    services: &Services,
    settings: &mut Settings,
    findings: &mut Findings,
) {
    let mut claims = Claims::new();
    let mut objects: Vec<&Arc<Written>> = Vec::new();
    for loaded in resources.backend_tls_policies.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => objects.push(object),
            Loaded::Broken(broken) => close_broken(broken, services, &mut claims, findings),
        }
    }
    // The oldest wins, then the first by name (GEP-1897, conflict resolution).
    objects.sort_by_key(|object| (object.meta.created_s.is_none(), object.meta.created_s));
    for object in objects {
        claim(object, resources, services, &mut claims, findings);
    }
    for service in services.values() {
        for port in &service.ports {
            let of_port = claims.get(&(service.key.clone(), Some(port.name.to_string())));
            let whole = || claims.get(&(service.key.clone(), None));
            if let Some(wanted) = of_port.or_else(whole) {
                let key = ClusterKey::new(service.key.clone(), port.number);
                put(&key, wanted, resources, settings, findings);
            }
        }
    }
}

fn claim(
    object: &Written,
    resources: &Resources,
    services: &Services,
    claims: &mut Claims,
    findings: &mut Findings,
) {
    let wanted = Wanted {
        tls: read(object, resources, findings),
        origin: object.origin.clone(),
        path: String::new(),
    };
    for (index, target) in object.spec.target_refs.iter().enumerate() {
        let path = format!("spec.targetRefs[{index}]");
        let found = match follow(object, target, services) {
            Ok(found) => found,
            Err(finding) => {
                findings.push(object.mark(*finding, &path));
                continue;
            }
        };
        for service in found {
            let place = (service, target.section_name.clone());
            let by_this = || Wanted {
                path: path.clone(),
                ..wanted.clone()
            };
            let earlier = claims.entry(place).or_insert_with(by_this);
            if earlier.origin != wanted.origin {
                let message = format!("{} is for the same target", earlier.origin);
                let finding = Diagnostic::error(Code::Conflict, message)
                    .with_effect("the older one is in force there, this one is not");
                findings.push(object.mark(finding, &path));
            }
        }
    }
}

/// The services that a target names.
fn follow(
    object: &Written,
    target: &BackendTlsPolicyTargetRefs,
    services: &Services,
) -> Result<Vec<ObjectKey>, Box<Diagnostic>> {
    let key = ObjectKey {
        namespace: object.origin.key.namespace.clone(),
        name: target.name.as_str().into(),
    };
    let is_entry = match (target.group.as_str(), target.kind.as_str()) {
        ("" | "core", "Service") => false,
        ("networking.istio.io", "ServiceEntry") => true,
        (group, kind) => {
            let message =
                format!("a target of kind {kind} (group '{group}') is not for a waypoint");
            let finding = Diagnostic::new(Severity::Info, Code::NotForWaypoint, message)
                .with_effect("the policy has no effect by this targetRef");
            return Err(finding.into());
        }
    };
    let all = services
        .values()
        .filter(|s| s.is_entry() == is_entry && s.origin.key == key);
    let all: Vec<&Service> = all.collect();
    let (kind, nothing) = (&target.kind, "the policy has no effect by this targetRef");
    if all.is_empty() {
        let message = format!("there is no {kind} {key}");
        let finding = Diagnostic::error(Code::TargetNotFound, message).with_effect(nothing);
        return Err(finding
            .with_hint("a policy is in the namespace of what it targets")
            .into());
    }
    if let Some(section) = &target.section_name {
        let has = |service: &&Service| service.ports.iter().any(|p| *p.name == **section);
        if !all.iter().any(has) {
            let message = format!("{kind} {key} has no port named '{section}'");
            return Err(Diagnostic::error(Code::TargetNotFound, message)
                .with_effect(nothing)
                .into());
        }
    }
    Ok(all.into_iter().map(|service| service.key.clone()).collect())
}

/// What a policy asks for.
fn read(
    object: &Written,
    resources: &Resources,
    findings: &mut Findings,
) -> Result<Arc<TlsOrigination>, Arc<str>> {
    let spec = &object.spec;
    if spec
        .options
        .as_ref()
        .is_some_and(|options| !options.is_empty())
    {
        let finding = Diagnostic::warning(Code::Unsupported, "options mean nothing to a waypoint")
            .with_effect("they change nothing");
        findings.push(object.mark(finding, "spec.options"));
    }
    let trust = trust(object, resources, findings)?;
    let names = spec.validation.subject_alt_names.iter().flatten();
    let names = names.filter_map(|name| name.hostname.as_ref().or(name.uri.as_ref()));
    Ok(Arc::new(TlsOrigination {
        trust,
        client: None,
        server_name: Some(spec.validation.hostname.to_ascii_lowercase().into()),
        // With any of these, the hostname is asked for and does not count itself.
        names: names.map(|name| name.as_str().into()).collect(),
        origin: object.origin.clone(),
    }))
}

fn trust(
    object: &Written,
    resources: &Resources,
    findings: &mut Findings,
) -> Result<TlsTrust, Arc<str>> {
    let validation = &object.spec.validation;
    let refs = validation.ca_certificate_refs.as_deref();
    let refs = refs.unwrap_or_default();
    let well_known = validation.well_known_ca_certificates.as_deref();
    let (message, field) = match (refs, well_known.filter(|w| !w.is_empty())) {
        ([], Some("System")) => return Ok(TlsTrust::System),
        (refs, None) if !refs.is_empty() => return certificates(object, refs, resources, findings),
        ([], Some(other)) => (
            format!("wellKnownCACertificates '{other}' is not known"),
            ".wellKnownCACertificates",
        ),
        ([], None) => (
            "caCertificateRefs or wellKnownCACertificates must say whom to trust".to_owned(),
            "",
        ),
        (_, _) => (
            "there are both caCertificateRefs and wellKnownCACertificates".to_owned(),
            "",
        ),
    };
    let path = format!("spec.validation{field}");
    Err(refuse(object, message, &path, findings))
}

/// What the references lead to, one after the other. Those that lead nowhere are told.
fn certificates(
    object: &Written,
    refs: &[CaReference],
    resources: &Resources,
    findings: &mut Findings,
) -> Result<TlsTrust, Arc<str>> {
    let mut pem = String::new();
    for (index, reference) in refs.iter().enumerate() {
        let mut path = format!("spec.validation.caCertificateRefs[{index}]");
        let key = ObjectKey {
            namespace: object.origin.key.namespace.clone(),
            name: reference.name.as_str().into(),
        };
        let is_kind = matches!(
            (&*reference.group, &*reference.kind),
            ("" | "core", "ConfigMap")
        );
        let bundle = resources.ca_bundles.get(&key).and_then(Loaded::object);
        let message = match (is_kind, bundle) {
            (false, _) => {
                path.push_str(".kind");
                format!(
                    "a CA certificate of kind {} is not supported",
                    reference.kind
                )
            }
            (true, None) => format!("there is no ConfigMap {key} with ca.crt"),
            (true, Some(bundle)) => {
                pem.push_str(&bundle.spec.pem);
                pem.push('\n');
                continue;
            }
        };
        let finding = Diagnostic::error(Code::BackendNotFound, message)
            .with_effect("it vouches for nobody")
            .with_hint("a ConfigMap of the policy's namespace with certificates in ca.crt");
        findings.push(object.mark(finding, &path));
    }
    match pem.is_empty() {
        true => Err(refuse(
            object,
            "no caCertificateRef leads to a certificate".to_owned(),
            "spec.validation.caCertificateRefs",
            findings,
        )),
        false => Ok(TlsTrust::Certificates(pem.into())),
    }
}

fn refuse(object: &Written, message: String, path: &str, findings: &mut Findings) -> Arc<str> {
    let reason = message.as_str().into();
    let finding = Diagnostic::error(Code::BadValue, message).with_effect(CLOSED);
    findings.push(object.mark(finding, path));
    reason
}

/// Puts it into the settings of a service port and its subsets, unless a DestinationRule has said more.
fn put(
    key: &ClusterKey,
    wanted: &Wanted,
    resources: &Resources,
    settings: &mut Settings,
    findings: &mut Findings,
) {
    let with = |before: &Arc<ClusterSettings>| {
        let mut after = ClusterSettings::clone(before);
        match &wanted.tls {
            Ok(tls) => after.tls = Some(tls.clone()),
            Err(reason) => after.refused = Some(reason.clone()),
        }
        Arc::new(after)
    };
    let has_tls = |settings: &ClusterSettings| settings.tls.is_some() || settings.refused.is_some();
    let whole = settings.clusters.entry(key.clone()).or_default();
    if has_tls(whole) {
        let policy = resources.backend_tls_policies.get(&wanted.origin.key);
        if let Some(policy) = policy.and_then(Loaded::object) {
            let rule = whole
                .origin
                .as_ref()
                .map_or_else(String::new, ToString::to_string);
            let message = format!("{rule} says what TLS there is to {key}");
            let finding = Diagnostic::warning(Code::Conflict, message)
                .with_effect("the DestinationRule is in force there, this policy is not");
            findings.push(policy.mark(finding, &wanted.path));
        }
    } else {
        *whole = with(whole);
    }
    for (subset, of_subset) in &mut settings.subsets {
        if subset.service == key.service && subset.port == key.port && !has_tls(&of_subset.settings)
        {
            of_subset.settings = with(&of_subset.settings);
        }
    }
}

/// A policy that can not be read closes what it names, or every service of its namespace.
fn close_broken(
    broken: &Broken,
    services: &Services,
    claims: &mut Claims,
    findings: &mut Findings,
) {
    let own = &broken.origin.key.namespace;
    let wanted = Wanted {
        tls: Err(format!("{} can not be read: {}", broken.origin, broken.reason).into()),
        origin: broken.origin.clone(),
        path: "spec.targetRefs".to_owned(),
    };
    let is_named = |service: &Service| match &broken.targets {
        None => true,
        Some(targets) => targets.iter().any(|t| *t.name == *service.origin.key.name),
    };
    let of_namespace = services.values().filter(|s| s.key.namespace == *own);
    let named: Vec<&Service> = of_namespace.filter(|s| is_named(s)).collect();
    for service in &named {
        claims.insert((service.key.clone(), None), wanted.clone());
    }
    let keys: Vec<String> = named.iter().map(|s| s.key.to_string()).collect();
    findings.push(unreadable(
        broken,
        format!(
            "nothing is sent to {}: requests are answered 503",
            keys.join(", ")
        ),
    ));
}
