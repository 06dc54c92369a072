//! The order: what is refused, what is denied, and who sees which path.

use proptest::prelude::*;

use super::*;

#[test]
fn policy_sees_the_normalised_path_and_so_does_the_backend() {
    let chain = chain(service(vec![deny_path("/admin*")]), None);
    for target in ["/admin", "//admin", "/x/../admin", "/%61dmin", "/./admin/x"] {
        assert_eq!(answer_to(&chain, target), Answer::Deny, "{target}");
    }
    let none = HeaderMap::new();
    let decision = chain.decide(&view("//x/../y?q", &none));
    assert_eq!(decision.answer, Answer::Forward);
    assert_eq!(decision.change_request(None, &mut HeaderMap::new()), "/y?q");
}

#[test]
fn a_path_with_parameters_passes_only_if_policy_allows_it_without_them_too() {
    let chain = chain(service(vec![deny_path("/admin")]), None);
    // A servlet takes all of these for /admin.
    for target in ["/admin;x=1", "/admin;", "/;y/admin", "/;/admin;x=1?q=2"] {
        assert_eq!(answer_to(&chain, target), Answer::Deny, "{target}");
    }
    for target in ["/admin/;x", "/admins;x", "/a;x=/admin", "/x?;/admin"] {
        assert_eq!(answer_to(&chain, target), Answer::Forward, "{target}");
    }
    let none = HeaderMap::new();
    let denied = chain.decide(&view("/admin;x=1", &none));
    assert_eq!(denied.target.unwrap().judged_path(), "/admin");
    let decision = chain.decide(&view("/items;v=2", &none));
    // What passes is sent on as it came.
    assert_eq!(
        decision.change_request(None, &mut HeaderMap::new()),
        "/items;v=2"
    );
}

#[test]
fn routes_see_the_normalised_path() {
    let to = backend(cluster("v2"));
    let chain = chain(service(vec![]), Some(vec![rule("/foo", vec![], vec![to])]));
    assert_eq!(answer_to(&chain, "//foo/%62ar"), Answer::Forward);
    assert_eq!(answer_to(&chain, "/foo/../bar"), Answer::NotFound);
}

#[test]
fn a_denied_request_is_denied_before_anything_else_is_said_about_it() {
    let broken = HttpRule {
        broken: Some("mirror is not supported".into()),
        ..rule("/broken", vec![], vec![])
    };
    let moved = rule("/moved", vec![redirect()], vec![]);
    let chain = chain(service(vec![deny_path("*")]), Some(vec![broken, moved]));
    for target in ["/broken", "/moved", "/nowhere"] {
        assert_eq!(answer_to(&chain, target), Answer::Deny, "{target}");
    }
}

#[test]
fn a_denial_knows_its_route_and_its_policy() {
    let to = backend(cluster("v2"));
    let chain = chain(
        service(vec![deny_path("*")]),
        Some(vec![rule("", vec![], vec![to])]),
    );
    let none = HeaderMap::new();
    let decision = chain.decide(&view("/", &none));
    assert!(matches!(&decision.found, Some(Found::Rule(r)) if r.rule == 0));
    assert_eq!(
        decision.details().unwrap(),
        "rbac_access_denied_matched_policy[ns[default]-policy[deny]-rule[0]]"
    );
    assert_eq!(
        chain.backend(&decision, 0).unwrap_err(),
        Failure::NotForwarded
    );
}

#[test]
fn a_path_that_is_refused_reaches_neither_routes_nor_policy() {
    let chain = chain(service(vec![]), None);
    let none = HeaderMap::new();
    let decision = chain.decide(&view("/a%2fb", &none));
    assert_eq!(decision.answer, Answer::BadPath(Rejection::EscapedSlash));
    assert!(decision.found.is_none() && decision.verdict.is_none());
    assert_eq!(decision.details().unwrap(), "path_normalization_failed");
    assert!(chain.backend(&decision, 0).is_err());
}

