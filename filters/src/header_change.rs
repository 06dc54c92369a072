//! Header modifiers of routes, on whatever type holds the headers. Knows nothing of routes.

use cairn_config_schema::snapshot::HeaderChange;
use http::header::{HeaderName, HeaderValue};

/// Headers of a request or response. The name `host` stands for `:authority` as well: an
/// implementation for HTTP/2 must carry it over.
pub trait Headers {
    /// The first value.
    fn get(&self, name: &HeaderName) -> Option<&HeaderValue>;
    /// All values.
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue>;
    /// Each name, once or more often.
    fn names(&self) -> impl Iterator<Item = &HeaderName>;
    /// Replaces all values by one.
    fn set(&mut self, name: &HeaderName, value: HeaderValue);
    /// The same of a name that the program knows, in lower case: engines that keep names as they are written need no copy of it.
    fn set_known(&mut self, name: &'static str, value: HeaderValue);
    /// Adds a value after those there are.
    fn append(&mut self, name: &HeaderName, value: HeaderValue);
    /// Removes all values.
    fn remove(&mut self, name: &HeaderName);
}

impl Headers for http::HeaderMap {
    fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        Self::get(self, name)
    }

    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        Self::get_all(self, name).iter()
    }

    fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.keys()
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }

    fn set_known(&mut self, name: &'static str, value: HeaderValue) {
        self.insert(name, value);
    }

    fn append(&mut self, name: &HeaderName, value: HeaderValue) {
        Self::append(self, name, value);
    }

    fn remove(&mut self, name: &HeaderName) {
        Self::remove(self, name);
    }
}

/// Applies a modifier: set, then add, then remove.
pub fn apply(change: &HeaderChange, headers: &mut impl Headers) {
    for (name, value) in &change.set {
        headers.set(name, value.clone());
    }
    for (name, value) in &change.add {
        headers.append(name, value.clone());
    }
    for name in &change.remove {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn pair(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    }

    #[test]
    fn set_replaces_add_appends_remove_removes() {
        let mut headers: HeaderMap = [pair("a", "1"), pair("b", "1"), pair("c", "1")]
            .into_iter()
            .collect();
        headers.append("a", HeaderValue::from_static("2"));
        let change = HeaderChange {
            set: vec![pair("a", "3"), pair("host", "other.example")],
            add: vec![pair("b", "2"), pair("d", "1")],
            remove: vec![HeaderName::from_static("c")],
        };
        apply(&change, &mut headers);
        let values = |name: &str| -> Vec<_> { headers.get_all(name).iter().collect() };
        assert_eq!(values("a"), ["3"]);
        assert_eq!(values("b"), ["1", "2"]);
        assert_eq!(values("c"), [""; 0]);
        assert_eq!(values("d"), ["1"]);
        assert_eq!(values("host"), ["other.example"]);
    }

    #[test]
    fn a_header_set_and_removed_is_gone() {
        let mut headers = HeaderMap::new();
        let change = HeaderChange {
            set: vec![pair("a", "1")],
            add: vec![pair("a", "2")],
            remove: vec![HeaderName::from_static("a")],
        };
        apply(&change, &mut headers);
        assert!(headers.is_empty());
    }
}
