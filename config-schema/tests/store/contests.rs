//! While any place that is known to define an object can not be read, what was in force stays: one
//! definition that is left to be seen does not settle which of two is meant.

use std::collections::{BTreeMap, BTreeSet};

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::store::Store;
use proptest::collection::vec;

use crate::support::{feed, found, in_force, policy};

const STRONG: &str = "/strong";
const WEAK: &str = "/weak";

/// A policy with an open quote and without a name: nobody can tell which it is.
fn nameless() -> String {
    policy("a", "/new")
        .replace("  name: a\n", "")
        .replace("/new\"", "/new")
}

#[test]
fn damage_in_a_contested_file_does_not_end_the_contest() {
    let (strong, weak) = (policy("a", STRONG), policy("a", WEAK));
    let contested = weak.clone() + &policy("a", "/new");
    let next = policy("b", "/1");
    // Without its `---` the second definition runs into the next document.
    let run_together = weak.clone() + &policy("a", "/new") + &next.replacen("---\n", "", 1);
    let damages = [weak.clone() + &nameless(), run_together];
    for damaged in damages {
        let mut store = Store::default();
        feed(&mut store, &[("f.yaml", Ok(&(strong.clone() + &next)))]);
        let both = contested.clone() + &next;
        for text in [&both, &damaged, &both, &damaged] {
            let update = feed(&mut store, &[("f.yaml", Ok(text))]);
            let [a, _] = &in_force(&update.resources)[..] else {
                panic!("a or b is missing");
            };
            assert_eq!(a, "a kept /strong", "{text}");
        }
        let update = feed(&mut store, &[("f.yaml", Ok(&(weak.clone() + &next)))]);
        assert_eq!(
            in_force(&update.resources)[0],
            "a good /weak",
            "it is settled"
        );
    }
}

/// What came while everything was refused was never in force by itself.
#[test]
fn a_version_from_a_time_when_all_was_refused_is_no_last_good_version() {
    let (strong, weak) = (policy("a", STRONG), policy("a", WEAK));
    let mut store = Store::default();
    feed(&mut store, &[("f.yaml", Ok(&strong))]);
    let update = feed(&mut store, &[("f.yaml", Ok(&(weak.clone() + &nameless())))]);
    assert_eq!(update.resources.unreadable.len(), 1, "all is refused");
    let contested = weak.clone() + &policy("a", "/new");
    let update = feed(&mut store, &[("f.yaml", Ok(&contested))]);
    assert_eq!(in_force(&update.resources), ["a kept /strong"]);
    // Nor is it one when there was none before.
    let mut store = Store::default();
    feed(&mut store, &[("f.yaml", Ok(&(weak + &nameless())))]);
    let update = feed(&mut store, &[("f.yaml", Ok(&contested))]);
    assert_eq!(in_force(&update.resources), ["a broken"]);
}

#[test]
fn another_file_does_not_take_the_place_of_one_that_can_not_be_read() {
    let (strong, weak) = (policy("a", STRONG), policy("a", WEAK));
    let next = policy("b", "/1");
    let both = strong.clone() + &next;
    let damaged = nameless() + &next;
    for now in [Err("permission denied"), Ok(&*damaged)] {
        let mut store = Store::default();
        feed(&mut store, &[("f.yaml", Ok(&both))]);
        for _ in 0..2 {
            let update = feed(&mut store, &[("e.yaml", Ok(&weak)), ("f.yaml", now)]);
            assert_eq!(in_force(&update.resources)[0], "a kept /strong");
            let kept = found(&update, Code::KeptLastGood);
            assert!(
                kept.iter().any(|k| k.contains("shop/a stays in force")),
                "{kept:?}"
            );
        }
        let update = feed(&mut store, &[("e.yaml", Ok(&weak)), ("f.yaml", Ok(&both))]);
        assert_eq!(
            in_force(&update.resources)[0],
            "a kept /strong",
            "contested"
        );
        // Only the deletion of the other, or its agreement, settles it.
        let update = feed(&mut store, &[("e.yaml", Ok(&weak)), ("f.yaml", Ok(&next))]);
        assert_eq!(in_force(&update.resources)[0], "a good /weak");
    }
}

/// Of two files that agreed, the one that can be read does not speak for the other.
#[test]
fn a_copy_that_can_not_be_read_keeps_the_other_from_changing() {
    let (strong, weak) = (policy("a", STRONG), policy("a", WEAK));
    for (lost, left) in [("f.yaml", "g.yaml"), ("g.yaml", "f.yaml")] {
        let mut store = Store::default();
        feed(
            &mut store,
            &[("f.yaml", Ok(&strong)), ("g.yaml", Ok(&strong))],
        );
        let update = feed(&mut store, &[(lost, Err("gone")), (left, Ok(&weak))]);
        assert_eq!(in_force(&update.resources), ["a kept /strong"]);
    }
}

