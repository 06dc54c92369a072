//! The order, and every answer it can give.

use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    Action, AppProtocol, HeaderChange, HttpRoute, Operation, PathMatch, PathPattern, PathRewrite,
    PolicyRule, Redirect, Rewrite, Source, StringMatch, Values, Waypoint,
};
use proptest::prelude::*;

use super::*;

fn origin(kind: Kind, name: &str) -> Origin {
    Origin {
        kind,
        key: ObjectKey::new("default", name),
    }
}

/// A snapshot with a waypoint and nothing else.
fn snapshot() -> Snapshot {
    Snapshot {
        waypoint: Some(Waypoint {
            origin: origin(Kind::Gateway, "waypoint"),
            class: "cairn-waypoint".into(),
            serves_services: true,
            serves_workloads: true,
            xfcc_include_client_identity: false,
            policies: Vec::new(),
            blocked: None,
        }),
        ..Snapshot::default()
    }
}

fn service(policies: Vec<Policy>) -> Service {
    Service {
        key: ObjectKey::new("default", "web"),
        hostname: "web.default.svc.cluster.local".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        ports: Vec::new(),
        binding: Binding::Served,
        policies: policies.into_iter().map(Arc::new).collect(),
    }
}

fn chain(service: Service, rules: Option<Vec<HttpRule>>) -> PortChain {
    let route = |rules| {
        Arc::new(HttpRoute {
            origin: origin(Kind::HTTPRoute, "route"),
            created_s: None,
            rules,
            broken: false,
        })
    };
    let port = ServicePort {
        number: 8080,
        name: "http".into(),
        protocol: AppProtocol::Http,
        routes: rules.map(route).into_iter().collect(),
    };
    PortChain::compile(&snapshot(), &Arc::new(service), &port)
}

fn rule(prefix: &str, filters: Vec<Filter>, backends: Vec<Backend>) -> HttpRule {
    HttpRule {
        name: None,
        matches: vec![HttpMatch {
            path: PathMatch::Prefix(prefix.into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }],
        filters,
        backends,
        broken: None,
    }
}

fn cluster(name: &str) -> BackendTarget {
    BackendTarget::Cluster(ClusterKey {
        service: ObjectKey::new("default", name),
        port: 80,
    })
}

fn backend(target: BackendTarget) -> Backend {
    Backend {
        weight: 1,
        target,
        filters: Vec::new(),
    }
}

fn deny_path(path: &str) -> Policy {
    let operation = Operation {
        paths: Values {
            any_of: vec![PathPattern::Text(StringMatch::parse(path))],
            none_of: Vec::new(),
        },
        ..Operation::default()
    };
    Policy {
        origin: origin(Kind::AuthorizationPolicy, "deny"),
        action: Action::Deny,
        dry_run: false,
        rules: vec![PolicyRule {
            to: vec![operation],
            ..PolicyRule::default()
        }],
        broken: None,
    }
}

fn deny_remote(block: &str) -> Policy {
    let source = Source {
        remote_ip_blocks: Values {
            any_of: vec![block.parse().unwrap()],
            none_of: Vec::new(),
        },
        ..Source::default()
    };
    Policy {
        rules: vec![PolicyRule {
            from: vec![source],
            ..PolicyRule::default()
        }],
        ..deny_path("*")
    }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn view<'a>(target: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    RequestView {
        peer: None,
        source_ip: "10.1.0.1".parse().unwrap(),
        destination: "10.0.0.1:8080".parse().unwrap(),
        method: &Method::GET,
        target,
        authority: "web:8080",
        headers,
    }
}

fn answer_to(chain: &PortChain, target: &str) -> Answer {
    chain.decide(&view(target, &HeaderMap::new())).answer
}

fn cluster_name(destination: Result<Destination<'_>, Failure>) -> String {
    match destination.unwrap() {
        Destination::Cluster { key, .. } => key.to_string(),
        Destination::Dialled => "dialled".to_owned(),
    }
}

#[test]
fn without_route_and_policy_a_request_goes_to_the_service_it_asked_for() {
    let chain = chain(service(vec![]), None);
    let none = HeaderMap::new();
    let decision = chain.decide(&view("/", &none));
    assert_eq!(decision.answer, Answer::Forward);
    let destination = chain.backend(&decision, 0);
    assert_eq!(cluster_name(destination), "default/web:8080");
}

#[test]
fn a_workloads_chain_goes_to_the_address_dialled() {
    let chain = PortChain::for_workload(&snapshot());
    let none = HeaderMap::new();
    let decision = chain.decide(&view("/", &none));
    assert_eq!(cluster_name(chain.backend(&decision, 0)), "dialled");
}

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

fn redirect() -> Filter {
    Filter::Redirect(Redirect {
        scheme: None,
        hostname: Some("other.example".into()),
        port: Some(80),
        path: Some(PathRewrite::Prefix("/new".into())),
        status: StatusCode::MOVED_PERMANENTLY,
    })
}

#[test]
fn a_redirect_needs_no_backend() {
    let chain = chain(
        service(vec![]),
        Some(vec![rule("/old", vec![redirect()], vec![])]),
    );
    let expected = Answer::Redirect {
        status: StatusCode::MOVED_PERMANENTLY,
        location: HeaderValue::from_static("http://other.example/new/x?q"),
    };
    assert_eq!(answer_to(&chain, "/old/x?q"), expected);
}

