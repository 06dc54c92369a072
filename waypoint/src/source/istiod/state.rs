//! What istiod has told until now: resources by name, with their versions, within limits. Asks nobody, and
//! publishes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cairn_config_schema::discovered::{Discovered, DiscoveredWorkload};

use super::messages::{ADDRESS_TYPE, DeltaDiscoveryResponse, Resource};
use super::read::{self, Texts, Told};
use crate::limits::{
    XDS_REFUSED_TOLD_MAX, XDS_RESOURCES_MAX, XDS_RESUME_BYTES_MAX, XDS_STATE_BYTES_MAX,
};

/// How much may be known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub resources: usize,
    pub bytes: usize,
    /// Of names and versions that are told when a stream begins.
    pub resume_bytes: usize,
}

impl Bounds {
    pub const OURS: Self = Self {
        resources: XDS_RESOURCES_MAX,
        bytes: XDS_STATE_BYTES_MAX,
        resume_bytes: XDS_RESUME_BYTES_MAX,
    };
}

/// Everything that was told.
#[derive(Debug)]
pub(super) struct State {
    known: BTreeMap<Arc<str>, Known>,
    texts: Texts,
    bytes: usize,
    bounds: Bounds,
    allow_local: bool,
    /// What the uid of a Pod of the own cluster begins with.
    own_pods: String,
    /// Those of which the last version was refused.
    refused: Refused,
    services: usize,
}

/// Whole names, as istiod says that they are gone and has to be asked for them.
#[derive(Debug, Default)]
struct Refused {
    names: BTreeSet<Arc<str>>,
    bytes: usize,
}

impl Refused {
    /// Notes a name, if there is room.
    fn insert(&mut self, name: &str, bounds: Bounds) {
        let fits =
            self.names.len() < bounds.resources && self.bytes + name.len() <= bounds.resume_bytes;
        if fits && self.names.insert(name.into()) {
            self.bytes += name.len();
        }
    }

    fn remove(&mut self, name: &str) {
        if self.names.remove(name) {
            self.bytes -= name.len();
        }
    }

    fn retain(&mut self, stays: impl Fn(&str) -> bool) {
        self.names.retain(|name| stays(name));
        self.bytes = self.names.iter().map(|name| name.len()).sum();
    }
}

#[derive(Debug)]
struct Known {
    version: Box<str>,
    /// As it was sent.
    bytes: usize,
    told: Told,
}

impl Known {
    fn workload(&self) -> Option<&Arc<DiscoveredWorkload>> {
        match &self.told {
            Told::Workload(workload) => Some(workload),
            Told::Service | Told::Answered(..) => None,
        }
    }
}

/// What an answer came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    /// A workload, or who may answer for a service, is new, different or gone; but for Pods of the own cluster.
    pub changed: bool,
    /// The same of Pods of the own cluster, of which the API server tells, too.
    pub own_changed: bool,
    /// Those of them that are new or different.
    pub own: Vec<Arc<DiscoveredWorkload>>,
    /// Why part of it was refused, with names. `None`: nothing was.
    pub refused: Option<String>,
}

impl State {
    /// `cluster`: what istiod calls the own one.
    pub fn new(bounds: Bounds, allow_local: bool, cluster: &str) -> Self {
        Self {
            own_pods: format!("{cluster}//Pod/"),
            known: BTreeMap::new(),
            texts: Texts::default(),
            bytes: 0,
            bounds,
            allow_local,
            refused: Refused::default(),
            services: 0,
        }
    }

    /// Names and versions of what is known, for istiod to tell only what is different; with no version what was
    /// refused at first sight, for it to tell that anew, or that it is gone. `None`: so many that the request would be
    /// too large for it; then its first answer is everything.
    pub fn versions(&self) -> Option<HashMap<String, String>> {
        let known = self.known.iter();
        let known = known.map(|(name, known)| (name, &*known.version));
        let refused = self.refused.names.iter().filter(|name| !name.is_empty());
        let refused = refused.filter(|name| !self.known.contains_key(*name));
        let all = known.chain(refused.map(|name| (name, "")));
        // Each entry of a map costs a few bytes more than its texts.
        let bytes = |(name, version): (&Arc<str>, &str)| name.len() + version.len() + 8;
        let sum: usize = all.clone().map(bytes).sum();
        (sum <= self.bounds.resume_bytes).then(|| {
            all.map(|(name, version)| (name.to_string(), version.to_owned()))
                .collect()
        })
    }

