//! Changes of an authorization service, each kind.

use cairn_config_schema::snapshot::{HeaderNames, StringMatch};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::{Changes, HeaderMutation, WhenThere, apply, to_upstream};

fn mutation(name: &'static str, value: &'static str, when_there: WhenThere) -> HeaderMutation {
    HeaderMutation {
        name: HeaderName::from_static(name),
        value: HeaderValue::from_static(value),
        when_there,
    }
}

#[test]
fn what_becomes_of_a_header_that_is_there_is_for_the_service_to_say() {
    use WhenThere::{Append, Keep, Replace, ReplaceOnly};
    for (when_there, there, absent) in [
        (Append, vec!["old", "new"], vec!["new"]),
        (Keep, vec!["old"], vec!["new"]),
        (Replace, vec!["new"], vec!["new"]),
        (ReplaceOnly, vec!["new"], vec![]),
    ] {
        let changes = [mutation("x-user", "new", when_there)];
        let mut headers = HeaderMap::new();
        apply(&changes, &mut headers);
        let values = |headers: &HeaderMap| -> Vec<String> {
            let values = headers.get_all("x-user").iter();
            values.map(|v| v.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(values(&headers), absent, "{when_there:?}");
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("old"));
        apply(&changes, &mut headers);
        assert_eq!(values(&headers), there, "{when_there:?}");
    }
}

#[test]
fn what_belongs_to_message_connection_or_waypoint_is_forbidden() {
    for name in [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "x-envoy-original-path",
        "x-forwarded-client-cert",
        "x_forwarded_client_cert",
    ] {
        let set = Changes {
            request: vec![mutation(name, "x", WhenThere::Replace)],
            ..Changes::default()
        };
        assert_eq!(set.forbidden().unwrap(), name);
        let removed = Changes {
            removed: vec![HeaderName::from_static(name)],
            ..Changes::default()
        };
        assert_eq!(removed.forbidden().unwrap(), name);
    }
    let fine = Changes {
        request: vec![mutation("x-user", "x", WhenThere::Replace)],
        removed: vec![HeaderName::from_static("authorization")],
        response: vec![mutation("set-cookie", "a=b", WhenThere::Append)],
        ..Changes::default()
    };
    assert_eq!(fine.forbidden(), None);
}

#[test]
fn an_http_answer_replaces_the_listed_headers_with_all_its_values() {
    let answered: HeaderMap = [
        ("x-user", "alice"),
        ("x-user", "bob"),
        ("x-other", "1"),
        ("content-type", "text/plain"),
        ("host", "elsewhere"),
        ("x-envoy-retry-on", "5xx"),
    ]
    .into_iter()
    .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
    .fold(HeaderMap::new(), |mut map, (n, v)| {
        map.append(n, v);
        map
    });
    let listed =
        |names: &[&str]| HeaderNames(names.iter().map(|n| StringMatch::parse(n)).collect());
    let mut request = HeaderMap::new();
    request.insert("x-user", HeaderValue::from_static("mallory"));
    apply(
        &to_upstream(answered.iter(), &listed(&["x-user"])),
        &mut request,
    );
    let users: Vec<_> = request.get_all("x-user").iter().collect();
    assert_eq!(users, ["alice", "bob"]);
    let all = to_upstream(answered.iter(), &listed(&["*"]));
    let names: Vec<_> = all.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["x-user", "x-user", "x-other"]);
}

#[test]
fn query_parameters_are_set_and_removed_and_others_stay_as_sent() {
    let changes = Changes {
        query_set: vec![("user".into(), "a b&c".into())],
        query_removed: vec!["token".into()],
        ..Changes::default()
    };
    let changed = |target| changes.change_target(target);
    assert_eq!(
        changed("/p?x=%7E&token=1&%74oken=2&user=eve&y").as_deref(),
        Some("/p?x=%7E&y&user=a+b%26c")
    );
    assert_eq!(changed("/p").as_deref(), Some("/p?user=a+b%26c"));
    assert_eq!(Changes::default().change_target("/p?x"), None);
    let only_removed = Changes {
        query_removed: vec!["token".into()],
        ..Changes::default()
    };
    assert_eq!(
        only_removed.change_target("/p?token=1").as_deref(),
        Some("/p")
    );
}
