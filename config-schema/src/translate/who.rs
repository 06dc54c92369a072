//! Who may call, in words that both meshes have: anybody, anybody of the mesh, a namespace, a service
//! account. Labels of pods and addresses are not among them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::identity::Identity;
use crate::snapshot::{Mesh, Source, StringMatch, Values};

pub(super) const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
pub(super) const ACCOUNT_LABEL: &str = "io.cilium.k8s.policy.serviceaccount";

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Whoever it is.
    Anybody,
    /// Whoever has an identity of the mesh.
    Meshed,
    /// A namespace, or one service account in it.
    Of {
        namespace: Arc<str>,
        account: Option<Arc<str>>,
    },
}

impl Who {
    /// The service account of an identity.
    pub fn account(identity: &Identity) -> Option<Self> {
        Some(Self::Of {
            namespace: identity.namespace()?.into(),
            account: Some(identity.service_account()?.into()),
        })
    }

    /// Whoever is both.
    fn and(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Anybody, who) | (who, Self::Anybody) => Some(who.clone()),
            (Self::Meshed, who) | (who, Self::Meshed) => Some(who.clone()),
            (
                Self::Of { namespace, account },
                Self::Of {
                    namespace: n,
                    account: a,
                },
            ) => {
                let same = namespace == n && (account.is_none() || a.is_none() || account == a);
                same.then(|| Self::Of {
                    namespace: namespace.clone(),
                    account: account.clone().or_else(|| a.clone()),
                })
            }
        }
    }

    /// As a `source` of an AuthorizationPolicy. `None`: no condition.
    pub fn source(&self, mesh: &Mesh) -> Option<Value> {
        let source = match self {
            Self::Anybody => return None,
            Self::Meshed => json!({"principals": ["*"]}),
            Self::Of {
                namespace,
                account: None,
            } => json!({"namespaces": [namespace]}),
            Self::Of {
                namespace,
                account: Some(account),
            } => {
                let principal = format!("{}/ns/{namespace}/sa/{account}", mesh.trust_domain);
                json!({"principals": [principal]})
            }
        };
        Some(json!({"source": source}))
    }

    /// As an item of `fromEndpoints`. `None`: no selector says it.
    fn selector(&self) -> Option<Value> {
        match self {
            Self::Anybody | Self::Meshed => None,
            Self::Of {
                namespace,
                account: None,
            } => Some(json!({"matchLabels": {(format!("k8s:{NAMESPACE_LABEL}")): namespace}})),
            Self::Of {
                namespace,
                account: Some(account),
            } => Some(json!({"matchLabels": {
                (format!("k8s:{NAMESPACE_LABEL}")): namespace,
                (format!("k8s:{ACCOUNT_LABEL}")): account,
            }})),
        }
    }
}

/// As the peers of items of `ingress`: one for each kind of them, for they exclude each other.
pub(super) fn ingress_peers(who: &[Who]) -> Vec<Value> {
    if who.contains(&Who::Anybody) {
        return vec![json!({})];
    }
    let mut items = Vec::new();
    let selectors: Vec<Value> = who.iter().filter_map(Who::selector).collect();
    if !selectors.is_empty() {
        items.push(json!({"fromEndpoints": selectors}));
    }
    if who.contains(&Who::Meshed) {
        items.push(json!({"fromEntities": ["cluster"]}));
    }
    items
}

/// Whoever is of both.
pub(super) fn both(some: &[Who], others: &[Who]) -> Vec<Who> {
    let mut both = Vec::new();
    for (one, other) in some.iter().flat_map(|s| others.iter().map(move |o| (s, o))) {
        if let Some(who) = one.and(other)
            && !both.contains(&who)
        {
            both.push(who);
        }
    }
    both
}

