//! The routes of one service port, compiled for search. Does not choose among backends.
//!
//! Precedence is per match over all rules of all routes (specs/gateway-api.md 1.4,
//! specs/istio-waypoint.md 4.3): exact path, then the longest prefix, then regular expressions
//! (implementation-specific; last, and by length for GRPCRoutes alone); then a method, more header matches, more
//! query matches; then the oldest route, its namespace/name, the order of rules and of matches.
//! Routes that could not be read come after everything else. VirtualServices, which stand on a port
//! without others, go by the order they are written in (`ordered`).
//!
//! Exact paths are found by one hash, prefixes by one walk down a tree of segments; only regular
//! expressions are tried one by one. So 5,000 routes cost a request no more than five.

use std::cmp::Reverse;
use std::sync::Arc;

use cairn_config_schema::snapshot::{HttpMatch, HttpRoute, HttpRule, PathMatch};
use rustc_hash::FxHashMap;

use crate::matcher::conditions_hold;
use crate::ordered::Ordered;
use crate::request::RequestParts;

/// The routes of one service port.
#[derive(Debug, Default)]
pub struct RouteTable {
    attached: bool,
    in_order: Ordered,
    readable: Index,
    broken: Index,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Found {
    /// No route is attached: forward to the service itself.
    Default,
    /// Routes are attached and none matches: 404, never the service itself.
    NoMatch,
    /// This rule.
    Rule(RuleRef),
}

/// A rule of a route, and the match of it that held.
#[derive(Clone, Debug)]
pub struct RuleRef {
    /// The route.
    pub route: Arc<HttpRoute>,
    /// Which of its rules, from 0.
    pub rule: usize,
    /// Which match of the rule, from 0.
    pub matched: usize,
    /// Whether the match holds is not known: it asks for labels of a caller whose pod is not known.
    pub in_doubt: bool,
}

/// Why a rule that is in doubt is as good as broken.
pub(crate) const IN_DOUBT: &str =
    "the match asks for labels of the caller, and there is no Pod of its identity with its address";

impl RuleRef {
    /// The rule. Always `Some` for a reference that a [`RouteTable`] gave out.
    pub fn rule(&self) -> Option<&HttpRule> {
        self.route.rules.get(self.rule)
    }

    /// Why it can not be honoured, if it can not.
    pub fn broken(&self) -> Option<&str> {
        let broken = || self.rule()?.broken.as_deref();
        self.in_doubt.then_some(IN_DOUBT).or_else(broken)
    }

    /// The match that held. Always `Some` for a reference that a [`RouteTable`] gave out.
    pub fn matched(&self) -> Option<&HttpMatch> {
        self.rule()?.matches.get(self.matched)
    }
}

impl RouteTable {
    /// Compiles the routes of one port; their order does not matter.
    pub fn compile(routes: &[Arc<HttpRoute>]) -> Self {
        let (broken, good): (Vec<_>, Vec<_>) = routes.iter().partition(|r| r.broken);
        let (in_order, readable): (Vec<_>, Vec<_>) = good.into_iter().partition(|r| r.in_order());
        Self {
            attached: !routes.is_empty(),
            in_order: Ordered::compile(&in_order),
            readable: Index::compile(&readable),
            broken: Index::compile(&broken),
        }
    }

    /// Finds the rule for a request. Allocates only for repeated headers and escapes in the query
    /// of matches that ask for them.
    pub fn find(&self, request: &RequestParts<'_>) -> Found {
        if !self.attached {
            return Found::Default;
        }
        let found = self.in_order.find(request);
        let found = found.or_else(|| self.readable.find(request));
        match found.or_else(|| self.broken.find(request)) {
            Some(rule) => Found::Rule(RuleRef {
                in_doubt: request.caller_labels.is_none() && asks_for_labels(rule),
                ..rule.clone()
            }),
            None => Found::NoMatch,
        }
    }
}

/// Matches in order of precedence, with an index for each kind of path. Lists of positions in
/// `ranked` are ascending, so that the first that holds is the right one.
#[derive(Debug, Default)]
struct Index {
    ranked: Vec<RuleRef>,
    exact: FxHashMap<Arc<str>, Vec<u32>>,
    /// The tree of segments; node 0 is the prefix `/`. Empty without prefixes.
    prefixes: Vec<PrefixNode>,
    regexes: Vec<u32>,
}

#[derive(Debug, Default)]
struct PrefixNode {
    parent: Option<u32>,
    children: FxHashMap<Box<str>, u32>,
    ranks: Vec<u32>,
}

impl Index {
    fn compile(routes: &[&Arc<HttpRoute>]) -> Self {
        let mut ranked: Vec<RuleRef> = routes.iter().flat_map(|r| rule_refs(r)).collect();
        ranked.sort_by_cached_key(precedence);
        let mut index = Self::default();
        for (rank, rule) in ranked.iter().enumerate() {
            let rank = rank as u32;
            match rule.matched().map(|m| &m.path) {
                Some(PathMatch::Exact(path)) => {
                    index.exact.entry(path.clone()).or_default().push(rank);
                }
                Some(PathMatch::Prefix(prefix)) => index.insert_prefix(prefix, rank),
                Some(PathMatch::Regex(_)) => index.regexes.push(rank),
                // A VirtualService's, which are not ranked.
                Some(PathMatch::Begins { .. }) | None => {}
            }
        }
        index.ranked = ranked;
        index
    }

