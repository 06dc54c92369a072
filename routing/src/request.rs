//! The parts of a request that routes may look at. Does not parse or normalise them.

use std::fmt::Debug;
use std::sync::Arc;

use cairn_config_schema::snapshot::Labels;
use http::{HeaderMap, Method};

/// The claims of a verified token.
pub trait Claims: Debug {
    /// Whether there is something at a path of names, whatever it is.
    fn has(&self, path: &[Arc<str>]) -> bool;

    /// Whether the text there, or an item of the list there, holds.
    fn any(&self, path: &[Arc<str>], holds: &dyn Fn(&str) -> bool) -> bool;
}

/// Whether the caller's pod has all labels that a match asks for, as far as that is known: what is not known is
/// taken to hold, for a later rule must not get what this one was to keep from it. The rule that is found so is
/// in doubt.
pub(crate) fn labels_hold(wanted: &Labels, own: Option<&Labels>) -> bool {
    let has = |own: &Labels| {
        let mut wanted = wanted.iter();
        wanted.all(|(key, value)| own.get(key) == Some(value))
    };
    own.is_none_or(has)
}

/// One request, as routes see it.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// Method.
    pub method: &'a Method,
    /// Host or `:authority`, port included if it was sent. Header matches on `host` look here,
    /// for an HTTP/2 request has no such header.
    pub authority: &'a str,
    /// Normalised path without the query.
    pub path: &'a str,
    /// Query without the question mark, as sent.
    pub query: Option<&'a str>,
    /// Namespace in the certificate of the caller.
    pub caller_namespace: Option<&'a str>,
    /// Labels of the caller's pod. `None`: which pod it is is not known.
    pub caller_labels: Option<&'a Labels>,
    /// Request headers.
    pub headers: &'a HeaderMap,
    /// Of the request's token. `None`: it has none.
    pub claims: Option<&'a dyn Claims>,
}
