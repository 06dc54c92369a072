//! One name, two objects: nobody can know which is meant, and the order of files must not decide.

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::resources::{Loaded, Resources};
use cairn_config_schema::store::Store;

use crate::support::{feed, found, in_force, key, policy};

/// Names of what the broken policy `a` denies; `None`: its whole namespace.
fn denied(resources: &Resources) -> Option<Vec<&str>> {
    let Loaded::Broken(broken) = &resources.authorization_policies[&key("a")] else {
        panic!("a is not broken");
    };
    let targets = broken.targets.as_ref()?;
    Some(targets.iter().map(|t| t.name.as_str()).collect())
}

#[test]
fn without_a_past_both_are_broken_and_both_places_are_named() {
    let (one, two) = (policy("a", "/1"), policy("a", "/2"));
    let update = feed(
        &mut Store::default(),
        &[("b.yaml", Ok(&one)), ("a.yaml", Ok(&two))],
    );
    assert_eq!(in_force(&update.resources), ["a broken"]);
    assert_eq!(
        found(&update, Code::DuplicateObject),
        [
            "a.yaml:2:1 AuthorizationPolicy/shop/a is defined twice with different content, \
             first at b.yaml:2:1"
        ]
    );
    let effect = update.diagnostics[0].effect.as_deref().unwrap();
    assert!(effect.starts_with("neither is in force"), "{effect}");
    let twice = one + &two;
    let update = feed(&mut Store::default(), &[("f.yaml", Ok(&twice))]);
    assert_eq!(in_force(&update.resources), ["a broken"]);
    assert_eq!(
        found(&update, Code::DuplicateObject),
        [
            "f.yaml:12:1 AuthorizationPolicy/shop/a is defined twice with different content, \
             first at f.yaml:2:1"
        ]
    );
}

/// A file whose name sorts first must not put its weaker policy in the place of the one in force.
#[test]
fn the_version_that_was_in_force_stays_whatever_the_order() {
    let (good, weaker) = (policy("a", "/1"), policy("a", "/2"));
    for new in ["a.yaml", "z.yaml"] {
        let mut store = Store::default();
        feed(&mut store, &[("m.yaml", Ok(&good))]);
        let mut files = [("m.yaml", Ok(&*good)), (new, Ok(&*weaker))];
        files.sort_by_key(|(path, _)| *path);
        for _ in 0..2 {
            let update = feed(&mut store, &files);
            assert_eq!(in_force(&update.resources), ["a kept /1"]);
            let [finding, kept] = &update.diagnostics[..] else {
                panic!("{:?}", update.diagnostics);
            };
            assert_eq!(finding.code, Code::DuplicateObject);
            assert_eq!(kept.code, Code::KeptLastGood, "/config_dump lists it");
            let effect = finding.effect.as_deref().unwrap();
            assert!(
                effect.ends_with("the last good version stays in force"),
                "{effect}"
            );
        }
        let update = feed(&mut store, &[(new, Ok(&weaker))]);
        assert_eq!(in_force(&update.resources), ["a good /2"], "it is the only");
    }
}

#[test]
fn a_broken_one_of_two_denies_whatever_either_is_aimed_at() {
    let aimed = |name: &str| policy("a", "/1").replace("name: web", &format!("name: {name}"));
    let (web, db) = (aimed("web"), aimed("db"));
    let twice = [("f.yaml", Ok(&*web)), ("g.yaml", Ok(&*db))];
    let update = feed(&mut Store::default(), &twice);
    assert_eq!(denied(&update.resources), Some(vec!["db", "web"]));
    let unknown = db.replace("targetRefs", "targetRfs");
    let twice = [("f.yaml", Ok(&*web)), ("g.yaml", Ok(&*unknown))];
    let update = feed(&mut Store::default(), &twice);
    assert_eq!(denied(&update.resources), None);
}

#[test]
fn the_same_content_twice_is_fine() {
    let one = policy("a", "/1");
    let elsewhere = format!("# moved and commented\n{one}");
    let update = feed(
        &mut Store::default(),
        &[("f.yaml", Ok(&one)), ("g.yaml", Ok(&elsewhere))],
    );
    assert_eq!(in_force(&update.resources), ["a good /1"]);
    assert!(update.diagnostics.is_empty());
    let labelled = one.replace("  name: a\n", "  name: a\n  labels: {x: y}\n");
    let update = feed(
        &mut Store::default(),
        &[("f.yaml", Ok(&one)), ("g.yaml", Ok(&labelled))],
    );
    assert_eq!(found(&update, Code::DuplicateObject).len(), 1);
}

#[test]
fn a_broken_one_is_not_replaced_by_a_good_one_beside_it() {
    let (good, broken) = (
        policy("a", "/1"),
        policy("a", "/2").replace("paths", "path"),
    );
    for texts in [[&broken, &good], [&good, &broken]] {
        let update = feed(
            &mut Store::default(),
            &[("f.yaml", Ok(texts[0])), ("g.yaml", Ok(texts[1]))],
        );
        assert_eq!(in_force(&update.resources), ["a broken"]);
        assert_eq!(found(&update, Code::DuplicateObject).len(), 1);
    }
}

