//! Counters of policies that are there, and of those that were removed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::Action;
use cairn_config_schema::store::{SourceFile, Store};

use super::*;
use crate::telemetry::fixtures;
use crate::telemetry::metrics::Shard;

/// What is told of a policy, by the name of the table.
fn told(registry: &Registry, policy: &str) -> BTreeSet<(&'static str, u64)> {
    let tables = [
        ("verdicts", &registry.verdicts),
        ("dry run", &registry.dry_run),
        ("audit", &registry.audit),
    ];
    let mut told = BTreeSet::new();
    for (table, series) in tables {
        for (key, counts) in series.rows(0, 100).0 {
            let named = matches!(&key.policy, PolicyName::Object(o) if &*o.key.name == policy);
            if named {
                told.insert((table, counts.iter().map(|c| c.get()).sum()));
            }
        }
    }
    told
}

/// Prometheus takes a counter that became smaller for one that began anew: none may, as long as it is told.
#[test]
fn counters_of_a_policy_go_only_when_it_is_removed_and_nothing_counts_in_them_any_more() {
    let registry = Arc::new(Registry::new(100, "Kubernetes"));
    let mut shards = [Shard::new(registry.clone()), Shard::new(registry.clone())];
    let mut denied = fixtures::http();
    denied.verdict = Some(fixtures::denied());
    let there: FxHashSet<Origin> = ["no-writes", "watch", "readers"]
        .map(|name| fixtures::policy(name, Action::Deny).origin.clone())
        .into_iter()
        .collect();
    let (began, idle) = (Instant::now(), Duration::from_secs(60));
    let at = |minute: u64| began + Duration::from_secs(60 * minute);

    for shard in &mut shards {
        shard.record(&denied, Duration::ZERO);
    }
    // A denial that comes once a week is told of all the time.
    for minute in 0..10 {
        shards.iter_mut().for_each(Shard::let_go);
        registry.forget_policies(at(minute), idle, &there);
    }
    assert_eq!(told(&registry, "no-writes"), [("verdicts", 2)].into());
    assert_eq!(told(&registry, "watch"), [("audit", 2)].into());
    assert_eq!(told(&registry, "readers"), [("dry run", 2)].into());

    // Removed: what began before is still counted, on top of what there is.
    let none = FxHashSet::default();
    for minute in 10..13 {
        shards.iter_mut().for_each(Shard::let_go);
        shards[0].record(&denied, Duration::ZERO);
        registry.forget_policies(at(minute), idle, &none);
    }
    assert_eq!(told(&registry, "no-writes"), [("verdicts", 5)].into());

    shards.iter_mut().for_each(Shard::let_go);
    registry.forget_policies(at(13), idle, &none);
    assert_eq!(told(&registry, "no-writes"), [("verdicts", 5)].into());
    registry.forget_policies(at(14), idle, &none);
    for name in ["no-writes", "watch", "readers"] {
        assert!(told(&registry, name).is_empty(), "{name}");
    }
    assert_eq!(registry.expired.value(), 3);
    // What no policy decided has its series from the first scrape on, and keeps it.
    assert_eq!(registry.verdicts.rows(0, 100).0.len(), 2);

    shards[1].record(&denied, Duration::ZERO);
    assert_eq!(told(&registry, "no-writes"), [("verdicts", 1)].into());
}

/// A kind that is missing here would lose its counters while it is in force.
#[test]
fn a_policy_of_every_kind_is_there_as_long_as_it_is_written() {
    let text = format!("{MESH}{OF_EVERY_KIND}");
    let file = SourceFile {
        path: "mesh.yaml".into(),
        content: Ok(text.into_bytes().into()),
    };
    let resources = Store::default().update(&[file]).resources;
    let snapshot = resolve(&resources, &Options::default());
    let there: BTreeSet<String> = all(&snapshot)
        .iter()
        .map(|o| o.key.name.to_string())
        .collect();
    let written = [
        "of-service",
        "of-gateway",
        "of-class",
        "tried",
        "broken",
        "tokens",
        "ingress",
        "egress",
        "calico",
        "staged",
        "global",
        "staged-global",
    ];
    let written = BTreeSet::from(written.map(str::to_owned));
    assert_eq!(there, written, "{:#?}", snapshot.diagnostics);
}

/// A waypoint, a Service that it serves, and its pod.
const MESH: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web}
status: {podIPs: [{ip: 10.0.1.1}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.1.1], targetRef: {kind: Pod, name: web-1, namespace: shop}}]
";

/// A policy of every kind that is enforced, counted or tried.
const OF_EVERY_KIND: &str = "
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-service, namespace: shop}
spec: {targetRefs: [{group: '', kind: Service, name: web}], rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-gateway, namespace: shop}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}], rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-class, namespace: istio-system}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}], rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: shop, annotations: {istio.io/dry-run: 'true'}}
spec: {targetRefs: [{group: '', kind: Service, name: web}], rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: broken, namespace: shop}
spec: {targetRefs: [{group: '', kind: Service, name: web}], rules: 5}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop, annotations: {istio.io/dry-run: 'true'}}
spec: {targetRefs: [{group: '', kind: Service, name: web}], jwtRules: [{issuer: i, jwks: '{\"keys\": []}'}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: ingress, namespace: shop}
spec: {endpointSelector: {matchLabels: {app: web}}, ingress: [{}]}
---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: egress}
spec: {endpointSelector: {}, egress: [{}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: calico, namespace: shop}
spec: {selector: all(), ingress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: staged, namespace: shop}
spec: {selector: all(), ingress: [{action: Deny}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: global}
spec: {selector: all(), egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: staged-global}
spec: {selector: all(), egress: [{action: Deny}]}
";
