//! What the language's functions, methods and operators give, and what they are not for. Knows nothing of names.

use cel::common::ast::{CallExpr, Expr, operators};

use crate::telemetry::expression::check::Outcome;
use crate::telemetry::expression::types::Type;

/// What can be called, of the language's standard functions.
pub(super) const FUNCTIONS: [&str; 20] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "bytes",
    "dyn",
    "type",
    "hasValue",
    "value",
    "or",
    "orValue",
    "optional.of",
    "optional.ofNonZeroValue",
    "optional.none",
];

/// The function that a call names together with what stands before its point, as `optional.of(x)` does: a variable of
/// that name is none of its business.
pub fn qualified(call: &CallExpr) -> Option<&'static str> {
    let Expr::Ident(before) = &call.target.as_deref()?.expr else {
        return None;
    };
    FUNCTIONS.into_iter().find(|known| {
        let named = known.split_once('.');
        named == Some((before.as_str(), call.func_name.as_str()))
    })
}

/// What comes of a function or operator that is not for these.
pub(super) fn unfit(name: &str, args: &[Type]) -> Outcome {
    match (name, args) {
        (operators::EQUALS, _) => Outcome::Always(false),
        (operators::NOT_EQUALS, _) => Outcome::Always(true),
        (operators::IN, [_, of]) if of.items().is_some() => Outcome::Always(false),
        _ => Outcome::Error,
    }
}

/// `None`: it is no operator.
pub(super) fn of_operator(name: &str, args: &[Type]) -> Option<Result<Type, String>> {
    let sign = name.trim_matches(['_', '@']);
    let not_for = || Err(format!("`{sign}` is not for {}", listed(args)));
    Some(match (name, args) {
        (operators::LOGICAL_AND | operators::LOGICAL_OR, [_, _])
        | (operators::LOGICAL_NOT, [_]) => match args.iter().all(|arg| arg.may_be(&Type::Bool)) {
            true => Ok(Type::Bool),
            false => not_for(),
        },
        (operators::NOT_STRICTLY_FALSE, [_]) => Ok(Type::Bool),
        (operators::CONDITIONAL, [asked, yes, no]) => match asked.may_be(&Type::Bool) {
            true => Ok(yes.clone().either(no.clone())),
            false => Err(format!("`?` asks whether {asked} is true")),
        },
        (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => match a.may_equal(b) {
            true => Ok(Type::Bool),
            false => Err(format!(
                "`{sign}` compares {a} with {b}, which are never equal"
            )),
        },
        (
            operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS,
            [a, b],
        ) => match a.has_order_with(b) {
            true => Ok(Type::Bool),
            false => Err(format!("`{sign}` can not compare {a} with {b}")),
        },
        (operators::IN, [item, of]) => match of.items() {
            Some((place, within)) => {
                let sought = if matches!(of, Type::List(_)) {
                    within
                } else {
                    place
                };
                match item.may_equal(&sought) {
                    true => Ok(Type::Bool),
                    false => Err(format!("{item} is never in {of} of what is {sought}")),
                }
            }
            None => Err(format!("nothing is in {of}")),
        },
        (operators::INDEX, [of, key]) => of
            .at(key)
            .ok_or_else(|| format!("{of} has nothing at {key}")),
        (operators::OPT_INDEX | operators::OPT_SELECT, [_, _]) => Ok(Type::Any),
        (operators::NEGATE, [Type::Any]) => Ok(Type::Any),
        (operators::NEGATE, [number @ (Type::Int | Type::Double)]) => Ok(number.clone()),
        (operators::NEGATE, [_]) => not_for(),
        (
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO,
            [a, b],
        ) => of_arithmetic(name, a, b).map_or_else(not_for, Ok),
        _ => return None,
    })
}

/// `None`: the operator is not for these.
fn of_arithmetic(name: &str, a: &Type, b: &Type) -> Option<Type> {
    let (a, b) = match (a, b) {
        (Type::Any, known) | (known, Type::Any) => (known, known),
        both => both,
    };
    match (a, b) {
        (Type::Any, _) => Some(Type::Any),
        (Type::List(a), Type::List(b)) if name == operators::ADD => {
            Some(Type::list((**a).clone().either((**b).clone())))
        }
        (Type::Text | Type::Bytes, _) if name == operators::ADD && a == b => Some(a.clone()),
        (Type::Double, _) if name == operators::MODULO => None,
        _ if a.is_number() && a == b => Some(a.clone()),
        _ => None,
    }
}

pub(super) fn of_function(name: &str, args: &[Type]) -> Result<Type, String> {
    match (name, args) {
        ("size", [of]) if has_size(of) => Ok(Type::Int),
        ("matches", [a, b]) if a.may_be(&Type::Text) && b.may_be(&Type::Text) => Ok(Type::Bool),
        ("string", [_]) => Ok(Type::Text),
        ("int", [_]) => Ok(Type::Int),
        ("uint", [_]) => Ok(Type::Uint),
        ("double", [_]) => Ok(Type::Double),
        ("bool", [_]) => Ok(Type::Bool),
        ("bytes", [_]) => Ok(Type::Bytes),
        ("dyn", [_]) => Ok(Type::Any),
        ("type", [_]) => Ok(Type::Type),
        ("optional.none", []) | ("optional.of" | "optional.ofNonZeroValue", [_]) => Ok(Type::Any),
        _ => Err(unknown(name, args)),
    }
}

pub(super) fn of_method(name: &str, target: &Type, args: &[Type]) -> Result<Type, String> {
    match (name, args) {
        ("contains" | "startsWith" | "endsWith" | "matches", [arg])
            if target.may_be(&Type::Text) && arg.may_be(&Type::Text) =>
        {
            Ok(Type::Bool)
        }
        ("size", []) if has_size(target) => Ok(Type::Int),
        // What may be there or not is not known any closer.
        ("hasValue", []) if *target == Type::Any => Ok(Type::Bool),
        ("value", []) | ("or" | "orValue", [_]) if *target == Type::Any => Ok(Type::Any),
        _ => {
            let all: Vec<Type> = std::iter::once(target).chain(args).cloned().collect();
            Err(unknown(name, &all))
        }
    }
}

fn has_size(of: &Type) -> bool {
    matches!(of, Type::Any | Type::Text | Type::Bytes) || of.items().is_some()
}

fn unknown(name: &str, args: &[Type]) -> String {
    if FUNCTIONS.contains(&name) {
        return format!("`{name}` is not for {}", listed(args));
    }
    let known = FUNCTIONS.join(", ");
    format!("there is no function `{name}` here; there are {known}")
}

fn listed(args: &[Type]) -> String {
    match args {
        [] => "nothing".to_owned(),
        args => {
            let words: Vec<String> = args.iter().map(ToString::to_string).collect();
            words.join(" and ")
        }
    }
}
