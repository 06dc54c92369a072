//! Loads the eBPF redirect that steers L7-flagged flows to the node's waypoint. The only crate that
//! may contain unsafe code, once it contains any.
//!
//! Nothing is redirected in this version: [`load`] says so instead of pretending.

/// Why the redirect is not in place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// This version has no eBPF program.
    #[error(
        "this version of Cairn has no kernel redirect; use a waypoint (`cairn run`) and see docs/status.md"
    )]
    NotInThisVersion,
}

/// Loads and attaches the redirect.
///
/// # Errors
/// Always [`RedirectError::NotInThisVersion`] in this version.
pub fn load() -> Result<(), RedirectError> {
    Err(RedirectError::NotInThisVersion)
}
