//! The truth table of path templates (specs/istio-waypoint.md 4.8, path templates).

use cairn_config_schema::snapshot::Operation;

use crate::request::{matches, operation, paths, request};

#[test]
fn truth_table() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str], &[&str])] = &[
        // Template, paths that match, paths that do not.
        ("/a/{*}",
            &["/a/b", "/a/b.c", "/a/%41", "/a/{*}"],
            &["/a", "/a/", "/a/b/", "/a/b/c", "/b/b", "/A/b", "", "a/b", "//a/b"]),
        ("/{*}",
            &["/a"],
            &["/", "", "/a/", "/a/b"]),
        ("/a/{*}/c",
            &["/a/b/c"],
            &["/a//c", "/a/c", "/a/b/b/c", "/a/b/c/", "/a/b/C"]),
        ("/a/{*}/",
            &["/a/b/"],
            &["/a/b", "/a//", "/a/b/c"]),
        ("/{*}/b/{*}",
            &["/a/b/c"],
            &["/a/b", "/a/b/", "/a/c/b", "/b/c"]),
        ("/a/{**}",
            &["/a/", "/a/b", "/a/b/c", "/a/b/", "/a//"],
            &["/a", "/ab", "/", "", "/b/a/"]),
        ("/{**}",
            &["/", "/a", "/a/b"],
            &["", "a"]),
        ("/store/{**}/cart",
            &["/store/a/cart", "/store/a/b/cart", "/store//cart", "/store/cart/cart"],
            &["/store/cart", "/store/a/cart/", "/store/a/carts", "/store/a/xcart", "/cart", "/store/"]),
        ("/{**}/a/b",
            &["/x/a/b", "//a/b", "/a/b/a/b"],
            &["/a/b", "/x/a/c/b", "/xa/b", "/x/b"]),
        ("/{*}/{**}",
            &["/a/", "/a/b", "/a/b/c"],
            &["/", "/a", "//b"]),
        ("/{*}/x/{**}/y.txt",
            &["/a/x/b/y.txt", "/a/x//y.txt"],
            &["/a/x/y.txt", "/a/x/b/yAtxt", "//x/b/y.txt"]),
    ];
    for (template, yes, no) in table {
        let rule = operation(Operation {
            paths: paths(&[template]),
            ..Operation::default()
        });
        for (list, expected) in [(yes, true), (no, false)] {
            for path in *list {
                let found = matches(&rule, &request().path(path));
                assert_eq!(found, expected, "template {template}, path {path}");
            }
        }
    }
}

#[test]
fn a_template_and_its_not_twin() {
    let rule = operation(Operation {
        paths: paths(&["/users/{*}", "!/users/{*}/keys", "!/users/root"]),
        ..Operation::default()
    });
    assert!(matches(&rule, &request().path("/users/ann")));
    assert!(!matches(&rule, &request().path("/users/ann/keys")));
    assert!(!matches(&rule, &request().path("/users/root")));
}

#[test]
fn without_an_operator_it_is_no_template() {
    let rule = operation(Operation {
        paths: paths(&["/a/*"]),
        ..Operation::default()
    });
    // A template's star would stop at the slash; a prefix does not.
    assert!(matches(&rule, &request().path("/a/b/c")));
    assert!(matches(&rule, &request().path("/a/")));
}