#[test]
fn the_authority_must_be_legal_and_agree_with_an_absolute_target() {
    let chain = chain(service(vec![]), None);
    let none = HeaderMap::new();
    let ask = |target, authority| {
        let view = RequestView {
            authority,
            ..view(target, &none)
        };
        chain.decide(&view).answer
    };
    let bad = |e| Answer::BadPath(Rejection::Authority(e));
    assert_eq!(ask("http://web:8080/", "WEB:8080"), Answer::Forward);
    assert_eq!(
        ask("http://other/", "web"),
        bad(AuthorityError::Contradiction)
    );
    assert_eq!(ask("http:///", "web"), bad(AuthorityError::Contradiction));
    assert_eq!(ask("/", "a@web"), bad(AuthorityError::UserInfo));
    assert_eq!(ask("/", ""), bad(AuthorityError::Missing));
    assert_eq!(
        ask("/", "").outcome().unwrap().row().details,
        "http.invalid_authority"
    );
}

#[test]
fn only_options_may_ask_for_the_server_as_a_whole() {
    let chain = chain(service(vec![]), None);
    assert_eq!(answer_to(&chain, "*"), Answer::BadPath(Rejection::Form));
    let none = HeaderMap::new();
    let view = RequestView {
        method: &Method::OPTIONS,
        ..view("*", &none)
    };
    assert_eq!(chain.decide(&view).answer, Answer::Forward);
}

#[test]
fn the_remote_address_is_the_right_most_of_x_forwarded_for() {
    let chain = chain(service(vec![deny_remote("192.0.2.0/24")]), None);
    let ask = |pairs: &[_]| chain.decide(&view("/", &headers(pairs))).answer;
    let xff = |value| ("x-forwarded-for", value);
    assert_eq!(ask(&[xff("192.0.2.1")]), Answer::Deny);
    assert_eq!(ask(&[xff("10.0.0.9, 192.0.2.1")]), Answer::Deny);
    assert_eq!(ask(&[xff("10.0.0.9"), xff("192.0.2.1")]), Answer::Deny);
    assert_eq!(ask(&[xff("192.0.2.1, 10.0.0.9")]), Answer::Forward);
    assert_eq!(ask(&[xff("192.0.2.1, rubbish")]), Answer::Forward);
    assert_eq!(ask(&[]), Answer::Forward);
}

#[test]
fn without_a_readable_x_forwarded_for_the_remote_address_is_the_peers() {
    let chain = chain(service(vec![deny_remote("10.1.0.0/16")]), None);
    let ask = |pairs: &[_]| chain.decide(&view("/", &headers(pairs))).answer;
    assert_eq!(ask(&[]), Answer::Deny);
    assert_eq!(ask(&[("x-forwarded-for", "rubbish")]), Answer::Deny);
}

#[test]
fn nothing_passes_a_waypoint_that_is_missing_or_blocked() {
    let mut blocked = snapshot();
    blocked.waypoint.as_mut().unwrap().blocked = Some("policies are unreadable".into());
    for snapshot in [blocked, Snapshot::default()] {
        let chain = PortChain::for_workload(&snapshot);
        assert!(matches!(answer_to(&chain, "/"), Answer::Refused(_)));
        assert!(!tcp(&chain).allowed);
    }
}

#[test]
fn nothing_passes_to_a_service_that_is_not_served() {
    let other = Service {
        binding: Binding::Unbound,
        ..service(vec![])
    };
    let chain = chain(other, None);
    assert!(matches!(answer_to(&chain, "/"), Answer::Refused(_)));
    assert!(!tcp(&chain).allowed);
}

#[test]
fn tcp_is_judged_by_policy_alone() {
    assert!(tcp(&chain(service(vec![]), None)).allowed);
    // An HTTP-only DENY rule denies all TCP (specs/istio-waypoint.md 4.8).
    assert!(!tcp(&chain(service(vec![deny_path("/admin")]), None)).allowed);
}

proptest! {
    /// However a path is spelled: either it is refused, or the backend gets one that policy, asked
    /// about exactly that one, allows.
    #[test]
    fn no_spelling_carries_a_request_past_policy(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "/", "//", ".", "..", "%2e", "%2f", "admin", "%61dmin", "x", ";", "\\", "%5c", "%25", "2e",
            ]),
            0..8,
        ),
    ) {
        let chain = chain(service(vec![deny_path("/admin*")]), None);
        let target = format!("/{}", pieces.concat());
        let none = HeaderMap::new();
        let decision = chain.decide(&view(&target, &none));
        if decision.answer == Answer::Forward {
            let sent = decision.change_request(None, &mut HeaderMap::new()).into_owned();
            prop_assert!(!sent.starts_with("/admin"), "{}", sent);
            prop_assert_eq!(answer_to(&chain, &sent), Answer::Forward);
        }
    }
}
