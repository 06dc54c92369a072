//! Flow records: what became of the last exchanges, kept for whoever asks (specs/policies.md 3.4).
//!
//! At the end of an exchange, and when a TCP stream opens, the worker puts a [`Record`] into the
//! [`Ring`], without a lock, into the memory of a record that was overwritten: path, host and headers
//! are copied, cut to their limit; what else the exchange holds is moved there, or shared. What a
//! record says in Hubble's terms is worked out only when somebody reads it (`crate::hubble`), on the
//! reader's thread. Nobody reading, nothing more is done.

mod record;
mod request;
mod ring;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use record::{Decision, Part, Record, ServiceName};
pub use request::Request;
pub use ring::{Kept, Read, Ring};

use super::exchange::Exchange;

static RING: OnceLock<Arc<Ring>> = OnceLock::new();

/// Keeps the records of the last exchanges from now on, for the rest of the process. `capacity` is how
/// many; 0 keeps none.
pub fn start(capacity: usize) {
    if capacity > 0 {
        // A second waypoint of the process shares the first one's.
        let _ = RING.set(Arc::new(Ring::new(capacity)));
    }
}

/// The ring of this process; `None` if no records are kept.
pub fn ring() -> Option<&'static Arc<Ring>> {
    RING.get()
}

/// Keeps what became of an exchange that took `elapsed`. Never blocks.
pub(super) fn ended(exchange: &mut Exchange, elapsed: Duration, was_open: bool) {
    if let Some(ring) = ring() {
        ring.push_in(|room| Record::ended_in(room, exchange, elapsed, was_open));
    }
}

/// Keeps that a TCP stream is open. Never blocks.
pub(super) fn opened(exchange: &Exchange) {
    if let Some(ring) = ring() {
        ring.push(Record::opened(exchange));
    }
}
