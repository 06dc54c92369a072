//! `delegate` of a VirtualService's rule: the rules of another VirtualService, without hosts, in its
//! place (specs/policies.md 2.6). One level deep. Only merges what is written; it is read as any rule.

use std::collections::{BTreeMap, BTreeSet};

use super::destination_rules::is_exported;
use super::virtual_rules::Written;
use crate::origin::ObjectKey;
use crate::resources::virtual_service::{
    Delegate, HttpMatch, HttpRoute, StringMatch, VirtualServiceSpec,
};
use crate::resources::{Loaded, Resources};

/// The VirtualServices that others may delegate to.
pub(super) struct Delegates<'a> {
    all: &'a BTreeMap<ObjectKey, Loaded<VirtualServiceSpec>>,
    /// Those that a rule delegates to.
    named: BTreeSet<ObjectKey>,
}

/// The object that a delegate of an object of `namespace` names.
fn key_of(delegate: &Delegate, namespace: &str) -> ObjectKey {
    let own = delegate.namespace.as_deref().filter(|n| !n.is_empty());
    ObjectKey::new(own.unwrap_or(namespace), delegate.name.as_str())
}

impl<'a> Delegates<'a> {
    pub fn of(resources: &'a Resources) -> Self {
        let all = &resources.virtual_services;
        let mut named = BTreeSet::new();
        for object in all.values().filter_map(Loaded::object) {
            let namespace = &object.origin.key.namespace;
            let rules = object.spec.http.iter().flatten();
            let delegates = rules.filter_map(|rule| rule.delegate.as_ref());
            named.extend(delegates.map(|delegate| key_of(delegate, namespace)));
        }
        Self { all, named }
    }

    /// Whether a rule delegates to it.
    pub fn has(&self, key: &ObjectKey) -> bool {
        self.named.contains(key)
    }

    /// The object that a rule of `root` delegates to.
    ///
    /// # Errors
    /// Why it can not: in words.
    pub fn find(&self, delegate: &Delegate, root: &Written) -> Result<&'a Written, String> {
        let namespace = &root.origin.key.namespace;
        let key = key_of(delegate, namespace);
        let object = match self.all.get(&key) {
            None => return Err(format!("VirtualService {key} does not exist")),
            Some(Loaded::Broken(broken)) => {
                return Err(format!(
                    "VirtualService {key} can not be read: {}",
                    broken.reason
                ));
            }
            Some(Loaded::Good(object) | Loaded::KeptLastGood(object)) => object,
        };
        if object
            .spec
            .hosts
            .as_ref()
            .is_some_and(|hosts| !hosts.is_empty())
        {
            return Err(format!(
                "VirtualService {key} has hosts, which no delegate has"
            ));
        }
        let export_to = object.spec.export_to.as_deref();
        if !is_exported(export_to, &key.namespace, namespace) {
            return Err(format!(
                "VirtualService {key} is not exported to {namespace}"
            ));
        }
        if object.spec.http.as_ref().is_none_or(Vec::is_empty) {
            return Err(format!("VirtualService {key} has no http rules"));
        }
        Ok(object)
    }
}

/// A rule of a delegate, with what the delegating rule asks for and what it says for all.
pub(super) struct Merged {
    /// `None`: no match of one goes together with one of the other, and the rule matches nothing.
    pub rule: Option<HttpRoute>,
    /// Matches of the delegate's rule that go together with none of the delegating one, by number.
    pub left_out: Vec<usize>,
}

