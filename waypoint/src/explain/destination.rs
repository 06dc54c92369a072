//! Who asks and for what: reads `--from` and `--to` against the configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, bail};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{Binding, Service, Snapshot};

use super::report::Client;
use crate::listener::admit::Asked;

/// The client. A short identity (`namespace/service account`) is completed, an absent address taken
/// from a pod that has the identity.
///
/// # Errors
/// When `from` is no identity.
pub fn client(from: &str, ip: Option<IpAddr>, snapshot: &Snapshot) -> anyhow::Result<Client> {
    let identity = match from.split_once('/') {
        Some((namespace, account)) if !from.contains(':') => {
            Identity::of_workload(&snapshot.mesh.trust_domain, namespace, account)
        }
        _ => Identity::parse(from),
    };
    let identity = identity.with_context(|| format!("--from {from}"))?;
    let pod = match ip {
        Some(ip) => snapshot.workloads.get(&ip.to_canonical()),
        None => {
            let same = snapshot
                .workloads
                .values()
                .filter(|w| w.identity == identity);
            same.min_by(|a, b| a.key.cmp(&b.key))
        }
    };
    let of_pod = pod.and_then(|pod| pod.addresses.first().copied());
    Ok(Client {
        identity,
        ip: ip.or(of_pod).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        pod: pod.map(|pod| pod.key.to_string()),
    })
}

/// What `--to` asks for. A short service name is looked up as a pod of the client's namespace would.
pub(super) fn asked(to: &str, client: &Client, snapshot: &Snapshot) -> anyhow::Result<Asked> {
    if let Ok(address) = to.parse::<SocketAddr>() {
        return Ok(Asked::Address(SocketAddr::new(
            address.ip().to_canonical(),
            address.port(),
        )));
    }
    let (host, port) = match to.rsplit_once(':') {
        Some((host, port)) => {
            let port = port
                .parse()
                .with_context(|| format!("--to {to}: {port} is not a port"))?;
            (host, Some(port))
        }
        None => (to, None),
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        bail!("--to {ip}: a port is needed");
    }
    let host = host.to_ascii_lowercase();
    let Some(service) = service_named(&host, client, snapshot)? else {
        let port = port.with_context(|| format!("--to {to}: there is no such service"))?;
        return Ok(Asked::Hostname(host, port));
    };
    let port = match (port, service.ports.as_slice()) {
        (Some(port), _) => port,
        (None, [only]) => only.number,
        (None, ports) => {
            let ports: Vec<String> = ports.iter().map(|p| p.number.to_string()).collect();
            bail!(
                "--to {to}: which port? {} has {}",
                service.key,
                ports.join(", ")
            );
        }
    };
    Ok(Asked::Hostname(service.hostname.to_string(), port))
}

fn service_named<'s>(
    host: &str,
    client: &Client,
    snapshot: &'s Snapshot,
) -> anyhow::Result<Option<&'s Service>> {
    let services = || snapshot.services.values().map(AsRef::as_ref);
    if let Some(service) = services().find(|s| *s.hostname == *host) {
        return Ok(Some(service));
    }
    let host = host.strip_suffix(".svc").unwrap_or(host);
    match host.split_once('.') {
        Some((name, namespace)) => {
            Ok(services().find(|s| *s.key.name == *name && *s.key.namespace == *namespace))
        }
        None => {
            let found: Vec<&Service> = services().filter(|s| *s.key.name == *host).collect();
            let own = client.identity.namespace().unwrap_or_default();
            match found.as_slice() {
                [] => Ok(None),
                [only] => Ok(Some(only)),
                several => match several.iter().find(|s| *s.key.namespace == *own) {
                    Some(service) => Ok(Some(service)),
                    None => {
                        let names: Vec<String> =
                            several.iter().map(|s| s.key.to_string()).collect();
                        bail!(
                            "--to {host}: which of {}? Write name.namespace",
                            names.join(", ")
                        )
                    }
                },
            }
        }
    }
}

/// Why an address or hostname is not served, in words, as far as the configuration tells.
pub(super) fn why_not_served(
    asked: &Asked,
    caller: Option<&str>,
    snapshot: &Snapshot,
) -> Option<String> {
    let waypoint = snapshot.waypoint.as_ref()?;
    let service = snapshot.services.values().find(|s| match asked {
        Asked::Address(address) => {
            let mut blocks = s.blocks.iter();
            s.addresses.contains(&address.ip()) || blocks.any(|b| b.contains(&address.ip()))
        }
        Asked::Hostname(host, _) => *s.hostname == **host,
    });
    if let Some(service) = service {
        return Some(match &service.binding {
            Binding::Served if !service.is_visible_to(caller.unwrap_or_default()) => {
                format!(
                    "{} is not exported to the client's namespace",
                    service.origin
                )
            }
            Binding::Served => format!("{} has no such port", service.origin),
            binding => format!(
                "{} {}",
                service.origin,
                unbound(binding, &waypoint.origin.key.name)
            ),
        });
    }
    let Asked::Address(address) = asked else {
        return None;
    };
    let workload = snapshot.workloads.get(&address.ip())?;
    Some(format!(
        "Pod/{} {}",
        workload.key,
        unbound(&workload.binding, &waypoint.origin.key.name)
    ))
}

fn unbound(binding: &Binding, waypoint: &str) -> String {
    match binding {
        Binding::Served => "is served".to_owned(),
        Binding::Other(other) => format!("is served by another waypoint, {other}"),
        Binding::Unbound => {
            format!("is not bound to a waypoint (label istio.io/use-waypoint: {waypoint} would)")
        }
        Binding::Refused(reason) => format!("may not be served: {reason}"),
    }
}
