//! Objects of the API server as JSON: read, listed, applied, changed, deleted, with errors that say what was
//! tried. Knows no kind's meaning.

use kube_client::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube_client::{Client, Error};
use kube_core::discovery::ApiResource;
use kube_core::dynamic::DynamicObject;
use serde_json::{Value, json};

use crate::limits::PAGE_OBJECTS;

/// Sets a field of the object at a JSON pointer; nothing if no object is there.
pub fn put(object: &mut Value, at: &str, field: &str, value: Value) {
    if let Some(fields) = object.pointer_mut(at).and_then(Value::as_object_mut) {
        fields.insert(field.to_owned(), value);
    }
}

/// A kind, as one asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// API group; empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural.
    pub plural: &'static str,
}

/// Gateways of the Gateway API.
pub const GATEWAY: Asked = Asked {
    group: "gateway.networking.k8s.io",
    version: "v1",
    kind: "Gateway",
    plural: "gateways",
};
/// Namespaces.
pub const NAMESPACE: Asked = core("Namespace", "namespaces");
/// Services.
pub const SERVICE: Asked = core("Service", "services");
/// Pods.
pub const POD: Asked = core("Pod", "pods");
/// ServiceEntries of Istio.
pub const SERVICE_ENTRY: Asked = Asked {
    group: "networking.istio.io",
    version: "v1",
    kind: "ServiceEntry",
    plural: "serviceentries",
};
/// WorkloadEntries of Istio.
pub const WORKLOAD_ENTRY: Asked = Asked {
    kind: "WorkloadEntry",
    plural: "workloadentries",
    ..SERVICE_ENTRY
};

const fn core(kind: &'static str, plural: &'static str) -> Asked {
    Asked {
        group: "",
        version: "v1",
        kind,
        plural,
    }
}

impl Asked {
    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version: self.api_version(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    /// The API of the objects of a namespace; of `""` that of all, or of a kind without namespaces.
    pub fn of(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        match namespace {
            "" => Api::all_with(client.clone(), &self.resource()),
            namespace => Api::namespaced_with(client.clone(), namespace, &self.resource()),
        }
    }

    /// `Service shop/web`.
    pub fn named(&self, namespace: &str, name: &str) -> String {
        match namespace {
            "" => format!("{} {name}", self.kind),
            namespace => format!("{} {namespace}/{name}", self.kind),
        }
    }
}

/// What the API server did not do, or could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {}{}", words(source), advice(source))]
pub struct ApiError {
    doing: String,
    source: Box<Error>,
}

impl ApiError {
    /// What was tried, and what came of it.
    pub fn new(doing: impl Into<String>, source: Error) -> Self {
        let doing = doing.into();
        let source = Box::new(source);
        Self { doing, source }
    }

    /// Whether such objects, or their kind, are not there.
    pub fn is_not_found(&self) -> bool {
        status(&self.source) == Some(404)
    }

    /// Whether whoever asked may not.
    pub fn is_forbidden(&self) -> bool {
        status(&self.source) == Some(403)
    }
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn words(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.trim().to_owned(),
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(error) = cause {
                let more = error.to_string();
                if !text.contains(&more) {
                    text.push_str(": ");
                    text.push_str(&more);
                }
                cause = error.source();
            }
            text
        }
    }
}

/// What to do about it, where one can know.
fn advice(error: &Error) -> &'static str {
    match error {
        Error::Api(status) => match status.code {
            401 => {
                " (the API server does not know who asks: see the credentials of the kubeconfig)"
            }
            403 => " (a Role or ClusterRole has to allow it; see docs/kubernetes.md, rights)",
            404 if status
                .message
                .contains("the server could not find the requested resource") =>
            {
                " (the API server does not have this kind: are its CustomResourceDefinitions installed?)"
            }
            409 => {
                " (somebody else changed it meanwhile, or owns the field: look at it and try again)"
            }
            _ => "",
        },
        _ => "",
    }
}

/// One object. `None`: there is none, or its kind is not served.
///
/// # Errors
/// When the API server does not answer or refuses.
pub async fn get(
    client: &Client,
    kind: Asked,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, ApiError> {
    let doing = || format!("get {}", kind.named(namespace, name));
    let found = kind.of(client, namespace).get_opt(name).await;
    let found = found.map_err(|error| ApiError::new(doing(), error))?;
    Ok(found.map(|object| as_value(&object, kind)))
}

/// All objects of a kind in a namespace, of all of them for `""`, read in pages.
///
/// # Errors
/// When the API server does not answer or refuses. A kind that is not served is an error for which
/// [`ApiError::is_not_found`] holds.
pub async fn list(client: &Client, kind: Asked, namespace: &str) -> Result<Vec<Value>, ApiError> {
    let api = kind.of(client, namespace);
    let mut objects = Vec::new();
    let mut asked = ListParams::default().limit(PAGE_OBJECTS);
    loop {
        let page = api.list(&asked).await;
        let page = page.map_err(|error| ApiError::new(format!("list {}", kind.plural), error))?;
        objects.extend(page.items.iter().map(|object| as_value(object, kind)));
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => asked.continue_token = Some(more),
            None => return Ok(objects),
        }
    }
}

