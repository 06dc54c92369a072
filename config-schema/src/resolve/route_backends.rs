//! backendRefs of HTTPRoute rules (specs/istio-waypoint.md 4.3, specs/gateway-api.md 1.4): services of
//! any namespace, for a mesh asks for no ReferenceGrant.

use std::collections::BTreeMap;

use super::route_filters;
use super::route_rules::Reading;
use crate::diagnostics::Code;
use crate::origin::ObjectKey;
use crate::resources::gateway_api::HttpRouteRulesBackendRefs as BackendRef;
use crate::resources::{Loaded, Resources};
use crate::snapshot::{Backend, BackendTarget, ClusterKey, Service};

/// The API's limit, so that a sum of weights fits.
pub(super) const WEIGHT_MAX: i32 = 1_000_000;

/// Looks up what backendRefs point to.
pub(super) struct Backends<'a> {
    resources: &'a Resources,
    services: &'a BTreeMap<ObjectKey, Service>,
}

/// Why a backendRef leads nowhere: the field at fault, the reason, what to do.
pub(super) struct Unresolved {
    pub field: &'static str,
    pub reason: String,
    pub hint: String,
}

/// A backendRef, of whatever field.
pub(super) struct Reference<'a> {
    pub group: Option<&'a str>,
    pub kind: Option<&'a str>,
    /// That of the route, if none was written.
    pub namespace: &'a str,
    pub name: &'a str,
    pub port: Option<i32>,
}

impl<'a> Backends<'a> {
    /// Looks backends up among these services.
    pub fn new(resources: &'a Resources, services: &'a BTreeMap<ObjectKey, Service>) -> Self {
        Self {
            resources,
            services,
        }
    }

    /// The weighted targets of a rule. One that can not be resolved keeps its share.
    pub fn read(
        &self,
        written: &[BackendRef],
        context: &route_filters::Context<'_>,
        reading: &mut Reading<'_>,
    ) -> Vec<Backend> {
        let mut backends = Vec::with_capacity(written.len());
        for (index, reference) in written.iter().enumerate() {
            let at = format!("{}.backendRefs[{index}]", reading.path);
            let weight = reference.weight.unwrap_or(1);
            // Weight 0 takes no traffic, so that it does not matter where it leads (1.4); but sessions
            // that began there stay there (GEP-1619, "Traffic Splitting").
            if weight == 0 && !context.sessions {
                continue;
            }
            if !(0..=WEIGHT_MAX).contains(&weight) {
                let message = format!("weight {weight} is not between 0 and {WEIGHT_MAX}");
                reading.fail(Code::BadValue, &format!("{at}.weight"), message);
                continue;
            }
            let target = match self.target(&Reference {
                group: reference.group.as_deref(),
                kind: reference.kind.as_deref(),
                namespace: reference
                    .namespace
                    .as_deref()
                    .unwrap_or(context.own_namespace),
                name: &reference.name,
                port: reference.port,
            }) {
                Ok(cluster) => BackendTarget::Cluster(cluster),
                Err(_) if weight == 0 => continue,
                Err(unresolved) => {
                    let path = format!("{at}.{}", unresolved.field);
                    reading.fail_share(&path, &unresolved.reason, &unresolved.hint);
                    BackendTarget::Invalid(unresolved.reason.into())
                }
            };
            let filters = reference.filters.as_deref().unwrap_or_default();
            backends.push(Backend {
                weight: weight.unsigned_abs(),
                target,
                filters: route_filters::read_backend(filters, context, &at, reading),
            });
        }
        backends
    }

    /// The service port that a reference names.
    pub fn target(&self, reference: &Reference<'_>) -> Result<ClusterKey, Unresolved> {
        let unresolved = |field, reason: String, hint: &str| Unresolved {
            field,
            reason,
            hint: hint.to_owned(),
        };
        let group = reference.group.unwrap_or("");
        let kind = reference.kind.unwrap_or("Service");
        if !matches!((group, kind), ("" | "core", "Service")) {
            let reason = format!("a backend of kind {kind} (group '{group}') is not supported");
            return Err(unresolved("kind", reason, "name a Service"));
        }
        let key = ObjectKey {
            namespace: reference.namespace.into(),
            name: reference.name.into(),
        };
        let service = match self.resources.services.get(&key) {
            None => {
                let reason = format!("Service {key} does not exist");
                let hint = "create it, correct the name or namespace, or give it weight 0";
                return Err(unresolved("name", reason, hint));
            }
            Some(Loaded::Broken(broken)) => {
                let reason = format!("Service {key} can not be read: {}", broken.reason);
                return Err(unresolved("name", reason, "mend the Service"));
            }
            Some(Loaded::Good(service) | Loaded::KeptLastGood(service)) => service,
        };
        if service.spec.external_name {
            let reason = format!("Service {key} is an ExternalName, which has no endpoints");
            return Err(unresolved("name", reason, "name a Service with endpoints"));
        }
        let declared = self.services.get(&key).map(|s| s.ports.as_slice());
        let declared = declared.unwrap_or_default();
        let numbers: Vec<String> = declared.iter().map(|p| p.number.to_string()).collect();
        let hint = format!("it has: {}", numbers.join(", "));
        let Some(port) = reference.port else {
            let reason = format!("the port of Service {key} is missing");
            return Err(unresolved("port", reason, &hint));
        };
        match declared.iter().find(|p| i32::from(p.number) == port) {
            Some(found) => Ok(ClusterKey::new(key, found.number)),
            None => {
                let reason = format!("Service {key} has no port {port}");
                Err(unresolved("port", reason, &hint))
            }
        }
    }
}
