//! An unchanged document is not parsed again, and its objects are the same ones.

use std::sync::Arc;

use cairn_config_schema::resources::{Object, istio::AuthorizationPolicySpec};
use cairn_config_schema::store::{Store, Update};

use crate::support::{feed, key, policy};

fn object(update: &Update, name: &str) -> Arc<Object<AuthorizationPolicySpec>> {
    update.resources.authorization_policies[&key(name)]
        .object()
        .unwrap()
        .clone()
}

#[test]
fn only_what_changed_is_parsed() {
    let mut store = Store::default();
    let many: Vec<String> = (0..50).map(|n| policy(&format!("p{n}"), "/1")).collect();
    let other = policy("other", "/1");
    let first = feed(
        &mut store,
        &[("f.yaml", Ok(&many.concat())), ("g.yaml", Ok(&other))],
    );
    assert_eq!((first.changed, store.documents_parsed()), (true, 51));

    let same = feed(
        &mut store,
        &[("f.yaml", Ok(&many.concat())), ("g.yaml", Ok(&other))],
    );
    assert_eq!((same.changed, store.documents_parsed()), (false, 51));
    assert!(Arc::ptr_eq(&object(&first, "p7"), &object(&same, "p7")));

    let mut edited = many.clone();
    edited[20] = policy("p20", "/2");
    let after = feed(
        &mut store,
        &[("f.yaml", Ok(&edited.concat())), ("g.yaml", Ok(&other))],
    );
    assert_eq!((after.changed, store.documents_parsed()), (true, 52));
    assert!(Arc::ptr_eq(&object(&first, "p7"), &object(&after, "p7")));
    assert!(!Arc::ptr_eq(&object(&first, "p20"), &object(&after, "p20")));
}

#[test]
fn an_object_that_only_moved_keeps_exact_places_without_being_parsed() {
    let mut store = Store::default();
    let (text, broken) = (
        policy("a", "/1"),
        policy("b", "/1").replace("paths", "path"),
    );
    let first = feed(&mut store, &[("f.yaml", Ok(&(text.clone() + &broken)))]);
    let moved = format!("# one\n# two\n{text}{broken}");
    let second = feed(&mut store, &[("f.yaml", Ok(&moved))]);
    assert_eq!(store.documents_parsed(), 2);
    let line = |u: &Update| object(u, "a").place.locate("spec.rules[0]").unwrap().line;
    assert_eq!((line(&first), line(&second)), (10, 12));
    let line = |u: &Update| u.diagnostics[0].location.as_ref().unwrap().line;
    assert_eq!((line(&first), line(&second)), (20, 22));
}

#[test]
fn unchanged_items_of_a_changed_list_stay_the_same_objects() {
    let list = |path: &str| {
        let item = |name: &str, path: &str| {
            format!(
                "- {{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, \
                 metadata: {{name: {name}, namespace: shop}}, \
                 spec: {{rules: [{{to: [{{operation: {{paths: [{path}]}}}}]}}]}}}}\n"
            )
        };
        format!(
            "apiVersion: v1\nkind: List\nitems:\n{}{}",
            item("a", "/1"),
            item("b", path)
        )
    };
    let mut store = Store::default();
    let first = feed(&mut store, &[("f.yaml", Ok(&list("/1")))]);
    let second = feed(&mut store, &[("f.yaml", Ok(&list("/2")))]);
    assert!(Arc::ptr_eq(&object(&first, "a"), &object(&second, "a")));
    assert!(!Arc::ptr_eq(&object(&first, "b"), &object(&second, "b")));
}

/// The documents without those that contradict an earlier one, in any file.
fn without_contradictions(mut step: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut first = std::collections::BTreeMap::new();
    for documents in &mut step {
        documents.retain(|n| *n < 2 || *first.entry(n / 2).or_insert(*n) == *n);
    }
    step
}

/// A file of policies, comments and other people's kinds, by number, so that files share documents.
fn text(documents: &[u8]) -> String {
    let document = |n: &u8| match n {
        0 => "# a comment\n".to_owned(),
        1 => "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n".to_owned(),
        n => policy(&format!("p{}", n / 2), &format!("/{}", n % 2)),
    };
    documents.iter().map(document).collect()
}

proptest::proptest! {
    /// Whatever was loaded before, good files give what a store without a past makes of them, to
    /// the line.
    #[test]
    fn a_past_without_errors_leaves_no_trace(
        steps in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(0..12u8, 0..6), 0..3),
            1..5,
        ),
    ) {
        let mut store = Store::default();
        for step in steps.into_iter().map(without_contradictions) {
            let texts: Vec<_> = step.iter().map(|documents| text(documents)).collect();
            let names = ["a.yaml", "b.yaml", "c.yaml"];
            let files: Vec<_> = names.iter().zip(&texts).map(|(n, t)| (*n, Ok(t.as_str()))).collect();
            let kept = feed(&mut store, &files);
            let fresh = feed(&mut Store::default(), &files);
            proptest::prop_assert_eq!(&kept.diagnostics, &fresh.diagnostics);
            let (kept, fresh) = (format!("{:?}", kept.resources), format!("{:?}", fresh.resources));
            proptest::prop_assert_eq!(kept, fresh);
        }
    }
}