    /// Takes an answer; `is_whole`: it tells of everything there is. What can not be taken leaves the last good
    /// version as it is.
    pub fn apply(&mut self, response: DeltaDiscoveryResponse, is_whole: bool) -> Applied {
        if response.type_url != ADDRESS_TYPE {
            return Applied {
                refused: Some(format!("{} was not asked for", response.type_url)),
                ..Applied::default()
            };
        }
        let mut applied = Applied::default();
        for name in &response.removed_resources {
            self.remove(name, &mut applied);
        }
        if is_whole {
            let told: HashSet<&str> = response.resources.iter().map(|r| r.name.as_str()).collect();
            let gone = self.known.keys().filter(|name| !told.contains(&***name));
            for name in gone.cloned().collect::<Vec<_>>() {
                self.remove(&name, &mut applied);
            }
            self.refused.retain(|name| told.contains(name));
        }
        let mut refused: Vec<String> = Vec::new();
        for resource in response.resources {
            match self.take(&resource, &mut applied) {
                Ok(()) => {
                    self.refused.remove(&resource.name);
                }
                Err(reason) => {
                    let shown: String = resource.name.escape_debug().take(200).collect();
                    refused.push(format!("{shown}: {reason}"));
                    self.refused.insert(&resource.name, self.bounds);
                }
            }
        }
        self.texts.sweep();
        applied.refused = (!refused.is_empty()).then(|| told(&refused));
        applied
    }

    fn remove(&mut self, name: &str, applied: &mut Applied) {
        self.refused.remove(name);
        let Some(gone) = self.known.remove(name) else {
            return;
        };
        self.bytes -= gone.bytes;
        self.services -= usize::from(gone.workload().is_none());
        match name.starts_with(&self.own_pods) {
            true => applied.own_changed = true,
            false => applied.changed |= gone.told != Told::Service,
        }
    }

    fn take(&mut self, resource: &Resource, applied: &mut Applied) -> Result<(), String> {
        let any = resource.resource.as_ref();
        let told = read::resource(&resource.name, any, self.allow_local, &mut self.texts)?;
        let (told, own) = match told {
            Told::Workload(workload) if resource.name.starts_with(&self.own_pods) => {
                let own = Arc::new(what_counts_of_own(&workload));
                (Told::Workload(own.clone()), Some(own))
            }
            other => (other, None),
        };
        let bytes = any.map_or(0, |any| any.value.len()) + resource.name.len();
        let old = self.known.get(&*resource.name);
        let old_bytes = old.map_or(0, |old| old.bytes);
        if old.is_none() && self.known.len() >= self.bounds.resources {
            return Err(format!(
                "there are {} resources already",
                self.bounds.resources
            ));
        }
        if self.bytes - old_bytes + bytes > self.bounds.bytes {
            return Err(format!(
                "all resources together have {} bytes already",
                self.bounds.bytes
            ));
        }
        let nothing = Told::Service;
        let before = old.map_or(&nothing, |old| &old.told);
        let is_new = *before != told;
        let was_service = old.is_some_and(|old| old.workload().is_none());
        let known = Known {
            version: resource.version.as_str().into(),
            bytes,
            told,
        };
        self.services += usize::from(known.workload().is_none());
        self.services -= usize::from(was_service);
        self.bytes = self.bytes - old_bytes + bytes;
        self.known.insert(resource.name.as_str().into(), known);
        match own.filter(|_| is_new) {
            Some(own) => {
                applied.own_changed = true;
                applied.own.push(own);
            }
            None => applied.changed |= is_new && !resource.name.starts_with(&self.own_pods),
        }
        Ok(())
    }

    /// What is known, for resolving.
    pub fn discovered(&self, cluster: Arc<str>, network: Arc<str>) -> Discovered {
        let mut discovered = Discovered {
            cluster,
            network,
            ..Discovered::default()
        };
        for (name, known) in &self.known {
            match &known.told {
                Told::Workload(workload) => {
                    let workloads = &mut discovered.workloads;
                    workloads.insert(name.clone(), workload.clone());
                }
                Told::Answered(service, identities) => {
                    let all = &mut discovered.identities;
                    all.insert(service.clone(), identities.clone());
                }
                Told::Service => {}
            }
        }
        discovered
    }

    /// Workloads, services, refused ones, and the bytes of all.
    pub fn counts(&self) -> Counts {
        Counts {
            workloads: self.known.len() - self.services,
            services: self.services,
            refused: self.refused.names.len(),
            bytes: self.bytes,
        }
    }
}

/// What counts of a Pod of the own cluster, of which its objects say the rest (docs/kube-source.md): whether it is ready,
/// what it is behind and what it is called must not cost anything a second time.
fn what_counts_of_own(told: &DiscoveredWorkload) -> DiscoveredWorkload {
    DiscoveredWorkload {
        name: told.name.clone(),
        namespace: told.namespace.clone(),
        cluster: told.cluster.clone(),
        network: told.network.clone(),
        addresses: told.addresses.clone(),
        tunnel: told.tunnel,
        trust_domain: told.trust_domain.clone(),
        service_account: told.service_account.clone(),
        wants_proxy_protocol: told.wants_proxy_protocol,
        locality: told.locality.clone(),
        host_network: told.host_network,
        ..DiscoveredWorkload::default()
    }
}

/// How much is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub workloads: usize,
    pub services: usize,
    pub refused: usize,
    pub bytes: usize,
}

/// The first of them, and how many there are.
fn told(refused: &[String]) -> String {
    let first: Vec<&str> = refused
        .iter()
        .take(XDS_REFUSED_TOLD_MAX)
        .map(String::as_str)
        .collect();
    match refused.len() - first.len() {
        0 => first.join("; "),
        more => format!("{}; and {more} more", first.join("; ")),
    }
}

#[cfg(test)]
mod tests;
