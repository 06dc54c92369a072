//! A verified JSON Web Token, as policies see it. Verifies nothing: `jwt` does.

use serde_json::{Map, Value};

/// What a verified token says. Whoever holds one may take it at its word.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Token {
    /// `iss`.
    pub issuer: String,
    /// `sub`, when there is one.
    pub subject: Option<String>,
    /// Every claim. Those that are lists with spaces in between (`scope`) are lists here.
    pub claims: Map<String, Value>,
}

impl Token {
    /// `iss/sub`; `None` without a subject.
    pub fn principal(&self) -> Option<String> {
        let subject = self.subject.as_ref()?;
        Some(format!("{}/{subject}", self.issuer))
    }

    /// `aud`, one or several.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        strings(self.claims.get("aud"))
    }

    /// `azp`, to whom the token was given.
    pub fn presenter(&self) -> Option<&str> {
        self.claims.get("azp")?.as_str()
    }

    /// The strings of the claim at a path of names: the claim itself, or the items of a list.
    /// Numbers, truth values and maps are no strings (specs/istio-waypoint.md 4.8: "string equality,
    /// or membership if the claim is a list").
    pub fn claim<'a, S: AsRef<str>>(&'a self, path: &[S]) -> impl Iterator<Item = &'a str> {
        strings(self.at(path))
    }

    /// Whether there is something at a path of names, whatever it is.
    pub fn has<S: AsRef<str>>(&self, path: &[S]) -> bool {
        self.at(path).is_some()
    }

    fn at<S: AsRef<str>>(&self, path: &[S]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.claims.get(first.as_ref())?;
        for name in rest {
            value = value.get(name.as_ref())?;
        }
        Some(value)
    }
}

fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, many) = match value {
        Some(Value::String(text)) => (Some(text.as_str()), &[][..]),
        Some(Value::Array(items)) => (None, items.as_slice()),
        _ => (None, &[][..]),
    };
    one.into_iter().chain(many.iter().filter_map(Value::as_str))
}
