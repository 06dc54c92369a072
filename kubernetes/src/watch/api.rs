//! One collection of the API server: its pages, and its changes from a version on. Remembers nothing.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::io::AsyncBufReadExt;
use futures::stream::{BoxStream, StreamExt};
use kube_client::Client;
use kube_core::WatchEvent;
use kube_core::params::{ListParams, WatchParams};
use kube_core::request::Request;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::page::page;
use super::refusal::Refusal;
use crate::json::{Kept, Object, ObjectOf};
use crate::kinds::WatchedKind;
use crate::limits::PAGE_OBJECTS;

/// How long one watch lasts, in seconds; the API server takes no longer ones than 300 or so.
const WATCH_S: u32 = 280;

/// The objects that one reflector follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Collection {
    /// Index into `kinds::WATCHED`, by which they are sorted.
    pub kind: KindRef,
    /// Those of a namespace; `None`: of all.
    pub namespace: Option<Arc<str>>,
    /// That of a name; `None`: all.
    pub name: Option<Arc<str>>,
}

impl Collection {
    /// Whether the object of this path is one of it.
    pub fn has(&self, path: &str) -> bool {
        let kind = self.kind.0.title();
        let Some(rest) = path.strip_prefix("kubernetes:") else {
            return false;
        };
        let Some(rest) = rest.strip_prefix(&*kind).and_then(|r| r.strip_prefix('/')) else {
            return false;
        };
        let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
        self.namespace.as_deref().is_none_or(|n| n == namespace)
            && self.name.as_deref().is_none_or(|n| n == name)
    }

    /// The path of its only object, if it is one of a name and a namespace.
    pub fn path(&self) -> Option<Arc<str>> {
        let (namespace, name) = (self.namespace.as_ref()?, self.name.as_ref()?);
        Some(self.kind.0.path(namespace, name).into())
    }
}

/// A watched kind, compared by its group and name.
#[derive(Clone, Copy, Debug)]
pub(super) struct KindRef(pub &'static WatchedKind);

impl KindRef {
    fn id(&self) -> (&'static str, &'static str) {
        (self.0.group, self.0.plural)
    }
}

impl PartialEq for KindRef {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for KindRef {}

impl PartialOrd for KindRef {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KindRef {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id().cmp(&other.id())
    }
}

/// Takes one object of a list. What it refuses is the list refused.
pub(super) type Take<'t> = &'t mut (dyn FnMut(Value) -> Result<(), Refusal> + Send);

/// One page of a list, without its objects.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Version of the list, from which to watch.
    pub version: String,
    /// Token of the next page.
    pub next: Option<String>,
}

/// One thing that a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// New or changed.
    Put(Value),
    /// Deleted, as it was last.
    Deleted(Value),
    /// Nothing happened up to this version.
    Bookmark(String),
}

/// What a reflector asks.
pub(super) trait Api: Send + Sync + 'static {
    /// One page, the first without a token. Not in pages when `whole`. Its objects are given to `take` one by one:
    /// read, each is many times its text.
    fn list(
        &self,
        version: &'static str,
        token: Option<String>,
        whole: bool,
        take: Take<'_>,
    ) -> impl Future<Output = Result<Page, Refusal>> + Send;

    /// What happened after `from`. Ends when the server ends it.
    fn watch(
        &self,
        version: &'static str,
        from: &str,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Event, Refusal>>, Refusal>> + Send;
}

/// A collection of a real API server.
pub(super) struct Remote {
    pub client: Client,
    pub collection: Collection,
    /// Those on this node alone; `None`: wherever they are.
    pub node: Option<Arc<str>>,
    /// How much is read of each.
    pub kept: &'static Kept,
}

impl Remote {
    fn request(&self, version: &str) -> Request {
        let Collection {
            kind, namespace, ..
        } = &self.collection;
        Request::new(kind.0.url(version, namespace.as_deref()))
    }

    fn fields(&self) -> Option<String> {
        let name = self.collection.name.as_ref();
        let name = name.map(|name| format!("metadata.name={name}"));
        let node = self.node.as_ref();
        let node = node.map(|node| format!("spec.nodeName={node}"));
        let all: Vec<String> = name.into_iter().chain(node).collect();
        (!all.is_empty()).then(|| all.join(","))
    }
}

impl Api for Remote {
    async fn list(
        &self,
        version: &'static str,
        token: Option<String>,
        whole: bool,
        take: Take<'_>,
    ) -> Result<Page, Refusal> {
        let params = ListParams {
            field_selector: self.fields(),
            limit: (!whole).then_some(PAGE_OBJECTS),
            continue_token: token,
            ..ListParams::default()
        };
        let request = self.request(version).list(&params);
        let request = request.map_err(|e| Refusal::malformed(e.to_string()))?;
        let text = self.client.request_text(request).await?;
        page(&text, self.kept, take)
    }

