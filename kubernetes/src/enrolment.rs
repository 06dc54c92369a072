//! Labels by which objects ask for a waypoint (specs/istio-waypoint.md 1.3): what one asks for, and who asks for
//! a given Gateway. Whether a Gateway lets them in is the resolver's to say.

use cairn_config_schema::origin::ObjectKey;
use kube_client::Client;
use serde_json::Value;

use crate::objects::{
    self, ApiError, Asked, NAMESPACE, POD, SERVICE, SERVICE_ENTRY, WORKLOAD_ENTRY, label, name_of,
    namespace_of,
};

/// Names the Gateway, or `none`.
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Namespace of the Gateway, where it is another one.
pub const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// Names a second Gateway, for a share of the connections.
pub const CANARY: &str = "istio.io/use-waypoint-canary";
const CANARY_NAMESPACE: &str = "istio.io/use-waypoint-canary-namespace";
/// Annotation: the share, in percent.
const CANARY_WEIGHT: &str = "istio.io/use-waypoint-canary-weight";

/// What an object's labels ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// `none`: no waypoint, whatever the namespace says.
    OptOut,
    /// This Gateway.
    Gateway(ObjectKey),
}

/// The wish of an object, of a namespace or in one.
pub fn wish(object: &Value) -> Wish {
    match label(object, USE_WAYPOINT) {
        None | Some("") => Wish::Nothing,
        Some("none") => Wish::OptOut,
        Some(name) => Wish::Gateway(key(object, USE_WAYPOINT_NAMESPACE, name)),
    }
}

fn key(object: &Value, namespace_label: &str, name: &str) -> ObjectKey {
    let own = match namespace_of(object) {
        "" => name_of(object),
        namespace => namespace,
    };
    ObjectKey::new(label(object, namespace_label).unwrap_or(own), name)
}

/// The second Gateway that an object names, whatever its share.
pub fn canary(object: &Value) -> Option<ObjectKey> {
    let name = label(object, CANARY).filter(|name| !name.is_empty())?;
    Some(key(object, CANARY_NAMESPACE, name))
}

/// The second Gateway, if it has a share; that of none is nothing, one that can not be read is some.
pub fn share(object: &Value) -> Option<ObjectKey> {
    let weights = object.pointer("/metadata/annotations")?;
    let weight = weights.get(CANARY_WEIGHT)?.as_str()?;
    canary(object).filter(|_| weight.trim().parse() != Ok(0_u64))
}

/// Whether an object names the Gateway, be it for a share of its connections.
pub fn names(object: &Value, gateway: &ObjectKey) -> bool {
    wish(object) == Wish::Gateway(gateway.clone()) || canary(object).as_ref() == Some(gateway)
}

/// The kinds that can ask for a waypoint.
pub const ASKING: [Asked; 5] = [NAMESPACE, SERVICE, SERVICE_ENTRY, POD, WORKLOAD_ENTRY];

/// Everything in the cluster that names the Gateway, as `Kind namespace/name`, sorted by kind as
/// above. Kinds that the API server does not have ask for nothing.
///
/// # Errors
/// When a kind can not be listed: nobody knows who uses it then.
pub async fn users(client: &Client, gateway: &ObjectKey) -> Result<Vec<String>, ApiError> {
    let mut users = Vec::new();
    for kind in ASKING {
        let objects = match objects::list(client, kind, "").await {
            Ok(objects) => objects,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let asking = objects.iter().filter(|object| names(object, gateway));
        users.extend(asking.map(|o| kind.named(namespace_of(o), name_of(o))));
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(labels: &Value) -> Value {
        json!({"kind": "Service", "metadata": {"name": "web", "namespace": "shop", "labels": labels}})
    }

    #[test]
    fn a_label_names_a_gateway_of_the_own_namespace_unless_another_is_named() {
        let asked = |labels| wish(&service(&labels));
        assert_eq!(asked(json!({})), Wish::Nothing);
        assert_eq!(asked(json!({USE_WAYPOINT: "none"})), Wish::OptOut);
        let own = Wish::Gateway(ObjectKey::new("shop", "w"));
        assert_eq!(asked(json!({USE_WAYPOINT: "w"})), own);
        let far = Wish::Gateway(ObjectKey::new("mesh", "w"));
        let labels = json!({USE_WAYPOINT: "w", USE_WAYPOINT_NAMESPACE: "mesh"});
        assert_eq!(asked(labels), far);
        let namespace = json!({"metadata": {"name": "shop", "labels": {USE_WAYPOINT: "w"}}});
        assert_eq!(wish(&namespace), own, "a Namespace is its own");
    }

    #[test]
    fn who_sends_a_share_to_a_gateway_uses_it_too() {
        let labels = json!({USE_WAYPOINT: "w", CANARY: "next"});
        let object = service(&labels);
        assert!(names(&object, &ObjectKey::new("shop", "w")));
        assert!(names(&object, &ObjectKey::new("shop", "next")));
        assert!(!names(&object, &ObjectKey::new("mesh", "next")));
    }
}
