//! Asks DNS for the addresses of a name and how long they hold. Remembers nothing between two questions.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::{Resolver as Hickory, TokioResolver};

use super::answer::Looked;
use crate::limits::{DNS_RETRY_INTERVAL, DNS_TIMEOUT};

/// Who is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Servers {
    /// Those of /etc/resolv.conf.
    #[default]
    System,
    /// These alone.
    Only(Vec<SocketAddr>),
}

/// Asks DNS.
pub(super) struct Resolver(Result<TokioResolver, String>);

impl Resolver {
    /// A resolver without memory of its own.
    pub fn new(servers: &Servers) -> Self {
        Self(build(servers).map_err(|error| error.to_string()))
    }

    /// Addresses of a whole name: no search domain is tried. IPv6 only where there is no IPv4.
    pub async fn look_up(&self, name: &str) -> Looked {
        let resolver = match &self.0 {
            Ok(resolver) => resolver,
            Err(error) => return Looked::Failed(error.clone()),
        };
        let asked = tokio::time::timeout(DNS_TIMEOUT, resolver.lookup_ip(format!("{name}.")));
        match asked.await {
            Err(_) => Looked::Failed(format!("no answer within {} ms", DNS_TIMEOUT.as_millis())),
            Ok(Ok(found)) => {
                let left = found
                    .valid_until()
                    .saturating_duration_since(Instant::now());
                Looked::Found(found.iter().collect(), left)
            }
            Ok(Err(error)) => failure(&error),
        }
    }
}

fn build(servers: &Servers) -> Result<TokioResolver, NetError> {
    let mut builder = match servers {
        Servers::System => TokioResolver::builder_tokio()?,
        Servers::Only(addresses) => {
            let servers = addresses.iter().map(|address| {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                for connection in &mut server.connections {
                    connection.port = address.port();
                }
                server
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            Hickory::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    // What is known is kept in `state`, and asked for again when it expires.
    options.cache_size = 0;
    options.timeout = DNS_TIMEOUT / 2;
    builder.build()
}

fn failure(error: &NetError) -> Looked {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else {
        return Looked::Failed(error.to_string());
    };
    let ttl = none.negative_ttl.map(|s| Duration::from_secs(s.into()));
    let ttl = ttl.unwrap_or(DNS_RETRY_INTERVAL);
    match none.response_code {
        ResponseCode::NXDomain => Looked::Nothing("there is no such name (NXDOMAIN)".into(), ttl),
        ResponseCode::NoError => Looked::Nothing("the name has no address".into(), ttl),
        code => Looked::Failed(format!("the server answered {code}")),
    }
}