    async fn watch(
        &self,
        version: &'static str,
        from: &str,
    ) -> Result<BoxStream<'static, Result<Event, Refusal>>, Refusal> {
        let params = WatchParams {
            field_selector: self.fields(),
            timeout: Some(WATCH_S),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = self.request(version).watch(&params, from);
        let request = request.map_err(|e| Refusal::malformed(e.to_string()))?;
        let body = self.client.request_stream(request).await?;
        let kept = self.kept;
        let events = body.lines().filter_map(async move |line| match line {
            Ok(line) if line.trim().is_empty() => None,
            Ok(line) => Some(event(&line, kept)),
            Err(error) => Some(Err(Refusal::broken(&error))),
        });
        Ok(events.boxed())
    }
}

/// Reads one line of a watch, of the object as much as is said.
fn event(line: &str, kept: &'static Kept) -> Result<Event, Refusal> {
    let mut reader = serde_json::Deserializer::from_str(line);
    let of_object = EventOf(kept).deserialize(&mut reader);
    if let (Ok(event), Ok(())) = (of_object, reader.end()) {
        return Ok(event);
    }
    match serde_json::from_str::<WatchEvent<Object>>(line) {
        Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => Ok(Event::Put(object.0)),
        Ok(WatchEvent::Deleted(object)) => Ok(Event::Deleted(object.0)),
        Ok(WatchEvent::Bookmark(mark)) => Ok(Event::Bookmark(mark.metadata.resource_version)),
        Ok(WatchEvent::Error(status)) => Err(Refusal::from(&*status)),
        // A connection that breaks leaves half a line.
        Err(error) if error.is_eof() => Err(Refusal::broken(&error)),
        Err(error) => Err(Refusal::malformed(error.to_string())),
    }
}

/// Reads what is told of an object as the API server writes it, the type first. Fails for all else, bookmarks and
/// errors among them.
struct EventOf(&'static Kept);

impl<'de> DeserializeSeed<'de> for EventOf {
    type Value = Event;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Event, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EventOf {
    type Value = Event;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("what is told of an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Event, A::Error> {
        let other = || A::Error::custom("something else");
        if entries.next_key::<String>()?.as_deref() != Some("type") {
            return Err(other());
        }
        let event = match &*entries.next_value::<String>()? {
            "ADDED" | "MODIFIED" => Event::Put,
            "DELETED" => Event::Deleted,
            _ => return Err(other()),
        };
        if entries.next_key::<String>()?.as_deref() != Some("object") {
            return Err(other());
        }
        let object = entries.next_value_seed(ObjectOf(self.0))?;
        match entries.next_key::<IgnoredAny>()? {
            None => Ok(event(object.0)),
            Some(_) => Err(other()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// serde_json would fail with the whole page, and with the event again and again.
    #[test]
    fn an_object_of_any_depth_is_one_object() {
        let deep = |levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"metadata":{{"name":"p","resourceVersion":"7"}},"spec":{open}{close}}}"#)
        };
        for levels in [1, 119, 120, 126, 200, 100_000] {
            let object = deep(levels);
            let list =
                format!(r#"{{"metadata":{{"resourceVersion":"9"}},"items":[{object},{object}]}}"#);
            let mut items = 0;
            let listed = page(&list, &Kept::Whole, &mut |_| {
                items += 1;
                Ok(())
            });
            assert_eq!(listed.unwrap().version, "9");
            assert_eq!(items, 2, "{levels}");
            let line = format!(r#"{{"type":"MODIFIED","object":{object}}}"#);
            let Event::Put(object) = event(&line, &Kept::Whole).unwrap() else {
                panic!("{levels}");
            };
            assert_eq!(super::super::reduce::version(&object), Some("7"));
        }
    }

    #[test]
    fn an_event_is_the_same_whatever_its_order() {
        let object =
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","resourceVersion":"7"}}"#;
        let value: Value = serde_json::from_str(object).unwrap();
        let read = |line: String| event(&line, &Kept::Whole).unwrap();
        for (kind, expected) in [
            ("ADDED", Event::Put(value.clone())),
            ("MODIFIED", Event::Put(value.clone())),
            ("DELETED", Event::Deleted(value.clone())),
            ("BOOKMARK", Event::Bookmark("7".to_owned())),
        ] {
            let first = read(format!(r#"{{"type":"{kind}","object":{object}}}"#));
            let last = read(format!(r#"{{"object":{object},"type":"{kind}"}}"#));
            assert_eq!((&first, &last), (&expected, &expected));
        }
        for broken in [
            format!(r#"{{"type":"ADDED","object":{object}"#),
            format!(r#"{{"type":"ADDED","object":{object}}} {{}}"#),
            format!(r#"{{"type":"RENAMED","object":{object}}}"#),
            r#"{"type":"ADDED"}"#.to_owned(),
        ] {
            assert!(event(&broken, &Kept::Whole).is_err(), "{broken}");
        }
    }
}
