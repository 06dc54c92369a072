//! The few questions that the controller asks of the API server, about objects as JSON. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kube_client::Client;
use kube_core::params::{
    DeleteParams, ListParams, Patch, PatchParams, Preconditions, ValidationDirective,
};
use kube_core::request::Request;
use serde_json::Value;

/// Who wrote a field, for server-side apply.
pub const FIELD_MANAGER: &str = "cairn-controller";

/// Where objects of a kind are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// URL of the collection.
    url: String,
}

impl Place {
    /// Of a kind in a namespace, or of a cluster-scoped one.
    pub fn new(group: &str, version: &str, plural: &str, namespace: Option<&str>) -> Self {
        let root = match group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        let url = match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
            None => format!("{root}/{plural}"),
        };
        Self { url }
    }
}

/// What was sent, for metrics and tests.
#[derive(Debug, Default)]
pub struct Sent {
    /// Requests that may have changed something.
    pub writes: AtomicU64,
    /// Of these, those that were refused because somebody else had written.
    pub conflicts: AtomicU64,
    /// Of these, those that failed otherwise.
    pub failures: AtomicU64,
}

/// A client that counts what it writes.
#[derive(Clone)]
pub struct Api {
    client: Client,
    sent: Arc<Sent>,
}

impl Api {
    /// Around a client.
    pub fn new(client: Client, sent: Arc<Sent>) -> Self {
        Self { client, sent }
    }

    /// The client, for watches.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// An object. `None`: it is not there.
    ///
    /// # Errors
    /// What the API server or the way to it said.
    pub async fn get(&self, place: &Place, name: &str) -> Result<Option<Value>, Failure> {
        let request = Request::new(&place.url).get(name, &Default::default());
        let request = request.map_err(Failure::request)?;
        match self.client.request::<Value>(request).await {
            Ok(object) => Ok(Some(object)),
            Err(kube_client::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Objects with a label.
    ///
    /// # Errors
    /// As `get`.
    pub async fn list(&self, place: &Place, labels: &str) -> Result<Vec<Value>, Failure> {
        let params = ListParams::default().labels(labels);
        let request = Request::new(&place.url).list(&params);
        let request = request.map_err(Failure::request)?;
        let list: Value = self.client.request(request).await?;
        let items = list.get("items").and_then(Value::as_array);
        Ok(items.cloned().unwrap_or_default())
    }

    /// Server-side apply: what `object` says is so then, and ours to say. `force`: even if somebody else said
    /// otherwise. Fields that the API does not know are an error.
    ///
    /// # Errors
    /// As `get`.
    pub async fn apply(
        &self,
        place: &Place,
        name: &str,
        object: &Value,
        force: bool,
    ) -> Result<Value, Failure> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            force,
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::default()
        };
        let request = Request::new(&place.url).patch(name, &params, &Patch::Apply(object));
        self.write(request).await
    }

    /// Changes fields of an object's status. With its `metadata.resourceVersion` it fails if somebody else has
    /// written since.
    ///
    /// # Errors
    /// As `get`.
    pub async fn patch_status(
        &self,
        place: &Place,
        name: &str,
        patch: &Value,
    ) -> Result<Value, Failure> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch);
        let request = Request::new(&place.url).patch_subresource("status", name, &params, &patch);
        self.write(request).await
    }

    /// Creates an object.
    ///
    /// # Errors
    /// As `get`; 409 if it is there.
    pub async fn create(&self, place: &Place, object: &Value) -> Result<Value, Failure> {
        let body = serde_json::to_vec(object).unwrap_or_default();
        self.write(Request::new(&place.url).create(&Default::default(), body))
            .await
    }

    /// Replaces an object as its `metadata.resourceVersion` has it.
    ///
    /// # Errors
    /// As `get`; 409 if somebody else has written since.
    pub async fn replace(
        &self,
        place: &Place,
        name: &str,
        object: &Value,
    ) -> Result<Value, Failure> {
        let body = serde_json::to_vec(object).unwrap_or_default();
        self.write(Request::new(&place.url).replace(name, &Default::default(), body))
            .await
    }

    /// Deletes the object with this uid, and no later one of the name.
    ///
    /// # Errors
    /// As `get`.
    pub async fn delete(&self, place: &Place, name: &str, uid: &str) -> Result<(), Failure> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let request = Request::new(&place.url).delete(name, &params);
        match self.write(request).await {
            Err(failure) if failure.code == 404 => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    async fn write(
        &self,
        request: Result<http::Request<Vec<u8>>, kube_core::request::Error>,
    ) -> Result<Value, Failure> {
        let request = request.map_err(Failure::request)?;
        self.sent.writes.fetch_add(1, Ordering::Relaxed);
        let outcome = self.client.request::<Value>(request).await;
        outcome.map_err(|error| {
            let failure = Failure::from(error);
            let counted = match failure.is_conflict() {
                true => &self.sent.conflicts,
                false => &self.sent.failures,
            };
            counted.fetch_add(1, Ordering::Relaxed);
            failure
        })
    }
}

/// Why the API server did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// HTTP status; 0: there was no answer.
    pub code: u16,
    /// Its words, or those of the way to it.
    pub message: String,
}

impl Failure {
    fn request(error: kube_core::request::Error) -> Self {
        Self {
            code: 0,
            message: error.to_string(),
        }
    }

    /// Somebody else wrote first.
    pub fn is_conflict(&self) -> bool {
        self.code == 409
    }

    /// The object as it was sent is the fault: to send it again is no use.
    pub fn is_ours(&self) -> bool {
        // A field that there is not is an error of the server's own, says the server.
        matches!(self.code, 400 | 422) || self.message.contains("field not declared in schema")
    }
}

impl From<kube_client::Error> for Failure {
    fn from(error: kube_client::Error) -> Self {
        if let kube_client::Error::Api(status) = &error {
            return Self {
                code: status.code,
                message: status.message.clone(),
            };
        }
        let refusal = crate::watch::Refusal::unreachable(&error);
        Self {
            code: 0,
            message: format!("the API server gives no answer: {}", refusal.message),
        }
    }
}
