//! NetworkPolicies of Kubernetes as the CNI of the cluster enforces them (specs/policies.md 2.3). A
//! waypoint enforces none of it: `explain` and lints look at them.

use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::{LabelExpression, PortSet};
use crate::origin::Origin;

/// One NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KubeNetworkPolicy {
    /// The object.
    pub origin: Origin,
    /// On the labels of pods of its namespace.
    pub selector: LabelExpression,
    /// What may come in. `None`: it says nothing of it; empty: nothing may.
    pub ingress: Option<Vec<KubeRule>>,
    /// What may go out, in the same way.
    pub egress: Option<Vec<KubeRule>>,
    /// Set when it could not be read: which pods it is for and what it lets through is not known.
    pub broken: Option<Arc<str>>,
}

/// One item of `ingress` or `egress`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KubeRule {
    /// Where it stands: `spec.ingress[0]`.
    pub path: Arc<str>,
    /// Who is at the other end, any of these. `None`: anybody.
    pub peers: Option<Vec<KubePeer>>,
    /// To which ports, any of these. `None`: to all.
    pub ports: Option<Vec<KubePort>>,
}

/// One item of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum KubePeer {
    /// `podSelector` and `namespaceSelector`.
    Pods {
        /// On the labels of the namespace. `None`: the policy's own namespace.
        namespaces: Option<LabelExpression>,
        /// On the labels of the pod.
        pods: LabelExpression,
    },
    /// `ipBlock`.
    Block {
        /// In this block.
        block: IpNet,
        /// And in none of these.
        except: Vec<IpNet>,
    },
}

/// One item of `ports`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KubePort {
    /// `TCP` when absent.
    pub protocol: Transport,
    /// A number, a range, or a name of the destination's ports. `None`: every port.
    pub port: Option<PortSet>,
}

/// `protocol` of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // the variants are the protocols
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    /// As written in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}
