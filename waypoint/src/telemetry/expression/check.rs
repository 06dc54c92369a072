//! What an expression gives, and what in it can never be right: a text compared with a number, a field that there
//! is not, a function that is not known. Found when it is read. Evaluates nothing; what names stand for is said
//! by who asks. Shared with the filters of flows (`hubble::filter`).

mod functions;

use cel::IdedExpr;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, SourceInfo, operators,
};

pub use self::functions::qualified;
use self::functions::{FUNCTIONS, of_function, of_method, of_operator, unfit};
use super::types::Type;

/// Names that the language itself gives its types; who declares one of them means that.
const TYPES: [&str; 11] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "optional_type",
    "string",
    "type",
    "uint",
];

/// Whether it is the name of a type, as in `type(x) == int`.
pub fn is_type(name: &str) -> bool {
    TYPES.contains(&name)
}

/// What is wrong with an expression.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    part: u64,
    words: String,
}

impl Fault {
    /// Of a part of it.
    pub fn of(part: &IdedExpr, words: impl Into<String>) -> Self {
        Self::at(part.id, words)
    }

    /// Of the part with this id.
    pub fn at(part: u64, words: impl Into<String>) -> Self {
        Self {
            part,
            words: words.into(),
        }
    }

    /// In words, with its place in the source if that is known.
    pub fn told(self, source: &SourceInfo) -> String {
        let start = source.offset_for(self.part);
        let before = start.and_then(|(start, _)| source.source.get(..start as usize));
        let Some(before) = before else {
            return self.words;
        };
        let (lines, last) = match before.rsplit_once('\n') {
            Some((lines, last)) => (lines.split('\n').count() + 1, last),
            None => (1, before),
        };
        let column = last.chars().count() + 1;
        match source.source.contains('\n') {
            true => format!("{} (line {lines}, column {column})", self.words),
            false => format!("{} (column {column})", self.words),
        }
    }
}

/// What comes of a part of an expression that can not be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An error: it is not for values of these types.
    Error,
    /// An error: there is no such name, field or function here.
    Unknown,
    /// True, or false, whatever is compared: the types are never equal.
    Always(bool),
}

/// What names stand for.
pub trait Names {
    /// What a name gives that no comprehension declares.
    ///
    /// # Errors
    /// There is no such name, in words.
    fn whole(&mut self, name: &str) -> Result<Type, String>;

    /// What a field of such a name gives, if only that is looked at; `None`: as of any other value.
    fn field(&mut self, _name: &str, _field: &str) -> Option<Result<Type, String>> {
        None
    }
}

/// What an expression gives.
///
/// # Errors
/// What in it can never be right, the first.
pub fn type_of(expression: &IdedExpr, names: &mut impl Names) -> Result<Type, Fault> {
    let mut check = Check::new(names);
    let given = check.expression(expression);
    match check.doubts.into_iter().next() {
        Some((doubt, _)) => Err(doubt),
        None => given,
    }
}

/// The same for who evaluates what can be evaluated: beside what it gives, what of it gives an error whatever it is
/// asked of, or always the same: it is not for values of these types, or there is no such name, field or function.
///
/// # Errors
/// What can not be read.
pub fn doubted(
    expression: &IdedExpr,
    names: &mut impl Names,
) -> Result<(Type, Vec<(Fault, Outcome)>), Fault> {
    let mut check = Check::new(names);
    let given = check.expression(expression)?;
    Ok((given, check.doubts))
}

struct Check<'n, N> {
    names: &'n mut N,
    /// What comprehensions declare, the innermost last.
    locals: Vec<(String, Type)>,
    /// What can not be right, and what comes of it.
    doubts: Vec<(Fault, Outcome)>,
}

impl<'n, N: Names> Check<'n, N> {
    fn new(names: &'n mut N) -> Self {
        Self {
            names,
            locals: Vec::new(),
            doubts: Vec::new(),
        }
    }

    /// Of the types, all that is known after a doubt is that nothing is.
    fn doubt(&mut self, at: &IdedExpr, outcome: Outcome, words: String) -> Type {
        self.doubts.push((Fault::of(at, words), outcome));
        Type::Any
    }

