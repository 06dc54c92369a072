//! How one collection is doing, and whether others wait for it. Does not say what becomes of its objects.

use std::time::Instant;

use super::super::Health;
use super::super::api::Collection;
use super::super::refusal::{Reason, Refusal};

/// How one collection is doing.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Other objects name it.
    pub named: bool,
    pub synced: bool,
    pub absent: bool,
    pub connected: bool,
    pub objects: usize,
    pub lists: u64,
    pub errors: [u64; Reason::ALL.len()],
    pub heard: Option<Instant>,
    pub refusal: Option<Refusal>,
}

impl Standing {
    /// Nothing waits for it.
    pub fn is_settled(&self) -> bool {
        self.synced || self.is_refused_by_name()
    }

    /// What an object names is waited for until the server said no: whoever may write such an object must not keep
    /// a waypoint from becoming ready.
    fn is_refused_by_name(&self) -> bool {
        self.named && self.refusal.is_some()
    }

    /// What the API server has of it is known here, at once.
    pub fn is_followed(&self) -> bool {
        self.synced && (self.connected || self.absent) || self.is_refused_by_name()
    }

    /// It as others see it.
    pub fn health(&self, of: &Collection) -> Health {
        Health {
            kind: of.kind.0.title(),
            is_absent: self.absent,
            is_connected: self.connected,
            objects: self.objects,
            relists: self.lists.saturating_sub(1),
            errors: Reason::ALL.into_iter().zip(self.errors).collect(),
            quiet_for: self.heard.map(|at| at.elapsed()),
        }
    }
}
