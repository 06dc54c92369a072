//! A mesh to translate in, and words for what came of it.

use std::collections::BTreeSet;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::store::{SourceFile, Store};
use cairn_config_schema::translate::{Outcome, Source, Target, Translation, translate};
use serde_json::Value;

/// Services `api` (80 and 9090 before 8080 and 9090) and `orders` (8080) of namespace `shop`.
const SERVICES: &str = include_str!("services.yaml");

/// The pods behind them, and a client.
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: api-1, namespace: shop, labels: {app: api}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: api}
status: {podIPs: [{ip: 10.0.1.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: orders-1, namespace: shop, labels: {app: orders}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: orders}
status: {podIPs: [{ip: 10.0.1.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: web}
status: {podIPs: [{ip: 10.0.2.1}]}
";

/// A Service `backdoor` that leads to the pods of `api`, on this port of theirs.
pub fn backdoor(labels: &str, port: u16) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: backdoor, namespace: shop, labels: {labels}}}
spec: {{clusterIP: 10.96.2.9, selector: {{app: api}}, ports: [{{name: http, port: 8000}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: backdoor, namespace: shop, labels: {{kubernetes.io/service-name: backdoor}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: [10.0.1.1], targetRef: {{kind: Pod, name: api-1, namespace: shop}}}}]
"
    )
}

/// What is written for a mesh, of these objects in place of the file `mesh.yaml`.
pub struct Written(pub Translation);

/// Translates objects in the mesh.
pub fn written(target: Target, objects: &[&str]) -> Written {
    of_parts(target, false, mesh(), objects)
}

/// The same in another mesh.
pub fn written_in(mesh: String, target: Target, objects: &[&str]) -> Written {
    of_parts(target, false, mesh, objects)
}

/// The Services and the pods, as YAML.
pub fn mesh() -> String {
    format!("{SERVICES}---{PODS}")
}

/// With other text in place of some that is there.
pub fn mesh_with(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(mesh(), |mesh, (old, new)| {
        assert!(mesh.contains(old), "{old}");
        mesh.replace(old, new)
    })
}

/// The same, with what allows more.
pub fn written_wider(target: Target, objects: &[&str]) -> Written {
    of_parts(target, true, mesh(), objects)
}

fn of_parts(target: Target, wider: bool, mesh: String, objects: &[&str]) -> Written {
    let file = |path: &str, text: String| SourceFile {
        path: path.into(),
        content: Ok(text.into_bytes().into()),
    };
    let files = [
        file("mesh.yaml", mesh),
        file("policy.yaml", objects.join("\n---\n")),
    ];
    let resources = Store::default().update(&files).resources;
    let options = Options::default();
    let snapshot = resolve(&resources, &options);
    let waypoint = Identity::of_workload("cluster.local", "shop", "waypoint").unwrap();
    let source = Source {
        resources: &resources,
        snapshot: &snapshot,
        options: &options,
        waypoint: Some(&waypoint),
    };
    Written(translate(source, target, wider))
}

impl Written {
    /// The only object of a kind.
    pub fn only(&self, kind: &str) -> &Value {
        let of_kind: Vec<&Value> = self.all(kind);
        match of_kind.as_slice() {
            [only] => only,
            several => panic!("{} of {kind}: {:#?}", several.len(), self.0),
        }
    }

    pub fn all(&self, kind: &str) -> Vec<&Value> {
        let objects = self.0.objects.iter();
        objects.filter(|object| object["kind"] == kind).collect()
    }

    /// The object of a name.
    pub fn named(&self, name: &str) -> &Value {
        let mut objects = self.0.objects.iter();
        let found = objects.find(|object| object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {:#?}", self.0))
    }

    /// `outcome path` of everything that was not replaced.
    pub fn lost(&self) -> BTreeSet<String> {
        let parts = self.0.parts.iter();
        let lost = parts.filter(|part| part.outcome != Outcome::Replaced);
        lost.map(|part| {
            format!("{} {}", part.outcome.as_str(), part.path)
                .trim_end()
                .to_owned()
        })
        .collect()
    }

    /// Whether something is lost for this reason.
    pub fn says(&self, words: &str) -> bool {
        self.0.parts.iter().any(|part| part.why.contains(words))
    }

    /// Nothing was written, for these reasons among others.
    #[track_caller]
    pub fn is_refused(&self, words: &[&str]) {
        assert!(self.0.objects.is_empty(), "{:#?}", self.0);
        assert!(self.0.replaced.is_empty());
        for words in words {
            assert!(self.says(words), "no '{words}': {:#?}", self.0.parts);
        }
    }

    /// Every part was replaced.
    #[track_caller]
    pub fn is_whole(&self) {
        assert!(
            self.0.is_whole() && !self.0.objects.is_empty(),
            "{:#?}",
            self.0
        );
    }
}
