//! The policies that close the pods themselves, by the engine that stands for ztunnel: the waypoint is let in and
//! nobody else, so that nobody goes round the policies of the Services.

use std::net::SocketAddr;

use cairn_authz::ztunnel::{Arrival, judge, of_pod};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::Truth;
use cairn_config_schema::translate::Target;
use serde_json::json;

use crate::mesh::World;

#[test]
fn only_the_waypoint_reaches_pods_whose_policy_went_to_their_service() {
    let policy = json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "api", "namespace": "shop"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "api"}},
            "ingress": [{"fromEntities": ["cluster"]}],
        },
    });
    let before = World::with(&[policy]);
    let there = before.translate(Target::Istio, false);
    assert!(there.is_whole(), "{there:#?}");
    let after = before.after(&there);
    let address: SocketAddr = "10.0.1.1:8080".parse().unwrap();
    let passes = |world: &World, account: &str| {
        let pod = world.snapshot.workloads.get(&address.ip()).unwrap();
        let policies: Vec<_> = of_pod(&world.snapshot.ztunnel, pod).collect();
        let peer = Identity::of_workload("cluster.local", "shop", account).unwrap();
        let arrival = Arrival {
            peer: &peer,
            source: None,
            destination: address,
        };
        judge(&policies, &arrival).passes
    };
    assert_eq!(passes(&before, "web"), Truth::Yes);
    assert_eq!(passes(&after, "web"), Truth::No);
    assert_eq!(passes(&after, "waypoint"), Truth::Yes);
}
