//! TLS of our own towards endpoints, inside the tunnel where there is one (specs/istio-waypoint.md 4.7).
//! Says what is wanted; files are read and certificates checked elsewhere.

use std::sync::Arc;

use serde::Serialize;

use crate::origin::Origin;

/// TLS towards the endpoints of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct TlsOrigination {
    /// Who vouches for the endpoint.
    pub trust: TlsTrust,
    /// What the endpoint is shown, if anything.
    pub client: Option<ClientCertificate>,
    /// The name that the endpoint is asked for (SNI). `None`: the host of the request.
    pub server_name: Option<Arc<str>>,
    /// Names of which the endpoint's certificate must have one: of DNS, addresses, or URIs. None:
    /// the server name.
    pub names: Vec<Arc<str>>,
    /// The object that asks for it.
    pub origin: Origin,
}

/// Who vouches for an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsTrust {
    /// Whom the system trusts.
    System,
    /// The certificates in a file.
    File(Arc<str>),
    /// These certificates, as PEM.
    Certificates(Arc<str>),
    /// Nobody: any certificate will do (`insecureSkipVerify`).
    Unverified,
}

/// Files of a certificate of our own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ClientCertificate {
    /// The certificate, and those it was issued by.
    pub chain: Arc<str>,
    /// Its key.
    pub key: Arc<str>,
}

/// A version of the PROXY protocol, by which an endpoint is told whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // named as the versions
pub enum ProxyProtocol {
    V1,
    V2,
}
