//! A ConfigMap with certificates in `ca.crt`, as BackendTLSPolicies name it. Of other ConfigMaps nothing is
//! read but that of the mesh.

use super::fault::Fault;
use super::node::Node;
use crate::diagnostics::Code;
use crate::resources::kube::CaBundleSpec;

const KEY: &str = "ca.crt";

/// Whether a ConfigMap has certificates.
pub(super) fn is_one(node: &Node<'_>) -> bool {
    node.get("data").is_some_and(|data| data.get(KEY).is_some())
}

/// Reads one.
pub(super) fn read(node: &Node<'_>, faults: &mut Vec<Fault>) -> Option<CaBundleSpec> {
    let entry = node.get("data")?.entry(KEY)?;
    let Some(pem) = entry.value.text() else {
        let fault = Fault::error(
            Code::WrongType,
            "ca.crt is not a text",
            "data[ca.crt]",
            entry.at(),
        );
        faults.push(fault);
        return None;
    };
    Some(CaBundleSpec { pem: pem.into() })
}
