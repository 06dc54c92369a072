//! By which name something outside the cluster is reached: as a ServiceEntry declares it. Looks nothing
//! up.

use std::fmt;

use cairn_config_schema::snapshot::{DnsPattern, Truth};

use crate::facts::Facts;

/// By which name something outside the cluster is reached.
#[derive(Clone, Copy)]
pub(super) enum Host<'a> {
    /// This one.
    Name(&'a str),
    /// Any that ends so, beginning with a dot; and the one that is asked for, if it is sent as it came.
    Inside(&'a str, Option<&'a str>),
}

impl<'a> Host<'a> {
    /// The host of a ServiceEntry, and what is asked for inside of a wildcard.
    pub(super) fn read(host: &'a str, facts: &Facts<'a>) -> Self {
        match host.strip_prefix('*') {
            Some(suffix) => Self::Inside(suffix, requested(facts)),
            None => Self::Name(host),
        }
    }

    /// Whether its name is one of these. A waypoint goes by the host that a ServiceEntry declares, where
    /// Cilium learns addresses from answers of DNS (specs/policies.md 2.1.7).
    pub(super) fn is_called(&self, pattern: &DnsPattern) -> Truth {
        match self {
            Self::Name(name) => pattern.matches(name).into(),
            Self::Inside(suffix, Some(name)) if is_inside(name, suffix) => {
                pattern.matches(name).into()
            }
            Self::Inside(suffix, _) if pattern.matches_all_inside(suffix) => Truth::Yes,
            Self::Inside(..) => Truth::Unknown,
        }
    }
}

/// The host of a request that no rule of a route may send under another name, without its port.
fn requested<'a>(facts: &Facts<'a>) -> Option<&'a str> {
    let http = facts.http.as_ref().filter(|_| facts.backends.is_empty())?;
    match http.host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|c| c.is_ascii_digit()) => Some(host),
        _ => Some(http.host),
    }
}

/// Whether a name ends so, in any case, and has something before it.
fn is_inside(name: &str, suffix: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let split = name.len().checked_sub(suffix.len());
    let end = split.filter(|at| *at > 0).and_then(|at| name.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) | Self::Inside(_, Some(name)) => f.write_str(name),
            Self::Inside(suffix, None) => write!(f, "*{suffix}"),
        }
    }
}
