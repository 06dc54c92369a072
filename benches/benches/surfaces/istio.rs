//! AuthorizationPolicies.

use std::sync::Arc;

use cairn_authz::PolicySet;
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    Action, Operation, PathPattern, Policy, PolicyRule, Source, StringMatch, Values,
};

use super::{By, RULES};

/// Rule `n` is for GET and POST of one client to one path and those below it.
pub fn allowing(by: By, policies: usize) -> PolicySet {
    set(by, policies, Action::Allow)
}

/// Rules that deny one client each.
pub fn denying(policies: usize) -> PolicySet {
    set(By::Client, policies, Action::Deny)
}

fn set(by: By, policies: usize, action: Action) -> PolicySet {
    let policy = |p: usize| {
        let rules = (0..RULES).map(|r| rule(by, p * RULES + r));
        Arc::new(Policy {
            origin: Origin {
                kind: Kind::AuthorizationPolicy,
                key: ObjectKey::new("bench", format!("policy-{p:04}")),
            },
            action,
            dry_run: false,
            rules: rules.collect(),
            broken: None,
        })
    };
    let policies: Vec<Arc<Policy>> = (0..policies).map(policy).collect();
    PolicySet::compile(&policies)
}

fn values<T>(any_of: Vec<T>) -> Values<T> {
    Values {
        any_of,
        none_of: Vec::new(),
    }
}

fn rule(by: By, n: usize) -> PolicyRule {
    let (client, segment) = by.names(n);
    let principal = format!("cluster.local/ns/bench/sa/{client}");
    let path = PathPattern::Text(StringMatch::parse(&format!("/{segment}/*")));
    PolicyRule {
        from: vec![Source {
            principals: values(vec![StringMatch::Exact(principal.into())]),
            ..Source::default()
        }],
        to: vec![Operation {
            methods: values(vec![StringMatch::parse("GET"), StringMatch::parse("POST")]),
            paths: values(vec![path]),
            ..Operation::default()
        }],
        ..PolicyRule::default()
    }
}
