//! VirtualServices and CiliumEnvoyConfigs written as each other or as HTTPRoutes, from the routes they
//! mean. Whatever is written is resolved again in place of the original, and is kept only if every port
//! of every Service does the same as before.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::ground::Ground;
use super::report::{Draft, Outcome, Writing};
use super::route_rules::{Unsayable, meaning};
use super::{Target, Translation, envoy_config, gateway_route, virtual_service};
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resolve;
use crate::resources::Loaded;
use crate::resources::cilium_envoy::CiliumEnvoyConfigSpec;
use crate::resources::virtual_service::VirtualServiceSpec;
use crate::snapshot::{HttpRule, Service, Snapshot};

/// What holds of all that is written.
const REMARKS: [&str; 2] = [
    "a rule for every path is one for paths that begin with `/`: `OPTIONS *` is not among them",
    "a route that says nothing of retries is retried as the mesh does in Istio, and not at all by Cilium's Envoy",
];

/// Writes every object that can be written.
pub(super) fn translate(ground: &Ground<'_>, target: Target, out: &mut Writing<'_, '_>) {
    let before = out.written();
    let mut drafts = Vec::new();
    for (origin, refused) in originals(ground, target) {
        let mut draft = Draft::of(vec![(origin.clone(), Vec::new())]);
        let mut unsayable: Unsayable = refused;
        write(ground, target, &origin, &mut draft, &mut unsayable, out);
        unsayable.sort();
        unsayable.dedup();
        for why in unsayable {
            draft.note(&origin, "", Outcome::NotTranslated, why);
        }
        drafts.push(draft);
    }
    verify(ground, &mut drafts);
    for draft in drafts {
        out.take(draft);
    }
    if out.written() > before {
        REMARKS.iter().for_each(|text| out.remark(text));
    }
}

/// What is to be translated, and what of it is not, by how it is written.
fn originals(ground: &Ground<'_>, target: Target) -> Vec<(Origin, Unsayable)> {
    fn each<T>(loaded: &Loaded<T>, refused: impl Fn(&T) -> Unsayable) -> (Origin, Unsayable) {
        match loaded {
            Loaded::Good(o) | Loaded::KeptLastGood(o) => (o.origin.clone(), refused(&o.spec)),
            Loaded::Broken(broken) => {
                let why = format!("it can not be read: {}", broken.reason);
                (broken.origin.clone(), vec![why])
            }
        }
    }
    let r = ground.resources;
    let mut all = Vec::new();
    if target != Target::Istio {
        all.extend(
            r.virtual_services
                .values()
                .map(|l| each(l, of_virtual_service)),
        );
    }
    if target != Target::Cilium {
        all.extend(r.envoy_configs.values().map(|l| each(l, of_envoy_config)));
        let wide = r.envoy_clusterwide_configs.values();
        all.extend(wide.map(|l| each(l, |spec| of_envoy_config(&spec.0))));
    }
    all
}

/// What of a VirtualService is not routes of requests to Services of the mesh.
fn of_virtual_service(spec: &VirtualServiceSpec) -> Unsayable {
    let http = || spec.http.iter().flatten();
    let gateways = spec.gateways.as_deref().unwrap_or_default();
    let found = [
        (
            spec.hosts.as_ref().is_none_or(Vec::is_empty),
            "it has no hosts: it is for others that delegate to it",
        ),
        (
            http().any(|rule| rule.delegate.is_some()),
            "it delegates to others",
        ),
        (
            spec.tls.as_ref().is_some_and(|t| !t.is_empty()),
            "its `tls` rules are not translated",
        ),
        (
            spec.tcp.as_ref().is_some_and(|t| !t.is_empty()),
            "its `tcp` rules are not translated",
        ),
        (
            gateways.iter().any(|g| g != "mesh"),
            "it is for gateways other than the mesh, too",
        ),
        (spec.export_to.is_some(), "exportTo is not translated"),
        (http().next().is_none(), "it has no `http` rules"),
    ];
    let there = found.into_iter().filter(|(there, _)| *there);
    there.map(|(_, why)| why.to_owned()).collect()
}

/// What of a CiliumEnvoyConfig is not routes of requests.
fn of_envoy_config(spec: &CiliumEnvoyConfigSpec) -> Unsayable {
    let mut unsayable = Unsayable::new();
    for resource in spec.resources.iter().flatten() {
        let kind = resource
            .get("@type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let kind = kind.rsplit('.').next().unwrap_or_default();
        if !matches!(kind, "Listener" | "RouteConfiguration") {
            unsayable.push(format!("a resource of type {kind} is not translated"));
        }
    }
    if spec.node_selector.is_some() {
        unsayable.push("nodeSelector is not translated".into());
    }
    unsayable
}

/// Ports with the rules that are in force for them.
type Ports<'a> = Vec<(u16, &'a [HttpRule])>;

/// The routes of an object: of which Service, on which ports.
fn routed<'a>(snapshot: &'a Snapshot, origin: &Origin) -> Vec<(&'a Service, Ports<'a>)> {
    let mut found = Vec::new();
    for service in snapshot.services.values() {
        let mut ports = Vec::new();
        for port in &service.ports {
            let own = port.routes.iter().filter(|route| route.origin == *origin);
            ports.extend(own.map(|route| (port.number, &route.rules[..])));
        }
        if !ports.is_empty() {
            found.push((&**service, ports));
        }
    }
    found
}

