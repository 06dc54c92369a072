//! `cairn attach`: a Gateway and the labels that lead Services or a Namespace to it (specs/istio-waypoint.md
//! 1.2, 1.3). What is to be applied is a pure function of what is asked and what is there; the rest is thin.

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use kube_client::Client;
use kube_core::dynamic::DynamicObject;
use kube_runtime::wait::{Error as WaitError, await_condition};
use serde::Serialize;
use serde_json::{Value, json};

use crate::enrolment::{CANARY, USE_WAYPOINT, USE_WAYPOINT_NAMESPACE, Wish, canary, wish};
use crate::objects::{
    self, ApiError, Asked, GATEWAY, NAMESPACE, SERVICE, as_value, condition, label, name_of,
    namespace_of, text,
};

/// The class of what is made here.
pub const CLASS: &str = "cairn-waypoint";
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// Field manager of what is applied.
const MANAGER: &str = "cairn-attach";
/// Where tunnels come in (specs/istio-waypoint.md 1.6).
const HBONE_PORT: u16 = 15008;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The Gateway; it is made in the namespace that it is for.
    pub gateway: ObjectKey,
    /// Services to lead to it; none: the whole namespace.
    pub services: Vec<String>,
    /// `istio.io/waypoint-for`; `None` leaves what is there, which is `service` by default.
    pub traffic: Option<Traffic>,
    /// Take over objects whose labels say something else.
    pub overwrite: bool,
}

/// What a waypoint serves the addresses of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// Services.
    Service,
    /// Pods.
    Workload,
    /// Both.
    All,
}

impl Traffic {
    /// Value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
        }
    }
}

/// The objects as the API server has them.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The Gateway.
    pub gateway: Option<Value>,
    /// The Namespace or the Services that are to be labelled.
    pub targets: Vec<Value>,
}

/// Why nothing, or not all, was done.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Something that is there stands in the way; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The Gateway was not programmed in time.
    #[error("{gateway} was not programmed within {seconds} s: {said}. The Gateway is there, the labels were not set: \
        traffic goes as before. `kubectl describe gateway -n {}` says more, and so does `cairn status`", gateway.namespace)]
    NotProgrammed {
        /// The Gateway.
        gateway: ObjectKey,
        /// How long it was waited for.
        seconds: u64,
        /// Its condition.
        said: String,
    },
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    /// `Service shop/web`.
    pub object: String,
    /// What became of it.
    pub change: Change,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was made.
    Created,
    /// It was there and is otherwise now.
    Changed,
    /// It was as asked for.
    Unchanged,
    /// It was deleted.
    Deleted,
}

/// The Gateway, as it is applied.
pub fn gateway(wanted: &Wanted) -> Value {
    let key = &wanted.gateway;
    let traffic = wanted.traffic.map(|t| (WAYPOINT_FOR, t.as_str()));
    json!({
        "apiVersion": GATEWAY.api_version(),
        "kind": GATEWAY.kind,
        "metadata": metadata(&key.namespace, &key.name, traffic),
        "spec": {
            "gatewayClassName": CLASS,
            "listeners": [{"name": "mesh", "port": HBONE_PORT, "protocol": "HBONE"}],
        },
    })
}

/// The labels of a target, as they are applied.
fn labelled(wanted: &Wanted, kind: Asked, name: &str, names_namespace: bool) -> Value {
    let key = &wanted.gateway;
    let own_namespace = match kind == SERVICE {
        true => &*key.namespace,
        false => "",
    };
    let far = names_namespace.then_some((USE_WAYPOINT_NAMESPACE, &*key.namespace));
    let labels = [(USE_WAYPOINT, &*key.name)].into_iter().chain(far);
    json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "metadata": metadata(own_namespace, name, labels),
    })
}

fn metadata<'l>(
    namespace: &str,
    name: &str,
    labels: impl IntoIterator<Item = (&'l str, &'l str)>,
) -> Value {
    let labels: BTreeMap<&str, &str> = labels.into_iter().collect();
    let mut fields = serde_json::Map::new();
    fields.insert("name".to_owned(), name.into());
    if !namespace.is_empty() {
        fields.insert("namespace".to_owned(), namespace.into());
    }
    if !labels.is_empty() {
        fields.insert("labels".to_owned(), json!(labels));
    }
    Value::Object(fields)
}

