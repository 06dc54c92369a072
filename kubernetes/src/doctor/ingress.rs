//! Who sends to a Service from the edge of the mesh: Gateways of other classes whose routes name it, and whether
//! they go by its waypoint (specs/istio-waypoint.md 1.3, `istio.io/ingress-use-waypoint`).

use cairn_config_schema::origin::ObjectKey;
use serde_json::Value;

use super::Patient;
use crate::objects::{label, name_of, namespace_of, text};

const USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";
/// The controller of Istio's own gateways; nobody else is known to heed the label.
const ISTIO: &str = "istio.io/gateway-controller";
const EAST_WEST: &str = "istio-east-west";
const ROUTES: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"];

/// A gateway that sends to the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// Its name.
    pub gateway: String,
    /// Whether it is one of Istio's, which heed the label.
    pub heeds: bool,
}

/// The first Gateway, by the kinds above, that a route leads to the Service from.
pub(super) fn edge(patient: &Patient<'_>) -> Option<Edge> {
    let cluster = patient.cluster;
    let routes = ROUTES.iter().flat_map(|kind| cluster.objects(kind));
    for route in routes.filter(|route| leads_here(route, &patient.service.key)) {
        for parent in items(route, "/spec/parentRefs") {
            if !matches!(text(parent, "/kind"), None | Some("Gateway")) {
                continue;
            }
            let namespace = text(parent, "/namespace").unwrap_or(namespace_of(route));
            let key = ObjectKey::new(namespace, text(parent, "/name").unwrap_or(""));
            if cluster.waypoints().contains(&key) {
                continue;
            }
            let class = cluster
                .object("Gateway", &key)
                .and_then(|g| text(g, "/spec/gatewayClassName"));
            let class = ObjectKey::new("", class.unwrap_or(""));
            let class = cluster.object("GatewayClass", &class);
            let controller = class.and_then(|class| text(class, "/spec/controllerName"));
            return Some(Edge {
                gateway: format!("Gateway {key}"),
                heeds: controller == Some(ISTIO),
            });
        }
    }
    let mut virtual_services = cluster.objects("VirtualService");
    virtual_services.find_map(|object| {
        let mut gateways = items(object, "/spec/gateways").filter_map(Value::as_str);
        let gateway = gateways.find(|gateway| *gateway != "mesh")?;
        sends_here(object, patient).then(|| Edge {
            gateway: format!("Istio's Gateway {gateway}"),
            heeds: true,
        })
    })
}

/// The east-west gateway, if there is one.
pub(super) fn east_west(patient: &Patient<'_>) -> Option<Edge> {
    let mut gateways = patient.cluster.objects("Gateway");
    let found = gateways.find(|g| text(g, "/spec/gatewayClassName") == Some(EAST_WEST))?;
    Some(Edge {
        gateway: format!("Gateway {}/{}", namespace_of(found), name_of(found)),
        heeds: true,
    })
}

/// Whether the Service, or else its Namespace, asks for its waypoint at the edge.
pub(super) fn goes_by_waypoint(patient: &Patient<'_>) -> bool {
    let key = &patient.service.key;
    let service = patient.cluster.object("Service", key);
    let namespace = ObjectKey::new("", &*key.namespace);
    let namespace = patient.cluster.object("Namespace", &namespace);
    let said =
        |object: Option<&Value>| object.and_then(|o| label(o, USE_WAYPOINT).map(str::to_owned));
    said(service).or_else(|| said(namespace)).as_deref() == Some("true")
}

fn items<'v>(object: &'v Value, path: &str) -> impl Iterator<Item = &'v Value> + 'v {
    let list = object.pointer(path).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn leads_here(route: &Value, service: &ObjectKey) -> bool {
    let rules = items(route, "/spec/rules");
    let mut backends = rules.flat_map(|rule| items(rule, "/backendRefs"));
    backends.any(|backend| {
        let namespace = text(backend, "/namespace").unwrap_or(namespace_of(route));
        matches!(text(backend, "/kind"), None | Some("Service"))
            && text(backend, "/name") == Some(&service.name)
            && namespace == &*service.namespace
    })
}

fn sends_here(virtual_service: &Value, patient: &Patient<'_>) -> bool {
    let key = &patient.service.key;
    let routes = ["/spec/http", "/spec/tcp", "/spec/tls"];
    let routes = routes.iter().flat_map(|path| items(virtual_service, path));
    let destinations = routes.flat_map(|route| items(route, "/route"));
    let mut hosts = destinations.filter_map(|d| text(d, "/destination/host"));
    let own = namespace_of(virtual_service) == &*key.namespace;
    let long = format!("{}.{}", key.name, key.namespace);
    hosts.any(|host| {
        own && host == &*key.name
            || host == long
            || host == format!("{long}.svc")
            || host == &*patient.service.hostname
    })
}
