//! Each mode by example, and what must hold for every target.

use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None as Off, Strict};
use proptest::prelude::*;

use super::*;

const MODES: [PathNormalization; 5] = [Strict, Off, Base, MergeSlashes, DecodeAndMergeSlashes];

fn path(target: &str, mode: PathNormalization) -> Result<String, Rejection> {
    normalise(target, mode).map(|t| t.path.into_owned())
}

#[track_caller]
fn becomes(mode: PathNormalization, cases: &[(&str, &str)]) {
    for (target, expected) in cases {
        let normalised = path(target, mode);
        assert_eq!(normalised.as_deref(), Ok(*expected), "{target} in {mode:?}");
    }
}

#[track_caller]
fn refuses(mode: PathNormalization, cases: &[(&str, Rejection)]) {
    for (target, reason) in cases {
        assert_eq!(path(target, mode), Err(*reason), "{target} in {mode:?}");
    }
}

#[test]
fn strict_merges_resolves_and_decodes() {
    becomes(
        Strict,
        &[
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a//../b", "/b"),
            ("/%61dmin", "/admin"),
            ("/%7Euser/%2D%5f", "/~user/-_"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%2e/a", "/a"),
            ("/a%20b%c3%a9", "/a%20b%C3%A9"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/a..b/c.;d", "/a..b/c.;d"),
            ("/a;x=1/../b", "/b"),
            ("/{a}|\"b\"", "/{a}|\"b\""),
        ],
    );
}

#[test]
fn strict_refuses_what_two_parsers_could_read_differently() {
    refuses(
        Strict,
        &[
            ("/a%2fb", Rejection::EscapedSlash),
            ("/a%2Fb", Rejection::EscapedSlash),
            ("/..%2fadmin", Rejection::EscapedSlash),
            ("/a%5cb", Rejection::EscapedBackslash),
            ("/a%5Cb", Rejection::EscapedBackslash),
            ("/a%00", Rejection::EscapedNul),
            ("/a\\b", Rejection::Backslash),
            ("/\u{e9}", Rejection::NonAscii),
            ("/a%", Rejection::Escape),
            ("/a%2", Rejection::Escape),
            ("/a%zz", Rejection::Escape),
            ("/a%+1", Rejection::Escape),
            ("/%u002e", Rejection::Escape),
            ("/..;", Rejection::HiddenDotSegment),
            ("/a/..;/b", Rejection::HiddenDotSegment),
            ("/a/..;x=y/b", Rejection::HiddenDotSegment),
            ("/a/.;/b", Rejection::HiddenDotSegment),
            ("/a/%2e%2e;x/b", Rejection::HiddenDotSegment),
            ("/a/.%2E;/b", Rejection::HiddenDotSegment),
            ("/a/..%3bx/b", Rejection::HiddenDotSegment),
            ("/a/..%3B", Rejection::HiddenDotSegment),
        ],
    );
}

#[test]
fn a_double_escape_stays_as_it_is() {
    for mode in MODES {
        becomes(mode, &[("/a%252fb%252e%255c", "/a%252fb%252e%255c")]);
    }
}

#[test]
fn no_mode_lets_a_control_character_a_space_or_a_fragment_through() {
    for mode in MODES {
        refuses(
            mode,
            &[
                ("/a b", Rejection::Control),
                ("/a\tb", Rejection::Control),
                ("/a\0", Rejection::Control),
                ("/a\r\nb", Rejection::Control),
                ("/a\x7f", Rejection::Control),
                ("/?a b", Rejection::Control),
                ("/a#b", Rejection::Fragment),
                ("/?a#b", Rejection::Fragment),
            ],
        );
    }
}

#[test]
fn none_leaves_the_path_as_sent() {
    for sent in ["//a/../b%2F%00%zz\\", "/\u{e9}", "/..;/"] {
        becomes(Off, &[(sent, sent)]);
    }
}

#[test]
fn base_resolves_dot_segments_and_turns_backslashes() {
    becomes(
        Base,
        &[
            ("/a/../b", "/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a\\..\\b", "/b"),
            ("//a//b", "//a//b"),
            ("/a//../b", "/a/b"),
            ("/a//.", "/a//"),
            ("/a%2fb%5c", "/a%2Fb%5C"),
            ("/..;/b", "/..;/b"),
            ("/\u{e9}", "/%C3%A9"),
            ("/%61", "/a"),
        ],
    );
}

#[test]
fn merge_slashes_is_base_and_then_one_slash() {
    becomes(
        MergeSlashes,
        &[
            ("//a///b/", "/a/b/"),
            ("/a//../b", "/a/b"),
            ("/.//a", "/a"),
            ("/\\a", "/a"),
            ("/a%2f%2fb", "/a%2F%2Fb"),
        ],
    );
}

#[test]
fn decode_and_merge_slashes_decodes_escaped_slashes_first() {
    becomes(
        DecodeAndMergeSlashes,
        &[
            ("/a%2fb", "/a/b"),
            ("/a%2F%2Fb", "/a/b"),
            ("/a%5cb", "/a/b"),
            ("/a%5C..%2fb", "/b"),
            ("/a/..%2f..%2Fadmin", "/admin"),
        ],
    );
}

#[test]
fn modes_that_decode_refuse_malformed_escapes_lest_decoding_makes_one() {
    for mode in [Base, MergeSlashes, DecodeAndMergeSlashes] {
        refuses(
            mode,
            &[
                ("/x/%%32e%%32e/admin", Rejection::Escape),
                ("/a%2", Rejection::Escape),
                ("/a%00", Rejection::EscapedNul),
            ],
        );
    }
}

#[test]
fn the_query_is_kept_as_sent() {
    for mode in MODES {
        let target = normalise("/a?b=/../c%2F%zz\\//&d?e", mode).unwrap();
        assert_eq!(
            (&*target.path, target.query),
            ("/a", Some("b=/../c%2F%zz\\//&d?e"))
        );
    }
    let target = normalise("/a//b?q=1", Strict).unwrap();
    assert_eq!(target.path_and_query(), "/a/b?q=1");
    assert!(target.is_changed());
    assert_eq!(normalise("/a?", Strict).unwrap().path_and_query(), "/a?");
}

#[test]
fn an_unchanged_target_is_not_copied() {
    for mode in MODES {
        let sent = "/a/b.c/.d/%20%C3?q";
        let target = normalise(sent, mode).unwrap();
        assert!(matches!(target.path, Cow::Borrowed(_)), "{mode:?}");
        assert!(matches!(target.path_and_query(), Cow::Borrowed(s) if s == sent));
        assert!(!target.is_changed());
    }
}

#[test]
fn an_absolute_target_gives_its_path_and_its_authority() {
    let read = |target| {
        let t = normalise(target, Strict).unwrap();
        (
            t.authority.map(str::to_owned),
            t.path_and_query().into_owned(),
        )
    };
    let host = |h: &str| Some(h.to_owned());
    assert_eq!(
        read("http://foo:80/a//b?q"),
        (host("foo:80"), "/a/b?q".to_owned())
    );
    assert_eq!(read("HTTPS://foo/a"), (host("foo"), "/a".to_owned()));
    assert_eq!(read("http://foo"), (host("foo"), "/".to_owned()));
    assert_eq!(read("http://foo?q=1"), (host("foo"), "/?q=1".to_owned()));
    assert_eq!(
        read("http:///a"),
        (host(""), "/a".to_owned()),
        "the caller refuses it"
    );
}

#[test]
fn the_star_is_a_target_and_other_forms_are_not() {
    becomes(Strict, &[("*", "*")]);
    refuses(
        Strict,
        &[
            ("", Rejection::Form),
            ("a", Rejection::Form),
            ("?q", Rejection::Form),
            ("**", Rejection::Form),
            ("*?q", Rejection::Form),
            ("foo:80", Rejection::Form),
            ("ftp://foo/a", Rejection::Form),
            ("\\a", Rejection::Form),
        ],
    );
}

fn any_target() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "//", ".", "..", "%2e", "%2E%2e", "%2f", "%5C", "\\", ";", "%3b", "a", "B", "%61",
        "%25", "2e", "2", "%", "%20", "%c3", "%00", "\u{e9}", "~", "%7e",
    ]);
    prop::collection::vec(piece, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// Dot segments and escapes as another server might read them: everything decoded, once.
fn is_unambiguous(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let hidden = ["%2e", "%2f", "%5c", "%00", "%61", "%7e", "\\"];
    path.starts_with('/')
        && path.is_ascii()
        && !path.contains("//")
        && !hidden.iter().any(|h| lower.replace("%25", "").contains(h))
        && path
            .split('/')
            .all(|s| !matches!(s.split(';').next(), Some("." | "..")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn normalising_twice_is_normalising_once(target in any_target()) {
        for mode in MODES {
            if let Ok(once) = path(&target, mode) {
                prop_assert_eq!(path(&once, mode), Ok(once.clone()), "{:?}", mode);
            }
        }
    }

    #[test]
    fn a_strict_path_reads_the_same_everywhere(target in any_target()) {
        if let Ok(path) = path(&target, Strict) {
            prop_assert!(is_unambiguous(&path), "{}", path);
        }
    }

    #[test]
    fn what_is_plain_already_is_neither_changed_nor_refused(
        segments in prop::collection::vec("[a-zA-Z0-9_~-][a-zA-Z0-9._~;=:@!$&'()*+,-]{0,5}", 0..5),
    ) {
        let sent = format!("/{}", segments.join("/"));
        for mode in MODES {
            prop_assert!(!normalise(&sent, mode).unwrap().is_changed());
        }
    }

    #[test]
    fn no_target_makes_it_panic(target in "\\PC*") {
        for mode in MODES {
            let _ = normalise(&target, mode);
        }
    }
}
