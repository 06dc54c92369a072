//! An object that was good and is broken now stays in force as it was.

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::store::Store;

use crate::support::{feed, found, in_force, policy};

#[test]
fn a_broken_object_keeps_its_last_good_version_until_it_is_mended_or_deleted() {
    let mut store = Store::default();
    let good = policy("a", "/1") + &policy("b", "/1");
    let broken = policy("a", "/2").replace("paths", "path") + &policy("b", "/2");
    let mended = policy("a", "/3") + &policy("b", "/3");

    let update = feed(&mut store, &[("f.yaml", Ok(&good))]);
    assert_eq!(in_force(&update.resources), ["a good /1", "b good /1"]);

    for _ in 0..2 {
        let update = feed(&mut store, &[("f.yaml", Ok(&broken))]);
        assert_eq!(in_force(&update.resources), ["a kept /1", "b good /2"]);
        assert_eq!(
            found(&update, Code::KeptLastGood),
            ["f.yaml:2:1 AuthorizationPolicy/shop/a is broken; \
                 its last good version stays in force"]
        );
        assert_eq!(
            found(&update, Code::UnknownField),
            ["f.yaml:10:23 there is no field `path` here"]
        );
    }
    let update = feed(&mut store, &[("f.yaml", Ok(&mended))]);
    assert_eq!(in_force(&update.resources), ["a good /3", "b good /3"]);
    assert!(update.diagnostics.is_empty());

    feed(&mut store, &[("f.yaml", Ok(&broken))]);
    let update = feed(&mut store, &[("f.yaml", Ok(&policy("b", "/2")))]);
    assert_eq!(in_force(&update.resources), ["b good /2"]);
}

#[test]
fn without_a_good_version_it_is_broken() {
    let broken = policy("a", "/1").replace("paths", "path");
    let mut store = Store::default();
    let update = feed(&mut store, &[("f.yaml", Ok(&broken))]);
    assert_eq!(in_force(&update.resources), ["a broken"]);
    assert_eq!(found(&update, Code::KeptLastGood), Vec::<String>::new());
    let update = feed(&mut store, &[("f.yaml", Ok(&policy("a", "/1")))]);
    assert_eq!(in_force(&update.resources), ["a good /1"]);
}

#[test]
fn a_syntax_error_is_a_broken_object_if_its_lines_still_name_it() {
    let mut store = Store::default();
    feed(&mut store, &[("f.yaml", Ok(&policy("a", "/1")))]);
    let broken = policy("a", "/2").replace("rules:", "rules: [");
    let update = feed(&mut store, &[("f.yaml", Ok(&broken))]);
    assert_eq!(in_force(&update.resources), ["a kept /1"]);
    assert_eq!(update.resources.unreadable, []);
}

#[test]
fn the_last_good_version_follows_the_object_to_another_file() {
    let mut store = Store::default();
    feed(&mut store, &[("f.yaml", Ok(&policy("a", "/1")))]);
    let broken = policy("a", "/2").replace("paths", "path");
    let update = feed(&mut store, &[("g.yaml", Ok(&broken))]);
    assert_eq!(in_force(&update.resources), ["a kept /1"]);
}

#[test]
fn a_removed_file_takes_its_objects_with_it() {
    let mut store = Store::default();
    let (a, b) = (policy("a", "/1"), policy("b", "/1"));
    feed(&mut store, &[("a.yaml", Ok(&a)), ("b.yaml", Ok(&b))]);
    let update = feed(&mut store, &[("b.yaml", Ok(&b))]);
    assert_eq!(in_force(&update.resources), ["b good /1"]);
    assert!(update.changed);
    let update = feed(&mut store, &[]);
    assert_eq!(in_force(&update.resources), Vec::<String>::new());
    let broken = a.replace("paths", "path");
    let update = feed(&mut store, &[("a.yaml", Ok(&broken))]);
    assert_eq!(
        in_force(&update.resources),
        ["a broken"],
        "removal is forgetting"
    );
}
