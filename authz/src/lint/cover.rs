//! Whether one rule of AuthorizationPolicies matches everything that another one does. `true` is
//! certain; `false` means that it is not known to.

use cairn_config_schema::snapshot::{
    Condition, Operation, PathPattern, PolicyRule, RequestPrincipal, Source, StringMatch, Values,
};
use ipnet::IpNet;

/// Whether `wide` matches whatever `narrow` matches.
pub(super) fn rule(wide: &PolicyRule, narrow: &PolicyRule) -> bool {
    if wide.broken.is_some() || narrow.broken.is_some() {
        return false;
    }
    items(&wide.from, &narrow.from, source)
        && items(&wide.to, &narrow.to, operation)
        && wide
            .when
            .iter()
            .all(|w| narrow.when.iter().any(|n| condition(w, n)))
}

/// Whether a rule matches every request and connection.
pub(super) fn is_everything(rule: &PolicyRule) -> bool {
    rule.broken.is_none()
        && rule.when.is_empty()
        && (rule.from.is_empty() || rule.from.contains(&Source::default()))
        && (rule.to.is_empty() || rule.to.contains(&Operation::default()))
}

/// An absent list is everything.
fn items<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    let one_of_wide = |n: &T| wide.iter().any(|w| covers(w, n));
    wide.is_empty() || !narrow.is_empty() && narrow.iter().all(one_of_wide)
}

fn source(wide: &Source, narrow: &Source) -> bool {
    values(&wide.principals, &narrow.principals, text)
        && values(&wide.namespaces, &narrow.namespaces, text)
        && values(&wide.service_accounts, &narrow.service_accounts, text)
        && values(&wide.trust_domains, &narrow.trust_domains, text)
        && values(
            &wide.request_principals,
            &narrow.request_principals,
            same_principal,
        )
        && values(&wide.ip_blocks, &narrow.ip_blocks, block)
        && values(&wide.remote_ip_blocks, &narrow.remote_ip_blocks, block)
}

fn operation(wide: &Operation, narrow: &Operation) -> bool {
    values(&wide.hosts, &narrow.hosts, text)
        && values(&wide.methods, &narrow.methods, text)
        && values(&wide.paths, &narrow.paths, path)
        && values(&wide.ports, &narrow.ports, |w, n| w == n)
}

/// One of `wide` covers each of `narrow`, and what `wide` excepts, `narrow` excepts, too.
fn values<T>(wide: &Values<T>, narrow: &Values<T>, covers: impl Fn(&T, &T) -> bool) -> bool {
    let by_any = wide.any_of.is_empty()
        || !narrow.any_of.is_empty()
            && (narrow.any_of.iter()).all(|n| wide.any_of.iter().any(|w| covers(w, n)));
    let excepted = |w: &T| narrow.none_of.iter().any(|n| covers(n, w));
    by_any && wide.none_of.iter().all(excepted)
}

fn text(wide: &StringMatch, narrow: &StringMatch) -> bool {
    match (wide, narrow) {
        (StringMatch::Any, _) => true,
        (StringMatch::Prefix(w), StringMatch::Exact(n) | StringMatch::Prefix(n)) => {
            n.starts_with(&**w)
        }
        (StringMatch::Suffix(w), StringMatch::Exact(n) | StringMatch::Suffix(n)) => {
            n.ends_with(&**w)
        }
        (wide, narrow) => wide == narrow,
    }
}

fn path(wide: &PathPattern, narrow: &PathPattern) -> bool {
    match (wide, narrow) {
        (PathPattern::Text(w), PathPattern::Text(n)) => text(w, n),
        // Every path begins with a slash.
        (PathPattern::Text(StringMatch::Any), _) => true,
        (wide, narrow) => wide == narrow,
    }
}

fn same_principal(wide: &RequestPrincipal, narrow: &RequestPrincipal) -> bool {
    wide == narrow
}

fn block(wide: &IpNet, narrow: &IpNet) -> bool {
    wide.contains(narrow)
}

/// A condition that is there in the same words, or with fewer values.
fn condition(wide: &Condition, narrow: &Condition) -> bool {
    match (wide, narrow) {
        (
            Condition::RequestHeader {
                name: w_name,
                values: w,
            },
            Condition::RequestHeader {
                name: n_name,
                values: n,
            },
        ) => w_name == n_name && values(w, n, text),
        (Condition::SourceIp(w), Condition::SourceIp(n))
        | (Condition::RemoteIp(w), Condition::RemoteIp(n))
        | (Condition::DestinationIp(w), Condition::DestinationIp(n)) => values(w, n, block),
        (Condition::SourceNamespace(w), Condition::SourceNamespace(n))
        | (Condition::SourcePrincipal(w), Condition::SourcePrincipal(n))
        | (Condition::SourceServiceAccount(w), Condition::SourceServiceAccount(n))
        | (Condition::SourceTrustDomain(w), Condition::SourceTrustDomain(n)) => values(w, n, text),
        (wide, narrow) => wide == narrow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> StringMatch {
        StringMatch::parse(text)
    }

    fn methods(any_of: &[&str], none_of: &[&str]) -> PolicyRule {
        let list = |texts: &[&str]| texts.iter().map(|t| exact(t)).collect();
        let operation = Operation {
            methods: Values {
                any_of: list(any_of),
                none_of: list(none_of),
            },
            ..Operation::default()
        };
        PolicyRule {
            to: vec![operation],
            ..PolicyRule::default()
        }
    }

    #[test]
    fn a_rule_covers_what_it_matches_and_more() {
        let all = PolicyRule::default();
        let get = methods(&["GET"], &[]);
        assert!(rule(&all, &get) && !rule(&get, &all));
        assert!(rule(&methods(&["GET", "POST"], &[]), &get));
        assert!(rule(&methods(&["G*"], &[]), &get));
        assert!(!rule(&get, &methods(&["GET", "POST"], &[])));
        assert!(is_everything(&all) && !is_everything(&get));
    }

    #[test]
    fn what_the_wide_rule_excepts_it_does_not_cover() {
        let but_get = methods(&[], &["GET"]);
        assert!(!rule(&but_get, &methods(&["POST"], &[])));
        assert!(rule(&but_get, &but_get));
        assert!(rule(&but_get, &methods(&[], &["G*"])));
    }
}
