//! Endpoints that are found only while requests are served: by looking a name up, or because the client
//! dialled them (specs/istio-waypoint.md 4.2). Looks nothing up.

use std::sync::Arc;

use serde::Serialize;

use super::Labels;

/// How the endpoints of a cluster are found, beside those that the configuration lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Discovery {
    /// Names of DNS, looked up again when their answers expire.
    Names {
        /// The names.
        names: Vec<NamedEndpoint>,
        /// Of an answer only the first address counts (`DNS_ROUND_ROBIN`).
        first_only: bool,
    },
    /// The name that the request asks for, looked up with the first request for it (`DYNAMIC_DNS`).
    RequestedHost {
        /// The end that the name must have, with a dot in front.
        suffix: Arc<str>,
        /// The port of its addresses.
        port: u16,
    },
    /// The address that the client dialled (`NONE`).
    DialledAddress {
        /// In place of the port that was dialled.
        port: u16,
    },
}

/// A name whose addresses are endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedEndpoint {
    /// The name, in lower case and without a dot at the end.
    pub name: Arc<str>,
    /// The port of its addresses.
    pub port: u16,
    /// The share of each beside other endpoints'; at least 1.
    pub weight: u32,
    /// Labels, for subsets.
    pub labels: Arc<Labels>,
}

impl Discovery {
    /// Whether a request may ask for a name, given in lower case: it lies inside of the wildcard.
    pub fn admits(&self, name: &str) -> bool {
        match self {
            Self::RequestedHost { suffix, .. } => {
                name.len() > suffix.len() && name.ends_with(&**suffix)
            }
            _ => true,
        }
    }
}
