//! The tree of a document that is JSON in one line, as objects of the API server are: read as JSON, which costs a
//! fraction of reading it as the YAML that it is, too. Of places it knows the start alone: whoever finds something
//! wrong reads the text again as YAML.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::node::{Entry, Mark, Node, Style, Value};
use crate::limits::{JSON_BYTES_MAX, JSON_KEY_BYTES_MAX, JSON_SPACES_MAX};

const START: Mark = Mark { line: 1, column: 1 };

/// The tree, but for places, if both readings are known to give the same. Escapes, other characters than those of
/// ASCII, and numbers that are not whole are left to the YAML parser, and so is what is no JSON.
pub(super) fn build(text: &str) -> Option<Node<'_>> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'\\';
    let may_be = text.starts_with('{') && text.len() <= JSON_BYTES_MAX;
    if !may_be || !text.bytes().all(is_plain) || has_wide_gap(text) {
        return None;
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    // It refuses more than 127 levels, of which the YAML parser takes one more.
    let node = Tree.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(node)
}

/// Whether a colon may be too far from its key for the YAML parser.
fn has_wide_gap(text: &str) -> bool {
    let runs = text.as_bytes().split(|byte| *byte != b' ');
    runs.map(<[u8]>::len).any(|spaces| spaces > JSON_SPACES_MAX)
}

/// Reads one value.
struct Tree;

fn scalar<'t>(text: impl Into<Cow<'t, str>>, style: Style) -> Node<'t> {
    node(Value::Scalar(text.into(), style))
}

