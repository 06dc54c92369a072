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

/// Sources tell what changed since the last time, so that one that was deleted and made anew in between is one change: it
/// ends as it would in two.
#[test]
fn what_was_made_anew_keeps_no_version_of_the_one_that_was_deleted() {
    let with_uid =
        |text: &str, uid: &str| text.replace("metadata:", &format!("metadata:\n  uid: {uid}"));
    let good = policy("a", "/1");
    let broken = good.replace("paths", "path");
    for (before, now, in_force_then) in [
        (with_uid(&good, "u-1"), with_uid(&broken, "u-2"), "a broken"),
        (
            with_uid(&good, "u-1"),
            with_uid(&broken, "u-1"),
            "a kept /1",
        ),
        // Files need not say it, and a state stored by an earlier version does not.
        (with_uid(&good, "u-1"), broken.clone(), "a kept /1"),
        (good.clone(), with_uid(&broken, "u-2"), "a kept /1"),
        (with_uid(&good, "u-1"), with_uid(&good, "u-2"), "a good /1"),
    ] {
        let mut store = Store::default();
        feed(&mut store, &[("k:a", Ok(&before))]);
        let update = feed(&mut store, &[("k:a", Ok(&now))]);
        assert_eq!(in_force(&update.resources), [in_force_then], "{now}");
        // What is broken anew has nothing to keep.
        let update = feed(&mut store, &[("k:a", Ok(&now.replace("shop", "shop\n")))]);
        assert_eq!(in_force(&update.resources), [in_force_then], "{now}");
    }
}
