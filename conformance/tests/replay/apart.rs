//! Which asks are not put to the data path, and why: what they would come to needs more than loopback, or is
//! asked of the engine alone.

use std::net::IpAddr;

use cairn_config_schema::snapshot::{Discovery, Snapshot};
use cairn_conformance::golden::engine::Judged;
use cairn_conformance::golden::format::Ask;

/// Why an ask is not put to the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Apart {
    /// It comes from elsewhere than from loopback, where the pods are.
    Source,
    /// A provider is to be asked, and none runs here; tests/e2e/ext_authz.rs has some.
    Provider,
    /// A TCP stream to a port that declares HTTP, where the data path reads HTTP and answers all else with 400
    /// before anything is judged (tests/hbone_wire/http1_refused.rs).
    TcpOnHttp,
    /// It is forwarded to elsewhere than to loopback, or to a name that DNS would be asked for: nothing that
    /// runs here, and who answers in its place is not known.
    Destination,
}

impl Apart {
    /// `None`: it is asked.
    pub fn of(snapshot: &Snapshot, ask: &Ask, judged: Option<&Judged>) -> Option<Self> {
        let source: Option<IpAddr> = ask.ip.as_ref().map(|ip| ip.parse().unwrap());
        if source.is_some_and(|ip| !ip.is_loopback()) {
            return Some(Self::Source);
        }
        // Peers without a tunnel, and what is refused with the CONNECT, get nowhere.
        let judged = judged.filter(|_| crate::accepts(snapshot, ask))?;
        if !judged.asks.is_empty() {
            Some(Self::Provider)
        } else if is_tcp_on_http(ask, judged) {
            Some(Self::TcpOnHttp)
        } else if judged.shares.keys().any(|to| leaves(snapshot, judged, to)) {
            Some(Self::Destination)
        } else {
            None
        }
    }
}

/// Whether a stream meets a port that declares HTTP. The engine says what it would come to if policy were asked.
pub fn is_tcp_on_http(ask: &Ask, judged: &Judged) -> bool {
    ask.is_tcp() && !matches!(judged.protocol, "tcp" | "sniff")
}

/// Whether what goes to a cluster, as [`Judged::shares`] calls it, leaves loopback.
fn leaves(snapshot: &Snapshot, judged: &Judged, to: &str) -> bool {
    let dialled = !judged.address.unwrap().ip().is_loopback();
    let found = snapshot.discoveries.iter().find(|(key, _)| {
        let service = &key.service;
        let port = format!("{}.{}:{}", service.name, service.namespace, key.port);
        to.split('/').next() == Some(&port)
    });
    match found.map(|(_, discovery)| &**discovery) {
        Some(Discovery::Names { .. } | Discovery::RequestedHost { .. }) => true,
        Some(Discovery::DialledAddress { .. }) => dialled,
        None if to == "dialled" => dialled,
        None => {
            let mut endpoints = judged.endpoints.get(to).into_iter().flatten();
            endpoints.any(|address| !address.ip().is_loopback())
        }
    }
}