fn node(value: Value<'_>) -> Node<'_> {
    Node { at: START, value }
}

impl<'t> DeserializeSeed<'t> for Tree {
    type Value = Node<'t>;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Node<'t>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Tree {
    type Value = Node<'t>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("plain JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Node<'t>, E> {
        Ok(scalar("null", Style::Plain))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node<'t>, E> {
        Ok(scalar(if value { "true" } else { "false" }, Style::Plain))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node<'t>, E> {
        Ok(scalar(value.to_string(), Style::Plain))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node<'t>, E> {
        Ok(scalar(value.to_string(), Style::Plain))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'t str) -> Result<Node<'t>, E> {
        Ok(scalar(value, Style::Quoted))
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut items: A) -> Result<Node<'t>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Tree)? {
            list.push(item);
        }
        Ok(node(Value::List(list)))
    }

    /// A key that comes twice has both entries, as in the tree of YAML.
    fn visit_map<A: MapAccess<'t>>(self, mut entries: A) -> Result<Node<'t>, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<&'t str>()? {
            if key.len() > JSON_KEY_BYTES_MAX {
                return Err(A::Error::custom("a long key"));
            }
            map.push(Entry {
                key: Cow::Borrowed(key),
                key_at: START,
                value: entries.next_value_seed(Tree)?,
            });
        }
        Ok(node(Value::Map(map)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::{Document, Names, Role, parse_json, parse_yaml, tree};
    use super::*;

    /// All of a tree but places.
    fn shape(node: &Node<'_>) -> String {
        match &node.value {
            Value::Scalar(text, style) => format!("{style:?} {text:?}"),
            Value::List(items) => format!("{:?}", items.iter().map(shape).collect::<Vec<_>>()),
            Value::Map(entries) => {
                let entry = |e: &Entry<'_>| (e.key.to_string(), shape(&e.value));
                format!("{{{:?}}}", entries.iter().map(entry).collect::<Vec<_>>())
            }
        }
    }

    fn both(text: &str) -> (Option<String>, Option<String>) {
        let yaml = tree::build(text).ok().flatten();
        let json = build(text);
        (json.as_ref().map(shape), yaml.as_ref().map(shape))
    }

    /// Pieces of JSON, of YAML, and of neither, by chance in an order that is some.
    fn piece() -> impl Strategy<Value = String> {
        const WRITTEN: [&str; 38] = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            " ",
            "\"",
            "\"a\":",
            "\"b\"",
            "\"<<\":",
            "1",
            "-0",
            "-7",
            "1.5",
            "1e3",
            "0x1",
            "18446744073709551616",
            "true",
            "null",
            "~",
            "# ",
            "- ",
            "? ",
            "&a ",
            "*a",
            "!!str ",
            "|",
            "\\n",
            "\\u0041",
            "\u{e9}",
            "\u{7f}",
            "\t",
            "\n",
            "%",
            "---",
            "'",
            "yes",
        ];
        prop_oneof![
            prop::sample::select(&WRITTEN[..]).prop_map(str::to_owned),
            "[ -~]{0,6}"
        ]
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let text = || prop_oneof![8 => "[ -~]{0,12}", 1 => "\\PC{0,4}"];
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|b| json!(b)),
            any::<i64>().prop_map(|n| json!(n)),
            any::<u64>().prop_map(|n| json!(n)),
            any::<f32>().prop_map(|n| json!(n)),
            text().prop_map(|t| json!(t)),
        ];
        leaf.prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(|items| json!(items)),
                prop::collection::btree_map(text(), inner, 0..5).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Whatever is read as JSON has the tree that it has as YAML.
        #[test]
        fn json_has_the_tree_of_yaml(value in prop::collection::btree_map("[ -~]{0,8}", value(), 0..5)) {
            let (json, yaml) = both(&serde_json::to_string(&value).unwrap());
            prop_assert!(json.is_none() || json == yaml, "{json:?}\n{yaml:?}");
        }

        #[test]
        fn so_has_what_looks_like_it(pieces in prop::collection::vec(piece(), 0..12)) {
            let (json, yaml) = both(&format!("{{{}}}", pieces.concat()));
            prop_assert!(json.is_none() || json == yaml, "{json:?}\n{yaml:?}");
        }

        /// A Pod, or nearly: what is read by the short way is what is read by the long one, findings included, for
        /// those are never found by the short one.
        #[test]
        fn objects_are_read_alike(changes in prop::collection::vec((0..PLACES.len(), value()), 0..3), is_pod in any::<bool>()) {
            let object = changed(if is_pod { pod() } else { slice() }, changes);
            alike(&object.to_string());
        }

        /// The same of objects with nothing wrong: all of these are compared.
        #[test]
        fn objects_with_nothing_wrong_are_read_the_short_way(
            texts in prop::collection::vec((prop::sample::select(&TEXTS[..]), "[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?"), 0..6),
            host in any::<bool>(),
            port in 1..=65_535u16,
            is_pod in any::<bool>(),
        ) {
            let mut object = if is_pod { pod() } else { slice() };
            let texts = texts.into_iter().map(|(at, text)| (at, json!(text)));
            let others = [("/spec/hostNetwork", json!(host)), ("/endpoints/0/conditions/ready", json!(host)),
                ("/spec/containers/0/ports/0/containerPort", json!(port)), ("/ports/0/port", json!(port))];
            for (at, value) in texts.chain(others) {
                if let Some(at) = object.pointer_mut(at) {
                    *at = value;
                }
            }
            prop_assert!(alike(&object.to_string()), "{object}");
        }
    }

    fn changed(
        mut object: serde_json::Value,
        changes: Vec<(usize, serde_json::Value)>,
    ) -> serde_json::Value {
        for (place, value) in changes {
            if let Some(at) = object.pointer_mut(PLACES[place]) {
                match at.as_object_mut() {
                    Some(map) => drop(map.insert("more".to_owned(), value)),
                    None => *at = value,
                }
            }
        }
        object
    }

    /// Where any name may be.
    const TEXTS: [&str; 7] = [
        "/metadata/name",
        "/metadata/namespace",
        "/metadata/uid",
        "/metadata/labels/app",
        "/spec/nodeName",
        "/spec/serviceAccountName",
        "/endpoints/0/zone",
    ];

    const PLACES: [&str; 16] = [
        "",
        "/kind",
        "/metadata",
        "/metadata/name",
        "/metadata/labels",
        "/metadata/labels/app",
        "/metadata/creationTimestamp",
        "/spec",
        "/spec/containers/0",
        "/spec/hostNetwork",
        "/status",
        "/status/podIPs/0/ip",
        "/endpoints/0",
        "/endpoints/0/addresses/0",
        "/endpoints/0/conditions/ready",
        "/ports/0/port",
    ];

    fn pod() -> serde_json::Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a-1", "namespace": "shop", "uid": "u", "labels": {"app": "a"},
                "annotations": {"ambient.istio.io/redirection": "enabled"},
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "controller": true, "uid": "v"}]},
            "spec": {"nodeName": "n", "hostNetwork": false, "serviceAccountName": "s", "containers": [{
                "name": "c", "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}}, "livenessProbe": {}}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
        })
    }

    fn slice() -> serde_json::Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "a-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "a"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "zone": "z",
                "targetRef": {"kind": "Pod", "name": "a-1", "namespace": "shop"}}],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        })
    }

    /// Reads a text both ways, which is the same; whether the short one is one.
    fn alike(text: &str) -> bool {
        let document = Document {
            text,
            lines_before: 0,
        };
        let file: Arc<str> = "kubernetes:Pod/shop/a-1".into();
        let Some(json) = parse_json(&document, &file, &mut Names::default()) else {
            return false;
        };
        let yaml = parse_yaml(&document, Role::Document, &file, &mut Names::default());
        assert_eq!(format!("{json:?}"), format!("{:?}", yaml.unwrap()));
        true
    }

    /// Otherwise the properties would hold by themselves.
    #[test]
    fn pods_and_endpoint_slices_are_read_the_short_way() {
        assert!(alike(&pod().to_string()));
        assert!(alike(&slice().to_string()));
    }

    #[test]
    fn what_may_be_something_else_as_yaml_is_left_to_yaml() {
        let key = "k".repeat(JSON_KEY_BYTES_MAX + 1);
        for text in [
            "",
            "[1]",
            " {}",
            "{}\n",
            r#"{"a":"\n"}"#,
            r#"{"a":"é"}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e3}"#,
            r#"{"a":-0}"#,
            "{a: 1}",
            "{\"a\":1}{}",
            "{\"a\":\"\u{7f}\"}",
            &format!("{{\"{key}\":1}}"),
            &format!("{{\"a\"{}:1}}", " ".repeat(1_025)),
            &format!("{{\"a\"{}:1}}", " ".repeat(JSON_SPACES_MAX + 1)),
            &format!("{}{}", "{\"a\":".repeat(128), "}".repeat(128)),
        ] {
            assert!(build(text).is_none(), "{text}");
        }
    }

    #[test]
    fn what_looks_odd_and_is_json_is_read_as_both() {
        let (key, gap) = ("k".repeat(JSON_KEY_BYTES_MAX), " ".repeat(JSON_SPACES_MAX));
        for text in [
            "{}",
            r#"{"a":1,"a":2}"#,
            r#"{"<<":{"b":1}}"#,
            r#"{"":1}"#,
            r#"{"a" : [ 1 , -7 ]}"#,
            r##"{"a":"# x: - &b"}"##,
            r#"{"a":[18446744073709551615,true,false,null,"null",{}]}"#,
            &format!("{{\"{key}\"{gap}:{gap}1}}"),
        ] {
            let (json, yaml) = both(text);
            assert!(json.is_some(), "{text}");
            assert_eq!(json, yaml, "{text}");
        }
        let twice = build(r#"{"a":1,"a":2}"#).unwrap();
        assert_eq!(twice.entries().len(), 2);
    }

    /// A policy has places inside, which its findings name.
    #[test]
    fn other_kinds_and_what_is_wrong_are_read_with_their_places() {
        let mut service = pod();
        service["kind"] = "Service".into();
        assert!(!alike(&service.to_string()));
        // It is no Pod for what is inside.
        service["spec"]["targetRef"] = json!({"kind": "Pod"});
        assert!(!alike(&service.to_string()));
        let mut pod = pod();
        pod["spec"]["hostNetwork"] = "yes".into();
        assert!(!alike(&pod.to_string()));
    }
}
