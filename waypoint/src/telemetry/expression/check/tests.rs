//! What expressions give, and what in them can never be evaluated; places are those of the sign or the name.

use cel::{Env, Value};

use super::*;

/// `text`, `number`, `any`, `words` (a list of texts) and `peer` (a message).
struct Known;

impl Names for Known {
    fn whole(&mut self, name: &str) -> Result<Type, String> {
        Ok(match name {
            "text" => Type::Text,
            "number" => Type::Int,
            "any" => Type::Any,
            "words" => Type::list(Type::Text),
            "headers" => Type::map(Type::Text),
            "peer" => Type::Message([("app", Type::Text), ("port", Type::Uint)].into()),
            _ => return Err(format!("there is no `{name}`")),
        })
    }
}

fn read(text: &str) -> Result<Type, String> {
    let program = Env::stdlib().compile(text).unwrap();
    let given = type_of(program.expression(), &mut Known);
    given.map_err(|fault| fault.told(program.source_info()))
}

#[test]
fn what_an_expression_gives_is_known() {
    for (expression, gives) in [
        ("text", Type::Text),
        ("text + 'a'", Type::Text),
        ("number * 2 - 1", Type::Int),
        ("-number", Type::Int),
        ("number > 2 ? 'a' : text", Type::Text),
        ("number > 2 ? 'a' : 1", Type::Any),
        ("any + 1", Type::Int),
        ("any", Type::Any),
        ("any.field.of['it']", Type::Any),
        ("headers['a']", Type::Text),
        ("headers.a", Type::Text),
        ("has(headers.a)", Type::Bool),
        ("headers[?'a'].orValue('b')", Type::Any),
        ("peer.port", Type::Uint),
        ("peer['app']", Type::Text),
        ("words[0]", Type::Text),
        ("size(words) + text.size()", Type::Int),
        ("string(number)", Type::Text),
        ("[1, 2]", Type::list(Type::Int)),
        ("[1, 'a']", Type::list(Type::Any)),
        ("{'a': 1}", Type::map(Type::Any)),
        ("{1: 'a'}[1] == 'a'", Type::Bool),
        ("words.exists(w, w.startsWith('a'))", Type::Bool),
        ("words.all(w, size(w) > 1)", Type::Bool),
        ("words.exists_one(w, w == text)", Type::Bool),
        ("words.filter(w, w != '')", Type::list(Type::Any)),
        ("words.map(w, size(w))", Type::list(Type::Any)),
        ("headers.exists(name, name == 'a')", Type::Bool),
        ("text in words && 'a' in headers", Type::Bool),
        ("number in [1, 2u, 3.0]", Type::Bool),
        // Numbers of all kinds are compared by value, and null with what may be absent.
        ("number == 2u || number < 2.5", Type::Bool),
        ("headers['a'] == null", Type::Bool),
        ("text.matches('^a')", Type::Bool),
    ] {
        assert_eq!(read(expression), Ok(gives), "{expression}");
    }
}

/// Expressions, and what is told of each.
const REFUSED: &[(&str, &str)] = &[
    (
        "text == 1",
        "`==` compares a text with an integer, which are never equal (column 6)",
    ),
    (
        "true && 1 != text",
        "`!=` compares an integer with a text, which are never equal (column 11)",
    ),
    (
        "number < 'a'",
        "`<` can not compare an integer with a text (column 8)",
    ),
    (
        "words < words",
        "`<` can not compare a list with a list (column 7)",
    ),
    (
        "text && true",
        "`&&` is not for a text and true or false (column 6)",
    ),
    ("!number", "`!` is not for an integer (column 1)"),
    (
        "number ? 1 : 2",
        "`?` asks whether an integer is true (column 8)",
    ),
    (
        "text + 1",
        "`+` is not for a text and an integer (column 6)",
    ),
    (
        "number + 1u",
        "`+` is not for an integer and an unsigned integer (column 8)",
    ),
    ("text - text", "`-` is not for a text and a text (column 6)"),
    (
        "1 in words",
        "an integer is never in a list of what is a text (column 3)",
    ),
    ("1 in text", "nothing is in a text (column 3)"),
    ("text.size", "a text has no `size` (column 5)"),
    ("text[0]", "a text has nothing at an integer (column 5)"),
    ("words['a']", "a list has no `a` (column 6)"),
    (
        "peer.nope",
        "there is no `nope` in it; there are app, port (column 5)",
    ),
    (
        "has(peer.nope)",
        "there is no `nope` in it; there are app, port (column 4)",
    ),
    ("text == nope", "there is no `nope` (column 9)"),
    (
        "number.startsWith('a')",
        "`startsWith` is not for an integer and a text (column 18)",
    ),
    ("size(number)", "`size` is not for an integer (column 5)"),
    (
        "words.exists(w, w == 1)",
        "`==` compares a text with an integer, which are never equal (column 19)",
    ),
    (
        "words.exists(w, w)",
        "`||` is not for true or false and a text",
    ),
    (
        "number.exists(w, true)",
        "an integer can not be gone through (column 1)",
    ),
    ("text ==\n  'a' && text == 1", "(line 2, column 15)"),
];

#[test]
fn what_can_never_be_evaluated_is_told_with_its_place() {
    for (expression, told) in REFUSED {
        let refused = read(expression).unwrap_err();
        assert!(refused.contains(*told), "{expression}: {refused}");
    }
    let unknown = read("nope(text)").unwrap_err();
    assert!(
        unknown.starts_with("there is no function `nope` here; there are size"),
        "{unknown}"
    );
    // A name that a comprehension declares is not that of something else.
    assert_eq!(read("words.exists(number, number == 'a')"), Ok(Type::Bool));
}

fn kind_of(value: &Value) -> Option<Type> {
    Some(match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::UInt(_) => Type::Uint,
        Value::Float(_) => Type::Double,
        Value::String(_) => Type::Text,
        _ => return None,
    })
}

/// The language itself is the oracle: what is evaluated gives what was said, and what is refused for its operator is
/// not evaluated. (Values of different kinds are never equal, which the language says and this refuses.)
#[test]
fn operators_are_for_what_the_language_evaluates_them_for() {
    let values = [
        "null", "true", "1", "1u", "1.5", "'a'", "b'a'", "[1]", "{'a': 1}",
    ];
    let signs = ["+", "-", "*", "/", "%", "<", ">=", "&&", "||", "in"];
    let mut refused = Vec::new();
    for a in values {
        for b in values {
            for sign in signs {
                let text = format!("{a} {sign} {b}");
                let program = Env::stdlib().compile(&text).unwrap();
                let context = cel::Context::with_env(std::sync::Arc::new(Env::stdlib()));
                let short = sign == "||" && (a == "true" || b == "true");
                match (program.execute(&context), read(&text)) {
                    (Ok(value), Ok(said)) => {
                        let found = kind_of(&value);
                        let fits = found.is_none_or(|found| said.may_be(&found));
                        assert!(fits, "{text} gives {value:?}, not {said}");
                    }
                    // Checked before anything is known to be short, and of lists what is in them.
                    (Ok(_), Err(_)) if short || sign == "in" => {}
                    (Ok(_), Err(_)) => refused.push(text),
                    (Err(_), _) => {}
                }
            }
        }
    }
    // The crate adds these, the language's definition does not.
    assert_eq!(refused, ["[1] + {'a': 1}"]);
}