/// Everything that is applied, in order, without a look at what is there: what `--dry-run` prints.
pub fn manifests(wanted: &Wanted) -> Vec<Value> {
    let key = &wanted.gateway;
    let mut all = vec![gateway(wanted)];
    match wanted.services.as_slice() {
        [] => all.push(labelled(wanted, NAMESPACE, &key.namespace, false)),
        names => {
            let labels = names
                .iter()
                .map(|name| labelled(wanted, SERVICE, name, false));
            all.extend(labels);
        }
    }
    all
}

/// What has to be applied where these objects are, and what is so already (`None`).
///
/// # Errors
/// When something is there that says something else, and is not to be overwritten.
pub fn plan(wanted: &Wanted, found: &Found) -> Result<Vec<(Value, Option<Change>)>, AttachError> {
    let mut steps = vec![(
        gateway(wanted),
        gateway_change(wanted, found.gateway.as_ref())?,
    )];
    for target in &found.targets {
        let kind = match text(target, "/kind") {
            Some("Namespace") => NAMESPACE,
            _ => SERVICE,
        };
        let named = kind.named(namespace_of(target), name_of(target));
        let change = match wish(target) {
            Wish::Gateway(key) if key == wanted.gateway => None,
            Wish::Nothing => Some(Change::Changed),
            _ if wanted.overwrite => Some(Change::Changed),
            Wish::OptOut => {
                return Err(AttachError::Refused(format!(
                    "{named} is kept from waypoints by its label {USE_WAYPOINT}: none. Nothing was changed; \
                     with --overwrite the label is replaced"
                )));
            }
            Wish::Gateway(other) => {
                return Err(AttachError::Refused(format!(
                    "{named} uses the waypoint {other} (label {USE_WAYPOINT}). Nothing was changed; with --overwrite it \
                     moves to {}, and to undo that: `cairn attach` with --name {} --overwrite",
                    wanted.gateway, other.name
                )));
            }
        };
        let canary = canary(target).filter(|key| *key != wanted.gateway);
        if let (Some(canary), false) = (canary, wanted.overwrite) {
            return Err(AttachError::Refused(format!(
                "{named} has a second waypoint, {canary}, for a share of its connections (label {CANARY}). Nothing was \
                 changed; remove that label, or say --overwrite, which leaves it as it is"
            )));
        }
        let moved = label(target, USE_WAYPOINT_NAMESPACE).is_some();
        steps.push((labelled(wanted, kind, name_of(target), moved), change));
    }
    Ok(steps)
}

fn gateway_change(wanted: &Wanted, there: Option<&Value>) -> Result<Option<Change>, AttachError> {
    let Some(there) = there else {
        return Ok(Some(Change::Created));
    };
    let class = text(there, "/spec/gatewayClassName").unwrap_or("");
    if class != CLASS {
        return Err(AttachError::Refused(format!(
            "there is a Gateway {} of class {class}, which is not Cairn's to change. Nothing was changed; \
             choose another name with --name",
            wanted.gateway
        )));
    }
    let listeners = there.pointer("/spec/listeners").and_then(Value::as_array);
    let listens = listeners.into_iter().flatten().any(|listener| {
        text(listener, "/protocol") == Some("HBONE")
            && listener.pointer("/port") == Some(&json!(HBONE_PORT))
    });
    let traffic = wanted.traffic.map(Traffic::as_str);
    let serves = traffic.is_none() || label(there, WAYPOINT_FOR) == traffic;
    Ok((!listens || !serves).then_some(Change::Changed))
}

