//! Istio's ServiceEntry and WorkloadEntry (networking.istio.io) as written. All fields of the API are
//! here, those not honoured too, so that they can be named.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

/// `ServiceEntry.spec`, and the addresses that were allocated for it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntrySpec {
    /// Names in DNS; the first label may be `*`.
    pub hosts: Vec<String>,
    /// Virtual IPs, or blocks of them.
    pub addresses: Option<Vec<String>>,
    /// Ports, as clients dial them.
    pub ports: Option<Vec<EntryPort>>,
    /// `MESH_EXTERNAL` when absent.
    pub location: Option<String>,
    /// How endpoints are found; `NONE` when absent.
    pub resolution: Option<String>,
    /// Endpoints.
    pub endpoints: Option<Vec<WorkloadEntrySpec>>,
    /// Pods and WorkloadEntries of its own namespace that are its endpoints.
    pub workload_selector: Option<EntrySelector>,
    /// Namespaces that see it; `.` is its own, `*` all.
    pub export_to: Option<Vec<String>>,
    /// Names that certificates of its endpoints may have.
    pub subject_alt_names: Option<Vec<String>>,
    /// `status.addresses`: what the cluster allocated, with the host it is for; empty: for all.
    #[serde(skip)]
    pub allocated: Vec<(String, IpAddr)>,
}

/// One item of `ports`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct EntryPort {
    pub number: u32,
    pub protocol: String,
    pub name: String,
    pub target_port: Option<u32>,
}

/// `workloadSelector`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EntrySelector {
    /// Labels that must match.
    pub labels: BTreeMap<String, String>,
}

/// `WorkloadEntry.spec`, and one item of a ServiceEntry's `endpoints`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntrySpec {
    /// An IP address, or a name in DNS.
    pub address: Option<String>,
    /// Its own port for each port of the ServiceEntry, by that port's name.
    pub ports: Option<BTreeMap<String, u32>>,
    /// Labels, for subsets and selectors.
    pub labels: Option<BTreeMap<String, String>>,
    /// The network it is in; not honoured.
    pub network: Option<String>,
    /// Region, zone and sub-zone; not honoured.
    pub locality: Option<String>,
    /// Its share beside the others'; 1 when absent.
    pub weight: Option<u32>,
    /// With the namespace, its identity.
    pub service_account: Option<String>,
}
