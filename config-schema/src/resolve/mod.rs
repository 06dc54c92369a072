//! Resolve: a pure function from resources to a [`Snapshot`]. Every reference is followed, or turned
//! into a finding and a safe outcome. This file says in which order; the files beside it do the work.

mod attachment;
mod authentication;
mod authentication_rules;
mod backend_tls;
mod backend_traffic_policies;
mod calico_peers;
mod calico_rules;
mod calico_selector;
mod calico_sets;
mod calico_staged;
mod cilium_http;
mod cilium_peers;
mod cilium_ports;
mod cilium_rules;
mod client_tls;
mod destination_hosts;
mod destination_rules;
mod discovered;
mod dry_run;
mod elsewhere;
mod elsewhere_claims;
mod elsewhere_endpoints;
mod elsewhere_gateways;
mod elsewhere_left_out;
mod endpoints;
mod entry_endpoints;
mod entry_hosts;
mod envoy_config;
pub(crate) mod grpc_routes;
mod kube_network;
mod mesh;
mod network;
mod network_calico;
mod network_cilium;
mod network_egress;
mod network_elsewhere;
mod paths;
mod placement;
mod policies;
mod policy_conditions;
mod policy_rules;
mod policy_targets;
mod policy_values;
mod providers;
mod route_backends;
mod route_consumers;
mod route_cors;
mod route_external_auth;
mod route_filters;
mod route_kinds;
mod route_matches;
mod route_mirrors;
mod route_parents;
mod route_rules;
mod route_traffic;
mod routes;
mod service_entries;
mod services;
mod session_persistence;
pub(crate) mod stream_routes;
mod telemetry;
mod telemetry_levels;
mod telemetry_providers;
mod traffic_limits;
mod traffic_localities;
mod traffic_policy;
mod traffic_policy_values;
mod trust_domains;
mod unenforced;
mod virtual_actions;
mod virtual_cors;
mod virtual_delegates;
mod virtual_destinations;
mod virtual_faults;
mod virtual_matches;
mod virtual_rules;
pub(crate) mod virtual_services;
mod virtual_streams;
mod virtual_traffic;
mod waypoint;
mod workload_entries;
mod workloads;
mod ztunnel;

pub(crate) use envoy_config::prefix as envoy_config_prefix;
pub(crate) use network::view as label_view;
pub(crate) use paths::canonical as canonical_path;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::diagnostics::{Code, Diagnostic, Location};
use crate::discovered::Discovered;
use crate::limits::DIAGNOSTICS_PER_OBJECT_MAX;
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resources::{Broken, Resources};
use crate::snapshot::{
    Authentications, ClusterKey, Discovery, Endpoint, Locality, LogFormat, Mesh, Service, Snapshot,
    TrafficLimits, Waypoint,
};
use crate::status::{self, ObjectStatus};

/// What resolving needs to know beside the resources.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The Gateway to serve (`--gateway`). `None`: the only one of a waypoint class.
    pub gateway: Option<ObjectKey>,
    /// Trust domain (`--trust-domain`), in place of that of the ConfigMap `istio`.
    pub trust_domain: Option<String>,
    /// DNS suffix of services; `cluster.local` when absent.
    pub cluster_domain: Option<String>,
    /// Name of the node this process runs on (`NODE_NAME`), for `internalTrafficPolicy: Local` and for
    /// balancing by place.
    pub node: Option<String>,
    /// Where this process runs (`--locality`).
    pub locality: Option<Locality>,
    /// Who resolves is not the waypoint, and does not know where its pods are, each of which does.
    pub is_elsewhere: bool,
    /// Strict mode (`--strict`), whatever the Gateway says.
    pub strict: bool,
    /// Format of the access log (`--access-log-format`), in place of that of the ConfigMap `istio`.
    pub access_log_format: Option<LogFormat>,
    /// The network of this waypoint (`--network`). `None`: the default one.
    pub network: Option<String>,
    /// What istiod told of workloads (`--discovery istiod`). `None`: it is not asked, or has not told yet.
    pub discovered: Option<Arc<Discovered>>,
    /// Version of the snapshot.
    pub version: u64,
}

impl Options {
    /// The network of this waypoint; empty: the default one.
    fn own_network(&self) -> &str {
        let told = || self.discovered.as_ref().map(|told| &*told.network);
        self.network.as_deref().or_else(told).unwrap_or_default()
    }
}

/// An object that can not be read, and what that means.
fn unreadable(broken: &Broken, effect: impl Into<String>) -> Diagnostic {
    let message = format!("{} can not be read: {}", broken.origin, broken.reason);
    Diagnostic::error(Code::Unreadable, message)
        .with_effect(effect)
        .at(broken.location.clone())
        .of(broken.origin.clone(), "")
}

/// What a step has to say; sorted and cleared of repetitions at the end.
type Findings = Vec<Diagnostic>;

/// Endpoints by service port.
type Clusters = BTreeMap<ClusterKey, Arc<[Endpoint]>>;

