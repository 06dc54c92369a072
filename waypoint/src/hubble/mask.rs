//! A client's field mask, taken as a hint. The `hubble` command leaves the names of policies out of its own
//! mask and prints them all the same where they are there (specs/policies.md 3.4), so that they, and what
//! they are printed by, are always sent.

use std::collections::BTreeSet;

use super::filter::Invalid;
use super::messages::{FieldMask, Flow};

/// Fields that are sent; what is inside of one is not told apart.
#[derive(Debug)]
pub struct Mask(BTreeSet<&'static str>);

/// Calls a macro with every field that can be left out, by its name in the protocol.
macro_rules! fields {
    ($($name:literal $field:ident,)+) => {
        const FIELDS: &[&str] = &[$($name,)+];

        impl Mask {
            /// Leaves out what is not asked for.
            pub fn apply(&self, flow: &mut Flow) {
                let nothing = Flow::default();
                $(if !self.0.contains($name) { flow.$field = nothing.$field; })+
            }
        }
    };
}

fields! {
    "time" time, "uuid" uuid, "emitter" emitter, "verdict" verdict, "drop_reason" drop_reason,
    "IP" ip, "l4" l4, "source" source, "destination" destination, "Type" r#type,
    "node_name" node_name, "node_labels" node_labels, "source_names" source_names,
    "destination_names" destination_names, "l7" l7, "reply" reply, "event_type" event_type,
    "source_service" source_service, "destination_service" destination_service,
    "trace_observation_point" trace_observation_point, "drop_reason_desc" drop_reason_desc,
    "is_reply" is_reply, "interface" interface, "trace_context" trace_context, "Summary" summary,
}

/// Sent whatever the mask says.
const ALWAYS: [&str; 7] = [
    "traffic_direction",
    "policy_match_type",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
    "policy_log",
];

/// Fields of the protocol that no waypoint fills.
const NEVER: [&str; 14] = [
    "auth_type",
    "ethernet",
    "tunnel",
    "trace_reason",
    "file",
    "ip_trace_id",
    "debug_capture_point",
    "proxy_port",
    "sock_xlate_point",
    "socket_cookie",
    "cgroup_id",
    "extensions",
    "aggregate",
    "*",
];

impl Mask {
    /// Reads a mask; `None`: everything.
    ///
    /// # Errors
    /// When there is no field of a name.
    pub fn new(mask: Option<&FieldMask>) -> Result<Option<Self>, Invalid> {
        let paths = mask.map_or(&[][..], |mask| &mask.paths);
        let mut asked = BTreeSet::new();
        for path in paths {
            let name = path.split('.').next().unwrap_or_default();
            match FIELDS.iter().find(|field| **field == name) {
                Some(field) => drop(asked.insert(*field)),
                None if ALWAYS.contains(&name) || NEVER.contains(&name) => {}
                None => {
                    return Err(Invalid(format!("a flow has no field {path:?}").into()));
                }
            }
        }
        Ok((!asked.is_empty()).then_some(Self(asked)))
    }
}
