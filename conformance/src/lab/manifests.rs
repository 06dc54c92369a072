//! What a laboratory is made of, and its Kubernetes objects as YAML. Starts nothing.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::NAMESPACE;

/// A service port.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Its name, which may say the protocol.
    pub name: &'static str,
    /// Its number, as clients dial it.
    pub number: u16,
    /// `appProtocol`.
    pub app_protocol: Option<&'static str>,
}

impl Port {
    /// A port whose name says what is spoken.
    pub const fn new(name: &'static str, number: u16) -> Self {
        Self {
            name,
            number,
            app_protocol: None,
        }
    }

    /// A port with `appProtocol`.
    pub const fn speaking(name: &'static str, number: u16, app_protocol: &'static str) -> Self {
        Self {
            name,
            number,
            app_protocol: Some(app_protocol),
        }
    }
}

/// How a pod is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By HBONE, through the destination Envoy.
    Hbone,
    /// By plain TCP.
    Plain,
}

/// A service of the laboratory.
#[derive(Debug)]
pub(super) struct Service {
    /// Virtual IP.
    pub address: IpAddr,
    pub ports: Vec<Port>,
}

/// A pod of a service.
#[derive(Debug)]
pub(super) struct Pod {
    pub name: String,
    pub service: String,
    /// Where its application listens.
    pub address: SocketAddr,
    pub reach: Reach,
    /// Folder of its certificate.
    pub identity: PathBuf,
}

/// The namespace and its waypoint.
pub(super) const MESH: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {istio.io/use-waypoint: waypoint}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: cairn-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
";

/// A Service.
pub(super) fn service(name: &str, service: &Service) -> String {
    let mut yaml = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n  \
         clusterIP: '{}'\n  selector: {{app: {name}}}\n  ports:\n",
        service.address
    );
    for port in &service.ports {
        let protocol = port
            .app_protocol
            .map_or_else(String::new, |p| format!(", appProtocol: {p}"));
        let _ = writeln!(
            yaml,
            "  - {{name: {}, port: {}{protocol}}}",
            port.name, port.number
        );
    }
    yaml
}

/// A Pod and the EndpointSlice that names it: one slice a pod, for every pod has its own port.
pub(super) fn pod(pod: &Pod, ports: &[Port]) -> String {
    let Pod {
        name,
        service,
        address,
        reach,
        ..
    } = pod;
    let annotation = match reach {
        Reach::Hbone => "\n  annotations: {ambient.istio.io/redirection: enabled}",
        Reach::Plain => "",
    };
    let ports: String = ports
        .iter()
        .map(|port| format!("\n- {{name: {}, port: {}}}", port.name, address.port()))
        .collect();
    let ip = address.ip();
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    format!(
        "---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {NAMESPACE}
  labels: {{app: {service}, pod: {name}}}{annotation}
spec:
  serviceAccountName: {service}
  containers: [{{name: app, image: app}}]
status:
  podIP: '{ip}'
  podIPs: [{{ip: '{ip}'}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}
  namespace: {NAMESPACE}
  labels: {{kubernetes.io/service-name: {service}}}
addressType: {family}
ports:{ports}
endpoints:
- addresses: ['{ip}']
  targetRef: {{kind: Pod, name: {name}, namespace: {NAMESPACE}}}
"
    )
}