    fn insert_prefix(&mut self, prefix: &str, rank: u32) {
        if self.prefixes.is_empty() {
            self.prefixes.push(PrefixNode::default());
        }
        let mut at = 0;
        for segment in prefix.split('/').skip(1) {
            at = self.child(at, segment);
        }
        if let Some(node) = self.prefixes.get_mut(at as usize) {
            node.ranks.push(rank);
        }
    }

    fn child(&mut self, parent: u32, segment: &str) -> u32 {
        let next = self.prefixes.len() as u32;
        let Some(node) = self.prefixes.get_mut(parent as usize) else {
            return 0;
        };
        if let Some(child) = node.children.get(segment) {
            return *child;
        }
        node.children.insert(segment.into(), next);
        self.prefixes.push(PrefixNode {
            parent: Some(parent),
            ..PrefixNode::default()
        });
        next
    }

    fn find(&self, request: &RequestParts<'_>) -> Option<&RuleRef> {
        let exact = self.exact.get(request.path).map(Vec::as_slice);
        self.first_that_holds(exact.unwrap_or_default(), request)
            .or_else(|| self.find_prefix(request))
            .or_else(|| self.find_regex(request))
    }

    /// Down to the deepest node of the path, then up again until a match holds.
    fn find_prefix(&self, request: &RequestParts<'_>) -> Option<&RuleRef> {
        // `*`, the target of OPTIONS, is under no prefix.
        let path = request.path.strip_prefix('/')?;
        let mut node = self.prefixes.first()?;
        for segment in path.split('/') {
            let Some(child) = node.children.get(segment) else {
                break;
            };
            node = self.prefixes.get(*child as usize)?;
        }
        loop {
            if let Some(found) = self.first_that_holds(&node.ranks, request) {
                return Some(found);
            }
            node = self.prefixes.get(node.parent? as usize)?;
        }
    }

    fn find_regex(&self, request: &RequestParts<'_>) -> Option<&RuleRef> {
        self.regexes
            .iter()
            .filter_map(|rank| self.ranked.get(*rank as usize))
            .find(|rule| {
                rule.matched().is_some_and(|m| {
                    conditions_hold(m, request)
                        && matches!(&m.path, PathMatch::Regex(p) if p.matches(request.path))
                })
            })
    }

    fn first_that_holds(&self, ranks: &[u32], request: &RequestParts<'_>) -> Option<&RuleRef> {
        ranks
            .iter()
            .filter_map(|rank| self.ranked.get(*rank as usize))
            .find(|rule| rule.matched().is_some_and(|m| conditions_hold(m, request)))
    }
}

fn asks_for_labels(rule: &RuleRef) -> bool {
    let more = rule.matched().and_then(|matched| matched.more.as_deref());
    more.is_some_and(|more| !more.caller_labels.is_empty())
}

pub(crate) fn rule_refs(route: &Arc<HttpRoute>) -> impl Iterator<Item = RuleRef> {
    route.rules.iter().enumerate().flat_map(move |(at, rule)| {
        (0..rule.matches.len()).map(move |matched| RuleRef {
            route: route.clone(),
            rule: at,
            matched,
            in_doubt: false,
        })
    })
}

/// Smaller comes first.
fn precedence(rule: &RuleRef) -> impl Ord + use<> {
    let (kind, length) = match rule.matched().map(|m| &m.path) {
        Some(PathMatch::Exact(_)) => (0, (0, 0)),
        Some(PathMatch::Prefix(prefix)) => (1, (prefix.len(), 0)),
        Some(PathMatch::Regex(pattern)) => (2, pattern.rank()),
        Some(PathMatch::Begins { .. }) | None => (2, (0, 0)),
    };
    let (method, headers, query) = rule.matched().map_or((false, 0, 0), |m| {
        (m.method.is_some(), m.headers.len(), m.query.len())
    });
    let key = &rule.route.origin.key;
    (
        kind,
        Reverse((length, method, headers, query)),
        rule.route.created_s.unwrap_or(i64::MAX),
        // As one text: `a-b/x` comes before `a/x`, which pairs would order the other way round.
        format!("{}/{}", key.namespace, key.name),
        rule.rule,
        rule.matched,
    )
}

#[cfg(test)]
mod tests;
