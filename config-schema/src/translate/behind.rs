//! Which pods Services lead to, listed or not: whoever no EndpointSlice lists is called once one does, at a port
//! that nobody knows yet, and what was written without it would leave it open. Decides nothing of policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::origin::ObjectKey;
use crate::resources::kube::{EndpointSliceSpec, PodSpec, ServiceSpec};
use crate::resources::{Broken, Loaded, Object, Resources};
use crate::snapshot::{ClusterKey, Label, LabelView, Service, Snapshot};

type Written<T> = Arc<Object<T>>;

/// Pods and Services, each with the others.
#[derive(Default)]
pub(super) struct Behind {
    /// The Services that lead to a pod, or will.
    services: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Services of which a pod is not called on every port yet, and why.
    unready: BTreeMap<ObjectKey, String>,
    /// Services with a selector, and without any pod.
    empty: Vec<ObjectKey>,
}

impl Behind {
    pub fn new(resources: &Resources, snapshot: &Snapshot) -> Self {
        let mut behind = Self::default();
        // Endpoints of ServiceEntries, too.
        for (key, endpoints) in &snapshot.clusters {
            for pod in endpoints.iter().filter_map(|e| e.workload.as_ref()) {
                behind.link(&pod.key, &key.service);
            }
        }
        let slices = by_service(resources);
        let pods = by_namespace(resources);
        for object in resources.services.values().filter_map(Loaded::object) {
            let key = &object.origin.key;
            let own = slices.get(key).map_or(&[][..], Vec::as_slice);
            let around = pods.get(&key.namespace).map_or(&[][..], Vec::as_slice);
            behind.add(object, own, around, snapshot);
        }
        behind
    }

    fn link(&mut self, pod: &ObjectKey, service: &ObjectKey) {
        let services = self.services.entry(pod.clone()).or_default();
        services.insert(service.clone());
    }

    fn add(
        &mut self,
        object: &Written<ServiceSpec>,
        slices: &[&Written<EndpointSliceSpec>],
        around: &[&Written<PodSpec>],
        snapshot: &Snapshot,
    ) {
        let key = &object.origin.key;
        let by_label = around.iter().filter(|pod| is_selected(&object.spec, pod));
        let mut members: BTreeSet<ObjectKey> = by_label.map(|p| p.origin.key.clone()).collect();
        let endpoints = || slices.iter().flat_map(|slice| &slice.spec.endpoints);
        for endpoint in endpoints() {
            let by_address = endpoint.addresses.first();
            let by_address = by_address.and_then(|address| snapshot.workloads.get(address));
            let pod = endpoint.pod.clone();
            members.extend(pod.or_else(|| by_address.map(|pod| pod.key.clone())));
        }
        for pod in &members {
            self.link(pod, key);
        }
        if members.is_empty() && object.spec.has_selector() {
            self.empty.push(key.clone());
        }
        let Some(service) = snapshot.services.get(key) else {
            return;
        };
        let late = members.iter().find_map(|pod| {
            let port = first_port_without(service, pod, snapshot)?;
            Some(format!(
                "Pod {pod} behind Service {key} is no endpoint of its port {port}: translate once it is"
            ))
        });
        self.unready.extend(late.map(|why| (key.clone(), why)));
    }

    /// The Services that lead to a pod, or will once it is ready.
    pub fn services(&self, pod: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.services.get(pod).into_iter().flatten()
    }

    /// Why it is not known yet who is behind which port of a Service.
    pub fn unready(&self, service: &ObjectKey) -> Option<&String> {
        self.unready.get(service)
    }

    /// Services with a selector to which no pod belongs now.
    pub fn without_pods(&self) -> impl Iterator<Item = &ObjectKey> {
        self.empty.iter()
    }
}

/// Every EndpointSlice, by its Service.
fn by_service(resources: &Resources) -> BTreeMap<ObjectKey, Vec<&Written<EndpointSliceSpec>>> {
    let mut slices: BTreeMap<ObjectKey, Vec<_>> = BTreeMap::new();
    for slice in resources
        .endpoint_slices
        .values()
        .filter_map(Loaded::object)
    {
        let namespace = &*slice.origin.key.namespace;
        let key = ObjectKey::new(namespace, &*slice.spec.service_name);
        slices.entry(key).or_default().push(slice);
    }
    slices
}

/// Every Pod that runs, or will.
fn by_namespace(resources: &Resources) -> BTreeMap<Arc<str>, Vec<&Written<PodSpec>>> {
    let mut pods: BTreeMap<Arc<str>, Vec<_>> = BTreeMap::new();
    for pod in running(resources) {
        let namespace = pod.origin.key.namespace.clone();
        pods.entry(namespace).or_default().push(pod);
    }
    pods
}

/// Pods that have not ended.
pub(super) fn running(resources: &Resources) -> impl Iterator<Item = &Written<PodSpec>> {
    let pods = resources.pods.values().filter_map(Loaded::object);
    pods.filter(|pod| !pod.spec.finished)
}

fn is_selected(service: &ServiceSpec, pod: &Written<PodSpec>) -> bool {
    let mut labels = service.selector.iter();
    service.has_selector()
        && !service.external_name
        && labels.all(|(key, value)| pod.meta.labels.get(key) == Some(value))
}

fn first_port_without(service: &Service, pod: &ObjectKey, snapshot: &Snapshot) -> Option<u16> {
    let mut numbers = service.ports.iter().map(|port| port.number);
    numbers.find(|number| {
        let key = ClusterKey::new(service.key.clone(), *number);
        let endpoints = snapshot.clusters.get(&key).into_iter();
        let mut endpoints = endpoints.flat_map(|endpoints| endpoints.iter());
        let is_it = |w: &Arc<crate::snapshot::Workload>| w.key == *pod;
        !endpoints.any(|endpoint| endpoint.workload.as_ref().is_some_and(is_it))
    })
}

/// What is known of a pod that a Service would select, of which there is none: the labels it asks for.
pub(super) fn label_to_come<'l>(
    selector: &'l [(Arc<str>, Arc<str>)],
    namespace: &'l str,
    key: &str,
) -> Label<'l> {
    let asked = selector.iter().find(|(name, _)| **name == *key);
    let view = LabelView {
        namespace: Some(namespace),
        ..LabelView::default()
    };
    asked.map_or_else(|| view.of_pod(key), |(_, value)| Label::Value(value))
}

/// The first object that tells who is behind what, and can not be read.
pub(super) fn unread(resources: &Resources) -> Option<String> {
    fn of<T>(objects: &BTreeMap<ObjectKey, Loaded<T>>) -> impl Iterator<Item = &Arc<Broken>> {
        objects.values().filter_map(|loaded| match loaded {
            Loaded::Broken(broken) => Some(broken),
            Loaded::Good(_) | Loaded::KeptLastGood(_) => None,
        })
    }
    let r = resources;
    let mut all = of(&r.services)
        .chain(of(&r.endpoint_slices))
        .chain(of(&r.pods))
        .chain(of(&r.namespaces))
        .chain(of(&r.workload_entries))
        .chain(of(&r.service_entries))
        .chain(of(&r.kube_network_policies));
    let broken = all.next()?;
    Some(format!(
        "{} can not be read, so that it is not known who is behind what: {}",
        broken.origin, broken.reason
    ))
}
