//! Which attributes an expression looks at, so that no others are made for it, and that what is not
//! known is told when the configuration is read. Evaluates nothing.

use std::collections::{BTreeMap, BTreeSet};

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue, operators::INDEX};

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
    /// An attribute that is not known, with those that are.
    pub fn of(expression: &IdedExpr) -> Result<Self, String> {
        let mut walk = Walk::default();
        walk.expression(expression);
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

/// Roots with a field, or as a whole; and names that comprehensions declare.
#[derive(Default)]
struct Walk {
    found: BTreeSet<(String, Option<String>)>,
    locals: BTreeSet<String>,
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
            Expr::Call(call) => {
                if call.func_name == INDEX
                    && let [root, field] = call.args.as_slice()
                    && let Expr::Ident(root) = &root.expr
                    && let Expr::Literal(LiteralValue::String(field)) = &field.expr
                {
                    let field = field.inner().to_owned();
                    self.found.insert((root.clone(), Some(field)));
                    return;
                }
                call.target
                    .iter()
                    .for_each(|target| self.expression(target));
                call.args
                    .iter()
                    .for_each(|argument| self.expression(argument));
            }
            Expr::Comprehension(all) => {
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
            }
            Expr::List(list) => list.elements.iter().for_each(|item| self.expression(item)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.entry(&entry.expr)),
            Expr::Struct(of) => of.entries.iter().for_each(|entry| self.entry(&entry.expr)),
        }
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
