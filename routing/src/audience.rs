//! Whose routes a request gets at a service port: those of its caller's namespace if it has any there
//! (a consumer's), else those of the service's (its producer's). One set is chosen; they are never
//! merged (specs/gateway-api.md 1.4, "Producer/consumer").

use std::sync::Arc;

use cairn_config_schema::snapshot::HttpRoute;

use crate::request::RequestParts;
use crate::table::{Found, RouteTable};

/// The routes of one service port.
#[derive(Debug, Default)]
pub struct PortRoutes {
    producer: RouteTable,
    /// By namespace. A handful at most, so that they are walked.
    consumers: Vec<(Arc<str>, RouteTable)>,
}

impl PortRoutes {
    /// Compiles the routes of a port of a service in `namespace`; their order does not matter.
    pub fn compile(namespace: &str, routes: &[Arc<HttpRoute>]) -> Self {
        let of = |from: &str| -> Vec<Arc<HttpRoute>> {
            let own = |route: &&Arc<HttpRoute>| author(route, namespace) == from;
            routes.iter().filter(own).cloned().collect()
        };
        let mut consumers: Vec<(Arc<str>, RouteTable)> = Vec::new();
        for route in routes {
            let from = author(route, namespace);
            if from != namespace && consumers.iter().all(|(there, _)| **there != *from) {
                consumers.push((from.into(), RouteTable::compile(&of(from))));
            }
        }
        Self {
            producer: RouteTable::compile(&of(namespace)),
            consumers,
        }
    }

    /// Finds the rule for a request. `caller` is the namespace in the caller's certificate.
    pub fn find(&self, caller: Option<&str>, request: &RequestParts<'_>) -> Found {
        let own = |(namespace, _): &&(Arc<str>, RouteTable)| Some(&**namespace) == caller;
        let consumer = self.consumers.iter().find(own).map(|(_, table)| table);
        consumer.unwrap_or(&self.producer).find(request)
    }
}

/// The namespace a route speaks for: its own. One that is cluster-wide is its service's.
fn author<'r>(route: &'r HttpRoute, service: &'r str) -> &'r str {
    match &*route.origin.key.namespace {
        "" => service,
        own => own,
    }
}

#[cfg(test)]
mod tests {
    use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
    use cairn_config_schema::snapshot::{HttpMatch, HttpRule, PathMatch};
    use http::{HeaderMap, Method};

    use super::*;

    fn route(namespace: &str, prefix: &str) -> Arc<HttpRoute> {
        let matched = HttpMatch {
            path: PathMatch::Prefix(prefix.into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            more: None,
        };
        Arc::new(HttpRoute {
            origin: Origin {
                kind: Kind::HTTPRoute,
                key: ObjectKey::new(namespace, "r"),
            },
            created_s: None,
            rules: vec![HttpRule {
                name: None,
                matches: vec![matched],
                filters: Vec::new(),
                backends: Vec::new(),
                traffic: Default::default(),
                broken: None,
            }],
            broken: false,
        })
    }

    fn found(routes: &PortRoutes, caller: Option<&str>, path: &str) -> String {
        let headers = HeaderMap::new();
        let request = RequestParts {
            method: &Method::GET,
            authority: "web",
            path,
            query: None,
            caller_namespace: None,
            caller_labels: None,
            headers: &headers,
            claims: None,
        };
        match routes.find(caller, &request) {
            Found::Default => "default".into(),
            Found::NoMatch => "none".into(),
            Found::Rule(rule) => rule.route.origin.key.namespace.to_string(),
        }
    }

    #[test]
    fn a_caller_gets_its_own_namespaces_routes_and_nobody_else_does() {
        let routes = PortRoutes::compile("shop", &[route("shop", "/a"), route("bank", "/b")]);
        for (caller, path, expected) in [
            (Some("bank"), "/b", "bank"),
            (Some("bank"), "/a", "none"), // chosen, not merged
            (Some("shop"), "/a", "shop"),
            (Some("shop"), "/b", "none"),
            (Some("office"), "/a", "shop"),
            (None, "/b", "none"),
        ] {
            assert_eq!(found(&routes, caller, path), expected, "{caller:?} {path}");
        }
    }

    #[test]
    fn a_consumers_route_leaves_the_service_as_it_is_for_others() {
        let routes = PortRoutes::compile("shop", &[route("bank", "")]);
        assert_eq!(found(&routes, Some("office"), "/"), "default");
        assert_eq!(found(&routes, Some("bank"), "/"), "bank");
    }
}
