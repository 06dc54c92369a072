//! ServiceEntries and WorkloadEntries as services and endpoints (specs/istio-waypoint.md 4.2; issue 3
//! item 2).

use cairn_config_schema::diagnostics::{Code, Severity};
use cairn_config_schema::snapshot::{
    AppProtocol, BackendTarget, Binding, ClusterKey, Discovery, Snapshot,
};

use crate::support::{Ask, documents, key, resolved, shop, shop_with};

fn entry(name: &str, spec: &str) -> String {
    entry_of("shop", name, spec)
}

fn entry_of(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}"
    )
}

const PORTS: &str = "ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}, {number: 443, name: tls, protocol: TLS}]";

fn discovery<'s>(snapshot: &'s Snapshot, service: &str, port: u16) -> &'s Discovery {
    let key = ClusterKey::new(key(service), port);
    snapshot.discoveries.get(&key).expect("a discovery")
}

#[test]
fn each_host_is_a_service_with_the_entrys_ports() {
    let spec = format!(
        "hosts: [a.example.com, b.example.com], addresses: [240.0.0.1], resolution: STATIC, {PORTS}, \
         endpoints: [{{address: 192.0.2.1}}, {{address: 192.0.2.2, ports: {{http: 9090}}, weight: 3}}]"
    );
    let snapshot = shop_with(&[&entry("out", &spec)]);
    let first = snapshot.service("shop/a.example.com");
    assert_eq!(first.binding, Binding::Served);
    assert_eq!(first.origin.to_string(), "ServiceEntry/shop/out");
    assert_eq!(
        first.addresses,
        ["240.0.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    let protocols: Vec<_> = first.ports.iter().map(|p| (p.number, p.protocol)).collect();
    assert_eq!(
        protocols,
        [(80, AppProtocol::Http), (443, AppProtocol::Tcp)]
    );
    // An address says which host is meant, so it is the first's alone.
    assert!(snapshot.service("shop/b.example.com").addresses.is_empty());
    for host in ["shop/a.example.com", "shop/b.example.com"] {
        assert_eq!(
            snapshot.endpoints(host, 80),
            ["192.0.2.1:8080", "192.0.2.2:9090"]
        );
        assert_eq!(
            snapshot.endpoints(host, 443),
            ["192.0.2.1:443", "192.0.2.2:443"]
        );
    }
    let heavy = &snapshot.clusters[&ClusterKey::new(key("shop/a.example.com"), 80)][1];
    assert_eq!(heavy.weight, 3);
}

#[test]
fn an_endpoint_with_an_address_has_its_place() {
    let spec = format!(
        "hosts: [a.example.com], addresses: [240.0.0.1], resolution: DNS, {PORTS}, \
         endpoints: [{{address: 192.0.2.1, locality: east/a}}, {{address: x.example.com, locality: east/b}}]"
    );
    let snapshot = shop_with(&[&entry("out", &spec)]);
    let endpoints = &snapshot.clusters[&ClusterKey::new(key("shop/a.example.com"), 80)];
    let place = endpoints[0].whereabouts.as_ref().unwrap();
    assert_eq!(
        (&*place.locality.region, &*place.locality.zone),
        ("east", "a")
    );
    let said = snapshot.diagnostics.iter();
    let said: Vec<_> = said.map(|finding| finding.path.as_str()).collect();
    assert_eq!(
        said,
        ["spec.endpoints[1].locality"],
        "what a name leads to has none"
    );
}

#[test]
fn addresses_that_the_cluster_allocated_are_taken_when_none_are_written() {
    let mut text = entry(
        "out",
        &format!("hosts: [a.example.com, b.example.com], resolution: DNS, {PORTS}"),
    );
    text.push_str("\nstatus: {addresses: [{value: 240.240.0.1, host: a.example.com}, {value: 240.240.0.2, host: b.example.com}]}");
    let snapshot = shop_with(&[&text]);
    let of = |host: &str| snapshot.service(host).addresses[0].to_string();
    assert_eq!(of("shop/a.example.com"), "240.240.0.1");
    assert_eq!(of("shop/b.example.com"), "240.240.0.2");
}

#[test]
fn names_are_to_be_looked_up_and_addresses_are_not() {
    let plain = entry(
        "plain",
        &format!("hosts: [api.example.com], resolution: DNS, {PORTS}"),
    );
    let listed = entry(
        "listed",
        &format!(
            "hosts: [db.example.com], resolution: DNS_ROUND_ROBIN, {PORTS}, \
             endpoints: [{{address: One.Example.com.}}, {{address: 192.0.2.9}}]"
        ),
    );
    let wild = entry(
        "wild",
        "hosts: ['*.example.org'], resolution: DYNAMIC_DNS, ports: [{number: 80, name: http, protocol: HTTP}]",
    );
    let dialled = entry(
        "dialled",
        &format!("hosts: [any.example.net], addresses: [198.51.100.0/24, 203.0.113.7/32], {PORTS}"),
    );
    let snapshot = shop_with(&[&plain, &listed, &wild, &dialled]);
    let names = |service, port| match discovery(&snapshot, service, port) {
        Discovery::Names { names, first_only } => {
            let names = names.iter().map(|n| format!("{}:{}", n.name, n.port));
            (names.collect::<Vec<_>>(), *first_only)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        names("shop/api.example.com", 80),
        (vec!["api.example.com:8080".to_owned()], false)
    );
    assert_eq!(
        names("shop/db.example.com", 443),
        (vec!["one.example.com:443".to_owned()], true)
    );
    assert_eq!(
        snapshot.endpoints("shop/db.example.com", 443),
        ["192.0.2.9:443"]
    );
    let wildcard = discovery(&snapshot, "shop/*.example.org", 80);
    assert!(wildcard.admits("a.example.org") && wildcard.admits("a.b.example.org"));
    assert!(!wildcard.admits("example.org") && !wildcard.admits(".example.org"));
    assert!(!wildcard.admits("evilexample.org") && !wildcard.admits("a.example.org.evil"));
    assert_eq!(
        *discovery(&snapshot, "shop/any.example.net", 80),
        Discovery::DialledAddress { port: 8080 }
    );
    let dialled = snapshot.service("shop/any.example.net");
    assert_eq!(dialled.blocks[0].to_string(), "198.51.100.0/24");
    assert_eq!(dialled.addresses[0].to_string(), "203.0.113.7");
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: ledger-1, namespace: shop, labels: {app: ledger}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: ledger, containers: [{name: app, image: app}]}
status: {podIPs: [{ip: 10.1.0.1}]}
";

const WORKLOADS: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-1, namespace: shop, labels: {app: ledger}}
spec: {address: 192.0.2.1, labels: {version: v2}, ports: {http: 9090}, serviceAccount: ledger}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-2, namespace: shop, labels: {app: other}}
spec: {address: 192.0.2.2}
";

#[test]
fn a_location_that_is_none_is_warned_of() {
    let at = |location: &str| {
        let spec = format!(
            "hosts: [a.example.com], addresses: [240.0.0.1], resolution: DNS, location: {location}, {PORTS}"
        );
        shop_with(&[&entry("a", &spec)]).said()
    };
    let none = Vec::<String>::new();
    assert_eq!(at("MESH_EXTERNAL"), none);
    assert_eq!(at("MESH_INTERNAL"), none);
    let said = ["warning bad-value ServiceEntry/shop/a spec.location"];
    assert_eq!(at("MESH_INSIDE"), said);
}

#[test]
fn a_selector_takes_pods_and_workload_entries_of_its_namespace() {
    let spec = format!(
        "hosts: [ledger.example.com], resolution: STATIC, location: MESH_INTERNAL, workloadSelector: {{labels: {{app: ledger}}}}, {PORTS}"
    );
    let snapshot = shop_with(&[POD, WORKLOADS, &entry("ledger", &spec)]);
    assert_eq!(
        snapshot.endpoints("shop/ledger.example.com", 80),
        ["10.1.0.1:8080", "192.0.2.1:9090"]
    );
    let endpoints = &snapshot.clusters[&ClusterKey::new(key("shop/ledger.example.com"), 80)];
    let identity = endpoints[0].hbone_identity().unwrap().uri();
    assert_eq!(identity, "spiffe://cluster.local/ns/shop/sa/ledger");
    assert_eq!(
        endpoints[1].hbone_identity(),
        None,
        "a machine without a tunnel"
    );
    let machine = endpoints[1].workload.as_ref().unwrap();
    assert_eq!((&*machine.workload_name, &*machine.version), ("vm-1", "v2"));
}

#[test]
fn a_subset_takes_endpoints_by_their_labels() {
    let spec = format!(
        "hosts: [db.example.com], resolution: DNS, {PORTS}, endpoints: [{{address: 192.0.2.1, labels: {{v: a}}}}, {{address: 192.0.2.2, labels: {{v: b}}}}, {{address: b.example.com, labels: {{v: b}}}}]"
    );
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: db, namespace: shop}\nspec: {host: db.example.com, subsets: [{name: b, labels: {v: b}}]}";
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: db, namespace: shop}\nspec: {hosts: [db.example.com], http: [{route: [{destination: {host: db.example.com, port: {number: 80}, subset: b}}]}]}";
    let snapshot = shop_with(&[&entry("db", &spec), rule, route]);
    let subset = ClusterKey::new(key("shop/db.example.com"), 80).with_subset("b".into());
    let addresses: Vec<_> = snapshot.clusters[&subset]
        .iter()
        .map(|e| e.address.to_string())
        .collect();
    assert_eq!(addresses, ["192.0.2.2:8080"]);
    let Discovery::Names { names, .. } = &*snapshot.discoveries[&subset] else {
        panic!("names")
    };
    assert_eq!(
        names.iter().map(|n| &*n.name).collect::<Vec<_>>(),
        ["b.example.com"]
    );
}

