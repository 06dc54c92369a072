//! What becomes of a request that policy allows.

use cairn_config_schema::snapshot::{HeaderChange, Rewrite};

use super::*;

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
            http::HeaderName::from_static(name),
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
    decision.response_changes(backend).apply(&mut response);
    assert_eq!(
        response,
        headers(&[("by", "backend"), ("rule", "response")])
    );
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
