//! Where a connection without HTTP goes: its route, and the backend by weight. Policy is asked by
//! `consult`; nobody here reads a byte of it.

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::BackendTarget;
use cairn_routing::{FoundStream, ServerName, StreamParts};

use super::{PortChain, StreamView};
use crate::decision::{Destination, Failure};

impl PortChain {
    /// Whether the route of this peer's connections depends on the server name, so that the first
    /// bytes have to be read.
    pub fn asks_for_server_name(&self, peer: Option<&Identity>) -> bool {
        (self.streams).ask_for_server_name(peer.and_then(Identity::namespace))
    }

    /// The route of a connection.
    pub fn route_stream(&self, view: &StreamView<'_>, server_name: &ServerName) -> FoundStream {
        self.streams.find(&StreamParts {
            caller_namespace: view.peer.and_then(Identity::namespace),
            caller_labels: self.caller_labels(view.peer, view.source_ip),
            destination: view.destination.ip(),
            server_name,
        })
    }

    /// Where a connection goes that policy allows. `random` is uniform.
    ///
    /// # Errors
    /// [`Failure`] when it has nowhere to go: it is refused.
    pub fn stream_backend<'d>(
        &'d self,
        found: &'d FoundStream,
        random: u64,
    ) -> Result<Destination<'d>, Failure> {
        let rule = match found {
            FoundStream::NoMatch => return Err(Failure::NoRoute),
            FoundStream::Default => None,
            FoundStream::Rule(reference) => match reference.broken() {
                Some(reason) => return Err(Failure::BrokenRule(reason.into())),
                None => reference.rule(),
            },
        };
        let Some(rule) = rule else {
            return Ok(match &self.default_cluster {
                Some(key) => Destination::Cluster { key, backend: None },
                None => Destination::Dialled,
            });
        };
        let chosen = cairn_routing::choose(&rule.backends, random);
        let backend = chosen.ok_or(Failure::NoBackend)?;
        match &backend.target {
            BackendTarget::Cluster(key) => Ok(Destination::Cluster {
                key,
                backend: Some(backend),
            }),
            BackendTarget::Invalid(reason) => Err(Failure::InvalidBackend(reason.clone())),
            BackendTarget::Unknown(reason) => Err(Failure::UnknownDestination(reason.clone())),
        }
    }
}
