//! How header values and query parameters are read.

use cairn_config_schema::snapshot::{PathMatch, Pattern};
use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;

fn exact(text: &str) -> TextMatch {
    TextMatch::Exact(text.into())
}

fn regex(source: &str) -> TextMatch {
    TextMatch::Regex(Pattern::compile(source).unwrap())
}

fn request<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> RequestParts<'a> {
    RequestParts {
        method: &Method::GET,
        authority: "Foo.example:80",
        path: "/",
        query,
        caller_namespace: None,
        caller_labels: None,
        headers,
        claims: None,
    }
}

fn header(name: &'static str, value: TextMatch, sent: &[(&'static str, &[u8])]) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in sent {
        let value = HeaderValue::from_bytes(value).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    let name = HeaderName::from_static(name);
    header_holds(&HeaderMatch { name, value }, &request(&headers, None))
}

fn query(name: &str, value: TextMatch, sent: &str) -> bool {
    let name = name.into();
    query_holds(&QueryMatch { name, value }, Some(sent))
}

#[test]
fn a_header_value_matches_exactly_or_as_a_whole_by_regex() {
    assert!(header("a", exact("1"), &[("a", b"1")]));
    assert!(!header("a", exact("1"), &[("a", b"12")]));
    assert!(!header("a", exact("1"), &[("b", b"1")]));
    assert!(header("a", regex("1+"), &[("a", b"111")]));
    assert!(!header("a", regex("1+"), &[("a", b"1112")]));
}

#[test]
fn an_absent_header_matches_nothing_not_even_the_empty_text() {
    assert!(!header("a", exact(""), &[]));
    assert!(!header("a", regex(".*"), &[]));
    assert!(header("a", exact(""), &[("a", b"")]));
}

#[test]
fn repeated_headers_are_joined_by_a_comma_and_cookies_by_a_semicolon() {
    let sent: [(_, &[u8]); 2] = [("a", b"1"), ("a", b"2")];
    assert!(header("a", exact("1,2"), &sent));
    assert!(!header("a", exact("1"), &sent));
    assert!(header("a", regex("1,."), &sent));
    let sent: [(_, &[u8]); 2] = [("cookie", b"a=1"), ("cookie", b"b=2")];
    assert!(header("cookie", exact("a=1; b=2"), &sent));
}

#[test]
fn a_value_that_is_not_utf8_matches_no_regex() {
    assert!(!header("a", regex(".*"), &[("a", b"\xff")]));
}

#[test]
fn host_is_the_authority_of_the_request() {
    assert!(header("host", exact("Foo.example:80"), &[]));
    assert!(!header("host", exact("bar"), &[("host", b"bar")]));
}

#[test]
fn of_a_repeated_query_parameter_only_the_first_counts() {
    assert!(query("a", exact("1"), "a=1&a=2"));
    assert!(!query("a", exact("2"), "a=1&a=2"));
    assert!(!query("A", exact("1"), "a=1"));
}

#[test]
fn query_names_and_values_are_percent_decoded_and_plus_is_a_plus() {
    assert!(query(
        "a b",
        exact("c d&=\u{e9}"),
        "a%20b=c%20d%26%3D%c3%A9"
    ));
    assert!(query("a", exact("b+c"), "a=b+c"));
    assert!(query("a", exact("100%"), "a=100%"));
    assert!(query("a", exact("%zz%4"), "a=%zz%4"));
    assert!(query("a", exact("1=2"), "a=1=2"));
}

#[test]
fn a_parameter_without_value_is_empty() {
    assert!(query("a", exact(""), "a"));
    assert!(query("a", exact(""), "b&a=&c"));
    assert!(!query("a", exact(""), "b"));
    let wanted = QueryMatch {
        name: "a".into(),
        value: regex(".*"),
    };
    assert!(!query_holds(&wanted, None));
}

#[test]
fn all_parts_must_hold() {
    let wanted = HttpMatch {
        path: PathMatch::Prefix("".into()),
        method: Some(Method::GET),
        headers: vec![HeaderMatch {
            name: HeaderName::from_static("a"),
            value: exact("1"),
        }],
        query: vec![QueryMatch {
            name: "q".into(),
            value: exact("1"),
        }],
        more: None,
    };
    let mut headers = HeaderMap::new();
    headers.insert("a", HeaderValue::from_static("1"));
    assert!(conditions_hold(&wanted, &request(&headers, Some("q=1"))));
    assert!(!conditions_hold(&wanted, &request(&headers, Some("q=2"))));
    assert!(!conditions_hold(
        &wanted,
        &request(&HeaderMap::new(), Some("q=1"))
    ));
    let post = RequestParts {
        method: &Method::POST,
        ..request(&headers, Some("q=1"))
    };
    assert!(!conditions_hold(&wanted, &post));
}

proptest! {
    #[test]
    fn whatever_is_percent_encoded_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
        let encoded: String = bytes.iter().map(|b| format!("%{b:02x}")).collect();
        prop_assert_eq!(&*percent_decoded(&encoded), &bytes[..]);
    }

    #[test]
    fn text_without_percent_signs_stays(text in "[^%]*") {
        prop_assert_eq!(&*percent_decoded(&text), text.as_bytes());
    }
}