/// What is known of one object, by the words of the rule and nothing else.
#[derive(Default)]
struct Naive {
    /// The version that was last beyond doubt; `None`: there is an object, but no such version.
    version: Option<Option<String>>,
    /// How many definitions each file may hold.
    held: BTreeMap<&'static str, usize>,
}

/// What a file says of one object: each definition's path, or nothing if it is broken.
struct Shown {
    definitions: Vec<Option<String>>,
    is_damaged: bool,
}

impl Naive {
    /// What is in force, `all_is_refused` being told by the store.
    fn step(
        &mut self,
        files: &BTreeMap<&'static str, Shown>,
        all_is_refused: bool,
    ) -> Option<String> {
        self.held.retain(|file, _| files.contains_key(file));
        let is_hidden = self
            .held
            .iter()
            .any(|(file, had)| files[file].is_damaged && files[file].definitions.len() < *had);
        let said: BTreeSet<&Option<String>> = files.values().flat_map(|f| &f.definitions).collect();
        let agreed = match said.iter().collect::<Vec<_>>()[..] {
            [Some(path)] => Some(path.clone()),
            _ => None,
        };
        let version = self.version.clone();
        let settled = match (&version, &agreed) {
            (_, Some(path)) if !is_hidden => Some(path.clone()),
            (None, Some(path)) => Some(path.clone()),
            (Some(Some(before)), Some(path)) if before == path => Some(path.clone()),
            _ => None,
        };
        let is_there = !said.is_empty() || is_hidden;
        let in_force = match (&settled, &version) {
            (Some(path), _) => Some(format!("a good {path}")),
            (None, Some(Some(path))) if is_there => Some(format!("a kept {path}")),
            (None, _) => is_there.then(|| "a broken".to_owned()),
        };
        if all_is_refused {
            if is_there && self.version.is_none() {
                self.version = Some(None);
            }
        } else {
            let kept = version.flatten();
            self.version = is_there.then_some(settled.or(kept));
        }
        for (file, shown) in files {
            let had = self.held.entry(file).or_default();
            let now = shown.definitions.len();
            let may_be_more = is_hidden || all_is_refused || said.is_empty();
            *had = if may_be_more { now.max(*had) } else { now };
        }
        if self.version.is_none() {
            self.held.clear();
        }
        in_force
    }
}

/// What a file holds, by number: nothing of it there, unreadable, or documents.
type Written = (u8, Vec<u8>);

fn read(
    name: &'static str,
    (state, documents): &Written,
) -> Option<(&'static str, Result<String, ()>, Shown)> {
    let mut text = "# a file\n".to_owned();
    let mut definitions = Vec::new();
    let mut is_damaged = false;
    for document in documents {
        match document {
            0 | 1 => {
                let path = format!("/{document}");
                text += &policy("a", &path);
                definitions.push(Some(path));
            }
            2 => {
                text += &policy("a", "/2").replace("paths", "path");
                definitions.push(None);
            }
            3 | 4 => text += &policy("b", &format!("/{document}")),
            _ => {
                text += &nameless();
                is_damaged = true;
            }
        }
    }
    match state {
        0 => None,
        1 => {
            let shown = Shown {
                definitions: Vec::new(),
                is_damaged: true,
            };
            Some((name, Err(()), shown))
        }
        _ => Some((
            name,
            Ok(text),
            Shown {
                definitions,
                is_damaged,
            },
        )),
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1500))]
    /// A version is replaced only when all places that are known can be read and agree.
    #[test]
    fn a_version_is_replaced_as_the_rule_says(
        steps in vec((vec((0..6u8, vec(0..6u8, 0..4)), 2), 0..3u8), 1..9),
    ) {
        let mut store = Store::default();
        let mut naive = Naive::default();
        let mut now: Vec<Written> = vec![(0, Vec::new()); 2];
        for (written, which) in steps {
            // Mostly one file at a time, as people edit.
            for (n, one) in written.into_iter().enumerate() {
                if usize::from(which) == n || which == 2 {
                    now[n] = one;
                }
            }
            let read: Vec<_> = ["f.yaml", "g.yaml"].into_iter().zip(&now).filter_map(|(n, w)| read(n, w)).collect();
            let files: Vec<_> = read
                .iter()
                .map(|(name, text, _)| (*name, text.as_deref().map_err(|()| "denied")))
                .collect();
            let update = feed(&mut store, &files);
            let shown = read.into_iter().map(|(name, _, shown)| (name, shown)).collect();
            let expected = naive.step(&shown, !update.resources.unreadable.is_empty());
            let found = in_force(&update.resources).into_iter().find(|p| p.starts_with('a'));
            proptest::prop_assert_eq!(found, expected, "{:?}", now);
        }
    }
}
