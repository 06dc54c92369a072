//! L7 policies that are not enforced as they are written, and why: for the metric, and for strict mode,
//! in which the services they are for refuse traffic.

use serde::Serialize;

use crate::diagnostics::Location;
use crate::origin::{ObjectKey, Origin};

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unenforced {
    /// The object.
    pub origin: Origin,
    /// Where it stands.
    #[serde(skip)]
    pub location: Option<Location>,
    /// Why.
    pub reason: UnenforcedReason,
    /// The served services that it is for, as far as that is known.
    pub services: Vec<ObjectKey>,
}

/// Why a policy is not enforced as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnenforcedReason {
    /// It can not be read; everything in its scope is denied in any case.
    Unreadable,
    /// Its present text can not be read, and the version before is in force.
    KeptLastGood,
    /// It is on HTTP, and has a selector or no target: ztunnel knows nothing of HTTP.
    NotForWaypoint,
    /// A target does not exist.
    TargetNotFound,
    /// A target is bound to no waypoint.
    NoWaypoint,
    /// A target is in another namespace.
    WrongNamespace,
    /// A target of a kind that is not supported.
    Unsupported,
}

impl UnenforcedReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Unreadable,
        Self::KeptLastGood,
        Self::NotForWaypoint,
        Self::TargetNotFound,
        Self::NoWaypoint,
        Self::WrongNamespace,
        Self::Unsupported,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::KeptLastGood => "kept_last_good",
            Self::NotForWaypoint => "not_for_waypoint",
            Self::TargetNotFound => "target_not_found",
            Self::NoWaypoint => "no_waypoint",
            Self::WrongNamespace => "wrong_namespace",
            Self::Unsupported => "unsupported",
        }
    }

    /// In words, after the name of the policy.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unreadable => "can not be read",
            Self::KeptLastGood => "can not be read as it is now; the version before is in force",
            Self::NotForWaypoint => "is on HTTP and not for a waypoint, so that nobody enforces it",
            Self::TargetNotFound => "targets something that does not exist",
            Self::NoWaypoint => "targets a Service that is bound to no waypoint",
            Self::WrongNamespace => "targets something in another namespace",
            Self::Unsupported => "targets something that is not supported",
        }
    }
}
