//! The rules of VirtualServices: the first that matches, in the order they are written
//! (specs/policies.md 2.6); objects one after the other, the oldest first (specs/istio-waypoint.md 4.5).
//! Rules on exact paths are found by one hash; the others are tried one by one, as far as needed.

use std::sync::Arc;

use cairn_config_schema::snapshot::{HttpRoute, PathMatch};
use rustc_hash::FxHashMap;

use crate::matcher::conditions_hold;
use crate::request::RequestParts;
use crate::table::{RuleRef, rule_refs};

/// Matches in order. Both lists of positions are ascending.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    matches: Vec<RuleRef>,
    exact: FxHashMap<Arc<str>, Vec<u32>>,
    others: Vec<u32>,
}

impl Ordered {
    pub(crate) fn compile(routes: &[&Arc<HttpRoute>]) -> Self {
        let mut routes = routes.to_vec();
        routes.sort_by_cached_key(|route| {
            let key = &route.origin.key;
            let created_s = route.created_s.unwrap_or(i64::MAX);
            (created_s, format!("{}/{}", key.namespace, key.name))
        });
        let matches: Vec<RuleRef> = routes.into_iter().flat_map(rule_refs).collect();
        let mut ordered = Self::default();
        for (at, rule) in matches.iter().enumerate() {
            let at = at as u32;
            match rule.matched().map(|m| &m.path) {
                Some(PathMatch::Exact(path)) => {
                    ordered.exact.entry(path.clone()).or_default().push(at);
                }
                _ => ordered.others.push(at),
            }
        }
        ordered.matches = matches;
        ordered
    }

    /// The first match that holds.
    pub(crate) fn find(&self, request: &RequestParts<'_>) -> Option<&RuleRef> {
        let exact = self.exact.get(request.path).map_or(&[][..], Vec::as_slice);
        let of_path = self.first(exact, u32::MAX, request);
        let before = of_path.unwrap_or(u32::MAX);
        let first = self.first(&self.others, before, request).or(of_path)?;
        self.matches.get(first as usize)
    }

    /// The first position of a list, below `before`, whose match holds.
    fn first(&self, list: &[u32], before: u32, request: &RequestParts<'_>) -> Option<u32> {
        let earlier = list.iter().copied().take_while(|at| *at < before);
        earlier.into_iter().find(|at| {
            let matched = self.matches.get(*at as usize).and_then(RuleRef::matched);
            matched
                .is_some_and(|m| path_holds(&m.path, request.path) && conditions_hold(m, request))
        })
    }
}

fn path_holds(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => **exact == *path,
        PathMatch::Prefix(prefix) => path
            .strip_prefix(&**prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        PathMatch::Begins { text, ignore_case } => {
            let head = path.as_bytes().get(..text.len());
            head.is_some_and(|head| match ignore_case {
                true => head.eq_ignore_ascii_case(text.as_bytes()),
                false => head == text.as_bytes(),
            })
        }
        PathMatch::Regex(pattern) => pattern.matches(path),
    }
}

#[cfg(test)]
mod tests;
