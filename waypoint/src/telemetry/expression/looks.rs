//! Which attributes an expression looks at, so that no others are made for it, and that what is not
//! known, or may keep a worker too long, is told when the configuration is read. Evaluates nothing.

use std::collections::{BTreeMap, BTreeSet};

use cel::IdedExpr;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators::INDEX,
};
use regex::RegexSetBuilder;

use crate::limits::EXPRESSION_REGEX_BYTES_MAX;

/// Of strings: whether they match a regular expression.
const MATCHES: &str = "matches";

/// Roots of attributes with their fields; the names are Envoy's.
const ATTRIBUTES: [(&str, &[&str]); 8] = [
    (
        "request",
        &[
            "path",
            "url_path",
            "host",
            "scheme",
            "method",
            "headers",
            "referer",
            "useragent",
            "time",
            "id",
            "protocol",
            "query",
            "duration",
            "size",
            "total_size",
        ],
    ),
    (
        "response",
        &[
            "code",
            "code_details",
            "flags",
            "grpc_status",
            "headers",
            "size",
            "total_size",
            "backend_latency",
        ],
    ),
    (
        "source",
        &["address", "port", "principal", "workload", "namespace"],
    ),
    (
        "destination",
        &[
            "address",
            "port",
            "service",
            "workload",
            "namespace",
            "principal",
        ],
    ),
    (
        "connection",
        &[
            "mtls",
            "requested_server_name",
            "tls_version",
            "uri_san_peer_certificate",
            "termination_details",
        ],
    ),
    (
        "upstream",
        &[
            "address",
            "port",
            "local_address",
            "transport_failure_reason",
            "request_attempt_count",
        ],
    ),
    ("xds", &["cluster_name", "route_name"]),
    ("filter_state", &["downstream_peer", "upstream_peer"]),
];

/// Attributes by their roots.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeMap<&'static str, BTreeSet<&'static str>>);

impl Looks {
    /// # Errors
    /// An attribute that is not known, with those that are; what may take too long.
    pub fn of(expression: &IdedExpr) -> Result<Self, String> {
        let mut walk = Walk::default();
        walk.expression(expression);
        if let Some(why) = walk.refused {
            return Err(why.to_owned());
        }
        // A pattern is compiled anew for each exchange.
        let mut patterns = RegexSetBuilder::new(&walk.patterns);
        patterns.size_limit(EXPRESSION_REGEX_BYTES_MAX);
        if let Err(error) = patterns.build() {
            return Err(format!(
                "the patterns of `matches` can not be used: {error}"
            ));
        }
        let mut looks = Self::default();
        for (root, field) in walk.found {
            if walk.locals.contains(&root) {
                continue;
            }
            let Some((root, fields)) = ATTRIBUTES.iter().find(|(known, _)| *known == root) else {
                let known: Vec<&str> = ATTRIBUTES.iter().map(|(root, _)| *root).collect();
                return Err(format!(
                    "there is no attribute `{root}` here; there are {}",
                    known.join(", ")
                ));
            };
            let wanted = looks.0.entry(root).or_default();
            match &field {
                None => wanted.extend(fields.iter()),
                Some(field) => match fields.iter().find(|known| *known == field) {
                    Some(field) => drop(wanted.insert(field)),
                    None => {
                        let known = fields.join(", ");
                        return Err(format!("`{root}` has no `{field}` here; it has {known}"));
                    }
                },
            }
        }
        Ok(looks)
    }

    /// Each root with the fields that are looked at.
    pub fn roots(
        &self,
    ) -> impl Iterator<Item = (&'static str, impl Iterator<Item = &'static str>)> {
        self.0
            .iter()
            .map(|(root, fields)| (*root, fields.iter().copied()))
    }
}

/// Roots with a field, or as a whole; names that comprehensions declare; patterns; why it is refused.
#[derive(Default)]
struct Walk {
    found: BTreeSet<(String, Option<String>)>,
    locals: BTreeSet<String>,
    patterns: Vec<String>,
    in_comprehension: bool,
    refused: Option<&'static str>,
}

impl Walk {
    fn expression(&mut self, expression: &IdedExpr) {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(root) => drop(self.found.insert((root.clone(), None))),
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(root) => {
                    self.found
                        .insert((root.clone(), Some(select.field.clone())));
                }
                _ => self.expression(&select.operand),
            },
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(all) => self.comprehension(all),
            Expr::List(list) => list.elements.iter().for_each(|item| self.expression(item)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.entry(&entry.expr)),
            Expr::Struct(of) => of.entries.iter().for_each(|entry| self.entry(&entry.expr)),
        }
    }

    fn call(&mut self, call: &CallExpr) {
        if call.func_name == INDEX
            && let [root, field] = call.args.as_slice()
            && let Expr::Ident(root) = &root.expr
            && let Expr::Literal(LiteralValue::String(field)) = &field.expr
        {
            let field = field.inner().to_owned();
            self.found.insert((root.clone(), Some(field)));
            return;
        }
        if call.func_name == MATCHES {
            self.pattern(call.args.last());
        }
        call.target
            .iter()
            .for_each(|target| self.expression(target));
        call.args
            .iter()
            .for_each(|argument| self.expression(argument));
    }

    /// What `matches` compares with.
    fn pattern(&mut self, pattern: Option<&IdedExpr>) {
        if self.in_comprehension {
            self.refused =
                Some("`matches` inside all, exists, map or filter is not evaluated here");
        }
        match pattern.map(|pattern| &pattern.expr) {
            Some(Expr::Literal(LiteralValue::String(text))) => {
                self.patterns.push(text.inner().to_owned());
            }
            _ => self.refused = Some("the pattern of `matches` must be a text in quotes"),
        }
    }

    /// One inside another (or over what another gives) could take longer than the universe lasts in a
    /// thousand bytes.
    fn comprehension(&mut self, all: &ComprehensionExpr) {
        if self.in_comprehension {
            self.refused = Some(
                "all, exists, exists_one, map or filter inside another, or after another, is not \
                evaluated here",
            );
            return;
        }
        self.in_comprehension = true;
        self.locals
            .extend([all.iter_var.clone(), all.accu_var.clone()]);
        self.locals.extend(all.iter_var2.clone());
        let parts = [
            &all.iter_range,
            &all.accu_init,
            &all.loop_cond,
            &all.loop_step,
            &all.result,
        ];
        parts.into_iter().for_each(|part| self.expression(part));
        self.in_comprehension = false;
    }

    fn entry(&mut self, entry: &EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => self.expression(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.expression(&entry.key);
                self.expression(&entry.value);
            }
        }
    }
}
