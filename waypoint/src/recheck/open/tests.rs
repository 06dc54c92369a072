//! Closing what is denied, and missing nothing that is opened meanwhile. What is denied is judged elsewhere.

use std::net::SocketAddr;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{Mesh, Snapshot};
use futures::FutureExt;

use super::*;
use crate::telemetry::exchange::Peer;

/// A runtime that accepts tunnels of one trust domain.
fn accepting(trust_domain: &str, version: u64) -> Runtime {
    let mesh = Mesh {
        trust_domain: trust_domain.into(),
        ..Mesh::default()
    };
    let snapshot = Snapshot {
        mesh,
        version,
        ..Snapshot::default()
    };
    Runtime::compile(Arc::new(snapshot), None)
}

fn tunnel_of(trust_domain: &str) -> Kept {
    let identity = Identity::of_workload(trust_domain, "shop", "viewer").unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    Kept::Tunnel(Arc::new(Peer { identity, address }))
}

#[tokio::test]
async fn what_is_denied_hears_of_it_and_is_forgotten() {
    let open = Arc::<Open>::default();
    let first = accepting("a.example", 1);
    let registered = open.register(tunnel_of("a.example"), 1, Arc::default(), &first);
    assert!(registered.closed().now_or_never().is_none());

    let second = accepting("b.example", 2);
    let due = open.judged_before(2);
    assert_eq!(due.len(), 1);
    let waiting = registered.closed();
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    open.judge(&due, &second);
    let closure = waiting.await;
    assert_eq!(closure.snapshot, 2);
    assert_eq!(open.judged_before(3).len(), 0);
}

#[test]
fn what_policy_changed_under_before_it_was_registered_is_judged_at_once() {
    let open = Arc::<Open>::default();
    let second = accepting("b.example", 2);
    let denied = open.register(tunnel_of("a.example"), 1, Arc::default(), &second);
    assert!(denied.why().is_some());
    let allowed = open.register(tunnel_of("b.example"), 1, Arc::default(), &second);
    assert!(allowed.why().is_none());
    assert_eq!(open.judged_before(2).len(), 0, "judged by 2 already");
}

#[test]
fn what_has_ended_is_no_longer_judged() {
    let open = Arc::<Open>::default();
    let first = accepting("a.example", 1);
    let registered = open.register(tunnel_of("a.example"), 1, Arc::default(), &first);
    let due = open.judged_before(2);
    drop(registered);
    open.judge(&due, &accepting("b.example", 2));
    assert_eq!(open.judged_before(3).len(), 0);
}