/// Server-side apply under a manager's name. With `force` fields of other managers are taken over.
///
/// # Errors
/// As [`get`]; a field that another manager owns with another value is a conflict.
pub async fn apply(
    client: &Client,
    manager: &str,
    kind: Asked,
    object: &Value,
    force: bool,
) -> Result<(), ApiError> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or("");
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let mut params = PatchParams::apply(manager);
    params.force = force;
    let api = kind.of(client, namespace);
    let applied = api.patch(name, &params, &Patch::Apply(object)).await;
    let doing = || format!("apply {}", kind.named(namespace, name));
    applied.map_err(|error| ApiError::new(doing(), error))?;
    Ok(())
}

/// Removes labels, if the object is still as it was seen: nobody's newer change is undone.
///
/// # Errors
/// As [`get`]; an object that has changed since is a conflict.
pub async fn remove_labels(
    client: &Client,
    kind: Asked,
    seen: &Value,
    labels: &[&str],
) -> Result<(), ApiError> {
    let (namespace, name) = (namespace_of(seen), name_of(seen));
    let gone: serde_json::Map<String, Value> = labels
        .iter()
        .map(|l| ((*l).to_owned(), Value::Null))
        .collect();
    let version = seen.pointer("/metadata/resourceVersion");
    let change = json!({"metadata": {"labels": gone, "resourceVersion": version}});
    let api = kind.of(client, namespace);
    let done = api
        .patch(name, &PatchParams::default(), &Patch::Merge(&change))
        .await;
    let doing = || format!("remove labels of {}", kind.named(namespace, name));
    done.map_err(|error| ApiError::new(doing(), error))?;
    Ok(())
}

/// Deletes an object, if it is still the one that was seen. What it owns goes with it.
///
/// # Errors
/// As [`get`].
pub async fn delete(client: &Client, kind: Asked, seen: &Value) -> Result<(), ApiError> {
    let (namespace, name) = (namespace_of(seen), name_of(seen));
    let params = DeleteParams::default().preconditions(Preconditions {
        uid: text(seen, "/metadata/uid").map(str::to_owned),
        resource_version: text(seen, "/metadata/resourceVersion").map(str::to_owned),
    });
    let gone = kind.of(client, namespace).delete(name, &params).await;
    let doing = || format!("delete {}", kind.named(namespace, name));
    gone.map_err(|error| ApiError::new(doing(), error))?;
    Ok(())
}

/// The object as JSON, with the kind that objects in lists lack.
pub fn as_value(object: &DynamicObject, kind: Asked) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), kind.api_version().into());
        fields.insert("kind".to_owned(), kind.kind.into());
    }
    value
}

/// Objects as YAML documents.
///
/// # Errors
/// When a value has no YAML, which JSON always has.
pub fn yaml<'v>(objects: impl IntoIterator<Item = &'v Value>) -> anyhow::Result<String> {
    let mut text = String::new();
    for object in objects {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text.push_str(&serde_saphyr::to_string(object)?);
    }
    Ok(text)
}

/// A text in an object.
pub fn text<'v>(object: &'v Value, path: &str) -> Option<&'v str> {
    object.pointer(path).and_then(Value::as_str)
}

/// The owner that is the controller of an object.
pub fn controller(object: &Value) -> Option<&Value> {
    owners(object).find(|owner| owner.get("controller") == Some(&true.into()))
}

/// Its `uid`.
pub fn controller_of(object: &Value) -> Option<&str> {
    controller(object)?.get("uid")?.as_str()
}

/// Whether an object is owned by who has this `uid`.
pub fn is_owned_by(object: &Value, uid: &str) -> bool {
    owners(object).any(|owner| owner.get("uid").and_then(Value::as_str) == Some(uid))
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    let owners = object.pointer("/metadata/ownerReferences");
    owners.and_then(Value::as_array).into_iter().flatten()
}

/// `metadata.name`.
pub fn name_of(object: &Value) -> &str {
    text(object, "/metadata/name").unwrap_or("")
}

/// `metadata.namespace`; empty of an object that is in none.
pub fn namespace_of(object: &Value) -> &str {
    text(object, "/metadata/namespace").unwrap_or("")
}

/// A label.
pub fn label<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    let labels = object.pointer("/metadata/labels")?;
    labels.get(name).and_then(Value::as_str)
}

/// Whether a condition in an object's status holds; `None` where nobody has said.
pub fn condition<'v>(object: &'v Value, kind: &str) -> Option<(&'v str, &'v str)> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|c| text(c, "/type") == Some(kind))?;
    let status = text(found, "/status")?;
    Some((status, text(found, "/message").unwrap_or("")))
}
