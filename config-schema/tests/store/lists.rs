//! A `List` is kept item by item, and says what it says as a whole.

use cairn_config_schema::resources::Resources;
use cairn_config_schema::store::Store;

use crate::support::{feed, in_force};

/// An item of a list for a policy, starting with `- `.
fn item(name: &str, rest: &str) -> String {
    format!(
        "- apiVersion: security.istio.io/v1
  kind: AuthorizationPolicy
  metadata:
    name: {name}
    namespace: shop
{rest}
"
    )
}

fn paths(path: &str) -> String {
    format!("  spec: {{rules: [{{to: [{{operation: {{paths: [{path}]}}}}]}}]}}")
}

fn list(items: &str) -> String {
    format!("apiVersion: v1\nitems:\n{items}kind: List\nmetadata:\n  resourceVersion: \"\"\n")
}

#[test]
fn only_the_items_that_changed_are_parsed() {
    let many = |changed: &str| {
        let items: String = (0..50)
            .map(|n| {
                item(
                    &format!("p{n}"),
                    &paths(if n == 20 { changed } else { "/1" }),
                )
            })
            .collect();
        list(&items)
    };
    let mut store = Store::default();
    feed(&mut store, &[("f.yaml", Ok(&many("/1")))]);
    assert_eq!(
        store.documents_parsed(),
        51,
        "the items and what is around them"
    );
    assert!(!feed(&mut store, &[("f.yaml", Ok(&many("/1")))]).changed);
    let update = feed(&mut store, &[("f.yaml", Ok(&many("/2")))]);
    assert_eq!((update.changed, store.documents_parsed()), (true, 52));
    assert!(in_force(&update.resources).contains(&"p20 good /2".to_owned()));
    let moved = format!("# a line\n{}", many("/2"));
    let update = feed(&mut store, &[("f.yaml", Ok(&moved))]);
    assert_eq!(store.documents_parsed(), 53, "the frame");
    let policies = &update.resources.authorization_policies;
    let place = &policies[&crate::support::key("p20")]
        .object()
        .unwrap()
        .place;
    assert_eq!(place.locate("").unwrap().line, 4 + 20 * 6);
}

/// Where lines alone would lead astray, the list is read as a whole, each time the same.
#[test]
fn what_is_no_list_of_items_by_itself_is_read_as_a_whole() {
    let hidden = item("hidden", &paths("/1"));
    for text in [
        // Inside quotes, brackets or another document's value there is no item.
        format!("{{apiVersion: v1, kind: List, items: , metadata: \"\nitems:\n{hidden}\"}}\n"),
        format!("{{apiVersion: v1, kind: List,\nitems:\n{hidden}}}\n"),
        format!("apiVersion: v1\nkind: List\nmetadata: \"\nitems:\n{hidden}\"\n"),
        list(&item("a", &format!("  spec: {{x: \"\n{hidden}\"}}"))),
        list(&format!("{}- {{kind: [\n", item("a", &paths("/1")))),
        list(&(item("a", &paths("&p /1")) + &item("b", &paths("*p")))),
    ] {
        let mut store = Store::default();
        let update = feed(&mut store, &[("f.yaml", Ok(&text))]);
        let indented = feed(&mut Store::default(), &[("f.yaml", Ok(&indent(&text)))]);
        assert_eq!(said(&update.resources), said(&indented.resources), "{text}");
        let parsed = store.documents_parsed();
        assert!(
            !feed(&mut store, &[("f.yaml", Ok(&text))]).changed,
            "{text}"
        );
        assert_eq!(store.documents_parsed(), parsed, "{text}");
    }
}

/// What is in force, and how much is of unknown scope.
fn said(resources: &Resources) -> (Vec<String>, usize) {
    (in_force(resources), resources.unreadable.len())
}

/// The same list with its items moved to the right, which is not cut.
fn indent(text: &str) -> String {
    let (mut out, mut is_inside) = (String::new(), false);
    for line in text.lines() {
        is_inside = match line {
            "items:" => true,
            _ => is_inside && (line.is_empty() || line.starts_with([' ', '-', '#'])),
        };
        let is_item = is_inside && line != "items:" && !line.is_empty();
        out += if is_item { "  " } else { "" };
        out += line;
        out += "\n";
    }
    out
}

proptest::proptest! {
    /// Cut or not, a list says the same.
    #[test]
    fn a_cut_list_says_what_the_whole_says(
        items in proptest::collection::vec((0..6u8, 0..9usize), 1..6),
        edits in proptest::collection::vec((0..6u8, 0..9usize), 0..4),
    ) {
        const RESTS: [&str; 9] = [
            "  spec: {rules: [{to: [{operation: {paths: [/1]}}]}]}",
            "  spec:\n    rules:\n    - to:\n      - operation:\n          paths: [\"/2\"] # why",
            "  spec: {rules: [{to: [{operation: {paths: [&p /3, *p]}}]}]}",
            "  spec: {rules: [{to: [{operation: {paths: [*p]}}]}]}",
            "  spec: {rules: [{to: [{operation: {path: [/1]}}]}]}",
            "    annotations:\n      text: |+\n        - a\n        kind: List\n\n  spec: {rules: [{to: [{operation: {paths: [/5]}}]}]}",
            "    annotations: {text: \"x\n- kind: y\"}\n  spec: {rules: [{to: [{operation: {paths: [/6]}}]}]}",
            "# a comment\n\n  spec: {rules: [{to: [{operation: {paths: [/7]}}]}]}",
            "  spec: {rules: [",
        ];
        let mut store = Store::default();
        let mut items = items;
        for edit in std::iter::once(None).chain(edits.into_iter().map(Some)) {
            items.extend(edit);
            let text: String = items
                .iter()
                .enumerate()
                .map(|(n, (name, rest))| item(&format!("p{n}{name}"), RESTS[*rest]))
                .collect();
            let cut = list(&text);
            let whole = indent(&cut);
            let a = feed(&mut Store::default(), &[("f.yaml", Ok(&cut))]);
            let b = feed(&mut Store::default(), &[("f.yaml", Ok(&whole))]);
            proptest::prop_assert_eq!(said(&a.resources), said(&b.resources), "{}", cut);
            let after = feed(&mut store, &[("f.yaml", Ok(&cut))]);
            if a.diagnostics.is_empty() {
                proptest::prop_assert_eq!(in_force(&after.resources), in_force(&a.resources));
            }
        }
    }
}