/// Both matches must hold; of everything else the delegate's counts before that of the root.
pub(super) fn merged(root: &HttpRoute, own: &HttpRoute) -> Merged {
    let (outer, inner) = (root.r#match.as_deref(), own.r#match.as_deref());
    let (outer, inner) = (outer.unwrap_or_default(), inner.unwrap_or_default());
    let mut left_out = Vec::new();
    let matches = match (outer, inner) {
        ([], inner) => inner.to_vec(),
        (outer, []) => outer.to_vec(),
        _ => {
            let mut both = Vec::new();
            for (at, inner) in inner.iter().enumerate() {
                let before = both.len();
                both.extend(outer.iter().filter_map(|outer| and(outer, inner)));
                if both.len() == before {
                    left_out.push(at);
                }
            }
            if both.is_empty() {
                return Merged {
                    rule: None,
                    left_out,
                };
            }
            both
        }
    };
    let rule = HttpRoute {
        name: names(root.name.as_deref(), own.name.as_deref()),
        r#match: (!matches.is_empty()).then_some(matches),
        rewrite: own.rewrite.clone().or_else(|| root.rewrite.clone()),
        timeout: own.timeout.clone().or_else(|| root.timeout.clone()),
        retries: own.retries.clone().or_else(|| root.retries.clone()),
        fault: own.fault.clone().or_else(|| root.fault.clone()),
        cors_policy: own.cors_policy.clone().or_else(|| root.cors_policy.clone()),
        headers: own.headers.clone().or_else(|| root.headers.clone()),
        mirror: own.mirror.clone().or_else(|| root.mirror.clone()),
        mirrors: own.mirrors.clone().or_else(|| root.mirrors.clone()),
        mirror_percent: own.mirror_percent.or(root.mirror_percent),
        mirror_percent_old: own.mirror_percent_old.or(root.mirror_percent_old),
        mirror_percentage: own.mirror_percentage.or(root.mirror_percentage),
        ..own.clone()
    };
    Merged {
        rule: Some(rule),
        left_out,
    }
}

fn names(root: Option<&str>, own: Option<&str>) -> Option<String> {
    match (root, own) {
        (Some(root), Some(own)) => Some(format!("{root}-{own}")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

/// What holds if both do. `None`: they exclude each other, or that can not be told.
fn and(outer: &HttpMatch, inner: &HttpMatch) -> Option<HttpMatch> {
    let paths = outer.uri.is_some() && inner.uri.is_some();
    let case = |one: &HttpMatch| one.ignore_uri_case.unwrap_or(false);
    if paths && case(outer) != case(inner) {
        return None;
    }
    let ignore_uri_case = match inner.uri {
        Some(_) => inner.ignore_uri_case,
        None => outer.ignore_uri_case,
    };
    Some(HttpMatch {
        name: inner.name.clone().or_else(|| outer.name.clone()),
        uri: either(&outer.uri, &inner.uri, narrower)?,
        ignore_uri_case,
        scheme: either(&outer.scheme, &inner.scheme, narrower)?,
        method: either(&outer.method, &inner.method, narrower)?,
        authority: either(&outer.authority, &inner.authority, narrower)?,
        headers: both_maps(&outer.headers, &inner.headers, narrower)?,
        query_params: both_maps(&outer.query_params, &inner.query_params, narrower)?,
        without_headers: both_maps(&outer.without_headers, &inner.without_headers, same)?,
        port: either(&outer.port, &inner.port, same)?,
        source_namespace: either(&outer.source_namespace, &inner.source_namespace, same)?,
        source_labels: either(&outer.source_labels, &inner.source_labels, same)?,
        gateways: either(&outer.gateways, &inner.gateways, |outer, inner| {
            common(outer, inner)
        })?,
        stat_prefix: inner
            .stat_prefix
            .clone()
            .or_else(|| outer.stat_prefix.clone()),
    })
}

/// `None`: both are there and exclude each other.
fn either<T: Clone>(
    outer: &Option<T>,
    inner: &Option<T>,
    and: impl Fn(&T, &T) -> Option<T>,
) -> Option<Option<T>> {
    match (outer, inner) {
        (Some(outer), Some(inner)) => and(outer, inner).map(Some),
        (one, other) => Some(one.clone().or_else(|| other.clone())),
    }
}

type TextMap = BTreeMap<String, Option<StringMatch>>;

fn both_maps(
    outer: &Option<TextMap>,
    inner: &Option<TextMap>,
    and: fn(&StringMatch, &StringMatch) -> Option<StringMatch>,
) -> Option<Option<TextMap>> {
    either(outer, inner, |outer, inner| {
        let mut both = outer.clone();
        for (key, value) in inner {
            let value = value.clone().unwrap_or_default();
            let value = match both.get(key) {
                None => value,
                Some(other) => and(&other.clone().unwrap_or_default(), &value)?,
            };
            both.insert(key.clone(), Some(value));
        }
        Some(both)
    })
}

fn same<T: Clone + PartialEq>(outer: &T, inner: &T) -> Option<T> {
    (outer == inner).then(|| inner.clone())
}

fn common(outer: &[String], inner: &[String]) -> Option<Vec<String>> {
    let shared: Vec<String> = inner
        .iter()
        .filter(|g| outer.contains(g))
        .cloned()
        .collect();
    (!shared.is_empty()).then_some(shared)
}

/// The narrower of two texts if it lies within the other. Of expressions that is not told.
fn narrower(outer: &StringMatch, inner: &StringMatch) -> Option<StringMatch> {
    if outer == inner || *outer == StringMatch::default() {
        return Some(inner.clone());
    }
    if *inner == StringMatch::default() {
        return Some(outer.clone());
    }
    let text = inner.exact.as_deref().or(inner.prefix.as_deref());
    let within = match (outer.prefix.as_deref(), text, &inner.regex) {
        (Some(prefix), Some(text), None) => text.starts_with(prefix),
        _ => false,
    };
    within.then(|| inner.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = StringMatch> {
        let word = prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/b"]);
        (0..3, word).prop_map(|(form, word)| match form {
            0 => StringMatch {
                exact: Some(word.into()),
                ..StringMatch::default()
            },
            1 => StringMatch {
                prefix: Some(word.into()),
                ..StringMatch::default()
            },
            _ => StringMatch::default(),
        })
    }

    fn written() -> impl Strategy<Value = HttpMatch> {
        let header = prop::option::of(text());
        let header = header.prop_map(|h| h.map(|h| BTreeMap::from([("x".to_owned(), Some(h))])));
        (prop::option::of(text()), header, prop::option::of(1_u16..3)).prop_map(
            |(uri, headers, port)| HttpMatch {
                uri,
                headers,
                port,
                ..HttpMatch::default()
            },
        )
    }

    fn text_holds(wanted: &StringMatch, text: &str) -> bool {
        wanted.exact.as_deref().is_none_or(|e| e == text)
            && wanted.prefix.as_deref().is_none_or(|p| text.starts_with(p))
    }

    fn holds(wanted: &HttpMatch, path: &str, header: Option<&str>, port: u16) -> bool {
        let header_holds = |map: &TextMap| {
            let wanted = map.get("x").cloned().flatten();
            wanted.is_none_or(|wanted| header.is_some_and(|value| text_holds(&wanted, value)))
        };
        wanted.uri.as_ref().is_none_or(|uri| text_holds(uri, path))
            && wanted.headers.as_ref().is_none_or(header_holds)
            && wanted.port.is_none_or(|wanted| wanted == port)
    }

    proptest! {
        /// What is merged holds for what both hold for, and for nothing else.
        #[test]
        fn a_merged_match_is_both(
            outer in written(),
            inner in written(),
            path in prop::sample::select(vec!["/", "/a", "/a/b", "/a/c", "/b", "/c"]),
            header in prop::option::of(prop::sample::select(vec!["/a", "/a/b", "/b"])),
            port in 1_u16..3,
        ) {
            if let Some(both) = and(&outer, &inner) {
                let expected = holds(&outer, path, header, port) && holds(&inner, path, header, port);
                prop_assert_eq!(holds(&both, path, header, port), expected, "{:?}", both);
            }
        }

        /// One that lies within the other is never left out.
        #[test]
        fn a_narrower_match_is_kept(inner in written(), longer in "[a-z]{0,3}") {
            let outer = HttpMatch {
                uri: inner.uri.as_ref().and_then(|uri| {
                    let text = uri.exact.clone().or(uri.prefix.clone())?;
                    Some(StringMatch { prefix: Some(text), ..StringMatch::default() })
                }),
                ..inner.clone()
            };
            let deeper = |text: &String| format!("{text}{longer}");
            let inner = HttpMatch {
                uri: inner.uri.map(|uri| StringMatch {
                    exact: uri.exact.as_ref().map(deeper),
                    prefix: uri.prefix.as_ref().map(deeper),
                    regex: None,
                }),
                ..inner
            };
            prop_assert!(and(&outer, &inner).is_some());
        }
    }
}
