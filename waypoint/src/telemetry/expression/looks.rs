//! Which attributes there are and what they give; which of them an expression looks at, so that no others are made
//! for it. What is not known is told when the configuration is read. Evaluates nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::check::Names;
use super::types::Type;

/// What an attribute gives.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gives {
    Text,
    Integer,
    Truth,
    /// Of a request or response: texts by their names.
    Headers,
    /// A workload.
    Peer,
}

use Gives::{Headers, Integer, Peer, Text, Truth};

/// A field of a root.
pub(super) type Field = (&'static str, Gives);

/// Roots of attributes with their fields; the names are Envoy's.
pub(super) const ATTRIBUTES: [(&str, &[Field]); 8] = [
    (
        "request",
        &[
            ("path", Text),
            ("url_path", Text),
            ("host", Text),
            ("scheme", Text),
            ("method", Text),
            ("headers", Headers),
            ("referer", Text),
            ("useragent", Text),
            ("time", Integer),
            ("id", Text),
            ("protocol", Text),
            ("query", Text),
            ("duration", Integer),
            ("size", Integer),
            ("total_size", Integer),
        ],
    ),
    (
        "response",
        &[
            ("code", Integer),
            ("code_details", Text),
            ("flags", Text),
            ("grpc_status", Integer),
            ("headers", Headers),
            ("size", Integer),
            ("total_size", Integer),
            ("backend_latency", Integer),
        ],
    ),
    (
        "source",
        &[
            ("address", Text),
            ("port", Integer),
            ("principal", Text),
            ("workload", Text),
            ("namespace", Text),
        ],
    ),
    (
        "destination",
        &[
            ("address", Text),
            ("port", Integer),
            ("service", Text),
            ("workload", Text),
            ("namespace", Text),
            ("principal", Text),
        ],
    ),
    (
        "connection",
        &[
            ("mtls", Truth),
            ("requested_server_name", Text),
            ("tls_version", Text),
            ("uri_san_peer_certificate", Text),
            ("termination_details", Text),
        ],
    ),
    (
        "upstream",
        &[
            ("address", Text),
            ("port", Integer),
            ("local_address", Text),
            ("transport_failure_reason", Text),
            ("request_attempt_count", Integer),
        ],
    ),
    ("xds", &[("cluster_name", Text), ("route_name", Text)]),
    (
        "filter_state",
        &[("downstream_peer", Peer), ("upstream_peer", Peer)],
    ),
];

/// Fields of a workload that are texts.
const PEER: [&str; 9] = [
    "name",
    "namespace",
    "workload",
    "service",
    "revision",
    "app",
    "version",
    "cluster",
    "type",
];

impl Gives {
    /// For expressions to be checked by.
    pub fn of(self) -> Type {
        match self {
            Text => Type::Text,
            Integer => Type::Int,
            Truth => Type::Bool,
            Headers => Type::map(Type::Text),
            Peer => {
                let labels = ("labels", Type::map(Type::Text));
                let texts = PEER.iter().map(|name| (*name, Type::Text));
                Type::Message(texts.chain([labels]).collect())
            }
        }
    }
}

/// Attributes by their roots.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeMap<&'static str, BTreeSet<&'static str>>);

impl Looks {
    /// Each root with the fields that are looked at.
    pub fn roots(
        &self,
    ) -> impl Iterator<Item = (&'static str, impl Iterator<Item = &'static str>)> {
        self.0
            .iter()
            .map(|(root, fields)| (*root, fields.iter().copied()))
    }
}

impl Names for Looks {
    fn whole(&mut self, name: &str) -> Result<Type, String> {
        let (root, fields) = root(name)?;
        let names = fields.iter().map(|(field, _)| *field);
        self.0.entry(root).or_default().extend(names);
        let fields = fields.iter().map(|(field, gives)| (*field, gives.of()));
        Ok(Type::Message(fields.collect()))
    }

    fn field(&mut self, name: &str, field: &str) -> Option<Result<Type, String>> {
        Some(root(name).and_then(|(root, fields)| {
            // It is there, also without the field: `has()` can ask for it.
            let looked_at = self.0.entry(root).or_default();
            let found = fields.iter().find(|(known, _)| *known == field);
            let (field, gives) = found.ok_or_else(|| {
                let known: Vec<&str> = fields.iter().map(|(known, _)| *known).collect();
                let known = known.join(", ");
                format!("`{root}` has no `{field}` here; it has {known}")
            })?;
            looked_at.insert(field);
            Ok(gives.of())
        }))
    }
}

fn root(name: &str) -> Result<(&'static str, &'static [Field]), String> {
    let found = ATTRIBUTES.into_iter().find(|(known, _)| *known == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = ATTRIBUTES.iter().map(|(root, _)| *root).collect();
        let known = known.join(", ");
        format!("there is no attribute `{name}` here; there are {known}")
    })
}