/// Whom a source of a policy means. Returns what can be said, and the fields of which something can not.
pub(super) fn of_source(source: &Source, mesh: &Mesh) -> (Vec<Who>, Vec<&'static str>) {
    let mut unsayable = Vec::new();
    let mut who = vec![Who::Anybody];
    let mut narrow = |field, (said, whole): (Option<Vec<Who>>, bool)| {
        if !whole {
            unsayable.push(field);
        }
        if let Some(said) = said {
            who = both(&who, &said);
        }
    };
    narrow(
        "principals",
        values(&source.principals, |v| principal(v, mesh)),
    );
    narrow("namespaces", values(&source.namespaces, namespace));
    narrow("serviceAccounts", values(&source.service_accounts, account));
    let others = [
        ("trustDomains", source.trust_domains.is_empty()),
        ("requestPrincipals", source.request_principals.is_empty()),
        ("ipBlocks", source.ip_blocks.is_empty()),
        ("remoteIpBlocks", source.remote_ip_blocks.is_empty()),
    ];
    for (field, _) in others.into_iter().filter(|(_, absent)| !absent) {
        narrow(field, (Some(Vec::new()), false));
    }
    (who, unsayable)
}

/// Whom the values of a field mean, as far as that can be said, and whether it all can. `None`: anybody.
pub(super) fn values(
    values: &Values<StringMatch>,
    read: impl Fn(&StringMatch) -> Option<Who>,
) -> (Option<Vec<Who>>, bool) {
    if values.is_empty() {
        return (None, true);
    }
    // None of some: nobody can be said to be that.
    if !values.none_of.is_empty() {
        return (Some(Vec::new()), false);
    }
    let read: Vec<Option<Who>> = values.any_of.iter().map(read).collect();
    let whole = read.iter().all(Option::is_some);
    let mut said: Vec<Who> = read.into_iter().flatten().collect();
    said.sort();
    said.dedup();
    (Some(said), whole)
}

/// `source.principals`: an account, a namespace, or anybody of the mesh. Trust domains are those of the
/// mesh, for no other peer is accepted; Cilium's labels do not hold them.
pub(super) fn principal(value: &StringMatch, mesh: &Mesh) -> Option<Who> {
    let (text, form) = match value {
        StringMatch::Any => return Some(Who::Meshed),
        StringMatch::Exact(text) => (text, Form::Whole),
        StringMatch::Prefix(text) => (text, Form::Beginning),
        StringMatch::Suffix(text) => (text, Form::End),
        StringMatch::Glob(_) => return None,
    };
    let path = match form {
        Form::End => text.strip_prefix("/ns/")?,
        Form::Whole | Form::Beginning => {
            let (domain, path) = text.split_once("/ns/")?;
            // Aliases: the resolver has written the principal for each of the mesh's trust domains.
            mesh.accepts_trust_domain(domain).then_some(path)?
        }
    };
    let segments: Vec<&str> = path.split('/').collect();
    let (namespace, account) = match (segments.as_slice(), form) {
        ([namespace, "sa", account], Form::Whole | Form::End) => (*namespace, Some(*account)),
        ([namespace, ""] | [namespace, "sa", ""], Form::Beginning) => (*namespace, None),
        _ => return None,
    };
    let is_name = |name: &str| !name.is_empty() && !name.contains('*');
    let named = is_name(namespace) && account.is_none_or(is_name);
    named.then(|| Who::Of {
        namespace: namespace.into(),
        account: account.map(Into::into),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    Beginning,
    End,
}

/// `source.namespaces`.
pub(super) fn namespace(value: &StringMatch) -> Option<Who> {
    match value {
        StringMatch::Exact(name) | StringMatch::Glob(name) if !name.contains('*') => {
            Some(Who::Of {
                namespace: name.clone(),
                account: None,
            })
        }
        _ => None,
    }
}

/// `source.serviceAccounts`, `namespace/account`.
pub(super) fn account(value: &StringMatch) -> Option<Who> {
    let StringMatch::Exact(text) = value else {
        return None;
    };
    let (namespace, account) = text.split_once('/')?;
    Some(Who::Of {
        namespace: namespace.into(),
        account: Some(account.into()),
    })
}
