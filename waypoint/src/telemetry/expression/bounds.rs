//! What an expression may not do, for it would take too long: it is evaluated for each exchange, or for each
//! flow that somebody reads. Shared with the filters of flows (`hubble::filter`). Evaluates nothing.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};
use regex::RegexSetBuilder;

use crate::limits::EXPRESSION_REGEX_BYTES_MAX;

/// What `optMap` and `optFlatMap` call what they are asked of, while they look at it twice; nobody can write it.
const ONCE: &str = "@target";

/// Of strings: whether they match a regular expression.
const MATCHES: &str = "matches";

/// Whether it ends soon, whatever it is asked of.
///
/// # Errors
/// Why not, in a sentence.
pub fn bounded(expression: &IdedExpr) -> Result<(), String> {
    let mut walk = Walk::default();
    walk.expression(expression)?;
    // A pattern is compiled anew for each evaluation.
    let mut patterns = RegexSetBuilder::new(&walk.patterns);
    patterns.size_limit(EXPRESSION_REGEX_BYTES_MAX);
    patterns
        .build()
        .map_err(|error| format!("the patterns of `matches` can not be used: {error}"))?;
    Ok(())
}

/// The expressions that one is made of, in the order they are written.
pub fn parts(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => Vec::new(),
        Expr::Select(select) => vec![&*select.operand],
        Expr::Call(call) => {
            let target = call.target.as_deref();
            target.into_iter().chain(&call.args).collect()
        }
        Expr::Comprehension(all) => vec![
            &all.iter_range,
            &all.accu_init,
            &all.loop_cond,
            &all.loop_step,
            &all.result,
        ],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|e| entry(&e.expr)).collect(),
        Expr::Struct(of) => of.entries.iter().flat_map(|e| entry(&e.expr)).collect(),
    }
}

fn entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

#[derive(Default)]
struct Walk {
    patterns: Vec<String>,
    in_comprehension: bool,
}

impl Walk {
    fn expression(&mut self, expression: &IdedExpr) -> Result<(), String> {
        match &expression.expr {
            Expr::Unspecified => return Err("it can not be read".to_owned()),
            // One inside another (or over what another gives) could take longer than the universe lasts
            // in a thousand bytes.
            Expr::Comprehension(_) if self.in_comprehension => {
                return Err(
                    "all, exists, exists_one, map, filter or optMap inside another, or after another, is \
                    not evaluated here"
                        .to_owned(),
                );
            }
            // No loop, nor does it make a value larger: but what it is of must hold none.
            Expr::Comprehension(all) if all.accu_var == ONCE => {
                self.in_comprehension = true;
                self.expression(&all.accu_init)?;
                self.in_comprehension = false;
                return self.expression(&all.result);
            }
            Expr::Comprehension(_) => {
                self.in_comprehension = true;
                self.parts(expression)?;
                self.in_comprehension = false;
                return Ok(());
            }
            // With a point before it (`.matches(a, b)`) it is the same function.
            Expr::Call(call) if call.func_name.trim_start_matches('.') == MATCHES => {
                self.pattern(call)?;
            }
            _ => {}
        }
        self.parts(expression)
    }

    fn parts(&mut self, expression: &IdedExpr) -> Result<(), String> {
        parts(expression)
            .into_iter()
            .try_for_each(|part| self.expression(part))
    }

    /// What `matches` compares with.
    fn pattern(&mut self, call: &CallExpr) -> Result<(), String> {
        if self.in_comprehension {
            return Err(
                "`matches` inside all, exists, exists_one, map, filter or optMap is not evaluated here"
                    .to_owned(),
            );
        }
        match call.args.last().map(|pattern| &pattern.expr) {
            Some(Expr::Literal(LiteralValue::String(text))) => {
                self.patterns.push(text.inner().to_owned());
                Ok(())
            }
            _ => Err("the pattern of `matches` must be a text in quotes".to_owned()),
        }
    }
}
