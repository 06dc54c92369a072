//! What the tests of the chain build their cases from.

mod answering;
mod judging;

use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    Action, AppProtocol, Backend, Filter, HttpMatch, HttpRoute, HttpRule, Operation, PathMatch,
    PathPattern, PathRewrite, PolicyRule, Redirect, Source, StringMatch, Values, Waypoint,
};
use http::StatusCode;

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
            strict: false,
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
        redirect_failure: Default::default(),
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
        stream_routes: Vec::new(),
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
            more: None,
        }],
        filters,
        backends,
        traffic: Default::default(),
        broken: None,
    }
}

fn cluster(name: &str) -> BackendTarget {
    BackendTarget::Cluster(ClusterKey::new(ObjectKey::new("default", name), 80))
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
        provider: None,
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

fn view<'a>(target: &'a str, headers: &'a HeaderMap) -> RequestView<'a, 'a> {
    RequestView {
        peer: None,
        attested_by: Attestation::Certificate,
        source_ip: "10.1.0.1".parse().unwrap(),
        destination: "10.0.0.1:8080".parse().unwrap(),
        method: &Method::GET,
        target,
        authority: "web:8080",
        headers,
        login: None,
        external: External::Unasked,
        trial: None,
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

fn redirect() -> Filter {
    Filter::Redirect(Redirect {
        scheme: None,
        hostname: Some("other.example".into()),
        port: Some(80),
        path: Some(PathRewrite::Prefix("/new".into())),
        status: StatusCode::MOVED_PERMANENTLY,
    })
}

fn tcp(chain: &PortChain) -> Verdict {
    chain.decide_tcp(&StreamView {
        peer: None,
        attested_by: Attestation::Certificate,
        source_ip: "10.1.0.1".parse().unwrap(),
        destination: "10.0.0.1:8080".parse().unwrap(),
        found: None,
    })
}
