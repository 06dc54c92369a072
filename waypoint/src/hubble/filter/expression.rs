//! Expressions over flows in CEL, the variable being `_flow`, as the `hubble` command's `--cel-expression` sends
//! them (specs/policies.md 3.2). Every field is looked up where the expression is read: one that there is
//! not is refused, and at a flow only what is looked at is made. How long one may take is Telemetry's
//! business, too (`telemetry::expression::bounds`).

mod fields;

use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, LiteralValue};
use cel::{Context, Env, ExecutionError, IdedExpr, Value};
use serde_json::Value as Json;

use self::fields::{ENUMS, FLOW, Kind};
use super::Invalid;
use crate::hubble::messages::{Flow, FlowFilter};
use crate::limits::{HUBBLE_EXPRESSION_BYTES_MAX, HUBBLE_EXPRESSIONS_MAX};
use crate::telemetry::expression::check::{Fault, Names, is_type, qualified, type_of};
use crate::telemetry::expression::types::Type;
use crate::telemetry::expression::{bounds, first};

/// The language's standard functions and no others.
static LANGUAGE: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

/// The variable.
const ROOT: &str = "_flow";

/// The package that enumerations may be named with.
const PACKAGE: &str = "flow";

/// A name that is never bound, and can not be written: a field of what no flow has. What looks at it can
/// not be evaluated, and is not true.
const UNSEEN: &str = "#unseen";

/// An expression that can be evaluated.
#[derive(Debug)]
pub struct Expression {
    /// With a name of its own in place of each path from the flow.
    program: IdedExpr,
    looks: Vec<Look>,
}

/// A path that is looked at.
#[derive(Debug)]
struct Look {
    name: String,
    path: Vec<&'static str>,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Value(Kind),
    /// `has()`.
    Presence,
}

/// Whether the expressions of all filters together are no more than one request may have.
///
/// # Errors
/// When there are more.
pub fn fit<'a>(filters: impl Iterator<Item = &'a FlowFilter>) -> Result<(), Invalid> {
    let experimental = filters.filter_map(|filter| filter.experimental.as_ref());
    let count: usize = experimental.map(|e| e.cel_expression.len()).sum();
    match count <= HUBBLE_EXPRESSIONS_MAX {
        true => Ok(()),
        false => Err(Invalid::new(format!(
            "a request has at most {HUBBLE_EXPRESSIONS_MAX} CEL expressions, this one {count}"
        ))),
    }
}

/// Whether one of them is true of a flow.
pub fn any(expressions: &[Expression], flow: &Flow) -> bool {
    // A flow has the protocol's names in JSON.
    let Ok(flow) = serde_json::to_value(flow) else {
        return false;
    };
    expressions.iter().any(|one| one.is_true(&flow))
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// Its grammar; a name that there is not; values that can not be compared; that it may take too long, or does not
    /// say true or false.
    pub fn read(text: &str) -> Result<Self, Invalid> {
        Self::parse(text).map_err(|why| Invalid::new(format!("CEL expression {text:?}: {why}")))
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > HUBBLE_EXPRESSION_BYTES_MAX {
            return Err(format!(
                "it has at most {HUBBLE_EXPRESSION_BYTES_MAX} bytes, this one {}",
                text.len()
            ));
        }
        let parsed = LANGUAGE.parser().parse_with_source_info(text);
        let (mut program, source) = parsed.map_err(|errors| first(&errors))?;
        bounds::bounded(&program)?;
        let mut reader = Reader::default();
        let given = match reader.expression(&mut program) {
            Ok(()) => type_of(&program, &mut Looks(&reader.looks)),
            Err(fault) => Err(fault),
        };
        match given.map_err(|fault| fault.told(&source))? {
            Type::Bool | Type::Any => Ok(Self {
                program,
                looks: reader.looks,
            }),
            other => Err(format!("it does not say true or false, but gives {other}")),
        }
    }

    /// What can not be evaluated is not true, as at Hubble.
    fn is_true(&self, flow: &Json) -> bool {
        matches!(self.evaluate(flow), Ok(Value::Bool(true)))
    }

    fn evaluate(&self, flow: &Json) -> Result<Value, ExecutionError> {
        let mut context = Context::with_env(LANGUAGE.clone());
        for look in &self.looks {
            let mut path = look.path.iter();
            let found = path.try_fold(flow, |at, name| at.get(name));
            let value = match look.what {
                What::Value(kind) => kind.value(found),
                What::Presence => Value::Bool(found.is_some()),
            };
            context.add_variable_from_value(look.name.as_str(), value);
        }
        Value::resolve(&self.program, &context)
    }
}

/// What names in the place of paths give.
struct Looks<'l>(&'l [Look]);

impl Names for Looks<'_> {
    fn whole(&mut self, name: &str) -> Result<Type, String> {
        let found = self.0.iter().find(|look| look.name == name);
        Ok(found.map_or(Type::Any, |look| match look.what {
            What::Value(kind) => kind.gives(),
            What::Presence => Type::Bool,
        }))
    }
}

/// Puts names in the place of paths, and numbers in that of enumerations.
#[derive(Default)]
struct Reader {
    looks: Vec<Look>,
    /// What comprehensions declare.
    locals: Vec<String>,
}