#[test]
fn a_rule_without_backend_is_500() {
    let chain = chain(service(vec![]), Some(vec![rule("", vec![], vec![])]));
    let answer = answer_to(&chain, "/");
    assert_eq!(answer, Answer::NoBackend);
    assert_eq!(answer.outcome().unwrap().row().status, 500);
}

#[test]
fn a_broken_rule_is_500_even_if_it_redirects() {
    let broken = HttpRule {
        broken: Some("mirror is not supported".into()),
        ..rule("", vec![redirect()], vec![backend(cluster("v2"))])
    };
    let chain = chain(service(vec![]), Some(vec![broken]));
    let none = HeaderMap::new();
    let decision = chain.decide(&view("/", &none));
    assert_eq!(decision.reason().unwrap(), "mirror is not supported");
    assert_eq!(decision.answer.outcome().unwrap().row().status, 500);
}

#[test]
fn a_prefix_replacement_without_prefix_is_500_not_skipped() {
    let rewrite = Filter::Rewrite(Rewrite {
        hostname: None,
        path: Some(PathRewrite::Prefix("/new".into())),
    });
    let mut exact = rule("", vec![rewrite], vec![backend(cluster("v2"))]);
    exact.matches[0].path = PathMatch::Exact("/old".into());
    let chain = chain(service(vec![]), Some(vec![exact]));
    assert!(matches!(answer_to(&chain, "/old"), Answer::BrokenRule(_)));
}

#[test]
fn backends_share_by_weight_and_an_invalid_one_keeps_its_share() {
    let backends = vec![
        backend(cluster("v1")),
        backend(BackendTarget::Invalid("no Service default/v2".into())),
    ];
    let chain = chain(service(vec![]), Some(vec![rule("", vec![], backends)]));
    let none = HeaderMap::new();
    let decision = chain.decide(&view("/", &none));
    assert_eq!(cluster_name(chain.backend(&decision, 0)), "default/v1:80");
    let failure = chain.backend(&decision, 1).unwrap_err();
    assert_eq!(
        failure,
        Failure::InvalidBackend("no Service default/v2".into())
    );
    assert_eq!(failure.outcome().row().status, 500);
    assert_eq!(failure.outcome().row().grpc_status, 14);
}

fn set(name: &'static str, value: &'static str) -> HeaderChange {
    HeaderChange {
        set: vec![(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )],
        ..HeaderChange::default()
    }
}

#[test]
fn filters_run_in_their_order_and_the_backends_last() {
    let to = Backend {
        filters: vec![
            Filter::RequestHeaders(set("by", "backend")),
            Filter::ResponseHeaders(set("by", "backend")),
        ],
        ..backend(cluster("v2"))
    };
    let filters = vec![
        Filter::RequestHeaders(set("by", "first")),
        Filter::RequestHeaders(set("rule", "second")),
        Filter::ResponseHeaders(set("rule", "response")),
        Filter::Rewrite(Rewrite {
            hostname: Some(HeaderValue::from_static("v2.example")),
            path: Some(PathRewrite::Prefix("/new".into())),
        }),
    ];
    let chain = chain(service(vec![]), Some(vec![rule("/old", filters, vec![to])]));
    let none = HeaderMap::new();
    let decision = chain.decide(&view("/old/x?q", &none));
    let backend = chain.backend(&decision, 0).unwrap().backend();

    let mut request = headers(&[("host", "web")]);
    let path = decision.change_request(backend, &mut request);
    assert_eq!(path, "/new/x?q");
    let expected = [
        ("host", "v2.example"),
        ("by", "backend"),
        ("rule", "second"),
        ("x-envoy-original-path", "/old/x?q"),
    ];
    assert_eq!(request, headers(&expected));

    let mut response = HeaderMap::new();
    decision.change_response(backend, &mut response);
    assert_eq!(
        response,
        headers(&[("by", "backend"), ("rule", "response")])
    );
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

fn tcp(chain: &PortChain) -> Verdict {
    chain.decide_tcp(
        None,
        "10.1.0.1".parse().unwrap(),
        "10.0.0.1:8080".parse().unwrap(),
    )
}

#[test]
fn tcp_is_judged_by_policy_alone() {
    assert!(tcp(&chain(service(vec![]), None)).allowed);
    // An HTTP-only DENY rule denies all TCP (specs/istio-waypoint.md 4.8).
    assert!(!tcp(&chain(service(vec![deny_path("/admin")]), None)).allowed);
}

#[test]
fn the_clients_certificate_is_told_only_if_the_waypoint_is_asked_to() {
    let own = Identity::of_workload("cluster.local", "default", "waypoint").unwrap();
    let peer = Identity::of_workload("cluster.local", "default", "client").unwrap();
    let mut with = snapshot();
    if let Some(waypoint) = &mut with.waypoint {
        waypoint.xfcc_include_client_identity = true;
    }
    for (snapshot, told) in [(snapshot(), false), (with, true)] {
        let mut headers = headers(&[("x-forwarded-client-cert", "forged")]);
        PortChain::for_workload(&snapshot).clean(&mut headers, Some(&own), Some(&peer), || {
            HeaderValue::from_static("id")
        });
        let xfcc = headers.get(hygiene::X_FORWARDED_CLIENT_CERT);
        assert_eq!(xfcc.is_some(), told);
        assert!(xfcc.is_none_or(|v| v != "forged"));
    }
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
