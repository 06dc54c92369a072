//! The mesh both proxies are configured for. Knows neither proxy's format.

use std::net::{IpAddr, Ipv4Addr};

use crate::backend::{Addresses, PLAIN_IP, TUNNEL_GRPC_PORT, TUNNEL_HTTP_PORT, TUNNEL_IP};
use crate::cell::{GRPC_PORT, HTTP_PORT, Path};

/// Service account whose requests the policy allows.
pub const CLIENT_ACCOUNT: &str = "client";
/// Service account whose requests the policy denies.
pub const STRANGER_ACCOUNT: &str = "stranger";
/// Service account of every workload.
pub const APP_ACCOUNT: &str = "app";
/// Service account of the waypoint.
pub const WAYPOINT_ACCOUNT: &str = "waypoint";
/// Methods that the policy allows.
pub const ALLOWED_METHODS: [&str; 2] = ["GET", "POST"];

/// Services behind one waypoint, with one ALLOW policy over all of them: client account and
/// [`ALLOWED_METHODS`].
#[derive(Clone, Debug)]
pub struct Mesh {
    /// The services.
    pub services: Vec<Service>,
}

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its virtual IP.
    pub vip: IpAddr,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Addresses of its workloads.
    pub endpoints: Vec<IpAddr>,
    /// Whether its workloads are reached by HBONE.
    pub tunnelled: bool,
    /// Path prefixes that a route of its own each sends back to the service; none: no route.
    pub route_prefixes: Vec<String>,
}

/// One port of a service.
#[derive(Clone, Debug)]
pub struct Port {
    /// As clients dial it.
    pub number: u16,
    /// As workloads listen.
    pub target: u16,
    /// gRPC, else HTTP/1.1.
    pub grpc: bool,
}

impl Service {
    /// Fully qualified name.
    pub fn hostname(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.name, crate::pki::NAMESPACE)
    }
}

/// The virtual IP of the service that a path's cells are sent to.
pub fn vip(path: Path) -> IpAddr {
    IpAddr::V4(match path {
        Path::Plain => Ipv4Addr::new(10, 96, 0, 1),
        Path::Hbone => Ipv4Addr::new(10, 96, 0, 2),
    })
}

impl Mesh {
    /// The two services of the table, one for each path; with a catch-all route each if `routed`.
    pub fn of_table(backend: &Addresses, routed: bool) -> Self {
        let prefixes = || {
            if routed {
                vec!["/".to_owned()]
            } else {
                Vec::new()
            }
        };
        let service = |name: &str, path, endpoint, tunnelled, http, grpc| Service {
            name: name.to_owned(),
            vip: vip(path),
            ports: vec![
                Port {
                    number: HTTP_PORT,
                    target: http,
                    grpc: false,
                },
                Port {
                    number: GRPC_PORT,
                    target: grpc,
                    grpc: true,
                },
            ],
            endpoints: vec![endpoint],
            tunnelled,
            route_prefixes: prefixes(),
        };
        let (http, grpc) = (backend.plain_http.port(), backend.plain_grpc.port());
        Self {
            services: vec![
                service("plain", Path::Plain, PLAIN_IP, false, http, grpc),
                service(
                    "tunnelled",
                    Path::Hbone,
                    TUNNEL_IP,
                    true,
                    TUNNEL_HTTP_PORT,
                    TUNNEL_GRPC_PORT,
                ),
            ],
        }
    }

    /// Adds services of ten tunnelled workloads and `routes` routes each. Nothing answers behind
    /// them.
    pub fn with_crowd(mut self, services: u16, endpoints: u8, routes: u16) -> Self {
        for n in 0..services {
            let [high, low] = n.to_be_bytes();
            self.services.push(Service {
                name: format!("crowd-{n}"),
                vip: IpAddr::V4(Ipv4Addr::new(10, 97, high, low)),
                ports: vec![Port {
                    number: HTTP_PORT,
                    target: 8080,
                    grpc: false,
                }],
                endpoints: (0..endpoints)
                    .map(|e| IpAddr::V4(Ipv4Addr::new(10, 128 + e, high, low)))
                    .collect(),
                tunnelled: true,
                route_prefixes: (0..routes).map(|r| format!("/part-{r}")).collect(),
            });
        }
        self
    }
}
