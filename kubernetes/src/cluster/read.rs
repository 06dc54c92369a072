//! Reads a cluster once: every kind in pages, and the few objects that are asked for by their names. Knows no kind's
//! meaning.

use std::collections::BTreeSet;

use cairn_config_schema::origin::ObjectKey;
use kube_client::Client;
use serde_json::Value;

use super::{
    AGENTS_BINDING, BESIDE, BINDING, Cluster, GATEWAY_NAME, REPLICA_SET, looks_like_agent,
};
use crate::json::Object;
use crate::kinds::{Scope, WATCHED, WatchedKind, watched_kind};
use crate::limits::{PAGE_OBJECTS, READ_AGAIN_MAX};
use crate::objects::{ApiError, namespace_of, text};

/// Reads the cluster, but for who may be an agent of a node; the settings of the mesh from `istio_namespace`. Kinds that
/// the API server does not have are passed over; what may not be read is in [`Cluster::unread`].
///
/// # Errors
/// When the API server does not answer, or knows nobody of that name.
pub async fn read(client: &Client, istio_namespace: &str) -> Result<Cluster, ApiError> {
    Ok(all(client, istio_namespace).await?.into_cluster())
}

/// The same, and who may be an agent, which needs a right of its own.
///
/// # Errors
/// As [`read`].
pub async fn read_with_agents(client: &Client, istio_namespace: &str) -> Result<Cluster, ApiError> {
    let mut reading = all(client, istio_namespace).await?;
    reading.agents_binding().await?;
    Ok(reading.into_cluster())
}

/// Reads routes, policies and Gateways of these names (`Kind/namespace/name`) once more. Pods name them, so that a name
/// may be anything.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_again(
    client: &Client,
    cluster: Cluster,
    names: &BTreeSet<String>,
) -> Result<Cluster, ApiError> {
    let mut reading = Reading {
        client,
        istio_namespace: "",
        objects: Vec::new(),
        unread: Vec::new(),
        refused: BTreeSet::new(),
    };
    let mut looked = BTreeSet::new();
    for name in names.iter().take(READ_AGAIN_MAX) {
        if let Some((kind, key)) = named(name) {
            reading.named(kind, &key).await?;
            looked.insert((kind.kind, key));
        }
    }
    Ok(cluster.with(&looked, reading.objects, reading.unread))
}

/// The kind and key that a name is of. `None`: of none that could be there.
fn named(name: &str) -> Option<(&'static WatchedKind, ObjectKey)> {
    let (kind, rest) = name.split_once('/')?;
    let (namespace, object) = rest.split_once('/').unwrap_or(("", rest));
    let kind = watched_kind(kind).filter(|kind| matches!(kind.scope, Scope::All))?;
    // They become part of a URL.
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let is_name = |name: &str| !name.starts_with('.') && name.chars().all(is_plain);
    (is_name(namespace) && is_name(object) && !object.is_empty())
        .then(|| (kind, ObjectKey::new(namespace, object)))
}

async fn all<'c>(client: &'c Client, istio_namespace: &'c str) -> Result<Reading<'c>, ApiError> {
    let mut reading = Reading {
        client,
        istio_namespace,
        objects: Vec::new(),
        unread: Vec::new(),
        refused: BTreeSet::new(),
    };
    for kind in WATCHED {
        reading.kind(kind).await?;
    }
    for (group, version, kind, plural) in BESIDE {
        let url = format!("/apis/{group}/{version}/{plural}");
        let only = match kind {
            REPLICA_SET => format!("&labelSelector={}", GATEWAY_NAME.replace('/', "%2F")),
            _ => String::new(),
        };
        reading
            .list(kind, &format!("{group}/{version}"), &url, &only)
            .await?;
    }
    reading.named_bundles().await?;
    Ok(reading)
}

struct Reading<'c> {
    client: &'c Client,
    istio_namespace: &'c str,
    objects: Vec<Value>,
    unread: Vec<String>,
    /// Kinds that may not be listed.
    refused: BTreeSet<String>,
}

