//! Routes and clusters as istiod names them.

use std::fmt::Display;

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::Service;

use crate::telemetry::exchange::Exchange;

/// `default` for a request without a route; else the route's namespace, name and rule, as istiod names
/// them.
pub enum RouteName<'a> {
    /// No route is attached.
    Default,
    /// This rule of it.
    Rule(&'a Origin, usize),
}

/// The name of the route that an exchange went by.
pub fn route_name(exchange: &Exchange) -> Option<RouteName<'_>> {
    if exchange.http.is_none() {
        let rule = exchange.stream_rule.as_ref();
        return rule.map(|found| RouteName::Rule(&found.route.origin, found.rule));
    }
    match &exchange.route {
        Some((route, rule)) => Some(RouteName::Rule(&route.origin, *rule)),
        // Nothing matched, or it ended before routing.
        None if exchange.endpoint.is_none() => None,
        None => Some(RouteName::Default),
    }
}

impl Display for RouteName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Rule(origin, rule) => {
                write!(f, "{}.{}.{rule}", origin.key.namespace, origin.key.name)
            }
        }
    }
}

/// `inbound-vip|8000|http|httpbin.default.svc.cluster.local;`
pub struct UpstreamCluster<'a> {
    pub(in crate::telemetry) service: &'a Service,
    /// Of the service.
    pub(in crate::telemetry) port: u16,
    /// `http` or `tcp`.
    pub(in crate::telemetry) protocol: &'static str,
}

/// The cluster that an exchange went to, as istiod names it.
pub fn upstream_cluster(exchange: &Exchange) -> Option<UpstreamCluster<'_>> {
    Some(UpstreamCluster {
        service: exchange.service.as_deref()?,
        port: exchange.service_port,
        protocol: if exchange.http.is_some() {
            "http"
        } else {
            "tcp"
        },
    })
}

impl Display for UpstreamCluster<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            service,
            port,
            protocol,
        } = self;
        write!(f, "inbound-vip|{port}|{protocol}|{};", service.hostname)
    }
}
