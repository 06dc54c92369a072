//! RequestMirror filters of route rules (specs/gateway-api.md 1.4, "Mirror").

use super::route_backends::{Backends, Reference};
use super::route_rules::Reading;
use crate::diagnostics::Code;
use crate::resources::gateway_api::HttpRouteRulesFiltersRequestMirror as Written;
use crate::snapshot::Mirror;

/// A mirror. `None`: it leads nowhere, which leaves the requests themselves as they are, or it breaks
/// the rule.
pub(super) fn read(
    written: &Written,
    backends: &Backends<'_>,
    own_namespace: &str,
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<Mirror> {
    let (numerator, denominator) = share(written, at, reading)?;
    let backend = &written.backend_ref;
    let reference = Reference {
        group: backend.group.as_deref(),
        kind: backend.kind.as_deref(),
        namespace: backend.namespace.as_deref().unwrap_or(own_namespace),
        name: &backend.name,
        port: backend.port,
    };
    match backends.target(&reference) {
        Ok(target) => Some(Mirror {
            target,
            denominator,
            numerator,
        }),
        Err(unresolved) => {
            let path = format!("{at}.backendRef.{}", unresolved.field);
            reading.fail_mirror(&path, &unresolved.reason, &unresolved.hint);
            None
        }
    }
}

/// The share of requests that is copied: a fraction, per cent, or all.
fn share(written: &Written, at: &str, reading: &mut Reading<'_>) -> Option<(u32, u32)> {
    let (numerator, denominator, at) = match (&written.percent, &written.fraction) {
        (Some(_), Some(_)) => {
            let message = "a mirror has either percent or fraction";
            reading.fail(Code::Conflict, at, message);
            return None;
        }
        (Some(percent), None) => (*percent, 100, format!("{at}.percent")),
        (None, Some(fraction)) => {
            let denominator = fraction.denominator.unwrap_or(100);
            (fraction.numerator, denominator, format!("{at}.fraction"))
        }
        (None, None) => return Some((1, 1)),
    };
    match (u32::try_from(numerator), u32::try_from(denominator)) {
        (Ok(numerator), Ok(denominator)) if denominator > 0 && numerator <= denominator => {
            Some((numerator, denominator))
        }
        _ => {
            let message = format!("{numerator} of {denominator} is not a share");
            reading.fail(Code::BadValue, &at, message);
            None
        }
    }
}
