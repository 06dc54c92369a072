//! What an authorization service may change in a request it allows, and in the response: applied here,
//! asked for elsewhere. A change of what belongs to the message, the connection or the waypoint makes the
//! whole answer unusable: what was allowed is not what would be sent.

use cairn_config_schema::snapshot::{FRAMING_HEADERS, HeaderNames};
use http::header::{HeaderName, HeaderValue};

use crate::header_change::Headers;
use crate::hygiene::{self, X_FORWARDED_CLIENT_CERT};

/// What becomes of a header that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenThere {
    /// The new value comes after those there are.
    Append,
    /// It stays as it is.
    Keep,
    /// The new value replaces all there are.
    Replace,
    /// The same, and without one there is no header.
    ReplaceOnly,
}

/// One header of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMutation {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
    /// What becomes of one of that name.
    pub when_there: WhenThere,
}

/// Everything that an allowing answer changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Request headers.
    pub request: Vec<HeaderMutation>,
    /// Request headers that are taken out, after the changes above.
    pub removed: Vec<HeaderName>,
    /// Query parameters: each replaces those of its name.
    pub query_set: Vec<(String, String)>,
    /// Query parameters that are taken out.
    pub query_removed: Vec<String>,
    /// Headers of the response.
    pub response: Vec<HeaderMutation>,
}

impl Changes {
    /// The first header that the service has no business with.
    pub fn forbidden(&self) -> Option<&HeaderName> {
        let changed = self.request.iter().map(|m| &m.name);
        let request = changed.chain(&self.removed).find(|n| is_reserved(n));
        let of_response = |m: &&HeaderMutation| FRAMING_HEADERS.contains(&m.name.as_str());
        request.or_else(|| self.response.iter().find(of_response).map(|m| &m.name))
    }

    /// Changes the request's headers.
    pub fn change_request(&self, headers: &mut impl Headers) {
        apply(&self.request, headers);
        for name in &self.removed {
            headers.remove(name);
        }
    }

    /// The target with its query changed. `None`: it stays as it is.
    pub fn change_target(&self, target: &str) -> Option<String> {
        if self.query_set.is_empty() && self.query_removed.is_empty() {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let decoded = |pair: &str| {
            let mut one = form_urlencoded::parse(pair.as_bytes());
            one.next().map(|(name, _)| name.into_owned())
        };
        let goes = |name: &str| {
            let set = self.query_set.iter().map(|(name, _)| name);
            self.query_removed.iter().chain(set).any(|n| n == name)
        };
        // What stays is not decoded and encoded again: another parser might read it otherwise.
        let kept = query.split('&').filter(|pair| !pair.is_empty());
        let mut pairs: Vec<String> = kept
            .filter(|pair| !decoded(pair).is_some_and(|name| goes(&name)))
            .map(str::to_owned)
            .collect();
        let mut set = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &self.query_set {
            set.append_pair(name, value);
        }
        let set = set.finish();
        if !set.is_empty() {
            pairs.push(set);
        }
        Some(match pairs.is_empty() {
            true => path.to_owned(),
            false => format!("{path}?{}", pairs.join("&")),
        })
    }
}

/// Applies changes of headers, in their order.
pub fn apply(mutations: &[HeaderMutation], headers: &mut impl Headers) {
    for HeaderMutation {
        name,
        value,
        when_there,
    } in mutations
    {
        match (when_there, headers.get(name).is_some()) {
            (WhenThere::Append, _) => headers.append(name, value.clone()),
            (WhenThere::Replace, _) | (WhenThere::Keep, false) | (WhenThere::ReplaceOnly, true) => {
                headers.set(name, value.clone());
            }
            (WhenThere::Keep, true) | (WhenThere::ReplaceOnly, false) => {}
        }
    }
}

/// Headers of an answer over HTTP that go into the request. Those that describe the answer itself, and
/// those nobody may set, do not, even where a pattern covers them.
pub fn to_upstream<'h>(
    answered: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>,
    listed: &HeaderNames,
) -> Vec<HeaderMutation> {
    let mut mutations: Vec<HeaderMutation> = Vec::new();
    for (name, value) in answered {
        if !listed.contains(name) || is_reserved(name) || describes_answer(name) {
            continue;
        }
        let again = mutations.iter().any(|m| m.name == *name);
        mutations.push(HeaderMutation {
            name: name.clone(),
            value: value.clone(),
            when_there: match again {
                true => WhenThere::Append,
                false => WhenThere::Replace,
            },
        });
    }
    mutations
}

/// Headers of an answer over HTTP that the client gets.
pub fn to_client<'h>(
    answered: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>,
    listed: impl Fn(&HeaderName) -> bool,
) -> Vec<HeaderMutation> {
    answered
        .filter(|(name, _)| listed(name) && !is_of_connection(name))
        .map(|(name, value)| HeaderMutation {
            name: name.clone(),
            value: value.clone(),
            when_there: WhenThere::Append,
        })
        .collect()
}

/// Whether a header belongs to the message or its connection and never goes from one to another.
pub fn is_of_connection(name: &HeaderName) -> bool {
    FRAMING_HEADERS.contains(&name.as_str()) || name == http::header::HOST
}

fn is_reserved(name: &HeaderName) -> bool {
    is_of_connection(name)
        || name.as_str().starts_with(hygiene::ENVOY_PREFIX)
        || hygiene::reads_as(name, &X_FORWARDED_CLIENT_CERT)
}

fn describes_answer(name: &HeaderName) -> bool {
    matches!(name.as_str(), "date" | "server") || name.as_str().starts_with("content-")
}

#[cfg(test)]
mod tests;
