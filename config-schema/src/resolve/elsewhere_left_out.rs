//! Why something that istiod tells of receives nothing, in words. Decides nothing.

use crate::diagnostics::{Code, Severity};

/// Why a workload receives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LeftOut {
    NoGateway,
    NamedGateway,
    UnknownGateway,
    Untunnelled,
    NobodyExpected,
    NoAddress,
    ProxyProtocol,
    LegacyMtls,
    Identity,
    Taken,
    Shared,
}

impl LeftOut {
    /// Whether nothing may go to its addresses by any other way either: in plain text it might reach whoever it is.
    pub fn closes_addresses(self) -> bool {
        match self {
            Self::ProxyProtocol
            | Self::LegacyMtls
            | Self::Identity
            | Self::Taken
            | Self::Shared => true,
            // In another network an address is somebody else's.
            Self::NoGateway
            | Self::NamedGateway
            | Self::UnknownGateway
            | Self::Untunnelled
            | Self::NobodyExpected
            | Self::NoAddress => false,
        }
    }

    /// Severity, code, what is wrong, what helps.
    pub fn words(self) -> (Severity, Code, &'static str, &'static str) {
        let (code, what, help) = match self {
            Self::NoGateway => (
                Code::NoEndpoints,
                "are in other networks, and no gateway leads there",
                "give the network a Gateway of class istio-east-west; --network says which network is this waypoint's",
            ),
            Self::NamedGateway => (
                Code::Unsupported,
                "are behind gateways of other networks that have names and no addresses",
                "Cairn looks up no gateways: give the Gateway an address (spec.addresses of type IPAddress)",
            ),
            Self::UnknownGateway => (
                Code::NoEndpoints,
                "are behind gateways of other networks of which it is not known who they are",
                "istiod tells of a gateway as of a workload with its address and service account; of two that differ none counts",
            ),
            Self::Untunnelled => (
                Code::Unsupported,
                "are in other networks and have no tunnel of their own, which is needed behind a gateway",
                "capture the pods there (ambient)",
            ),
            Self::NobodyExpected => (
                Code::NoEndpoints,
                "are in other networks, and nobody tells who may answer for their service",
                "istiod tells subjectAltNames of services with the label istio.io/global=true, of trust domains that the mesh accepts",
            ),
            Self::NoAddress => (
                Code::Unsupported,
                "have no address",
                "a ServiceEntry of this cluster leads to names",
            ),
            Self::ProxyProtocol => (
                Code::Unsupported,
                "are proxies that want to be told of their callers by the PROXY protocol",
                "lead to what is behind them",
            ),
            Self::LegacyMtls => (
                Code::Unsupported,
                "have sidecars, which are reached by mTLS of their own and not by HBONE",
                "Cairn speaks HBONE alone: take the sidecars away and capture their pods (ambient)",
            ),
            Self::Identity => (
                Code::BadValue,
                "have no identity that this mesh accepts",
                "meshConfig.trustDomainAliases lists further trust domains",
            ),
            Self::Taken => (
                Code::Conflict,
                "have addresses that are others' in this cluster",
                "clusters of one network need different blocks of addresses; --ca-cluster must say what istiod calls this cluster",
            ),
            Self::Shared => (
                Code::Conflict,
                "have addresses that several workloads claim",
                "clusters of one network need different blocks of addresses",
            ),
        };
        (Severity::Warning, code, what, help)
    }
}