    fn expression(&mut self, at: &IdedExpr) -> Result<Type, Fault> {
        match &at.expr {
            Expr::Unspecified => Err(Fault::of(at, "it can not be read")),
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => Ok(match self.local(name) {
                Some(local) => local,
                None => match self.names.whole(name) {
                    Ok(found) => found,
                    Err(_) if is_type(name) => Type::Type,
                    Err(words) => self.doubt(at, Outcome::Unknown, words),
                },
            }),
            Expr::Select(select) => self.select(at, select),
            Expr::Call(call) => self.call(at, call),
            Expr::List(list) => {
                let items = self.all(&list.elements)?.into_iter().reduce(Type::either);
                let known = items.filter(|_| list.optional_indices.is_empty());
                Ok(Type::list(known.unwrap_or(Type::Any)))
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    self.entry(&entry.expr)?;
                }
                Ok(Type::map(Type::Any))
            }
            Expr::Struct(of) => {
                for entry in &of.entries {
                    self.entry(&entry.expr)?;
                }
                Ok(Type::Any)
            }
            Expr::Comprehension(all) => self.comprehension(all),
        }
    }

    fn all(&mut self, expressions: &[IdedExpr]) -> Result<Vec<Type>, Fault> {
        expressions.iter().map(|one| self.expression(one)).collect()
    }

    fn entry(&mut self, entry: &EntryExpr) -> Result<(), Fault> {
        match entry {
            EntryExpr::StructField(field) => self.expression(&field.value)?,
            EntryExpr::MapEntry(entry) => {
                self.expression(&entry.key)?;
                self.expression(&entry.value)?
            }
        };
        Ok(())
    }

    fn local(&self, name: &str) -> Option<Type> {
        let mut locals = self.locals.iter().rev();
        let found = locals.find(|(local, _)| local == name);
        found.map(|(_, of)| of.clone())
    }

    /// A field of a name that stands for more than one value, so that no others are made for it.
    fn narrow(&mut self, of: &IdedExpr, field: &str) -> Option<Type> {
        let Expr::Ident(name) = &of.expr else {
            return None;
        };
        if self.local(name).is_some() {
            return None;
        }
        let found = self.names.field(name, field)?;
        Some(found.unwrap_or_else(|words| self.doubt(of, Outcome::Unknown, words)))
    }

    fn select(&mut self, at: &IdedExpr, select: &SelectExpr) -> Result<Type, Fault> {
        let field = &*select.field;
        let found = match self.narrow(&select.operand, field) {
            Some(found) => found,
            None => {
                let of = self.expression(&select.operand)?;
                self.member(at, of, field)
            }
        };
        Ok(if select.test { Type::Bool } else { found })
    }

    /// What a value has by a name, written with a point or in brackets.
    fn member(&mut self, at: &IdedExpr, of: Type, field: &str) -> Type {
        match of {
            Type::Any => Type::Any,
            Type::Map(of) => *of,
            Type::Message(fields) => fields.get(field).cloned().unwrap_or_else(|| {
                let known: Vec<&str> = fields.keys().copied().collect();
                let known = known.join(", ");
                let words = format!("there is no `{field}` in it; there are {known}");
                self.doubt(at, Outcome::Unknown, words)
            }),
            other => self.doubt(at, Outcome::Error, format!("{other} has no `{field}`")),
        }
    }

    fn call(&mut self, at: &IdedExpr, call: &CallExpr) -> Result<Type, Fault> {
        // With a point before it, it is the same function.
        let name = call.func_name.trim_start_matches('.');
        if let (operators::INDEX, [of, key]) = (name, call.args.as_slice())
            && let Expr::Literal(LiteralValue::String(field)) = &key.expr
        {
            return Ok(match self.narrow(of, field.inner()) {
                Some(found) => found,
                None => {
                    let of = self.expression(of)?;
                    self.member(at, of, field.inner())
                }
            });
        }
        let qualified = qualified(call);
        let name = qualified.unwrap_or(name);
        let target = call.target.as_deref().filter(|_| qualified.is_none());
        let target = target.map(|target| self.expression(target)).transpose()?;
        let args = self.all(&call.args)?;
        let operator = of_operator(name, &args).filter(|_| target.is_none());
        let is_known = operator.is_some() || FUNCTIONS.contains(&name);
        let given = match (&target, operator) {
            (Some(target), _) => of_method(name, target, &args),
            (None, Some(given)) => given,
            (None, None) => of_function(name, &args),
        };
        Ok(given.unwrap_or_else(|words| {
            let outcome = match is_known {
                true => unfit(name, &args),
                false => Outcome::Unknown,
            };
            self.doubt(at, outcome, words)
        }))
    }

    fn comprehension(&mut self, all: &ComprehensionExpr) -> Result<Type, Fault> {
        let range = self.expression(&all.iter_range)?;
        let (place, item) = range.items().unwrap_or_else(|| {
            let words = format!("{range} can not be gone through");
            let any = self.doubt(&all.iter_range, Outcome::Error, words);
            (any.clone(), any)
        });
        let begun = self.expression(&all.accu_init)?;
        let outer = self.locals.len();
        match &all.iter_var2 {
            Some(second) => {
                self.locals.push((all.iter_var.clone(), place));
                self.locals.push((second.clone(), item));
            }
            // Of a map the keys.
            None if matches!(range, Type::List(_)) => {
                self.locals.push((all.iter_var.clone(), item));
            }
            None => self.locals.push((all.iter_var.clone(), place)),
        }
        self.locals.push((all.accu_var.clone(), begun));
        self.expression(&all.loop_cond)?;
        self.expression(&all.loop_step)?;
        let result = self.expression(&all.result)?;
        self.locals.truncate(outer);
        Ok(result)
    }
}

fn of_literal(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::Text,
        LiteralValue::UInt(_) => Type::Uint,
    }
}

#[cfg(test)]
mod tests;