/// Issue 3, bad input: a ServiceEntry that captures another namespace's host.
#[test]
fn nobody_takes_anothers_host_or_address() {
    let spec = |host: &str, address: &str| {
        format!(
            "hosts: [{host}], addresses: [{address}], resolution: STATIC, endpoints: [{{address: 192.0.2.66}}], {PORTS}"
        )
    };
    let host = entry_of(
        "evil",
        "host",
        &spec("web.shop.svc.cluster.local", "240.0.0.1"),
    );
    let address = entry_of("evil", "address", &spec("a.example.com", "10.0.0.1"));
    let pod = entry_of("evil", "pod", &spec("b.example.com", "10.1.0.1"));
    let own = entry("own", &spec("web.shop.svc.cluster.local", "240.0.0.2"));
    let snapshot = shop_with(&[POD, &host, &address, &pod, &own]);
    assert!(
        !snapshot
            .services
            .contains_key(&key("evil/web.shop.svc.cluster.local"))
    );
    assert!(
        !snapshot
            .services
            .contains_key(&key("shop/web.shop.svc.cluster.local"))
    );
    assert!(snapshot.service("evil/a.example.com").addresses.is_empty());
    assert!(snapshot.service("evil/b.example.com").addresses.is_empty());
    assert_eq!(snapshot.service("shop/web").addresses.len(), 1);
    let conflicts = snapshot
        .diagnostics
        .iter()
        .filter(|d| d.code == Code::Conflict);
    let said: Vec<_> = conflicts.map(|d| d.message.as_str()).collect();
    assert_eq!(
        said,
        [
            "'web.shop.svc.cluster.local' is a host of another namespace",
            "address 10.0.0.1 already belongs to Service/shop/web",
            "address 10.1.0.1 already belongs to Pod shop/ledger-1",
            "'web.shop.svc.cluster.local' is declared by Service/shop/web already",
        ]
    );
}

