//! Cairn's configuration for a mesh: Kubernetes YAML in a folder, and the flags of `cairn run`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;

use super::mesh::{ALLOWED_METHODS, APP_ACCOUNT, CLIENT_ACCOUNT, Mesh, Service};
use super::{Launch, Listeners};
use crate::pki::{NAMESPACE, TRUST_DOMAIN};

/// Folder of the YAML, under the work folder.
pub const CONFIG_FOLDER: &str = "config";
/// Services in one file.
const SERVICES_PER_FILE: usize = 100;

/// Writes the YAML, all routes in one file, and returns the arguments to start with.
pub fn configure(
    launch: &Launch,
    mesh: &Mesh,
    listeners: &Listeners,
) -> anyhow::Result<Vec<String>> {
    let folder = launch.work_folder.join(CONFIG_FOLDER);
    write(mesh, &folder, usize::MAX)?;
    if let Some(manifest) = launch.manifest {
        std::fs::write(folder.join("more.yaml"), manifest).context("can not write more.yaml")?;
    }
    let identity_folder = launch.identity_folder.to_string_lossy();
    let mut arguments = vec!["run".to_owned()];
    for (flag, value) in [
        ("--config", folder.to_string_lossy().into_owned()),
        ("--identity-dir", identity_folder.into_owned()),
        ("--hbone-addr", listeners.tunnel.to_string()),
        ("--admin-addr", listeners.admin.to_string()),
        ("--ready-addr", listeners.ready.to_string()),
        ("--metrics-addr", listeners.metrics.to_string()),
        (
            "--upstream-hbone-port",
            launch.upstream_tunnel_port.to_string(),
        ),
        ("--workers", launch.workers.to_string()),
    ] {
        arguments.extend([flag.to_owned(), value]);
    }
    if !launch.access_log {
        arguments.extend(["--access-log", "off"].map(str::to_owned));
    }
    Ok(arguments)
}

/// Writes a mesh into a folder, so many routes to a file.
pub fn write(mesh: &Mesh, folder: &Path, routes_per_file: usize) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let save = |name: String, text: String| {
        std::fs::write(folder.join(&name), text).with_context(|| format!("can not write {name}"))
    };
    save("gateway.yaml".to_owned(), gateway())?;
    for (n, services) in mesh.services.chunks(SERVICES_PER_FILE).enumerate() {
        save(
            format!("services-{n}.yaml"),
            services.iter().map(service).collect(),
        )?;
    }
    let routes: Vec<String> = mesh
        .services
        .iter()
        .flat_map(|s| (0..s.route_prefixes.len()).map(move |r| route(s, r, None)))
        .collect();
    for (n, routes) in routes
        .chunks(routes_per_file.min(routes.len().max(1)))
        .enumerate()
    {
        save(routes_file(n), routes.concat())?;
    }
    Ok(())
}

/// Name of the n-th file of routes.
pub fn routes_file(n: usize) -> String {
    format!("routes-{n}.yaml")
}

fn gateway() -> String {
    let methods = ALLOWED_METHODS.join(", ");
    format!(
        "---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    istio.io/dataplane-mode: ambient
    istio.io/use-waypoint: waypoint
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: waypoint
  namespace: {NAMESPACE}
  labels:
    istio.io/waypoint-for: service
spec:
  gatewayClassName: cairn-waypoint
  listeners:
  - name: mesh
    port: 15008
    protocol: HBONE
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: allow-client
  namespace: {NAMESPACE}
spec:
  targetRefs:
  - group: gateway.networking.k8s.io
    kind: Gateway
    name: waypoint
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [\"{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{CLIENT_ACCOUNT}\"]
    to:
    - operation:
        methods: [{methods}]
"
    )
}

fn service(service: &Service) -> String {
    let name = &service.name;
    let mut text = format!(
        "---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {NAMESPACE}
spec:
  clusterIP: {vip}
  clusterIPs: [{vip}]
  ports:
",
        vip = service.vip
    );
    let mut slice = format!(
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: {NAMESPACE}
  labels:
    kubernetes.io/service-name: {name}
addressType: IPv4
ports:
"
    );
    for port in &service.ports {
        let protocol = if port.grpc { "grpc" } else { "http" };
        let (number, target) = (port.number, port.target);
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "  - {{name: {protocol}, port: {number}, targetPort: {target}, appProtocol: {protocol}}}"
        );
        let _ = writeln!(
            slice,
            "- {{name: {protocol}, port: {target}, protocol: TCP}}"
        );
    }
    slice.push_str("endpoints:\n");
    for ip in &service.endpoints {
        let _ = writeln!(slice, "- addresses: [{ip}]\n  conditions: {{ready: true}}");
    }
    text.push_str(&slice);
    for (n, ip) in service.endpoints.iter().enumerate() {
        text.push_str(&pod(service, n, *ip));
    }
    text
}

fn pod(service: &Service, n: usize, ip: std::net::IpAddr) -> String {
    let name = &service.name;
    let annotations = if service.tunnelled {
        "\n  annotations:\n    ambient.istio.io/redirection: enabled"
    } else {
        ""
    };
    format!(
        "---
apiVersion: v1
kind: Pod
metadata:
  name: {name}-{n}
  namespace: {NAMESPACE}{annotations}
  labels:
    app: {name}
spec:
  serviceAccountName: {APP_ACCOUNT}
  nodeName: node-1
  containers:
  - name: app
status:
  phase: Running
  podIP: {ip}
  podIPs:
  - ip: {ip}
"
    )
}

/// The HTTPRoute of a service's n-th prefix. With a `version` its answers carry `x-version`.
pub fn route(service: &Service, n: usize, version: Option<u32>) -> String {
    let name = &service.name;
    let prefix = service.route_prefixes.get(n).map_or("/", String::as_str);
    let port = service.ports.first().map_or(0, |p| p.number);
    let filters = version.map_or_else(String::new, |version| {
        format!(
            "
    filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier:
        set:
        - name: x-version
          value: \"{version}\""
        )
    });
    // Only the first port has the route: its backend is one port, and the other speaks gRPC.
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {name}-{n}
  namespace: {NAMESPACE}
spec:
  parentRefs:
  - group: \"\"
    kind: Service
    name: {name}
    port: {port}
  rules:
  - matches:
    - path:
        type: PathPrefix
        value: {prefix}{filters}
    backendRefs:
    - name: {name}
      port: {port}
"
    )
}
