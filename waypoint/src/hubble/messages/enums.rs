//! Enumerations of the observer API: numbers as on the wire, names as in JSON and on command lines.

/// Declares an enumeration with the numbers and names of the protocol.
macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $number:literal $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
        #[repr(i32)]
        pub enum $name {
            $($(#[$each])* $variant = $number,)+
        }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in JSON.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The one with a name, in any case.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.name().eq_ignore_ascii_case(name))
            }

            /// Writes a number as its name; one that has none as it is.
            pub(super) fn serialize_wire<S: serde::Serializer>(number: &i32, to: S) -> Result<S::Ok, S::Error> {
                match Self::try_from(*number) {
                    Ok(known) => to.serialize_str(known.name()),
                    Err(_) => to.serialize_i32(*number),
                }
            }
        }
    };
}

wire_enum! {
    /// What became of it.
    #[allow(missing_docs)] // Hubble's words
    Verdict {
        Unknown = 0 "VERDICT_UNKNOWN",
        Forwarded = 1 "FORWARDED",
        Dropped = 2 "DROPPED",
        Error = 3 "ERROR",
        Audit = 4 "AUDIT",
        Redirected = 5 "REDIRECTED",
        Traced = 6 "TRACED",
        Translated = 7 "TRANSLATED",
    }
}

wire_enum! {
    /// Why it was dropped: those of policy; the rest is about packets, which are not seen here.
    DropReason {
        /// Nothing was dropped.
        Unknown = 0 "DROP_REASON_UNKNOWN",
        /// No rule allows it.
        PolicyDenied = 133 "POLICY_DENIED",
        /// A rule denies it.
        PolicyDeny = 181 "POLICY_DENY",
        /// The caller did not show who it is: no token or an invalid one.
        AuthRequired = 189 "AUTH_REQUIRED",
    }
}

wire_enum! {
    /// The layer that a flow is about.
    #[allow(missing_docs)] // Hubble's words
    FlowType {
        Unknown = 0 "UNKNOWN_TYPE",
        L3L4 = 1 "L3_L4",
        L7 = 2 "L7",
        Sock = 3 "SOCK",
    }
}

wire_enum! {
    /// Question or answer.
    #[allow(missing_docs)] // Hubble's words
    L7FlowType {
        Unknown = 0 "UNKNOWN_L7_TYPE",
        Request = 1 "REQUEST",
        Response = 2 "RESPONSE",
        Sample = 3 "SAMPLE",
    }
}

wire_enum! {
    /// The family of the addresses.
    #[allow(missing_docs)] // Hubble's words
    IpVersion {
        NotUsed = 0 "IP_NOT_USED",
        V4 = 1 "IPv4",
        V6 = 2 "IPv6",
    }
}

wire_enum! {
    /// Seen from the destination or from the source.
    #[allow(missing_docs)] // Hubble's words
    TrafficDirection {
        Unknown = 0 "TRAFFIC_DIRECTION_UNKNOWN",
        Ingress = 1 "INGRESS",
        Egress = 2 "EGRESS",
    }
}

wire_enum! {
    /// Where it was seen: the only place of ours is in front of an endpoint.
    TracePoint {
        /// Nothing was traced.
        Unknown = 0 "UNKNOWN_POINT",
        /// On its way to an endpoint.
        ToEndpoint = 101 "TO_ENDPOINT",
    }
}

wire_enum! {
    /// Where events got lost.
    #[allow(missing_docs)] // Hubble's words
    LostEventSource {
        Unknown = 0 "UNKNOWN_LOST_EVENT_SOURCE",
        PerfRing = 1 "PERF_EVENT_RING_BUFFER",
        Queue = 2 "OBSERVER_EVENTS_QUEUE",
        Ring = 3 "HUBBLE_RING_BUFFER",
    }
}

wire_enum! {
    /// How a node is.
    #[allow(missing_docs)] // Hubble's words
    NodeState {
        Unknown = 0 "UNKNOWN_NODE_STATE",
        Connected = 1 "NODE_CONNECTED",
        Unavailable = 2 "NODE_UNAVAILABLE",
        Gone = 3 "NODE_GONE",
        Error = 4 "NODE_ERROR",
    }
}

/// What a health check answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
#[allow(missing_docs)] // gRPC's words
pub enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}