#[test]
fn pods_of_other_namespaces_are_no_endpoints_to_list() {
    let spec = format!(
        "hosts: [a.example.com], resolution: STATIC, endpoints: [{{address: 10.1.0.1}}], {PORTS}"
    );
    let snapshot = shop_with(&[POD, &entry_of("evil", "pods", &spec)]);
    assert!(snapshot.endpoints("evil/a.example.com", 80).is_empty());
    let finding = snapshot.finding(Code::BadValue);
    assert_eq!(
        finding.message,
        "its address is that of shop/ledger-1, of another namespace"
    );
    assert_eq!(finding.path, "spec.endpoints[0]");
}

/// `::ffff:10.1.0.1` is 10.1.0.1, for the pod that has it and its policies.
#[test]
fn a_mapped_address_is_that_of_the_pod_it_stands_for() {
    let spec = |address: &str| {
        format!(
            "hosts: [a.example.com], resolution: STATIC, endpoints: [{{address: '{address}'}}], {PORTS}"
        )
    };
    let snapshot = shop_with(&[POD, &entry_of("evil", "pods", &spec("::ffff:10.1.0.1"))]);
    assert!(snapshot.endpoints("evil/a.example.com", 80).is_empty());
    let finding = snapshot.finding(Code::BadValue);
    let message = "its address is that of shop/ledger-1, of another namespace";
    assert_eq!(finding.message, message);
    let snapshot = shop_with(&[&entry("out", &spec("::ffff:192.0.2.1"))]);
    assert_eq!(
        snapshot.endpoints("shop/a.example.com", 80),
        ["192.0.2.1:8080"]
    );
}

