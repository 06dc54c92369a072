//! Telling the store what changed is the same as telling it everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_config_schema::store::{SourceFile, Store};
use proptest::collection::{btree_map, vec};

use crate::support::{feed, in_force, policy};

fn file<'t>(path: &str, text: Option<&'t str>) -> SourceFile<'t> {
    SourceFile {
        path: path.into(),
        content: text
            .map(|t| t.as_bytes().into())
            .ok_or_else(|| "denied".into()),
    }
}

/// What a file says, by number: a policy that several files may have, one that is broken, damage.
fn text(n: u8) -> Option<String> {
    match n {
        0 => None,
        1 => Some("kind: [".to_owned()),
        2 => Some(policy("a", "/1").replace("rules", "rulez")),
        n => Some(policy(
            ["a", "b"][usize::from(n % 2)],
            &format!("/{}", n / 4),
        )),
    }
}

#[test]
fn what_is_not_mentioned_stays_and_what_is_gone_goes() {
    let mut store = Store::default();
    let (a, b) = (policy("a", "/1"), policy("b", "/1"));
    store.change(&[file("k:a", Some(&a)), file("k:b", Some(&b))], &[]);
    let newer = policy("b", "/2");
    let update = store.change(&[file("k:b", Some(&newer))], &[]);
    assert!(update.changed);
    assert_eq!(in_force(&update.resources), ["a good /1", "b good /2"]);
    assert_eq!(store.documents_parsed(), 3, "a was not read again");
    let update = store.change(&[], &["k:a".into()]);
    assert_eq!(in_force(&update.resources), ["b good /2"]);
    assert!(!store.change(&[file("k:b", Some(&newer))], &[]).changed);
}

proptest::proptest! {
    #[test]
    fn changes_say_what_all_files_would(
        steps in vec(btree_map(0..4_u8, proptest::option::of(0..10_u8), 0..4), 1..8),
    ) {
        let (mut told, mut whole) = (Store::default(), Store::default());
        let mut now: BTreeMap<String, Option<String>> = BTreeMap::new();
        for step in steps {
            let mut gone: Vec<Arc<str>> = Vec::new();
            let mut changed = Vec::new();
            for (name, content) in step {
                let name = format!("k:{name}");
                match content {
                    None => {
                        now.remove(&name);
                        gone.push(name.as_str().into());
                    }
                    Some(n) => {
                        now.insert(name.clone(), text(n));
                        changed.push((name, text(n)));
                    }
                }
            }
            let files: Vec<_> = changed.iter().map(|(n, t)| file(n, t.as_deref())).collect();
            let by_changes = told.change(&files, &gone);
            let all: Vec<_> = now.iter().map(|(n, t)| (n.as_str(), t.as_deref().ok_or("denied"))).collect();
            let by_all = feed(&mut whole, &all);
            proptest::prop_assert_eq!(by_changes.changed, by_all.changed);
            proptest::prop_assert_eq!(by_changes.diagnostics, by_all.diagnostics);
            let (a, b) = (format!("{:?}", by_changes.resources), format!("{:?}", by_all.resources));
            proptest::prop_assert_eq!(a, b);
        }
    }
}
