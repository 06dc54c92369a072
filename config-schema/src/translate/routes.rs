//! VirtualServices and CiliumEnvoyConfigs written as each other or as HTTPRoutes, from the routes they
//! mean. Whatever is written is resolved again in place of the original, and is kept only if every port
//! of every Service does the same as before.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::ground::Ground;
use super::report::{Draft, Outcome, Writing};
use super::route_rules::{Unsayable, meaning};
use super::{Target, Translation, envoy_config, gateway_route, upgrades, virtual_service};
use crate::diagnostics::Severity;
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
        unsayable.extend(warned_of(ground.snapshot, &origin));
        write(ground, target, &origin, &mut draft, &mut unsayable, out);
        unsayable.sort();
        unsayable.dedup();
        for why in unsayable {
            draft.note(&origin, "", Outcome::NotTranslated, why);
        }
        if draft.is_whole() {
            for path in upgrades::without_websockets(ground, &origin) {
                draft.note(&origin, path, Outcome::Wider, upgrades::WIDER);
            }
        }
        drafts.push(draft);
    }
    verify(ground, &mut drafts, out);
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

/// What the waypoint does not do as it is written: what it means there would be lost with what is written.
fn warned_of(snapshot: &Snapshot, origin: &Origin) -> Unsayable {
    let found = snapshot.diagnostics.iter().filter(|finding| {
        finding.severity > Severity::Info && finding.object.as_ref() == Some(origin)
    });
    let said = found.map(|finding| {
        let (path, message) = (&finding.path, &finding.message);
        format!("the waypoint does not do what is written at {path}: {message}")
    });
    said.collect()
}

/// Why words of `retryOn` are not translated: the waypoint repeats the same after `reset` as after
/// `reset-before-request`, after which Envoy repeats less. `5xx` is both.
fn resets(retry_on: &str) -> Option<String> {
    let has = |wanted: &str| retry_on.split(',').any(|word| word.trim() == wanted);
    let lost = has("reset-before-request") && !has("reset") && !has("5xx");
    lost.then(|| "`reset-before-request` is not told apart from `reset`".to_owned())
}

/// What of a VirtualService is not routes of requests to Services of the mesh.
fn of_virtual_service(spec: &VirtualServiceSpec) -> Unsayable {
    let http = || spec.http.iter().flatten();
    let gateways = spec.gateways.as_deref().unwrap_or_default();
    let hosts = || spec.hosts.iter().flatten();
    let found = [
        (
            spec.hosts.as_ref().is_none_or(Vec::is_empty),
            "it has no hosts: it is for others that delegate to it",
        ),
        (
            hosts().any(|host| host.starts_with('*')),
            "it is for Services that are made later, too: a host begins with `*`",
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
    let retries = http().filter_map(|rule| rule.retries.as_ref());
    let words = retries.filter_map(|retries| retries.retry_on.as_deref());
    (there.map(|(_, why)| why.to_owned()))
        .chain(words.filter_map(resets))
        .collect()
}

/// What of a CiliumEnvoyConfig is not routes of requests.
fn of_envoy_config(spec: &CiliumEnvoyConfigSpec) -> Unsayable {
    let mut unsayable = Unsayable::new();
    let mut listens = false;
    for resource in spec.resources.iter().flatten() {
        unsayable.extend(retry_words_in(resource).into_iter().filter_map(resets));
        let kind = resource
            .get("@type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let kind = kind.rsplit('.').next().unwrap_or_default();
        listens |= kind == "Listener";
        if !matches!(kind, "Listener" | "RouteConfiguration") {
            unsayable.push(format!("a resource of type {kind} is not translated"));
        }
    }
    if !listens {
        unsayable.push("without a Listener its routes are not in force at Cilium".into());
    }
    if spec.node_selector.is_some() {
        unsayable.push("nodeSelector is not translated".into());
    }
    unsayable
}

/// The texts of `retryOn`, wherever in a resource of Envoy.
fn retry_words_in(resource: &Value) -> Vec<&str> {
    match resource {
        Value::Object(fields) => {
            let below = fields.iter().flat_map(|(name, value)| match value {
                Value::String(words) if name == "retryOn" || name == "retry_on" => vec![&**words],
                other => retry_words_in(other),
            });
            below.collect()
        }
        Value::Array(items) => items.iter().flat_map(retry_words_in).collect(),
        _ => Vec::new(),
    }
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

/// Whether a port has routes of another object, but for those of callers of one namespace.
fn has_other_routes(service: &Service, port: u16, origin: &Origin) -> bool {
    let ports = service.ports.iter().filter(|p| p.number == port);
    let mut routes = ports.flat_map(|port| &port.routes);
    routes.any(|route| {
        let namespace = &route.origin.key.namespace;
        let is_of_service = namespace.is_empty() || *namespace == service.key.namespace;
        route.origin != *origin && is_of_service
    })
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
            if has_other_routes(service, port, origin) {
                unsayable.push(
                    "another object has routes for the same port: one CiliumEnvoyConfig is in force for a port, and rules of HTTPRoutes are mixed"
                        .into(),
                );
            }
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
fn verify(ground: &Ground<'_>, drafts: &mut [Draft], out: &Writing<'_, '_>) {
    let before = ground.snapshot;
    loop {
        let written = drafts.iter().filter(|draft| !out.forbids(draft));
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
        for draft in drafts.iter_mut().filter(|draft| !out.forbids(draft)) {
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
        let others = drafts.iter_mut();
        for draft in others.filter(|draft| !found && !out.forbids(draft)) {
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
