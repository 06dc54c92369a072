//! Scheme, host, port and path of a Location.

use cairn_config_schema::snapshot::{PathMatch, PathNormalization, PathRewrite};
use http::StatusCode;

use super::*;
use crate::normalise::normalise;

fn plain() -> Redirect {
    Redirect {
        scheme: None,
        hostname: None,
        port: None,
        path: None,
        status: StatusCode::FOUND,
    }
}

fn on(path: PathMatch) -> HttpMatch {
    HttpMatch {
        path,
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
        more: None,
    }
}

/// Location for a request to `http://AUTHORITY/foo/bar?q=1` on a service port, with prefix `/foo`.
fn locate(redirect: &Redirect, authority: &str, service_port: u16) -> String {
    let target = normalise("/foo/bar?q=1", PathNormalization::Strict).unwrap();
    let matched = on(PathMatch::Prefix("/foo".into()));
    let location = location(redirect, &matched, &target, authority, service_port, &[]);
    location.unwrap().to_str().unwrap().to_owned()
}

#[test]
fn ports_are_explicit_then_the_schemes_then_the_services() {
    use RedirectScheme::{Http, Https};
    for (scheme, port, service_port, expected) in [
        (None, None, 80, "http://web/foo/bar?q=1"),
        (None, None, 8080, "http://web:8080/foo/bar?q=1"),
        (None, None, 443, "http://web:443/foo/bar?q=1"),
        (None, Some(80), 8080, "http://web/foo/bar?q=1"),
        (None, Some(8443), 80, "http://web:8443/foo/bar?q=1"),
        (Some(Http), None, 8080, "http://web/foo/bar?q=1"),
        (Some(Https), None, 8080, "https://web/foo/bar?q=1"),
        (Some(Https), Some(443), 80, "https://web/foo/bar?q=1"),
        (Some(Https), Some(80), 80, "https://web:80/foo/bar?q=1"),
        (Some(Https), Some(8443), 80, "https://web:8443/foo/bar?q=1"),
    ] {
        let redirect = Redirect {
            scheme,
            port,
            ..plain()
        };
        assert_eq!(
            locate(&redirect, "web:1234", service_port),
            expected,
            "{scheme:?} {port:?} {service_port}"
        );
    }
}

#[test]
fn the_host_is_the_requests_without_its_port() {
    assert_eq!(locate(&plain(), "[::1]:80", 80), "http://[::1]/foo/bar?q=1");
    let redirect = Redirect {
        hostname: Some("other.example".into()),
        ..plain()
    };
    let expected = "http://other.example/foo/bar?q=1";
    assert_eq!(locate(&redirect, "web", 80), expected);
}

#[test]
fn a_new_path_keeps_the_query() {
    for (path, expected) in [
        (PathRewrite::Full("/new".into()), "http://web/new?q=1"),
        (
            PathRewrite::Prefix("/new/".into()),
            "http://web/new/bar?q=1",
        ),
        (PathRewrite::Prefix("".into()), "http://web/bar?q=1"),
    ] {
        let redirect = Redirect {
            path: Some(path),
            ..plain()
        };
        assert_eq!(locate(&redirect, "web", 80), expected);
    }
}

#[test]
fn a_prefix_can_not_be_replaced_where_none_matched() {
    let redirect = Redirect {
        path: Some(PathRewrite::Prefix("/new".into())),
        ..plain()
    };
    let target = normalise("/foo", PathNormalization::Strict).unwrap();
    let matched = on(PathMatch::Exact("/foo".into()));
    let location = location(&redirect, &matched, &target, "web", 80, &[]);
    assert_eq!(location, None);
}

#[test]
fn a_token_is_not_sent_elsewhere() {
    let removed = [Arc::from("token")];
    let matched = on(PathMatch::Prefix("/".into()));
    for (sent, expected) in [
        ("/a?x=1&token=t&y=2", "http://web/a?x=1&y=2"),
        ("/a?t%6Fken=t", "http://web/a"),
        ("/a?", "http://web/a?"),
        ("/a?x=1", "http://web/a?x=1"),
    ] {
        let target = normalise(sent, PathNormalization::Strict).unwrap();
        let location = location(&plain(), &matched, &target, "web", 80, &removed);
        assert_eq!(location.unwrap(), expected, "{sent}");
    }
}
