//! WorkloadEntries and endpoints of ServiceEntries in other networks than the waypoint's.

use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{ClusterKey, Snapshot};

use super::support::{Ask, documents, key, load, shop};

const PORTS: &str = "ports: [{number: 443, name: tls, protocol: TLS}]";

fn entry(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}"
    )
}

/// An address in another network is somebody else's here: it is never dialled, whoever lists it.
#[test]
fn what_is_in_another_network_is_not_sent_to() {
    let machine = |name: &str, address: &str, more: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: {name}, namespace: shop, labels: {{app: m}}}}, \
             spec: {{address: {address}{more}}}}}"
        )
    };
    let all = documents(&[
        &shop(&[]),
        &machine("here", "192.0.2.1", ", network: net-1"),
        &machine("there", "192.0.2.2", ", network: net-2"),
        &machine(
            "labelled",
            "192.0.2.3",
            ", labels: {topology.istio.io/network: net-2}",
        ),
        &machine("named", "there.example.com", ", network: net-2"),
        &machine("anywhere", "192.0.2.5", ""),
        &entry(
            "out",
            &format!(
                "hosts: [a.example.com], resolution: DNS, workloadSelector: {{labels: {{app: m}}}}, {PORTS}"
            ),
        ),
        &entry(
            "listed",
            &format!(
                "hosts: [b.example.com], resolution: STATIC, endpoints: [{{address: 192.0.2.6, network: net-1}}, {{address: 192.0.2.7, network: net-2}}], {PORTS}"
            ),
        ),
    ]);
    let resolved = |network: Option<&str>| {
        let options = Options {
            network: network.map(str::to_owned),
            ..Options::default()
        };
        resolve(&load(&all), &options)
    };
    let at_home = resolved(Some("net-1"));
    let of = |snapshot: &Snapshot, host: &str| snapshot.endpoints(&format!("shop/{host}"), 443);
    assert_eq!(
        of(&at_home, "a.example.com"),
        ["192.0.2.1:443", "192.0.2.5:443"]
    );
    assert_eq!(of(&at_home, "b.example.com"), ["192.0.2.6:443"]);
    let key = ClusterKey::new(key("shop/a.example.com"), 443);
    assert!(
        !at_home.discoveries.contains_key(&key),
        "the name is not looked up"
    );
    let mut known: Vec<String> = at_home.workloads.keys().map(ToString::to_string).collect();
    known.sort();
    assert_eq!(
        known,
        ["192.0.2.1", "192.0.2.5"],
        "nobody has the address of another there"
    );
    let told = |snapshot: &Snapshot| -> Vec<String> {
        let all = snapshot.diagnostics.iter();
        let ours = all.filter(|finding| finding.path.ends_with("network"));
        ours.map(|finding| finding.message.clone()).collect()
    };
    let of_another = "it is in network net-2, and this waypoint in net-1";
    assert_eq!(told(&at_home), [of_another; 4]);
    // Who names the only network there is has to name it here, too.
    let nowhere = resolved(None);
    let without = "it is in network net-1, and this waypoint is told no network";
    assert!(told(&nowhere).iter().any(|message| message == without));
    // The default network is one, too.
    assert_eq!(of(&nowhere, "a.example.com"), ["192.0.2.5:443"]);
    assert_eq!(
        of(&resolved(Some("net-2")), "b.example.com"),
        ["192.0.2.7:443"]
    );
}
