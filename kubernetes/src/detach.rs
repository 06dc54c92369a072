//! `cairn detach`: the labels go first, then the Gateway if that is asked for and nobody uses it. What would be
//! left without a waypoint is said; it is never guessed.

use cairn_config_schema::origin::ObjectKey;
use kube_client::Client;
use serde::Serialize;
use serde_json::Value;

use crate::attach::{CLASS, Change, Done};
use crate::enrolment::{self, USE_WAYPOINT, USE_WAYPOINT_NAMESPACE, Wish, wish};
use crate::objects::{
    self, ApiError, Asked, GATEWAY, NAMESPACE, SERVICE, name_of, namespace_of, text,
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Unwanted {
    /// The Gateway that is no longer to be used.
    pub gateway: ObjectKey,
    /// Services that leave it; none: the namespace.
    pub services: Vec<String>,
    /// Delete the Gateway too.
    pub delete_gateway: bool,
}

/// Why nothing, or not all, was done.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// Something that is there stands in the way.
    #[error("{0}")]
    Refused(String),
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// What was done, and who still uses the Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detached {
    /// In order.
    pub done: Vec<Done>,
    /// Objects that name the Gateway still.
    pub still_used_by: Vec<String>,
    /// Why that is not known: who detaches in a namespace need not read all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// Whether the labels of an object are to be removed.
fn leaves(object: &Value, kind: Asked, gateway: &ObjectKey) -> Result<bool, DetachError> {
    match wish(object) {
        Wish::Gateway(key) if key == *gateway => Ok(true),
        Wish::Gateway(other) => {
            let named = kind.named(namespace_of(object), name_of(object));
            Err(DetachError::Refused(format!(
                "{named} uses the waypoint {other}, not {gateway}. Nothing was changed; name it with --name {}",
                other.name
            )))
        }
        Wish::Nothing | Wish::OptOut => Ok(false),
    }
}

/// Detaches.
///
/// # Errors
/// When an object uses another Gateway, or the Gateway to delete is used still; labels that were
/// removed before that stay removed, and the message says so.
pub async fn detach(client: &Client, unwanted: &Unwanted) -> Result<Detached, DetachError> {
    let gateway = &unwanted.gateway;
    let namespace = &*gateway.namespace;
    let targets: Vec<(Asked, &str, &str)> = match unwanted.services.as_slice() {
        [] => vec![(NAMESPACE, "", namespace)],
        names => names
            .iter()
            .map(|n| (SERVICE, namespace, n.as_str()))
            .collect(),
    };
    let mut leaving = Vec::new();
    for (kind, namespace, name) in targets {
        let found = objects::get(client, kind, namespace, name).await?;
        let found = found.ok_or_else(|| {
            let named = kind.named(namespace, name);
            DetachError::Refused(format!("there is no {named}. Nothing was changed"))
        })?;
        let leaves = leaves(&found, kind, gateway)?;
        leaving.push((kind, found, leaves));
    }
    let mut done = Vec::new();
    for (kind, found, leaves) in leaving {
        if leaves {
            let labels = [USE_WAYPOINT, USE_WAYPOINT_NAMESPACE];
            objects::remove_labels(client, kind, &found, &labels).await?;
        }
        done.push(Done {
            object: kind.named(namespace_of(&found), name_of(&found)),
            change: if leaves {
                Change::Changed
            } else {
                Change::Unchanged
            },
        });
    }
    let users = enrolment::users(client, gateway).await;
    let (still_used_by, unknown) = known(users, unwanted.delete_gateway)?;
    if unwanted.delete_gateway {
        done.push(delete(client, gateway, &still_used_by).await?);
    }
    Ok(Detached {
        done,
        still_used_by,
        unknown,
    })
}

/// Who uses the Gateway, or why nobody may say; to delete it one has to know.
fn known(
    users: Result<Vec<String>, ApiError>,
    deletes: bool,
) -> Result<(Vec<String>, Option<String>), ApiError> {
    match users {
        Ok(users) => Ok((users, None)),
        Err(error) if error.is_forbidden() && !deletes => Ok((Vec::new(), Some(error.to_string()))),
        Err(error) => Err(error),
    }
}

async fn delete(
    client: &Client,
    gateway: &ObjectKey,
    users: &[String],
) -> Result<Done, DetachError> {
    let done = |change| Done {
        object: GATEWAY.named(&gateway.namespace, &gateway.name),
        change,
    };
    let there = objects::get(client, GATEWAY, &gateway.namespace, &gateway.name).await?;
    let Some(there) = there else {
        return Ok(done(Change::Unchanged));
    };
    let class = text(&there, "/spec/gatewayClassName").unwrap_or("");
    if class != CLASS {
        return Err(DetachError::Refused(format!(
            "Gateway {gateway} is of class {class}, which is not Cairn's to delete; the labels were removed"
        )));
    }
    if !users.is_empty() {
        return Err(DetachError::Refused(format!(
            "Gateway {gateway} stays, for it is used by {}; the labels that were named are removed",
            users.join(", ")
        )));
    }
    objects::delete(client, GATEWAY, &there).await?;
    Ok(done(Change::Deleted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_uses_this_gateway_leaves_it() {
        let gateway = ObjectKey::new("shop", "waypoint");
        let of = |labels: Value| {
            let object =
                json!({"metadata": {"name": "web", "namespace": "shop", "labels": labels}});
            leaves(&object, SERVICE, &gateway).map_err(|error| error.to_string())
        };
        assert_eq!(of(json!({USE_WAYPOINT: "waypoint"})), Ok(true));
        assert_eq!(of(json!({})), Ok(false));
        assert_eq!(of(json!({USE_WAYPOINT: "none"})), Ok(false), "it stays out");
        let refused = of(json!({USE_WAYPOINT: "other"})).unwrap_err();
        assert!(refused.contains("--name other"), "{refused}");
    }

    #[test]
    fn who_may_not_list_all_namespaces_detaches_and_deletes_nothing() {
        let answer = |code| {
            let status = kube_core::Status::failure("no", "Forbidden").with_code(code);
            ApiError::new("list", kube_client::Error::Api(Box::new(status)))
        };
        let (users, unknown) = known(Err(answer(403)), false).unwrap();
        assert!(users.is_empty() && unknown.is_some());
        assert!(known(Err(answer(403)), true).is_err());
        assert!(known(Err(answer(500)), false).is_err());
    }
}
