//! Kinds that the input has none of, and that what is written would meet in the cluster: whoever exported too
//! little would not see it.

use super::Target;
use super::report::Writing;
use crate::resources::Resources;

/// Of kinds beside policies, if policies were written.
pub(super) fn tell_of_policies(resources: &Resources, target: Target, out: &mut Writing<'_, '_>) {
    if out.written() == 0 {
        return;
    }
    let r = resources;
    let of_cilium = r.cilium_policies.is_empty() && r.cilium_clusterwide_policies.is_empty();
    let of_kubernetes = (
        r.kube_network_policies.is_empty(),
        "NetworkPolicy",
        "Cilium allows what any policy of a pod allows",
    );
    let kinds = match target {
        Target::Istio => vec![
            (
                r.authorization_policies.is_empty(),
                "AuthorizationPolicy",
                "one more that allows something allows it beside what is written",
            ),
            of_kubernetes,
        ],
        Target::Cilium => vec![
            (
                of_cilium,
                "CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy",
                "Cilium allows what any policy of a pod allows",
            ),
            of_kubernetes,
            (
                r.peer_authentication.is_none(),
                "PeerAuthentication",
                "what it refuses is let in once the pods leave the mesh",
            ),
            (
                r.request_authentications.is_empty(),
                "RequestAuthentication",
                "Cilium looks at no tokens",
            ),
        ],
        Target::Gateway => Vec::new(),
    };
    for (_, kind, why) in kinds.into_iter().filter(|(absent, _, _)| *absent) {
        out.remark(&format!(
            "the input has no {kind}: if the cluster has, export them and translate again, for {why}"
        ));
    }
}