#[test]
fn the_host_of_two_namespaces_is_in_force_in_both_and_said() {
    let spec = format!("hosts: [api.example.com], resolution: DNS, {PORTS}");
    let snapshot = shop_with(&[&entry("mine", &spec), &entry_of("other", "theirs", &spec)]);
    assert!(
        snapshot
            .services
            .contains_key(&key("other/api.example.com"))
    );
    let finding = snapshot.finding(Code::Conflict);
    assert_eq!(
        (finding.severity, &*finding.message),
        (
            Severity::Warning,
            "ServiceEntry/other/theirs declares 'api.example.com', too"
        )
    );
}

#[test]
fn who_may_use_it_is_said_by_export_to() {
    let spec = format!("hosts: [api.example.com], resolution: DNS, exportTo: ['.', bank], {PORTS}");
    let snapshot = shop_with(&[&entry("out", &spec)]);
    let service = snapshot.service("shop/api.example.com");
    assert!(service.is_visible_to("shop") && service.is_visible_to("bank"));
    assert!(!service.is_visible_to("elsewhere"));
    let route = |namespace: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: out, namespace: {namespace}}}\nspec: {{parentRefs: [{{group: '', kind: Service, name: web, namespace: shop}}], rules: [{{backendRefs: [{{group: networking.istio.io, kind: Hostname, name: api.example.com, port: 80}}]}}]}}"
        )
    };
    let hidden = format!("hosts: [api.example.com], resolution: DNS, exportTo: [bank], {PORTS}");
    for (entry_text, resolves) in [
        (entry("out", &spec), true),
        (entry_of("bank", "out", &hidden), false),
    ] {
        let snapshot = shop_with(&[&entry_text, &route("shop")]);
        let port = &snapshot.service("shop/web").ports[0];
        let target = &port.routes[0].rules[0].backends[0].target;
        assert_eq!(
            matches!(target, BackendTarget::Cluster(_)),
            resolves,
            "{target:?}"
        );
    }
}

#[test]
fn routes_and_policies_name_the_entry_and_reach_all_its_hosts() {
    let spec = format!("hosts: [a.example.com, b.example.com], resolution: DNS, {PORTS}");
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: out, namespace: shop}\nspec: {parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: out}], rules: [{backendRefs: [{group: networking.istio.io, kind: Hostname, name: b.example.com, port: 80}]}]}";
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: get, namespace: shop}\nspec: {targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: out}], rules: [{to: [{operation: {methods: [GET]}}]}]}";
    let snapshot = shop_with(&[&entry("out", &spec), route, policy]);
    for host in ["shop/a.example.com", "shop/b.example.com"] {
        assert_eq!(snapshot.routes(host, 80), ["shop/out"]);
        assert_eq!(snapshot.policies(host).len(), 1);
        // HTTP routes are not for a port that is TLS.
        assert!(snapshot.routes(host, 443).is_empty());
    }
    assert!(snapshot.policies("shop/web").is_empty());
    assert_eq!(snapshot.said(), Vec::<String>::new());
}

#[test]
fn what_is_wrong_is_said_and_the_rest_is_in_force() {
    let spec = "hosts: [a.example.com, mongo], resolution: STATIC, endpoints: [{address: one.example.com}, {address: 192.0.2.1, network: other}], \
                ports: [{number: 80, name: http, protocol: HTTP}, {number: 80, name: again, protocol: HTTP}, {number: 53, name: dns, protocol: UDP}, {number: 70000, name: big, protocol: TCP}]";
    let snapshot = shop_with(&[&entry("out", spec)]);
    assert_eq!(snapshot.endpoints("shop/a.example.com", 80), [""; 0]);
    assert_eq!(
        snapshot.said(),
        [
            "error bad-value ServiceEntry/shop/out spec.hosts[1]",
            "error bad-value ServiceEntry/shop/out spec.endpoints[0]",
            "error conflict ServiceEntry/shop/out spec.ports[1].number",
            "error unsupported ServiceEntry/shop/out spec.ports[2].protocol",
            "error bad-value ServiceEntry/shop/out spec.ports[3].number",
            "warning no-endpoints ServiceEntry/shop/out spec.endpoints",
            "warning unsupported ServiceEntry/shop/out spec.endpoints[1].network",
        ]
    );
}

#[test]
fn an_entry_that_is_not_exported_to_the_waypoint_is_not_served_by_it() {
    let spec = format!("hosts: [a.example.com], resolution: DNS, exportTo: [bank], {PORTS}");
    let snapshot = resolved(&documents(&[&shop(&[]), &entry("out", &spec)]));
    assert!(matches!(
        snapshot.service("shop/a.example.com").binding,
        Binding::Refused(_)
    ));
    assert_eq!(
        snapshot.finding(Code::AttachmentDenied).path,
        "spec.exportTo"
    );
}