#[test]
fn it_is_said_which_definitions_can_not_be_read() {
    let (good, broken) = (
        policy("a", "/1"),
        policy("a", "/1").replace("paths", "path"),
    );
    for (one, other, expected) in [
        (
            &broken,
            &broken,
            "is defined twice, and neither definition can be read",
        ),
        (
            &good,
            &broken,
            "is defined twice, and one of the definitions can not be read",
        ),
        (
            &broken,
            &good,
            "is defined twice, and one of the definitions can not be read",
        ),
    ] {
        let files = [("f.yaml", Ok(&**one)), ("g.yaml", Ok(&**other))];
        let update = feed(&mut Store::default(), &files);
        let [finding] = &found(&update, Code::DuplicateObject)[..] else {
            panic!("{:?}", update.diagnostics);
        };
        assert!(finding.contains(expected), "{finding}");
        let policies = &update.resources.authorization_policies;
        let Loaded::Broken(broken) = &policies[&key("a")] else {
            panic!("a is not broken");
        };
        assert_eq!(broken.reason.replace("it is", "is"), expected);
    }
}

/// Routes are ordered by age, so that the order of files must not decide which copy's counts.
#[test]
fn of_copies_that_differ_in_their_age_the_oldest_counts() {
    let made = |created: &str| {
        let created = format!("  name: a\n  creationTimestamp: {created}\n");
        policy("a", "/1").replace("  name: a\n", &created)
    };
    let (old, young) = (made("2025-01-01T00:00:00Z"), made("2026-01-01T00:00:00Z"));
    let unknown = policy("a", "/1");
    for order in [
        [&old, &young, &unknown],
        [&unknown, &young, &old],
        [&young, &old, &unknown],
    ] {
        let text: String = order.into_iter().map(String::as_str).collect();
        let update = feed(&mut Store::default(), &[("f.yaml", Ok(&text))]);
        assert!(update.diagnostics.is_empty());
        let policies = &update.resources.authorization_policies;
        let created_s = policies[&key("a")].object().unwrap().meta.created_s;
        assert_eq!(created_s, Some(1_735_689_600));
    }
}

/// That one of the two files can not be read for a moment does not settle which is meant.
#[test]
fn an_unreadable_file_does_not_decide_for_the_other() {
    let (one, two) = (policy("a", "/1"), policy("a", "/2"));
    let denied = Err("permission denied");
    for unreadable in ["f.yaml", "g.yaml"] {
        let mut store = Store::default();
        let files = [("f.yaml", Ok(&*one)), ("g.yaml", Ok(&*two))];
        feed(&mut store, &files);
        let half = files.map(|(path, text)| match path == unreadable {
            true => (path, denied),
            false => (path, text),
        });
        for _ in 0..2 {
            let update = feed(&mut store, &half);
            assert_eq!(in_force(&update.resources), ["a broken"]);
            assert_eq!(update.resources.unreadable, [], "its scope is known");
        }
        let gone = files.map(|(path, _)| (path, denied));
        assert_eq!(in_force(&feed(&mut store, &gone).resources), ["a broken"]);
        assert_eq!(in_force(&feed(&mut store, &half).resources), ["a broken"]);
        let update = feed(
            &mut store,
            &[("f.yaml", Ok(&one)), ("g.yaml", Ok("# empty"))],
        );
        assert_eq!(in_force(&update.resources), ["a good /1"], "it is settled");
    }
}

proptest::proptest! {
    /// The same files in any order put the same in force, after any past.
    #[test]
    fn the_order_of_files_decides_nothing(
        steps in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(0..12u8, 0..4), 3),
            1..5,
        ),
        turn in 0..6usize,
    ) {
        let (mut one, mut other) = (Store::default(), Store::default());
        for step in &steps {
            let texts: Vec<String> = step.iter().map(|documents| text(documents)).collect();
            let files = ["f.yaml", "g.yaml", "h.yaml"];
            let files: Vec<_> = files.into_iter().zip(&texts).map(|(n, t)| (n, Ok(&**t))).collect();
            let mut turned = files.clone();
            turned.rotate_left(turn % 3);
            if turn >= 3 {
                turned.reverse();
            }
            let (a, b) = (feed(&mut one, &files), feed(&mut other, &turned));
            proptest::prop_assert_eq!(in_force(&a.resources), in_force(&b.resources));
        }
    }
}

/// Policies by number: of four names, good with two contents, or broken.
fn text(documents: &[u8]) -> String {
    let document = |n: &u8| {
        let name = ["a", "b", "c", "d"][usize::from(n % 4)];
        match n / 4 {
            0 => policy(name, "/1"),
            1 => policy(name, "/2"),
            _ => policy(name, "/3").replace("paths", "path"),
        }
    };
    documents.iter().map(document).collect()
}
