//! The resources of an object, sorted by type: which RouteConfiguration the listener of a service has.
//! What routes say is read in `routes`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::clusters::{self, Declared};
use super::message::{Message, Wrongs};
use crate::diagnostics::Code;

const PREFIX: &str = "type.googleapis.com/";
const LISTENER: &str = "envoy.config.listener.v3.Listener";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const HTTP: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
/// Looks at what the tunnel has told already.
const INSPECTORS: [&str; 2] = [
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
];

/// Where a RouteConfiguration stands.
#[derive(Clone)]
pub(super) struct RoutesAt<'v> {
    pub value: &'v Value,
    pub path: String,
}

/// What there is, by name.
#[derive(Default)]
pub(super) struct Sorted<'v> {
    /// Listeners in the order written, with what each leads to.
    listeners: Vec<(String, ListenerRoutes<'v>)>,
    routes: Vec<(String, RoutesAt<'v>)>,
    /// Cluster resources.
    pub clusters: BTreeMap<String, Declared>,
}

#[derive(Clone)]
enum ListenerRoutes<'v> {
    Named(String),
    Inline(RoutesAt<'v>),
}

/// Sorts them. Types that are not known reject the object.
pub(super) fn sort<'v>(resources: &'v [Value], wrongs: &Wrongs) -> Sorted<'v> {
    let mut sorted = Sorted::default();
    for (at, value) in resources.iter().enumerate() {
        let path = format!("spec.resources[{at}]");
        let name = value.get("name").and_then(Value::as_str);
        let name = name.unwrap_or_default().to_owned();
        let Some(mut written) = Message::of(value, path.clone(), wrongs) else {
            continue;
        };
        match type_of(&mut written).as_deref() {
            Some(ROUTES) => {
                written.forget();
                sorted.routes.push((name, RoutesAt { value, path }));
            }
            Some(LISTENER) => {
                if let Some(routes) = listener(written) {
                    sorted.listeners.push((name, routes));
                }
            }
            Some(CLUSTER) => clusters::declare(written, &mut sorted.clusters, wrongs),
            other => {
                let other = other.unwrap_or("without @type").to_owned();
                written.forget();
                let message = format!("a resource of type {other} is not supported");
                wrongs.say(Code::Unsupported, format!("{path}.@type"), message);
            }
        }
    }
    sorted
}

impl<'v> Sorted<'v> {
    /// The RouteConfiguration for a service: that of its listener, or of the first one; without any
    /// listener, the only one there is. `prefix` may stand in front of names.
    pub fn routes_of(&self, listener: Option<&str>, prefix: &str) -> Result<RoutesAt<'v>, String> {
        let own = |name: &str| name.strip_prefix(prefix).unwrap_or(name).to_owned();
        let found = match listener {
            Some(wanted) => {
                let found = self
                    .listeners
                    .iter()
                    .find(|(name, _)| own(name) == own(wanted));
                Some(found.ok_or_else(|| format!("there is no Listener '{wanted}'"))?)
            }
            None => self.listeners.first(),
        };
        match found.map(|(_, routes)| routes) {
            Some(ListenerRoutes::Inline(at)) => Ok(at.clone()),
            Some(ListenerRoutes::Named(wanted)) => {
                let found = self
                    .routes
                    .iter()
                    .find(|(name, _)| own(name) == own(wanted));
                let found = found.map(|(_, at)| at.clone());
                found.ok_or_else(|| format!("there is no RouteConfiguration '{wanted}'"))
            }
            None => match self.routes.as_slice() {
                [(_, only)] => Ok(only.clone()),
                [] => Err("there is no RouteConfiguration".to_owned()),
                _ => Err("without a Listener there is one RouteConfiguration".to_owned()),
            },
        }
    }

    /// Whether listeners are left to guess.
    pub fn has_no_listener(&self) -> bool {
        self.listeners.is_empty()
    }
}

fn type_of(written: &mut Message<'_, '_>) -> Option<String> {
    let full = written.text("@type")?;
    Some(full.strip_prefix(PREFIX).unwrap_or(full).to_owned())
}

/// A Listener: one chain with one filter, for HTTP.
fn listener<'v>(mut written: Message<'v, '_>) -> Option<ListenerRoutes<'v>> {
    written.skip(&["name", "stat_prefix"]);
    for mut filter in written.messages("listener_filters") {
        filter.skip(&["name"]);
        let Some(mut config) = filter.message("typed_config") else {
            continue;
        };
        let kind = type_of(&mut config).unwrap_or_default();
        if !INSPECTORS.contains(&kind.as_str()) {
            let message = format!("a filter of type {kind} is not supported");
            config.wrong(Code::Unsupported, "@type", message);
            config.forget();
        }
    }
    let mut chains = written.messages("filter_chains");
    let (Some(mut chain), true) = (chains.pop(), chains.is_empty()) else {
        let message = "a Listener of one filter chain is expected here";
        written.wrong(Code::Unsupported, "filterChains", message);
        return None;
    };
    chain.skip(&["name"]);
    let mut filters = chain.messages("filters");
    let (Some(mut filter), true) = (filters.pop(), filters.is_empty()) else {
        let message = "a chain of one filter, HttpConnectionManager, is expected here";
        chain.wrong(Code::Unsupported, "filters", message);
        return None;
    };
    filter.skip(&["name"]);
    let mut config = filter.message("typed_config")?;
    let kind = type_of(&mut config).unwrap_or_default();
    if kind != HTTP {
        let message = format!("a filter of type {kind} is not supported");
        config.wrong(Code::Unsupported, "@type", message);
        config.forget();
        return None;
    }
    connection_manager(config)
}

fn connection_manager<'v>(mut written: Message<'v, '_>) -> Option<ListenerRoutes<'v>> {
    // Names of statistics; and how headers of forwarding are set, which is the same for all here.
    written.skip(&["stat_prefix", "use_remote_address", "skip_xff_append"]);
    if !matches!(written.text("codec_type"), None | Some("AUTO")) {
        let message = "the protocol of a port is what its Service declares";
        written.wrong(Code::Unsupported, "codecType", message);
    }
    for mut upgrade in written.messages("upgrade_configs") {
        if upgrade.text("upgrade_type") != Some("websocket") {
            let message = "no upgrade but websocket is supported";
            upgrade.wrong(Code::Unsupported, "upgradeType", message);
        }
    }
    for mut filter in written.messages("http_filters") {
        filter.skip(&["name"]);
        let Some(mut config) = filter.message("typed_config") else {
            filter.wrong(Code::MissingField, "typedConfig", "a filter needs its type");
            continue;
        };
        let kind = type_of(&mut config).unwrap_or_default();
        if kind != ROUTER {
            let message = format!("a filter of type {kind} is not supported");
            config.wrong(Code::Unsupported, "@type", message);
            config.forget();
        }
    }
    let inline = written.raw("route_config");
    let rds = written.message("rds");
    match (inline, rds) {
        (Some((value, path)), None) => Some(ListenerRoutes::Inline(RoutesAt { value, path })),
        (None, Some(mut rds)) => {
            rds.skip(&["config_source"]);
            let name = rds.text("route_config_name").unwrap_or_default();
            Some(ListenerRoutes::Named(name.to_owned()))
        }
        _ => {
            let message = "a connection manager has one of rds and routeConfig";
            written.wrong(Code::MissingField, "rds", message);
            None
        }
    }
}
