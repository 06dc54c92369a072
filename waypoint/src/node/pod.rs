//! A pod whose connections are served here: who it is, where it is, and the way out of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cairn_config_schema::identity::{Identity, IdentityError};
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::parse::NodePod;
use cairn_config_schema::snapshot::{Binding, Workload, WorkloadType};

use crate::upstream::Egress;

/// A pod of this node.
#[derive(Debug)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its service account.
    pub service_account: String,
    /// Its addresses, loopback left out; never empty.
    pub addresses: Vec<IpAddr>,
    /// Sockets of its network namespace.
    pub egress: Egress,
    /// What telemetry calls it when the configuration has no Pod of this address.
    pub workload: Option<Arc<Workload>>,
}

impl Pod {
    /// The identity that connections of this pod have: from which listener accepted them, and from
    /// nothing that they carry.
    ///
    /// # Errors
    /// When the trust domain is none.
    pub fn identity(&self, trust_domain: &str) -> Result<Identity, IdentityError> {
        Identity::of_workload(trust_domain, &self.key.namespace, &self.service_account)
    }

    /// The address the client is known by: the pod's, of the family it dialled, with the port it
    /// connects from.
    pub fn address_towards(&self, destination: SocketAddr, port: u16) -> Option<SocketAddr> {
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == destination.is_ipv4();
        let found = self.addresses.iter().find(same_family);
        let ip = found.or(self.addresses.first())?;
        Some(SocketAddr::new(*ip, port))
    }
}

/// The names of a pod that is only in the pods file, for telemetry. `trust_domain` is part of the
/// identity it is shown with.
pub fn workload_of(pod: &NodePod, addresses: &[IpAddr], trust_domain: &str) -> Option<Workload> {
    let label = |keys: &[&str]| {
        let mut values = keys.iter().filter_map(|key| pod.labels.get(*key));
        values.next().map(|value| Arc::<str>::from(value.as_str()))
    };
    let identity =
        Identity::of_workload(trust_domain, &pod.namespace, &pod.service_account).ok()?;
    Some(Workload {
        key: pod.key(),
        addresses: addresses.to_vec(),
        identity,
        hbone: false,
        workload_name: pod.name.as_str().into(),
        workload_type: WorkloadType::Pod,
        canonical_name: label(&[
            "service.istio.io/canonical-name",
            "app.kubernetes.io/name",
            "app",
        ])
        .unwrap_or_else(|| pod.name.as_str().into()),
        canonical_revision: label(&[
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ])
        .unwrap_or_else(|| "latest".into()),
        app: label(&["app"]).unwrap_or_default(),
        version: label(&["version"]).unwrap_or_default(),
        node: "".into(),
        labels: None,
        namespace_labels: None,
        host_network: false,
        behind_gateway: false,
        named_ports: Box::default(),
        binding: Binding::Unbound,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(labels: &[(&str, &str)]) -> NodePod {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        NodePod {
            host_interface: None,
            name: "web-1".into(),
            namespace: "shop".into(),
            service_account: "web".into(),
            labels: labels.collect(),
            addresses: vec![],
            netns: "/run/netns/web-1".into(),
            cgroup: "/sys/fs/cgroup/web-1".into(),
        }
    }

    fn pod(addresses: &[&str]) -> Pod {
        Pod {
            key: listed(&[]).key(),
            service_account: "web".into(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            egress: Egress::nowhere(),
            workload: None,
        }
    }

    #[test]
    fn a_pod_is_known_by_its_account_and_by_its_address_of_the_family_it_dials() {
        let both = pod(&["10.1.0.1", "fd00::1"]);
        let identity = both.identity("td").unwrap().to_string();
        assert_eq!(identity, "spiffe://td/ns/shop/sa/web");
        let seen = |pod: &Pod, to: &str| {
            let seen = pod.address_towards(to.parse().unwrap(), 7);
            seen.unwrap().to_string()
        };
        assert_eq!(seen(&both, "10.96.0.1:80"), "10.1.0.1:7");
        assert_eq!(seen(&both, "[fd00:96::1]:80"), "[fd00::1]:7");
        assert_eq!(seen(&pod(&["10.1.0.1"]), "[fd00:96::1]:80"), "10.1.0.1:7");
    }

    #[test]
    fn labels_name_a_pod_in_telemetry() {
        let named = |labels: &[(&str, &str)]| {
            let workload = workload_of(&listed(labels), &[], "td").unwrap();
            let names = [workload.canonical_name, workload.canonical_revision];
            (names.map(|n| n.to_string()), workload.app.to_string())
        };
        let plain = (["web-1".into(), "latest".into()], String::new());
        assert_eq!(named(&[]), plain);
        let labels = [
            ("app", "web"),
            ("app.kubernetes.io/name", "shop-web"),
            ("version", "v2"),
        ];
        let expected = (["shop-web".into(), "v2".into()], "web".to_owned());
        assert_eq!(named(&labels), expected);
    }
}
