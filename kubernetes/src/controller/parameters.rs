//! The overlays of a Gateway: class-wide ones, then its own (specs/istio-waypoint.md 1.7). Reads ConfigMaps; what the
//! overlays do is `overlay`'s.

use serde_json::{Map, Value};

use super::api::{Api, Failure, Place};
use super::gateways::{Managed, text};
use super::overlay::Overlays;

/// On a ConfigMap in the controller's namespace: the class whose Gateways it is for.
pub const DEFAULTS_FOR_CLASS: &str = "gateway.istio.io/defaults-for-class";

/// Why there are no overlays to go by.
#[derive(Debug)]
pub enum Unusable {
    /// They are wrong, and for whom to say.
    Invalid(String),
    /// The API server did not say.
    Unknown(Failure),
}

impl From<Failure> for Unusable {
    fn from(failure: Failure) -> Self {
        Self::Unknown(failure)
    }
}

/// Overlays in the order they are applied. `root` is the namespace of class-wide ones.
///
/// # Errors
/// When any of them is missing, broken or can not be read.
pub async fn overlays(api: &Api, gateway: &Managed, root: &str) -> Result<Vec<Overlays>, Unusable> {
    let mut overlays = Vec::new();
    let place = Place::new("", "v1", "configmaps", Some(root));
    let labels = format!("{DEFAULTS_FOR_CLASS}={}", gateway.class);
    let mut defaults = api.list(&place, &labels).await?;
    // The API server sorts by name already; that it does is not promised.
    defaults.sort_by_key(|map| text(map, "/metadata/name").map(str::to_owned));
    for map in &defaults {
        overlays.push(read(root, map)?);
    }
    let Some((group, kind, name)) = gateway.parameters() else {
        return Ok(overlays);
    };
    if !group.is_empty() || kind != "ConfigMap" {
        let message = format!("parametersRef is to a {kind}.{group}; only a ConfigMap is read");
        return Err(Unusable::Invalid(message));
    }
    let namespace = &*gateway.key.namespace;
    let place = Place::new("", "v1", "configmaps", Some(namespace));
    match api.get(&place, name).await? {
        Some(map) => overlays.push(read(namespace, &map)?),
        None => {
            let message = format!("there is no ConfigMap {namespace}/{name}");
            return Err(Unusable::Invalid(message));
        }
    }
    Ok(overlays)
}

fn read(namespace: &str, map: &Value) -> Result<Overlays, Unusable> {
    let name = text(map, "/metadata/name").unwrap_or_default();
    let empty = Map::new();
    let data = map.get("data").and_then(Value::as_object).unwrap_or(&empty);
    Overlays::read(format!("ConfigMap {namespace}/{name}"), data).map_err(Unusable::Invalid)
}
