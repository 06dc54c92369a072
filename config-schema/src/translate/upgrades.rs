//! Which Listeners of a CiliumEnvoyConfig answer requests for WebSockets themselves: Envoy lets an upgrade through
//! only where its connection manager names it (`upgradeConfigs`). Looks at what is written, for the waypoint lets them
//! through whatever it says.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ground::Ground;
use crate::origin::{Kind, Origin};
use crate::resolve::envoy_config_prefix;
use crate::resources::Loaded;
use crate::resources::cilium_envoy::CiliumEnvoyConfigSpec;

/// What becomes of such a Listener in the words of others.
pub(super) const WIDER: &str = "without `upgradeConfigs` for `websocket` Envoy answers requests for WebSockets itself, and what \
     would be written lets them through";

/// The paths of those of an object; none of what is no CiliumEnvoyConfig.
pub(super) fn without_websockets(ground: &Ground<'_>, origin: &Origin) -> Vec<String> {
    let (r, key) = (ground.resources, &origin.key);
    let spec = match origin.kind {
        Kind::CiliumEnvoyConfig => {
            let object = r.envoy_configs.get(key).and_then(Loaded::object);
            object.map(|o| &o.spec)
        }
        Kind::CiliumClusterwideEnvoyConfig => {
            let wide = &r.envoy_clusterwide_configs;
            let object = wide.get(key).and_then(Loaded::object);
            object.map(|o| &o.spec.0)
        }
        _ => None,
    };
    spec.map(|spec| refusing(spec, &envoy_config_prefix(key)))
        .unwrap_or_default()
}

fn refusing(spec: &CiliumEnvoyConfigSpec, prefix: &str) -> Vec<String> {
    let refusing = taken(spec, prefix).into_iter().filter(|(_, listener)| {
        let managers = managers_in(listener);
        managers.iter().any(|manager| !takes_websockets(manager))
    });
    refusing
        .map(|(at, _)| format!("spec.resources[{at}]"))
        .collect()
}

/// The Listeners through which requests to services come, with their places: those that services name, and the first
/// for those that name none, as `resolve::envoy_config` has it.
fn taken<'v>(spec: &'v CiliumEnvoyConfigSpec, prefix: &str) -> BTreeMap<usize, &'v Value> {
    let resources = spec.resources.iter().flatten().enumerate();
    let listeners: Vec<_> = resources
        .filter(|(_, resource)| is_a(resource, "Listener"))
        .collect();
    let own = |name: &'v str| name.strip_prefix(prefix).unwrap_or(name);
    let name = |listener: &'v Value| listener.get("name").and_then(Value::as_str);
    let services = spec.services.iter().flatten();
    let taken = services.filter_map(|service| match service.listener.as_deref() {
        Some(wanted) => listeners
            .iter()
            .find(|(_, listener)| own(name(listener).unwrap_or_default()) == own(wanted)),
        None => listeners.first(),
    });
    taken.copied().collect()
}

fn is_a(resource: &Value, kind: &str) -> bool {
    let full = resource.get("@type").and_then(Value::as_str);
    full.is_some_and(|full| full.rsplit('.').next() == Some(kind))
}

/// The connection managers, wherever in a Listener.
fn managers_in(resource: &Value) -> Vec<&Value> {
    match resource {
        manager if is_a(manager, "HttpConnectionManager") => vec![manager],
        Value::Object(fields) => fields.values().flat_map(managers_in).collect(),
        Value::Array(items) => items.iter().flat_map(managers_in).collect(),
        _ => Vec::new(),
    }
}

fn takes_websockets(manager: &Value) -> bool {
    // Fields of Envoy's messages are written in either way.
    fn either<'v>(of: &'v Value, names: [&str; 2]) -> Option<&'v Value> {
        names.into_iter().find_map(|name| of.get(name))
    }
    let upgrades = either(manager, ["upgradeConfigs", "upgrade_configs"]);
    let mut upgrades = upgrades.and_then(Value::as_array).into_iter().flatten();
    upgrades.any(|upgrade| {
        let kind = either(upgrade, ["upgradeType", "upgrade_type"]);
        kind.is_some_and(|kind| kind == "websocket")
    })
}