/// How many Services the object is written for; those that it does not reach are not translated.
fn wanted(ground: &Ground<'_>, origin: &Origin) -> usize {
    fn named(spec: &CiliumEnvoyConfigSpec) -> usize {
        let names = spec.services.iter().flatten();
        let names: BTreeSet<_> = names.map(|s| (&s.namespace, &s.name)).collect();
        names.len()
    }
    let (r, key) = (ground.resources, &origin.key);
    let count = match origin.kind {
        Kind::VirtualService => {
            let object = r.virtual_services.get(key).and_then(Loaded::object);
            object.map(|o| o.spec.hosts.as_ref().map_or(0, Vec::len))
        }
        Kind::CiliumEnvoyConfig => {
            let object = r.envoy_configs.get(key).and_then(Loaded::object);
            object.map(|o| named(&o.spec))
        }
        _ => {
            let object = r
                .envoy_clusterwide_configs
                .get(key)
                .and_then(Loaded::object);
            object.map(|o| named(&o.spec.0))
        }
    };
    count.unwrap_or_default()
}

fn write(
    ground: &Ground<'_>,
    target: Target,
    origin: &Origin,
    draft: &mut Draft,
    unsayable: &mut Unsayable,
    out: &mut Writing<'_, '_>,
) {
    let routed = routed(ground.snapshot, origin);
    if routed.len() != wanted(ground, origin) || routed.is_empty() {
        unsayable.push("its routes are not in force for every Service it names: the waypoint serves none of that name, or other routes go first".into());
    }
    let domain = &*ground.snapshot.mesh.cluster_domain;
    for (service, ports) in routed {
        let (namespace, of) = (&service.key.namespace, &service.key.name);
        if service.is_entry() {
            unsayable.push("routes for hosts of ServiceEntries are not translated".into());
            continue;
        }
        if target == Target::Istio {
            let name = out.fresh_name(
                Kind::VirtualService,
                namespace,
                &format!("{}-{of}", origin.key.name),
            );
            let spec = virtual_service::spec(service, &ports, domain, unsayable);
            draft.objects.push(object(
                "networking.istio.io/v1",
                Kind::VirtualService,
                namespace,
                &name,
                &spec,
            ));
            continue;
        }
        for (port, rules) in ports {
            let base = format!("{}-{of}-{port}", origin.key.name);
            let (api, kind) = match target {
                Target::Gateway => ("gateway.networking.k8s.io/v1", Kind::HTTPRoute),
                Target::Cilium | Target::Istio => ("cilium.io/v2", Kind::CiliumEnvoyConfig),
            };
            let name = out.fresh_name(kind, namespace, &base);
            let spec = match target {
                Target::Gateway => gateway_route::spec(service, port, rules, unsayable),
                Target::Cilium | Target::Istio => {
                    envoy_config::spec(&name, service, port, rules, unsayable)
                }
            };
            draft
                .objects
                .push(object(api, kind, namespace, &name, &spec));
        }
    }
}

fn object(api: &str, kind: Kind, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": api,
        "kind": kind.bare(),
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

/// Resolves what was written in place of the originals, until nothing differs any more: what differs is
/// not translated, and neither are the others if nobody knows by which it does.
fn verify(ground: &Ground<'_>, drafts: &mut [Draft]) {
    let before = ground.snapshot;
    loop {
        let written = drafts.iter().filter(|draft| draft.is_whole());
        let mut all = Translation::default();
        for draft in written {
            all.objects.extend(draft.objects.iter().cloned());
            all.replaced
                .extend(draft.sources.iter().map(|(origin, _)| origin.clone()));
        }
        if all.replaced.is_empty() {
            return;
        }
        let (resources, wrong) = all.applied_to(ground.resources);
        let after = resolve::resolve(&resources, ground.options);
        let differing = differing(before, &after);
        if differing.is_empty() && wrong.is_empty() && !has_other_settings(before, &after) {
            return;
        }
        let mut found = false;
        for draft in drafts.iter_mut().filter(|draft| draft.is_whole()) {
            let own = draft
                .sources
                .iter()
                .flat_map(|(origin, _)| routed(before, origin));
            let differs = own
                .map(|(service, _)| &service.key)
                .any(|key| differing.contains(key));
            if differs {
                draft.note_of_all(
                    Outcome::NotTranslated,
                    "what could be written does not route all requests as it does",
                );
                found = true;
            }
        }
        for draft in drafts.iter_mut().filter(|draft| !found && draft.is_whole()) {
            draft.note_of_all(
                Outcome::NotTranslated,
                "what could be written changes other settings",
            );
        }
    }
}

/// The Services that do something else than before.
fn differing(before: &Snapshot, after: &Snapshot) -> BTreeSet<ObjectKey> {
    let said = |service: &Service| -> Vec<Vec<String>> {
        let ports = service.ports.iter();
        ports.map(|port| meaning(&service.key, port)).collect()
    };
    let same = |service: &&std::sync::Arc<Service>| {
        let other = after.services.get(&service.key);
        other.is_some_and(|other| said(service) == said(other))
    };
    let services = before.services.values();
    let differing = services.filter(|service| !same(service));
    differing.map(|service| service.key.clone()).collect()
}

/// Whether clusters are balanced otherwise, or led to otherwise.
fn has_other_settings(before: &Snapshot, after: &Snapshot) -> bool {
    let said = |snapshot: &Snapshot| {
        let clusters: Vec<_> = snapshot.clusters.keys().map(ToString::to_string).collect();
        format!(
            "{clusters:?} {:?} {:?}",
            snapshot.cluster_settings, snapshot.discoveries
        )
    };
    said(before) != said(after)
}
