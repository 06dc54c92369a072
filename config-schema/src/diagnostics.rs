//! What is wrong with a configuration, where, what it means and what to do.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::origin::Origin;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is broken; the user should know.
    Info,
    /// Works, but probably not as meant.
    Warning,
    /// The object, or a part of it, is not in force as written.
    Error,
}

/// Stable names of diagnostics, for scripts and docs. Serde gives them in kebab case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // each is described by its messages and in docs/diagnostics.md or docs/lints.md
pub enum Code {
    SyntaxError,
    Unreadable,
    DuplicateObject,
    UnknownKind,
    UnknownField,
    WrongType,
    BadValue,
    MissingField,
    Unsupported,
    BackendNotFound,
    ParentNotFound,
    TargetNotFound,
    NotAttached,
    NotForWaypoint,
    AttachmentDenied,
    UnsupportedTrafficType,
    NotEnforced,
    Conflict,
    NoEndpoints,
    NoGateway,
    KeptLastGood,
    LimitExceeded,
    WaypointNotReady,
    ClientBehindWaypoint,
    PolicyAtClient,
    LowerCaseMethod,
    HostWithoutPort,
    PortNotServed,
    TokenNotRead,
    UnescapedDot,
    ShadowedRule,
    EgressWithoutDns,
    HbonePortClosed,
    WaypointShutOut,
    ProbeDenied,
}

impl Code {
    /// Those of lints: nothing is wrong with an object by itself, and yet what is written can hardly
    /// be meant. Each has a section in docs/lints.md.
    pub const LINTS: [Self; 13] = [
        Self::WaypointNotReady,
        Self::ClientBehindWaypoint,
        Self::PolicyAtClient,
        Self::LowerCaseMethod,
        Self::HostWithoutPort,
        Self::PortNotServed,
        Self::TokenNotRead,
        Self::UnescapedDot,
        Self::ShadowedRule,
        Self::EgressWithoutDns,
        Self::HbonePortClosed,
        Self::WaypointShutOut,
        Self::ProbeDenied,
    ];
}

/// A place in a file. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Location {
    /// Path of the file as given by the user.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable name.
    pub code: Code,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What it means for traffic: which requests are denied, fail or go elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Which object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Origin>,
    /// Path inside the object, `spec.rules[0].from`; empty for the whole object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

impl Diagnostic {
    /// A finding with the given severity, code and message and nothing else.
    pub fn new(severity: Severity, code: Code, message: impl Into<String>) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            effect: None,
            hint: None,
            location: None,
            object: None,
            path: String::new(),
        }
    }

    /// An error.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// A warning.
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// Says what it means for traffic.
    pub fn with_effect(mut self, effect: impl Into<String>) -> Self {
        self.effect = Some(effect.into());
        self
    }

    /// Says what to do.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says where.
    pub fn at(mut self, location: Option<Location>) -> Self {
        self.location = location;
        self
    }

    /// Says which object and which path inside it.
    pub fn of(mut self, object: Origin, path: impl Into<String>) -> Self {
        self.object = Some(object);
        self.path = path.into();
        self
    }
}
