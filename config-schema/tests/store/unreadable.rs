//! Parts of which not even the name can be told: what they may have held stays in force, and where
//! nothing is missing the waypoint is told that something unknown is there.

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::store::Store;

use crate::support::{feed, found, in_force, policy};

const GARBAGE: &str = "---\n{kind: [\n";

#[test]
fn all_that_a_file_provided_stays_while_a_part_of_it_is_unreadable() {
    let mut store = Store::default();
    let good = policy("a", "/1") + &policy("b", "/1");
    let (other, half) = (policy("c", "/1"), policy("b", "/2") + GARBAGE);
    feed(&mut store, &[("f.yaml", Ok(&good)), ("g.yaml", Ok(&other))]);
    for _ in 0..2 {
        let update = feed(&mut store, &[("f.yaml", Ok(&half))]);
        assert_eq!(in_force(&update.resources), ["a kept /1", "b good /2"]);
        assert_eq!(
            found(&update, Code::KeptLastGood),
            ["f.yaml:1:1 AuthorizationPolicy/shop/a stays in force: \
                 it was in f.yaml, part of which cannot be read now"]
        );
        assert_eq!(
            update.resources.unreadable,
            [],
            "the part replaces what is kept"
        );
    }
    let update = feed(&mut store, &[("f.yaml", Ok(&policy("b", "/2")))]);
    assert_eq!(in_force(&update.resources), ["b good /2"]);
}

#[test]
fn a_new_unreadable_part_has_an_unknown_scope_until_it_is_mended() {
    let mut store = Store::default();
    let (good, more) = (policy("a", "/1"), policy("a", "/1") + GARBAGE);
    let unreadable = |update: &cairn_config_schema::store::Update| {
        let places = update.resources.unreadable.iter();
        places
            .map(|(_, at)| at.as_ref().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    let update = feed(&mut store, &[("f.yaml", Ok(&more))]);
    assert_eq!(unreadable(&update), ["f.yaml:12:8"], "from a cold start");
    let update = feed(&mut store, &[("f.yaml", Ok(&good))]);
    assert_eq!(unreadable(&update), Vec::<String>::new());
    let update = feed(&mut store, &[("f.yaml", Ok(&more))]);
    assert_eq!(unreadable(&update), ["f.yaml:12:8"], "when it is added");
    let update = feed(&mut store, &[("f.yaml", Ok(GARBAGE))]);
    assert_eq!(in_force(&update.resources), ["a kept /1"]);
    assert_eq!(
        unreadable(&update),
        ["f.yaml:2:8"],
        "what is unknown is not replaced by `a`"
    );
}

#[test]
fn a_file_that_cannot_be_read_keeps_its_objects() {
    let mut store = Store::default();
    let denied = ("f.yaml", Err("permission denied"));
    let update = feed(&mut store, &[denied]);
    assert_eq!(
        update.resources.unreadable.len(),
        1,
        "nothing is known of it"
    );
    let good = policy("a", "/1");
    feed(&mut store, &[("f.yaml", Ok(&good))]);
    let update = feed(&mut store, &[denied]);
    assert_eq!(in_force(&update.resources), ["a kept /1"]);
    assert_eq!(
        found(&update, Code::Unreadable),
        ["f.yaml:1:1 cannot read f.yaml: permission denied"]
    );
    assert_eq!(update.resources.unreadable, []);
    assert!(!feed(&mut store, &[denied]).changed);
    let update = feed(&mut store, &[("f.yaml", Ok(&good))]);
    assert_eq!(in_force(&update.resources), ["a good /1"]);
}

/// What it provided last is known: nothing of its own.
#[test]
fn a_file_that_provided_nothing_of_its_own_is_missed_by_nobody() {
    let one = policy("a", "/1");
    for text in ["# nothing yet\n", &one] {
        let mut store = Store::default();
        let denied = [("f.yaml", Ok(&*one)), ("g.yaml", Err("permission denied"))];
        let cold = feed(&mut store, &denied);
        assert_eq!(cold.resources.unreadable.len(), 1, "never read");
        feed(&mut store, &[("f.yaml", Ok(&one)), ("g.yaml", Ok(text))]);
        let update = feed(&mut store, &denied);
        assert_eq!(update.resources.unreadable, []);
        assert_eq!(in_force(&update.resources), ["a good /1"]);
    }
}

#[test]
fn what_failed_closed_goes_on_failing_closed_in_an_unreadable_file() {
    let mut store = Store::default();
    let broken = policy("a", "/1").replace("paths", "path");
    feed(&mut store, &[("f.yaml", Ok(&broken))]);
    let update = feed(&mut store, &[("f.yaml", Err("gone for a moment"))]);
    assert_eq!(in_force(&update.resources), ["a broken"]);
}

/// It may be in the part that can not be read as well, and then it is contested.
#[test]
fn an_object_that_moved_into_another_file_waits_for_the_damage_to_be_mended() {
    let mut store = Store::default();
    let (a, b) = (policy("a", "/1"), policy("b", "/1"));
    let both = a.clone() + &b;
    let rest = a.clone() + GARBAGE;
    feed(&mut store, &[("f.yaml", Ok(&both))]);
    let moved = policy("b", "/2");
    let update = feed(&mut store, &[("f.yaml", Ok(&rest)), ("g.yaml", Ok(&moved))]);
    assert_eq!(in_force(&update.resources), ["a good /1", "b kept /1"]);
    assert_eq!(
        found(&update, Code::KeptLastGood),
        [
            "f.yaml:1:1 AuthorizationPolicy/shop/b stays in force: it was in f.yaml, part of which \
          cannot be read now; what g.yaml:2:1 says does not replace it"
        ]
    );
    let update = feed(&mut store, &[("f.yaml", Ok(&a)), ("g.yaml", Ok(&moved))]);
    assert_eq!(in_force(&update.resources), ["a good /1", "b good /2"]);
}