/// Resolves the whole configuration for one waypoint.
pub fn resolve(resources: &Resources, options: &Options) -> Snapshot {
    let (mut snapshot, mut findings) = resolved(resources, options);
    worst_first(&mut findings);
    snapshot.diagnostics = findings;
    snapshot
}

/// The same, with the status of every object that is ours to judge.
pub fn resolve_with_statuses(
    resources: &Resources,
    options: &Options,
) -> (Snapshot, Vec<ObjectStatus>) {
    let (mut snapshot, mut findings) = resolved(resources, options);
    let statuses = status::statuses(resources, &snapshot, &findings, options.gateway.as_ref());
    worst_first(&mut findings);
    snapshot.diagnostics = findings;
    (snapshot, statuses)
}

/// The snapshot without its findings, and all findings.
fn resolved(resources: &Resources, options: &Options) -> (Snapshot, Findings) {
    let mut findings = Findings::new();
    let (mesh, mesh_block) = mesh::resolve(resources, options, &mut findings);
    let (chosen, without_gateways) = serving(resources, options, mesh_block, &mut findings);
    let attachment = attachment::Attachment::new(resources, chosen.as_ref());
    let mut services = services::resolve(resources, &mesh, &attachment, &mut findings);
    let given = (resources, options, &mesh);
    let (pods, elsewhere) = workloads(given, &attachment, &services, &mut findings);
    let ground = service_entries::Ground {
        mesh: &mesh,
        attachment: &attachment,
        waypoint: chosen.as_ref().map(|chosen| &chosen.waypoint),
        pods: &pods,
        network: options.own_network(),
    };
    let (mut clusters, mut discoveries) =
        destinations(given, &ground, &elsewhere, &mut services, &mut findings);
    let mut waypoint = chosen.map(|chosen| chosen.waypoint);
    let settings = traffic(
        given,
        waypoint.as_ref(),
        &mut services,
        &mut clusters,
        &mut findings,
    );
    settings.discover(&clusters, &mut discoveries);
    elsewhere_endpoints::tell_of_subsets(&clusters, &mut findings);
    let (limits, authentications) = policy(
        resources,
        &mesh,
        waypoint.as_mut(),
        &mut services,
        &mut findings,
    );
    let strict = waypoint.as_ref().is_some_and(|waypoint| waypoint.strict);
    let network = network::resolve(
        resources,
        &mut clusters,
        &discoveries,
        &pods,
        &unenforced::Outdated::refused(resources, strict),
        &mut findings,
    );
    let targets = policy_targets::Targets::new(resources, &mesh, waypoint.as_ref(), &services);
    let telemetry = telemetry::resolve(&targets, options, &mut findings);
    let attached = unenforced::Attached {
        resources,
        mesh: &mesh,
        waypoint: waypoint.as_ref(),
        services: &services,
        clusters: &clusters,
        authentications: &authentications,
        network: &network,
    };
    let unenforced = attached.policies();
    if strict {
        unenforced::refuse(&unenforced, &mut services, &mut findings);
    }
    let snapshot = Snapshot {
        version: options.version,
        ztunnel: ztunnel::resolve(resources, &mesh),
        mesh,
        waypoint,
        without_gateways,
        services: shared(services),
        unidentified: endpoints::unidentified(resources, &pods),
        workloads: pods.by_address,
        clusters,
        discoveries,
        cluster_settings: settings.clusters,
        limits,
        network,
        kube_network: kube_network::resolve(resources, &mut findings),
        unenforced,
        authentications,
        telemetry,
        diagnostics: Vec::new(),
    };
    (snapshot, findings)
}

/// Every workload: pods and WorkloadEntries of this cluster, then what istiod tells of others.
fn workloads<'a>(
    (resources, options, mesh): (&Resources, &'a Options, &Mesh),
    attachment: &attachment::Attachment<'_>,
    services: &BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) -> (workloads::Pods, elsewhere_endpoints::Elsewhere<'a>) {
    let told = options.discovered.as_deref();
    let of_pods = discovered::OfPods::new(told);
    let mut pods = workloads::resolve(resources, mesh, attachment, &of_pods, findings);
    let place = (mesh, options.own_network());
    workload_entries::add(resources, place, attachment, &mut pods, findings);
    let ground = elsewhere::Ground {
        mesh,
        resources,
        services,
    };
    let elsewhere = elsewhere::join(told, &ground, &mut pods, findings);
    (pods, elsewhere)
}

/// As the data path holds them: endpoints and routes point at one and the same.
fn shared(services: BTreeMap<ObjectKey, Service>) -> BTreeMap<ObjectKey, Arc<Service>> {
    let services = services.into_iter();
    services
        .map(|(key, service)| (key, Arc::new(service)))
        .collect()
}

