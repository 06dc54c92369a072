//! What routes of both languages ask for, at random: a path, and texts by name.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use crate::requests::weighted;

/// A path that is asked for.
#[derive(Clone, Debug)]
pub enum Path {
    Any,
    Exact(&'static str),
    Begins(&'static str, bool),
    Segments(&'static str),
    Regex(&'static str),
}

pub fn path() -> impl Strategy<Value = Path> {
    let exact = select(vec!["/a", "/a/b", "/b", "/x.y", "/c/d/"]);
    let begins = select(vec!["/", "/a", "/a/", "/b", "/c/d"]);
    let regex = select(vec!["/a.*", "/x.y", "/[ab]/?.*", "/b"]);
    prop_oneof![
        3 => Just(Path::Any),
        4 => exact.prop_map(Path::Exact),
        4 => (begins.clone(), prop::bool::weighted(0.15)).prop_map(|(t, c)| Path::Begins(t, c)),
        2 => begins.prop_map(Path::Segments),
        1 => regex.prop_map(Path::Regex),
    ]
}

/// A text that is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Text {
    Present,
    Exact(&'static str),
    Prefix(&'static str),
    Regex(&'static str),
}

impl Text {
    pub fn of_istio(self) -> Value {
        match self {
            Self::Present => json!({}),
            Self::Exact(text) => json!({"exact": text}),
            Self::Prefix(text) => json!({"prefix": text}),
            Self::Regex(text) => json!({"regex": text}),
        }
    }

    pub fn of_envoy(self, name: &str) -> Value {
        match self {
            Self::Present => json!({"name": name, "presentMatch": true}),
            Self::Exact(text) => json!({"name": name, "stringMatch": {"exact": text}}),
            Self::Prefix(text) => json!({"name": name, "stringMatch": {"prefix": text}}),
            Self::Regex(text) => {
                json!({"name": name, "stringMatch": {"safeRegex": {"regex": text}}})
            }
        }
    }
}

pub fn text(values: &[&'static str]) -> impl Strategy<Value = Text> + use<> {
    let values = select(values.to_vec());
    prop_oneof![
        1 => Just(Text::Present),
        5 => values.clone().prop_map(Text::Exact),
        1 => values.prop_map(Text::Prefix),
        1 => select(vec!["a.*", "[0-9]", ".*"]).prop_map(Text::Regex),
    ]
}

/// Texts by name.
pub type Named = Vec<(&'static str, Text)>;

/// What a match asks for.
#[derive(Clone, Debug)]
pub struct Match {
    pub path: Path,
    pub headers: Named,
    pub query: Named,
    pub host: Option<Text>,
    pub absent: Option<&'static str>,
}

fn named(
    often: f64,
    names: &[&'static str],
    values: &[&'static str],
) -> impl Strategy<Value = Named> + use<> {
    let names = proptest::sample::subsequence(names.to_vec(), 1..=2);
    let one = (names, text(values), text(values));
    weighted(often, one).prop_map(|some| {
        some.map_or_else(Vec::new, |(names, first, second)| {
            names.into_iter().zip([first, second]).collect()
        })
    })
}

pub fn matched() -> impl Strategy<Value = Match> {
    (
        path(),
        named(0.5, &["x-user", "x-canary"], &["a", "b", "1"]),
        named(0.2, &["v", "w"], &["1", "2"]),
        weighted(0.1, text(&["orders", "api.shop"])),
        weighted(0.1, select(vec!["x-old", "x-user"])),
    )
        .prop_map(|(path, headers, query, host, absent)| Match {
            path,
            headers,
            query,
            host,
            absent,
        })
}

/// A map without the fields that are not there.
pub fn object(fields: Vec<(&str, Option<Value>)>) -> Value {
    let there = fields.into_iter();
    let there = there.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect::<Map<_, _>>())
}