impl Reading<'_> {
    fn into_cluster(self) -> Cluster {
        Cluster {
            refused: self.refused,
            ..Cluster::of(self.objects, self.unread)
        }
    }

    /// One object, by a list: whoever may read the cluster may list, and need not have the right to get.
    async fn named(&mut self, kind: &WatchedKind, key: &ObjectKey) -> Result<(), ApiError> {
        let namespace = Some(&*key.namespace).filter(|namespace| !namespace.is_empty());
        let only = format!("&fieldSelector=metadata.name%3D{}", key.name);
        self.versions(kind, namespace, &only).await
    }

    /// A kind in the best version that is served.
    async fn kind(&mut self, kind: &WatchedKind) -> Result<(), ApiError> {
        let (namespace, only) = match kind.scope {
            Scope::All => (None, String::new()),
            Scope::OfIstio(name) => {
                let only = format!("&fieldSelector=metadata.name%3D{name}");
                (Some(self.istio_namespace), only)
            }
        };
        self.versions(kind, namespace, &only).await
    }

    /// What is selected by `only`, in the best version that is served.
    async fn versions(
        &mut self,
        kind: &WatchedKind,
        namespace: Option<&str>,
        only: &str,
    ) -> Result<(), ApiError> {
        for version in kind.versions {
            let url = kind.url(version, namespace);
            if self
                .list(kind.kind, &kind.api_version(version), &url, only)
                .await?
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// All objects below a URL, in pages. `false`: there is no such kind.
    async fn list(
        &mut self,
        kind: &str,
        api_version: &str,
        url: &str,
        only: &str,
    ) -> Result<bool, ApiError> {
        let mut more = String::new();
        loop {
            let page = format!("{url}?limit={PAGE_OBJECTS}{only}{more}");
            let mut page: Value = match self.ask(&page, &format!("list {kind} objects")).await {
                Ok(page) => page,
                Err(error) if error.is_not_found() => return Ok(false),
                Err(error) if error.is_forbidden() => {
                    self.unread.push(error.to_string());
                    self.refused.insert(kind.to_owned());
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            if let Some(items) = page.get_mut("items").and_then(Value::as_array_mut) {
                let whole = items
                    .drain(..)
                    .map(|item| completed(item, kind, api_version));
                self.objects.extend(whole);
            }
            match text(&page, "/metadata/continue") {
                None | Some("") => return Ok(true),
                Some(token) => more = format!("&continue={token}"),
            }
        }
    }

    async fn ask(&self, url: &str, doing: &str) -> Result<Value, ApiError> {
        get_json(self.client, url, doing).await
    }

    /// ConfigMaps with certificates, by the BackendTLSPolicies that name them.
    async fn named_bundles(&mut self) -> Result<(), ApiError> {
        let mut named = BTreeSet::new();
        let of_tls = |o: &&Value| text(o, "/kind") == Some("BackendTLSPolicy");
        let is_followed =
            |name: &str| watched_kind("ConfigMap").is_some_and(|k| k.can_be_named(name));
        for policy in self.objects.iter().filter(of_tls) {
            let references = policy.pointer("/spec/validation/caCertificateRefs");
            for reference in references.and_then(Value::as_array).into_iter().flatten() {
                if let (Some("ConfigMap"), Some(name)) =
                    (text(reference, "/kind"), text(reference, "/name"))
                    && is_followed(name)
                {
                    named.insert(ObjectKey::new(namespace_of(policy), name));
                }
            }
        }
        for key in named {
            let url = format!(
                "/api/v1/namespaces/{}/configmaps/{}",
                key.namespace, key.name
            );
            self.one(&url, "ConfigMap", "v1", &key).await?;
        }
        Ok(())
    }

    /// Who may be an agent, where something looks like one.
    async fn agents_binding(&mut self) -> Result<(), ApiError> {
        if !self.objects.iter().any(looks_like_agent) {
            return Ok(());
        }
        let (group, key) = (
            "rbac.authorization.k8s.io/v1",
            ObjectKey::new("", AGENTS_BINDING),
        );
        let url = format!("/apis/{group}/clusterrolebindings/{AGENTS_BINDING}");
        self.one(&url, BINDING, group, &key).await
    }

    /// An object by its URL, if it is there.
    async fn one(
        &mut self,
        url: &str,
        kind: &str,
        api_version: &str,
        key: &ObjectKey,
    ) -> Result<(), ApiError> {
        match self.ask(url, &format!("get {kind} {key}")).await {
            Ok(object) => self.objects.push(completed(object, kind, api_version)),
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_forbidden() => self.unread.push(error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// What the API server answers to a GET, as JSON.
///
/// # Errors
/// When it does not answer or refuses.
async fn get_json(client: &Client, url: &str, doing: &str) -> Result<Value, ApiError> {
    let request = http::Request::get(url).body(Vec::new());
    let request =
        request.map_err(|error| ApiError::new(doing, kube_client::Error::HttpError(error)))?;
    let answer = client.request::<Object>(request).await;
    answer
        .map(|object| object.0)
        .map_err(|error| ApiError::new(doing, error))
}

/// With the kind that objects in lists lack, and without what only managers need.
fn completed(mut object: Value, kind: &str, api_version: &str) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), api_version.into());
        fields.insert("kind".to_owned(), kind.into());
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}