/// Attaches: the Gateway first; with `wait` the labels only once it is programmed, so that no request
/// goes by a waypoint that is not there yet.
///
/// # Errors
/// See [`AttachError`]. After a refusal nothing has changed.
pub async fn attach(
    client: &Client,
    wanted: &Wanted,
    wait: Option<Duration>,
) -> Result<Vec<Done>, AttachError> {
    let found = find(client, wanted).await?;
    let mut done = Vec::new();
    let mut steps = plan(wanted, &found)?.into_iter();
    let kinds = [GATEWAY]
        .into_iter()
        .chain(std::iter::repeat(match wanted.services.is_empty() {
            true => NAMESPACE,
            false => SERVICE,
        }));
    for (at, kind) in kinds.enumerate() {
        let Some((object, change)) = steps.next() else {
            break;
        };
        if change.is_some() {
            objects::apply(client, MANAGER, kind, &object, wanted.overwrite).await?;
        }
        done.push(Done {
            object: kind.named(namespace_of(&object), name_of(&object)),
            change: change.unwrap_or(Change::Unchanged),
        });
        if let (0, Some(wait)) = (at, wait) {
            programmed(client, &wanted.gateway, wait).await?;
        }
    }
    Ok(done)
}

async fn find(client: &Client, wanted: &Wanted) -> Result<Found, AttachError> {
    let key = &wanted.gateway;
    let gateway = objects::get(client, GATEWAY, &key.namespace, &key.name).await?;
    let mut targets = Vec::new();
    let names: Vec<(Asked, &str, &str)> = match wanted.services.as_slice() {
        [] => vec![(NAMESPACE, "", &*key.namespace)],
        names => {
            let services = names.iter().map(|n| (SERVICE, &*key.namespace, n.as_str()));
            services.collect()
        }
    };
    for (kind, namespace, name) in names {
        let there = objects::get(client, kind, namespace, name).await?;
        targets.push(there.ok_or_else(|| {
            let named = kind.named(namespace, name);
            AttachError::Refused(format!("there is no {named}. Nothing was changed"))
        })?);
    }
    Ok(Found { gateway, targets })
}

/// Waits until the Gateway is programmed and has an address.
async fn programmed(
    client: &Client,
    gateway: &ObjectKey,
    wait: Duration,
) -> Result<(), AttachError> {
    let api = GATEWAY.of(client, &gateway.namespace);
    let holds = |object: Option<&DynamicObject>| {
        let object = object.map(|object| as_value(object, GATEWAY));
        object.is_some_and(|object| is_programmed(&object))
    };
    let waited = tokio::time::timeout(wait, await_condition(api, &gateway.name, holds)).await;
    match waited {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(WaitError::ProbeFailed(error))) => {
            let why = error.to_string();
            Err(AttachError::Refused(format!(
                "watch Gateway {gateway}: {why}"
            )))
        }
        Err(_) => {
            let now = objects::get(client, GATEWAY, &gateway.namespace, &gateway.name).await?;
            let said = now
                .as_ref()
                .and_then(|object| condition(object, "Programmed"));
            Err(AttachError::NotProgrammed {
                gateway: gateway.clone(),
                seconds: wait.as_secs(),
                said: match said {
                    Some(("True", _)) => "it has no address".to_owned(),
                    Some((status, message)) => format!("Programmed is {status}, {message}"),
                    None => "no controller has written its status; does `cairn controller` run?"
                        .to_owned(),
                },
            })
        }
    }
}

