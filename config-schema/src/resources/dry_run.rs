//! Whether a policy is only to be tried, by its kind and annotations. Tries nothing.

use super::Meta;
use crate::origin::Kind;

/// Istio's annotation, for its own kinds (specs/istio-waypoint.md 4.8, "Dry-run").
pub(crate) const ISTIO: &str = "istio.io/dry-run";

/// Cairn's annotation, for every kind of policy.
pub(crate) const CAIRN: &str = "cairn.dev/dry-run";

/// What the annotations of a policy ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is enforced.
    No,
    /// It is tried.
    Yes,
    /// The annotation is neither "true" nor "false": it is enforced.
    Unclear(&'static str),
    /// Istio's annotation means nothing for this kind: it is enforced.
    Foreign,
    /// One annotation says so, the other not: it is enforced.
    Contradiction,
}

/// What a policy asks for.
pub(crate) fn asked(kind: Kind, meta: &Meta) -> Asked {
    asked_by(kind, |name| {
        meta.annotations.get(name).map(|value| &**value)
    })
}

/// The same, by a function that finds annotations.
pub(crate) fn asked_by<'a>(kind: Kind, annotation: impl Fn(&str) -> Option<&'a str>) -> Asked {
    if kind.is_staged() {
        return Asked::Yes;
    }
    let is_istios = matches!(
        kind,
        Kind::AuthorizationPolicy | Kind::RequestAuthentication
    );
    let network = matches!(
        kind,
        Kind::CiliumNetworkPolicy
            | Kind::CiliumClusterwideNetworkPolicy
            | Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
    );
    if !is_istios && !network {
        return Asked::No;
    }
    let read = |name: &'static str| match annotation(name) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(Asked::Unclear(name)),
    };
    let (istio, cairn) = match (read(ISTIO), read(CAIRN)) {
        (_, Err(unclear)) => return unclear,
        (Err(unclear), _) if is_istios => return unclear,
        (istio, Ok(cairn)) => (istio.unwrap_or(Some(true)), cairn),
    };
    match (istio, cairn) {
        (Some(true), None) if network => Asked::Foreign,
        (_, Some(cairn)) if network => yes(cairn),
        (Some(istio), Some(cairn)) if istio != cairn => Asked::Contradiction,
        (istio, cairn) => yes(istio.or(cairn) == Some(true)),
    }
}

fn yes(yes: bool) -> Asked {
    match yes {
        true => Asked::Yes,
        false => Asked::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_is_honoured_for_the_kinds_it_is_for() {
        let of = |kind, istio: Option<&'static str>, cairn: Option<&'static str>| {
            asked_by(kind, |name| if name == ISTIO { istio } else { cairn })
        };
        let (policy, network) = (Kind::AuthorizationPolicy, Kind::CiliumNetworkPolicy);
        for (kind, istio, cairn, expected) in [
            (policy, None, None, Asked::No),
            (policy, Some("true"), None, Asked::Yes),
            (policy, None, Some("true"), Asked::Yes),
            (policy, Some("true"), Some("true"), Asked::Yes),
            (policy, Some("false"), None, Asked::No),
            (policy, Some("yes"), None, Asked::Unclear(ISTIO)),
            (policy, Some("true"), Some("yes"), Asked::Unclear(CAIRN)),
            (policy, Some("true"), Some("false"), Asked::Contradiction),
            (network, Some("true"), None, Asked::Foreign),
            (network, Some("what"), None, Asked::Foreign),
            (network, Some("false"), None, Asked::No),
            (network, Some("true"), Some("true"), Asked::Yes),
            (network, Some("true"), Some("false"), Asked::No),
            (network, None, Some("true"), Asked::Yes),
            (network, None, Some("1"), Asked::Unclear(CAIRN)),
            (Kind::StagedNetworkPolicy, None, None, Asked::Yes),
            (Kind::HTTPRoute, Some("true"), Some("true"), Asked::No),
        ] {
            assert_eq!(
                of(kind, istio, cairn),
                expected,
                "{kind} {istio:?} {cairn:?}"
            );
        }
    }
}
