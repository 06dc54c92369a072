//! What else keeps clients from the pods of a Service, and ends when the pods leave the mesh, as they have to
//! before Cilium isolates them: tokens at the waypoint, mutual TLS and policies at ztunnel.

use std::sync::Arc;

use super::ground::Ground;
use super::report::{Draft, Outcome};
use crate::snapshot::{Service, Workload};

/// Tells what would allow more.
pub(super) fn tell(
    ground: &Ground<'_>,
    service: &Service,
    pods: &[&Arc<Workload>],
    draft: &mut Draft,
) {
    let of_tokens = ground.snapshot.authentications.of_service(&service.key);
    for authentication in of_tokens.iter().filter(|a| !a.dry_run) {
        let why = format!(
            "{} refuses tokens that are not valid, and Cilium looks at none",
            authentication.origin
        );
        draft.note_of_all(Outcome::Wider, &why);
    }
    if let Some(policy) = ground.kept_out_by_ztunnel(pods) {
        let why = format!(
            "{policy} is ztunnel's, keeps clients from pods of Service {}, and ends when they leave the mesh",
            service.key
        );
        draft.note_of_all(Outcome::Wider, &why);
    }
    // It is not read: which pods it is for, and whether it is STRICT, is not known.
    if let Some(at) = &ground.resources.peer_authentication {
        let why = format!(
            "the PeerAuthentication at {}:{} is not read: if it is STRICT, clients without a certificate are refused, until the pods leave the mesh",
            at.file, at.line
        );
        draft.note_of_all(Outcome::Wider, &why);
    }
}