/// Whether clients go to the waypoint: it is programmed and has an address (specs/istio-waypoint.md 0).
pub fn is_programmed(gateway: &Value) -> bool {
    let addresses = gateway
        .pointer("/status/addresses")
        .and_then(Value::as_array);
    matches!(condition(gateway, "Programmed"), Some(("True", _)))
        && addresses.is_some_and(|addresses| !addresses.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(services: &[&str]) -> Wanted {
        Wanted {
            gateway: ObjectKey::new("shop", "waypoint"),
            services: services.iter().map(|s| (*s).to_owned()).collect(),
            traffic: None,
            overwrite: false,
        }
    }

    fn service(labels: &Value) -> Value {
        json!({"kind": "Service", "metadata": {"name": "web", "namespace": "shop", "labels": labels}})
    }

    fn planned(wanted: &Wanted, found: &Found) -> Result<Vec<Option<Change>>, String> {
        let steps = plan(wanted, found).map_err(|error| error.to_string())?;
        Ok(steps.into_iter().map(|(_, change)| change).collect())
    }

    #[test]
    fn a_namespace_gets_a_gateway_and_a_label() {
        let found = Found {
            gateway: None,
            targets: vec![json!({"kind": "Namespace", "metadata": {"name": "shop"}})],
        };
        let steps = planned(&wanted(&[]), &found).unwrap();
        assert_eq!(steps, [Some(Change::Created), Some(Change::Changed)]);
        let all = manifests(&wanted(&[]));
        assert_eq!(all[0]["spec"]["listeners"][0]["port"], 15008);
        assert_eq!(all[1]["metadata"]["labels"][USE_WAYPOINT], "waypoint");
    }

    #[test]
    fn done_twice_it_changes_nothing() {
        let mut asked = wanted(&["web"]);
        asked.traffic = Some(Traffic::All);
        let found = Found {
            gateway: Some(gateway(&asked)),
            targets: vec![service(&json!({USE_WAYPOINT: "waypoint"}))],
        };
        assert_eq!(planned(&asked, &found).unwrap(), [None, None]);
    }

    #[test]
    fn what_is_there_is_not_taken_over_unasked() {
        let mut asked = wanted(&["web"]);
        let mut found = Found {
            gateway: None,
            targets: vec![service(&json!({USE_WAYPOINT: "other"}))],
        };
        let refused = planned(&asked, &found).unwrap_err();
        assert!(
            refused.contains("uses the waypoint shop/other"),
            "{refused}"
        );
        assert!(refused.contains("--overwrite"), "{refused}");
        asked.overwrite = true;
        assert!(planned(&asked, &found).is_ok());

        found.targets = vec![service(&json!({USE_WAYPOINT: "none"}))];
        assert!(planned(&asked, &found).is_ok());
        asked.overwrite = false;
        let refused = planned(&asked, &found).unwrap_err();
        assert!(refused.contains("kept from waypoints"), "{refused}");
    }

    /// The label of a second waypoint stays, and with it the share that goes there.
    #[test]
    fn a_second_waypoint_is_not_passed_over_in_silence() {
        let mut asked = wanted(&["web"]);
        let found = Found {
            gateway: None,
            targets: vec![service(&json!({USE_WAYPOINT: "waypoint", CANARY: "next"}))],
        };
        let refused = planned(&asked, &found).unwrap_err();
        assert!(refused.contains("shop/next"), "{refused}");
        asked.overwrite = true;
        assert!(planned(&asked, &found).is_ok());
    }

    /// A Gateway of the same name is somebody's, `--overwrite` or not.
    #[test]
    fn a_gateway_of_another_class_stays_as_it_is() {
        let mut asked = wanted(&[]);
        asked.overwrite = true;
        let mut there = gateway(&asked);
        there["spec"]["gatewayClassName"] = json!("istio-waypoint");
        let found = Found {
            gateway: Some(there),
            targets: Vec::new(),
        };
        let refused = planned(&asked, &found).unwrap_err();
        assert!(refused.contains("class istio-waypoint"), "{refused}");
    }

    /// What led to a Gateway of another namespace would go on leading there.
    #[test]
    fn an_object_that_moves_is_told_the_namespace_too() {
        let mut asked = wanted(&["web"]);
        asked.overwrite = true;
        let labels = json!({USE_WAYPOINT: "waypoint", USE_WAYPOINT_NAMESPACE: "mesh"});
        let found = Found {
            gateway: None,
            targets: vec![service(&labels)],
        };
        let steps = plan(&asked, &found).unwrap();
        let (object, change) = &steps[1];
        assert_eq!(*change, Some(Change::Changed));
        assert_eq!(label(object, USE_WAYPOINT_NAMESPACE), Some("shop"));
    }

    #[test]
    fn programmed_is_a_condition_and_an_address() {
        let mut gateway = gateway(&wanted(&[]));
        assert!(!is_programmed(&gateway));
        gateway["status"] = json!({"conditions": [{"type": "Programmed", "status": "True"}]});
        assert!(!is_programmed(&gateway), "clients would go past it");
        gateway["status"]["addresses"] = json!([{"value": "10.0.0.1"}]);
        assert!(is_programmed(&gateway));
    }
}
