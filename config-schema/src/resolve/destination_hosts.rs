//! `spec.host` of a DestinationRule: which hosts it fits, and what one that names nothing could have
//! meant (specs/istio-waypoint.md 4.7). Which rule is in force is `destination_rules`' business.

use crate::diagnostics::Code;
use crate::snapshot::Mesh;

/// `spec.host`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    /// One service.
    Exact(String),
    /// Every host that ends so; the suffix begins with a dot, or is empty, unless it is that of a host
    /// that can not be used.
    Suffix(String),
}

impl Host {
    /// How well it fits. `None`: not.
    pub(super) fn fit(&self, hostname: &str) -> Option<usize> {
        match self {
            Self::Exact(host) => (host == hostname).then_some(usize::MAX),
            Self::Suffix(suffix) => hostname.ends_with(suffix).then_some(suffix.len()),
        }
    }
}

/// A host that names nothing.
pub(super) struct Unusable {
    pub code: Code,
    pub message: String,
    /// What may have been meant. `None`: any host.
    pub could_be: Option<Host>,
}

/// Reads a host as it is written in an object of a namespace.
///
/// # Errors
/// When it is none.
pub(super) fn host_named(written: &str, namespace: &str, mesh: &Mesh) -> Result<Host, Unusable> {
    let written = written.trim_end_matches('.').to_ascii_lowercase();
    if written.is_empty() {
        return Err(Unusable {
            code: Code::MissingField,
            message: "a DestinationRule needs a host".to_owned(),
            could_be: None,
        });
    }
    match written.rsplit_once('*') {
        Some(("", suffix)) if suffix.is_empty() || suffix.starts_with('.') => {
            Ok(Host::Suffix(suffix.to_owned()))
        }
        Some((before, suffix)) => Err(Unusable {
            code: Code::BadValue,
            message: match before {
                "" => format!("'{written}' is no host: after the star comes a dot"),
                _ => format!("'{written}' is no host: a star comes first, and alone"),
            },
            could_be: Some(Host::Suffix(suffix.to_owned())),
        }),
        // A name without a dot is one of the rule's own namespace.
        None if !written.contains('.') => {
            let domain = &mesh.cluster_domain;
            Ok(Host::Exact(format!("{written}.{namespace}.svc.{domain}")))
        }
        None => Ok(Host::Exact(written)),
    }
}
