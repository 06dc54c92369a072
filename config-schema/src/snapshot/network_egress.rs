//! The egress part of network policies: whose it is, and what the clients it selects may be after.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use super::{ClusterKey, NetworkSubject, Workload};
use crate::origin::ObjectKey;

/// The policies of clients, by what is known of a client. A client without an entry has none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Egress {
    /// Of workloads by their addresses. Those to which the same policies apply share a subject.
    #[serde(serialize_with = "super::by_text")]
    pub clients: FxHashMap<IpAddr, Arc<NetworkSubject>>,
    /// Of clients without a known Pod, by the namespace of their identity; of every namespace that is
    /// known, `None` where no policy may be for them.
    pub namespaces: BTreeMap<Arc<str>, Option<Arc<NetworkSubject>>>,
    /// Of such clients in any other namespace.
    pub elsewhere: Option<Arc<NetworkSubject>>,
    /// Of clients of which not even the namespace is known.
    pub unidentified: Option<Arc<NetworkSubject>>,
    /// What is behind each service port. Empty without policies for egress.
    #[serde(skip)]
    pub destinations: BTreeMap<ClusterKey, Arc<[Destination]>>,
    /// The workloads that are served by their own addresses.
    #[serde(skip)]
    pub workloads: FxHashMap<IpAddr, Destination>,
}

impl Egress {
    /// Whether no policy is for anybody's egress.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
            && self.namespaces.values().all(Option::is_none)
            && self.elsewhere.is_none()
            && self.unidentified.is_none()
    }

    /// Every set of policies that is for somebody, once.
    pub fn subjects(&self) -> impl Iterator<Item = &Arc<NetworkSubject>> {
        let nameless = self.namespaces.values().flatten();
        let nameless = nameless.chain(&self.elsewhere).chain(&self.unidentified);
        let all = self.clients.values().chain(nameless);
        let mut seen: FxHashSet<*const NetworkSubject> = FxHashSet::default();
        all.filter(move |subject| seen.insert(Arc::as_ptr(subject)))
    }

    /// Whether policies may be for a client. Not whether they allow anything.
    pub fn may_be_for(&self, address: IpAddr, namespace: Option<&str>) -> bool {
        let by_namespace = match namespace.map(|namespace| self.namespaces.get(namespace)) {
            Some(Some(known)) => known.is_some(),
            Some(None) => self.elsewhere.is_some(),
            None => self.unidentified.is_some(),
        };
        by_namespace || self.clients.contains_key(&address.to_canonical())
    }
}

/// What requests to a service port may reach: one workload of those that no policy tells apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// Its address, as far as it is known before a request is sent.
    pub address: DestinationAddress,
    /// The port its application listens on. `None`: whatever is dialled.
    pub port: Option<u16>,
    /// The Pod.
    pub workload: Option<Arc<Workload>>,
    /// Without a Pod: where it is.
    pub place: DestinationPlace,
    /// The host of a ServiceEntry that leads to it: its name, or a wildcard (`*.example.com`) inside of
    /// which the request's host is.
    pub host: Option<Arc<str>>,
    /// The Services it is behind. Empty unless a policy asks for it.
    pub services: Vec<ObjectKey>,
}

/// What is known of the address of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationAddress {
    /// It is this one.
    At(IpAddr),
    /// The one that the client dials (`NONE`).
    Dialled,
    /// Any of one family: DNS says which. Hosts found by name stand once for each.
    Found(Family),
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Where a destination is of which no Pod is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationPlace {
    /// In the cluster, behind a Service of this namespace with a selector: some Pod of it.
    Inside(Arc<str>),
    /// At an address that a Service without a selector names: no Pod.
    Outside,
}
