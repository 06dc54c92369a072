//! Configurations to start from, and words for what tests ask of a snapshot.

use std::sync::Arc;

use cairn_config_schema::diagnostics::{Code, Diagnostic, Severity};
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::resources::{Broken, Loaded, Resources, TargetRef};
use cairn_config_schema::snapshot::{Policy, Service, Snapshot, Waypoint};
use cairn_config_schema::store::{SourceFile, Store};

/// A waypoint in the namespace `shop`.
pub const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: cairn-waypoint
  listeners:
  - {name: mesh, port: 15008, protocol: HBONE}
";

/// The namespace `shop`, all of which uses the waypoint.
pub const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {istio.io/use-waypoint: waypoint}
";

/// `shop/web`: HTTP on 80, HTTP on 8080, TCP on 9000.
pub const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.0.0.1
  ports:
  - {name: http, port: 80}
  - {name: http-admin, port: 8080}
  - {name: tcp, port: 9000}
";

/// `shop/api`: HTTP on 80.
pub const API: &str = "
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  clusterIP: 10.0.0.2
  ports:
  - {name: http, port: 80}
";

/// The four above, and what a test adds.
pub fn shop(more: &[&str]) -> String {
    let parts: Vec<&str> = [GATEWAY, NAMESPACE, WEB, API]
        .iter()
        .chain(more)
        .copied()
        .collect();
    documents(&parts)
}

/// Several documents in one text.
pub fn documents(parts: &[&str]) -> String {
    parts.join("\n---\n")
}

/// A snapshot of these documents.
pub fn resolved(yaml: &str) -> Snapshot {
    resolve(&load(yaml), &Options::default())
}

/// A snapshot of the shop and more documents.
pub fn shop_with(more: &[&str]) -> Snapshot {
    resolved(&shop(more))
}

/// The resources of these documents, which the parser must find nothing wrong with.
pub fn load(yaml: &str) -> Resources {
    let file = SourceFile {
        path: "config.yaml".into(),
        content: Ok(yaml.as_bytes().into()),
    };
    let update = Store::default().update(&[file]);
    let mut found = update.diagnostics.iter();
    assert!(
        found.all(|finding| finding.severity == Severity::Info),
        "{:#?}\n{yaml}",
        update.diagnostics
    );
    update.resources
}

/// `namespace/name`.
pub fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    ObjectKey::new(namespace, name)
}

/// An object that could not be read and never could.
pub fn broken(kind: Kind, name: &str, targets: Option<Vec<TargetRef>>) -> Arc<Broken> {
    Arc::new(Broken {
        origin: Origin {
            kind,
            key: key(name),
        },
        location: None,
        reason: "line 3 is nonsense".into(),
        targets,
        pod_ips: Vec::new(),
        dry_run: false,
        selection: None,
        uid: None,
    })
}

/// A `TargetRef` of a kind and name.
pub fn target(group: &str, kind: &str, name: &str) -> TargetRef {
    TargetRef {
        group: group.into(),
        kind: kind.into(),
        name: name.into(),
        ..TargetRef::default()
    }
}

/// Replaces an object by one that can not be read.
pub fn break_object<T>(
    objects: &mut std::collections::BTreeMap<ObjectKey, Loaded<T>>,
    kind: Kind,
    name: &str,
) {
    objects.insert(key(name), Loaded::Broken(broken(kind, name, None)));
}

/// Questions to a snapshot.
pub trait Ask {
    fn service(&self, name: &str) -> &Service;
    fn way(&self) -> &Waypoint;
    fn routes(&self, service: &str, port: u16) -> Vec<String>;
    fn policies(&self, service: &str) -> Vec<&Arc<Policy>>;
    fn policy(&self, service: &str) -> &Policy;
    fn endpoints(&self, service: &str, port: u16) -> Vec<String>;
    fn said(&self) -> Vec<String>;
    fn finding(&self, code: Code) -> &Diagnostic;
}

impl Ask for Snapshot {
    fn service(&self, name: &str) -> &Service {
        self.services.get(&key(name)).expect("the service")
    }

    fn way(&self) -> &Waypoint {
        self.waypoint.as_ref().expect("a waypoint")
    }

    /// Names of the routes on a port.
    fn routes(&self, service: &str, port: u16) -> Vec<String> {
        let ports = &self.service(service).ports;
        let port = ports.iter().find(|p| p.number == port).expect("the port");
        port.routes
            .iter()
            .map(|r| r.origin.key.to_string())
            .collect()
    }

    fn policies(&self, service: &str) -> Vec<&Arc<Policy>> {
        self.service(service).policies.iter().collect()
    }

    /// The only policy of a service.
    fn policy(&self, service: &str) -> &Policy {
        match self.service(service).policies.as_slice() {
            [only] => only,
            several => panic!("{} policies; {:#?}", several.len(), self.said()),
        }
    }

    fn endpoints(&self, service: &str, port: u16) -> Vec<String> {
        let found = self
            .clusters
            .iter()
            .find(|(k, _)| k.service == key(service) && k.port == port);
        let (_, endpoints) = found.expect("the cluster");
        endpoints.iter().map(|e| e.address.to_string()).collect()
    }

    /// Everything said, as `severity code object path`.
    fn said(&self) -> Vec<String> {
        self.diagnostics.iter().map(in_short).collect()
    }

    /// The only finding of a code.
    fn finding(&self, code: Code) -> &Diagnostic {
        let mut found = self.diagnostics.iter().filter(|d| d.code == code);
        let Some(first) = found.next() else {
            panic!("no {code:?} in {:#?}", self.said());
        };
        assert!(
            found.next().is_none(),
            "several {code:?}: {:#?}",
            self.said()
        );
        first
    }
}

/// `severity code object path`, without what is absent.
pub fn in_short(finding: &Diagnostic) -> String {
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let severity = word(serde_json::to_value(finding.severity).expect("severity"));
    let code = word(serde_json::to_value(finding.code).expect("code"));
    let object = finding.object.as_ref().map(ToString::to_string);
    let parts = [
        severity,
        code,
        object.unwrap_or_default(),
        finding.path.clone(),
    ];
    parts.join(" ").trim_end().to_owned()
}
