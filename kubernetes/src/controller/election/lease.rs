//! What a lease says, and whether it may be taken. Has no clock and asks nobody.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::LEASE_DURATION;
use crate::objects::put;

/// A lease as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Who has it; empty: nobody.
    pub holder: String,
    /// How long it lasts after a renewal, in seconds.
    pub duration_s: u64,
    /// When it was last renewed, by the clock of who has it: only whether it changes matters here.
    pub renewed: String,
    /// When its holder got it.
    pub acquired: String,
    /// How often it changed hands.
    pub transitions: u64,
    /// `metadata.resourceVersion`.
    pub version: String,
}

/// What a look at it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is ours.
    Hold,
    /// It is another's.
    Wait,
}

/// Who wants it.
#[derive(Debug)]
pub struct Candidate {
    name: String,
    /// The lease when it last changed, and when that was seen: others' clocks are not gone by.
    seen: Option<(Lease, Instant)>,
}

impl Candidate {
    /// A candidate with a name of its own.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            seen: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the lease is its own.
    pub fn holds(&self, lease: Option<&Lease>) -> bool {
        lease.is_some_and(|lease| lease.holder == self.name)
    }

    /// What to write, for the lease to be ours. `None`: it is another's, who may still be alive.
    pub fn bid(&mut self, there: Option<&Lease>, now: Instant) -> Option<Lease> {
        let Some(lease) = there else {
            return Some(self.lease(0, String::new()));
        };
        let is_known = self.seen.as_ref().is_some_and(|(seen, _)| seen == lease);
        if !is_known {
            self.seen = Some((lease.clone(), now));
        }
        let is_ours = lease.holder == self.name;
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let lasts = Duration::from_secs(lease.duration_s.max(1));
        let has_ended = lease.holder.is_empty() || now.duration_since(since) >= lasts;
        match (is_ours, has_ended) {
            (true, _) => Some(self.lease(lease.transitions, lease.acquired.clone())),
            (false, true) => Some(self.lease(lease.transitions + 1, String::new())),
            (false, false) => None,
        }
    }

    fn lease(&self, transitions: u64, acquired: String) -> Lease {
        Lease {
            holder: self.name.clone(),
            duration_s: LEASE_DURATION.as_secs(),
            acquired,
            transitions,
            ..Lease::default()
        }
    }
}

impl Lease {
    /// Out of the object.
    pub fn read(object: &Value) -> Self {
        let text = |pointer: &str| {
            let value = object.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64);
        Self {
            holder: text("/spec/holderIdentity"),
            duration_s: number("/spec/leaseDurationSeconds").unwrap_or_default(),
            renewed: text("/spec/renewTime"),
            acquired: text("/spec/acquireTime"),
            transitions: number("/spec/leaseTransitions").unwrap_or_default(),
            version: text("/metadata/resourceVersion"),
        }
    }

    /// As it is when nobody has it.
    pub fn released(&self) -> Self {
        Self {
            holder: String::new(),
            duration_s: 1,
            ..self.clone()
        }
    }

    /// As an object, in place of `over`.
    pub fn object(
        &self,
        namespace: &str,
        name: &str,
        over: Option<&Self>,
        now: Timestamp,
    ) -> Value {
        // Six digits, as the API writes them.
        let now = format!("{now:.6}");
        let acquired = match self.acquired.as_str() {
            "" => now.as_str(),
            acquired => acquired,
        };
        let mut object = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                // Nobody is no name, rather than an empty one.
                "holderIdentity": (!self.holder.is_empty()).then_some(&self.holder),
                "leaseDurationSeconds": self.duration_s,
                "acquireTime": acquired,
                "renewTime": now,
                "leaseTransitions": self.transitions,
            },
        });
        if let Some(over) = over {
            let version = over.version.as_str().into();
            put(&mut object, "/metadata", "resourceVersion", version);
        }
        object
    }
}