/// Endpoints of every service, ServiceEntries' included, and how more of them are found.
fn destinations(
    (resources, options, _): (&Resources, &Options, &Mesh),
    ground: &service_entries::Ground<'_>,
    elsewhere: &elsewhere_endpoints::Elsewhere<'_>,
    services: &mut BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) -> (Clusters, BTreeMap<ClusterKey, Arc<Discovery>>) {
    let mut clusters = endpoints::resolve(resources, options, services, ground.pods, findings);
    let entries = service_entries::resolve(resources, ground, services, findings);
    let places = (&*services, resources);
    let discoveries = entry_endpoints::resolve(&entries, places, ground, &mut clusters, findings);
    elsewhere.add_endpoints(resources, services, &mut clusters);
    (clusters, discoveries)
}

/// AuthorizationPolicies, attached; then TrafficPolicies, and whose tokens are taken.
fn policy(
    resources: &Resources,
    mesh: &Mesh,
    mut waypoint: Option<&mut Waypoint>,
    services: &mut BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) -> (Vec<Arc<TrafficLimits>>, Authentications) {
    let providers = providers::resolve(mesh::in_force(resources), services, findings);
    let of_policies = waypoint.as_deref_mut();
    policies::attach(resources, mesh, &providers, of_policies, services, findings);
    let waypoint = waypoint.as_deref();
    let limits = traffic_limits::resolve(resources, mesh, waypoint, services, findings);
    let authentications = authentication::attach(resources, mesh, waypoint, services, findings);
    (limits, authentications)
}

/// The waypoint to serve, and whether everything was read and no Gateway is there. The waypoint is
/// blocked where what could not be read may have denied.
fn serving<'a>(
    resources: &'a Resources,
    options: &Options,
    mesh_block: Option<Arc<str>>,
    findings: &mut Findings,
) -> (Option<waypoint::Chosen<'a>>, bool) {
    let mut chosen = waypoint::choose(resources, options, findings);
    let unreadable = waypoint::block_on_unreadable(resources, findings);
    let all_read = mesh_block.is_none() && unreadable.is_none();
    if let Some(chosen) = &mut chosen {
        let blocked = &mut chosen.waypoint.blocked;
        *blocked = blocked.take().or(mesh_block).or(unreadable);
    }
    (chosen, all_read && resources.gateways.is_empty())
}

/// Routes of both kinds, and how what they lead to is balanced.
fn traffic(
    (resources, options, mesh): (&Resources, &Options, &Mesh),
    waypoint: Option<&Waypoint>,
    services: &mut BTreeMap<ObjectKey, Service>,
    clusters: &mut BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    findings: &mut Findings,
) -> destination_rules::Settings {
    routes::attach(resources, mesh, waypoint, services, findings);
    let mut settings = destination_rules::resolve(resources, mesh, waypoint, services, findings);
    backend_tls::apply(resources, services, &mut settings, findings);
    backend_traffic_policies::apply(resources, services, &mut settings, findings);
    virtual_services::attach(
        resources,
        mesh,
        waypoint,
        services,
        clusters,
        &mut settings,
        findings,
    );
    envoy_config::attach(resources, mesh, services, clusters, &mut settings, findings);
    // Last: subsets are made of endpoints as they are.
    let own = placement::Own::find(options, clusters);
    placement::apply(resources, &own, &settings, clusters, findings);
    settings
}

/// Sorts findings worst first, then by place, object and text; drops repetitions, and what one
/// object has beyond the limit for each object, saying how many.
pub fn worst_first(findings: &mut Vec<Diagnostic>) {
    findings.sort_by(compare);
    findings.dedup();

    let mut seen: FxHashMap<Origin, usize> = FxHashMap::default();
    findings.retain(|finding| {
        let Some(object) = &finding.object else {
            return true;
        };
        if finding.code == Code::LimitExceeded {
            return true;
        }
        let count = seen.entry(object.clone()).or_default();
        *count += 1;
        *count <= DIAGNOSTICS_PER_OBJECT_MAX
    });
    let mut cut: Vec<Diagnostic> = seen
        .into_iter()
        .filter(|(_, count)| *count > DIAGNOSTICS_PER_OBJECT_MAX)
        .map(|(object, count)| {
            let more = count - DIAGNOSTICS_PER_OBJECT_MAX;
            Diagnostic::warning(
                Code::LimitExceeded,
                format!("{more} more findings on {object} are not shown"),
            )
            .of(object, "")
        })
        .collect();
    cut.sort_by(|a, b| a.message.cmp(&b.message));
    findings.extend(cut);
}

fn compare(a: &Diagnostic, b: &Diagnostic) -> Ordering {
    fn place(finding: &Diagnostic) -> (bool, Option<&Location>) {
        (finding.location.is_none(), finding.location.as_ref())
    }
    fn object(finding: &Diagnostic) -> Option<(Kind, &ObjectKey)> {
        finding.object.as_ref().map(|o| (o.kind, &o.key))
    }
    (b.severity.cmp(&a.severity))
        .then_with(|| place(a).cmp(&place(b)))
        .then_with(|| object(a).cmp(&object(b)))
        .then_with(|| a.path.cmp(&b.path))
        .then_with(|| a.code.cmp(&b.code))
        .then_with(|| a.message.cmp(&b.message))
        .then_with(|| a.effect.cmp(&b.effect))
}