impl Reader {
    fn expression(&mut self, at: &mut IdedExpr) -> Result<(), Fault> {
        if let Some((path, is_test)) = path(&at.expr) {
            let named = self.named(&path, is_test);
            if let Some(instead) = named.map_err(|words| Fault::of(at, words))? {
                at.expr = instead;
            }
            return Ok(());
        }
        let id = at.id;
        match &mut at.expr {
            Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => Ok(()),
            Expr::Select(select) if select.test => {
                only_of_flow().map_err(|words| Fault::at(id, words))
            }
            Expr::Select(select) => self.expression(&mut select.operand),
            Expr::Call(call) => {
                // `optional.of` is one name: there is nothing before its point.
                let is_qualified = qualified(call).is_some();
                let target = call.target.as_deref_mut().filter(|_| !is_qualified);
                self.all(target.into_iter().chain(&mut call.args))
            }
            Expr::Comprehension(of) => {
                let outer = self.locals.len();
                self.expression(&mut of.iter_range)?;
                let declared = [
                    Some(&of.iter_var),
                    of.iter_var2.as_ref(),
                    Some(&of.accu_var),
                ];
                self.locals.extend(declared.into_iter().flatten().cloned());
                self.all([
                    &mut of.accu_init,
                    &mut of.loop_cond,
                    &mut of.loop_step,
                    &mut of.result,
                ])?;
                self.locals.truncate(outer);
                Ok(())
            }
            Expr::List(list) => self.all(&mut list.elements),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.all([&mut entry.key, &mut entry.value])?;
                    }
                }
                Ok(())
            }
            Expr::Struct(of) => {
                let words = format!("`{}` can not be made here", of.type_name);
                Err(Fault::at(id, words))
            }
        }
    }

    fn all<'a>(
        &mut self,
        expressions: impl IntoIterator<Item = &'a mut IdedExpr>,
    ) -> Result<(), Fault> {
        expressions
            .into_iter()
            .try_for_each(|one| self.expression(one))
    }

    /// What stands for `a.b.c`; `None`: itself.
    fn named(&mut self, path: &[String], is_test: bool) -> Result<Option<Expr>, String> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            [local, ..] if self.locals.iter().any(|known| known == local) => match is_test {
                true => only_of_flow(),
                false => Ok(None),
            },
            [name] if is_type(name) && !is_test => Ok(None),
            [ROOT, fields @ ..] => self.look(fields, is_test).map(Some),
            [PACKAGE, of, name] | [of, name] if !is_test => {
                let known = ENUMS.iter().find(|(known, _)| known == of);
                let (_, numbers) = known.ok_or_else(|| unknown(of))?;
                let number = numbers(name).ok_or_else(|| format!("`{of}` has no `{name}` here"))?;
                Ok(Some(Expr::Literal(LiteralValue::Int(
                    i64::from(number).into(),
                ))))
            }
            [root, ..] => Err(unknown(root)),
            [] => Ok(None),
        }
    }

    /// A path from the flow.
    fn look(&mut self, names: &[&str], is_test: bool) -> Result<Expr, String> {
        let (mut kind, mut path) = (Kind::Message(FLOW), Vec::new());
        for name in names {
            let fields = match kind {
                Kind::Message(fields) => fields,
                Kind::Unseen if is_test => return Ok(no()),
                Kind::Unseen => return Ok(Expr::Ident(UNSEEN.to_owned())),
                _ => return Err(format!("`{}` has no fields", written(&path))),
            };
            let field = fields.iter().find(|(known, _)| known == name);
            let (known, of) = field.ok_or_else(|| {
                let known: Vec<&str> = fields.iter().map(|(known, _)| *known).collect();
                let known = known.join(", ");
                format!("`{}` has no `{name}` here; it has {known}", written(&path))
            })?;
            path.push(*known);
            kind = *of;
        }
        let what = match kind {
            Kind::Refused(why) => return Err(format!("`{}`: {why}", written(&path))),
            Kind::Unseen if is_test => return Ok(no()),
            _ if is_test => What::Presence,
            Kind::Message(_) | Kind::Unseen => {
                return Err(format!(
                    "`{}` is not one value: name a field of it",
                    written(&path)
                ));
            }
            kind => What::Value(kind),
        };
        let name = format!("#{}", self.looks.len());
        self.looks.push(Look {
            name: name.clone(),
            path,
            what,
        });
        Ok(Expr::Ident(name))
    }
}

/// The names of `a.b.c`, and whether it stands in `has()`; `None`: it is something else.
fn path(expression: &Expr) -> Option<(Vec<String>, bool)> {
    let (mut names, mut at, mut is_test) = (Vec::new(), expression, false);
    loop {
        match at {
            Expr::Ident(name) => {
                names.push(name.clone());
                names.reverse();
                return Some((names, is_test));
            }
            Expr::Select(select) if !select.test || names.is_empty() => {
                is_test |= select.test;
                names.push(select.field.clone());
                at = &select.operand.expr;
            }
            _ => return None,
        }
    }
}

fn no() -> Expr {
    Expr::Literal(LiteralValue::Boolean(false.into()))
}

fn written(path: &[&str]) -> String {
    let names = std::iter::once(&ROOT).chain(path);
    names.copied().collect::<Vec<_>>().join(".")
}

fn unknown(root: &str) -> String {
    let enums: Vec<&str> = ENUMS.iter().map(|(name, _)| *name).collect();
    let enums = enums.join(", ");
    format!("there is no `{root}` here; there are `{ROOT}` and the values of {enums}")
}

fn only_of_flow<T>() -> Result<T, String> {
    Err(format!("has() asks for fields of `{ROOT}` alone here"))
}

#[cfg(test)]
mod tests;
