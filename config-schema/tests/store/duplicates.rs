//! One name, two objects.

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::store::Store;

use crate::support::{feed, found, in_force, policy};

#[test]
fn the_first_in_file_order_wins_and_both_places_are_named() {
    let (one, two) = (policy("a", "/1"), policy("a", "/2"));
    let update = feed(
        &mut Store::default(),
        &[("b.yaml", Ok(&one)), ("a.yaml", Ok(&two))],
    );
    assert_eq!(in_force(&update.resources), ["a good /1"]);
    assert_eq!(
        found(&update, Code::DuplicateObject),
        [
            "a.yaml:2:1 AuthorizationPolicy/shop/a is defined twice with different content, \
             first at b.yaml:2:1"
        ]
    );
    let twice = one + &two;
    let update = feed(&mut Store::default(), &[("f.yaml", Ok(&twice))]);
    assert_eq!(
        found(&update, Code::DuplicateObject),
        [
            "f.yaml:12:1 AuthorizationPolicy/shop/a is defined twice with different content, \
             first at f.yaml:2:1"
        ]
    );
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
fn a_broken_first_is_not_replaced_by_a_good_second() {
    let (good, broken) = (
        policy("a", "/1"),
        policy("a", "/2").replace("paths", "path"),
    );
    let update = feed(
        &mut Store::default(),
        &[("f.yaml", Ok(&broken)), ("g.yaml", Ok(&good))],
    );
    assert_eq!(in_force(&update.resources), ["a broken"]);
    assert_eq!(found(&update, Code::DuplicateObject).len(), 1);
}
