//! What each filter takes (specs/policies.md 3.2), by examples.

mod naive;

use super::*;
use crate::hubble::flows::event;
use crate::hubble::messages::{
    DropReason, Endpoint, EventType, Experimental, Http, Ip, Layer4, Layer7, Service, Tcp,
    TraceContext, TraceParent, Verdict, layer4, layer7,
};

/// The request of `shop/web-1` to `orders` of `shop`, denied.
fn flow() -> Flow {
    Flow {
        uuid: "u1".into(),
        verdict: Verdict::Dropped as i32,
        drop_reason_desc: DropReason::PolicyDeny as i32,
        ip: Some(Ip {
            source: "10.0.0.7".into(),
            destination: "fd00::9".into(),
            ip_version: 1,
            encrypted: true,
            ..Ip::default()
        }),
        l4: Some(Layer4 {
            protocol: Some(layer4::Protocol::Tcp(Tcp {
                source_port: 41000,
                destination_port: 8080,
                flags: Some(TcpFlags {
                    syn: true,
                    ack: true,
                    ..TcpFlags::default()
                }),
            })),
        }),
        source: Some(Endpoint {
            identity: 300,
            cluster_name: "c1".into(),
            namespace: "shop".into(),
            pod_name: "web-1".into(),
            labels: vec![
                "k8s:app=web".into(),
                "k8s:tier=5".into(),
                "k8s:io.kubernetes.pod.namespace=shop".into(),
            ],
            workloads: vec![Workload {
                name: "web".into(),
                kind: "Deployment".into(),
            }],
            ..Endpoint::default()
        }),
        destination: Some(Endpoint {
            identity: 2,
            namespace: "shop".into(),
            labels: vec!["reserved:world".into()],
            ..Endpoint::default()
        }),
        r#type: 2,
        node_name: "waypoint-0".into(),
        destination_names: vec!["orders.shop.svc.cluster.local".into()],
        destination_service: Some(Service {
            name: "orders".into(),
            namespace: "shop".into(),
        }),
        l7: Some(Layer7 {
            r#type: 1,
            latency_ns: 0,
            record: Some(layer7::Record::Http(Http {
                code: 0,
                method: "POST".into(),
                url: "http://orders:80/a%20b/c?q=1".into(),
                protocol: "HTTP/2".into(),
                headers: vec![HttpHeader {
                    key: "user-agent".into(),
                    value: "curl".into(),
                }],
            })),
        }),
        event_type: Some(EventType {
            r#type: event::L7,
            sub_type: 0,
        }),
        traffic_direction: 1,
        is_reply: Some(false),
        trace_context: Some(TraceContext {
            parent: Some(TraceParent {
                trace_id: "abc".into(),
            }),
        }),
        ..Flow::default()
    }
}

fn response() -> Flow {
    let mut flow = flow();
    let Some(layer7::Record::Http(http)) = flow.l7.as_mut().unwrap().record.as_mut() else {
        unreachable!()
    };
    http.code = 404;
    (flow.is_reply, flow.verdict) = (Some(true), Verdict::Forwarded as i32);
    flow
}

fn wants(filter: FlowFilter, flow: &Flow) -> bool {
    Filters::new(&[filter], &[]).unwrap().want(flow)
}

fn is_refused(filter: FlowFilter) -> bool {
    Filters::new(&[filter], &[]).is_err()
}

/// A filter with one field of texts.
macro_rules! of {
    ($field:ident: $($value:expr),+) => {
        FlowFilter { $field: vec![$($value.into()),+], ..FlowFilter::default() }
    };
}

/// Asserts which texts of one field want the flow, and which do not.
macro_rules! texts {
    ($flow:expr, $field:ident: yes $yes:expr, no $no:expr) => {
        for text in $yes {
            assert!(wants(of!($field: text), &$flow), "{} {text:?}", stringify!($field));
        }
        for text in $no {
            assert!(!wants(of!($field: text), &$flow), "{} {text:?}", stringify!($field));
        }
    };
}

#[test]
fn names_are_beginnings_in_a_namespace() {
    texts!(flow(), source_pod: yes ["shop/web", "shop/web-1", "shop/", "/web"], no ["web", "shop/b", "other/"]);
    texts!(flow(), destination_pod: yes ["shop/"], no ["shop/o", "default/"]);
    texts!(flow(), destination_service: yes ["shop/ord", "shop/"], no ["orders", "web/"]);
    texts!(flow(), source_service: yes [""; 0], no ["shop/", "/"]);
    assert!(is_refused(of!(source_pod: "")));
}

#[test]
fn addresses_are_exact_or_in_a_block() {
    texts!(flow(), source_ip: yes ["10.0.0.7", "10.0.0.0/24"], no ["10.0.0.8", "10.1.0.0/16", "fd00::/8"]);
    texts!(flow(), destination_ip: yes ["fd00::9", "fd00:0::9", "fd00::/8"], no ["::9"]);
    texts!(flow(), source_ip_xlated: yes [""; 0], no ["10.0.0.7"]);
    for wrong in ["", "10.0.0", "10.0.0.0/99", "web"] {
        assert!(is_refused(of!(source_ip: wrong)), "{wrong}");
    }
}

#[test]
fn ports_identities_clusters_and_workloads() {
    texts!(flow(), source_port: yes ["41000"], no ["8080"]);
    texts!(flow(), destination_port: yes ["8080"], no ["41000", "80"]);
    assert!(is_refused(of!(destination_port: "65536")));
    assert!(wants(of!(source_identity: 300_u32), &flow()));
    assert!(!wants(of!(destination_identity: 300_u32), &flow()));
    texts!(flow(), source_cluster_name: yes ["c1"], no ["c"]);
    assert!(is_refused(of!(source_cluster_name: "")));
    let workload = |kind: &str, name: &str| Workload {
        name: name.into(),
        kind: kind.into(),
    };
    for (kind, name, wanted) in [
        ("", "web", true),
        ("Deployment", "web", true),
        ("Deployment", "", true),
        ("Job", "web", false),
        ("", "we", false),
    ] {
        let filter = of!(source_workload: workload(kind, name));
        assert_eq!(wants(filter, &flow()), wanted, "{kind}/{name}");
    }
}

/// specs/policies.md 3.2: Kubernetes' selectors, with `k8s:` and `any:`.
#[test]
fn labels_are_selected() {
    texts!(flow(), source_label:
        yes ["app=web", "app==web", "k8s:app=web", "any:app = web", "app", "!db", "app!=db", "db!=x",
            "app in (db, web)", "app notin (db),tier", "tier>4", "tier<6", "!reserved:world", ""],
        no ["app=db", "container:app=web", "!app", "app!=web", "app in (db)", "app notin (web)",
            "app,db", "tier>5", "reserved:world"]);
    texts!(flow(), destination_label: yes ["reserved:world", "world"], no ["k8s:world"]);
    for wrong in [
        "=web",
        "app in web",
        "app in (a",
        "app like (a)",
        "tier>x",
        "a b",
        "app=a b",
    ] {
        assert!(is_refused(of!(source_label: wrong)), "{wrong}");
    }
}

#[test]
fn hosts_and_nodes_are_patterns() {
    texts!(flow(), destination_fqdn: yes ["orders.shop.svc.cluster.local", "*.svc.cluster.local", "ORDERS.*", "*", "orders.*.local."], no ["orders", "*.com", "s*"]);
    texts!(flow(), node_name: yes ["waypoint-0", "waypoint*", "default/", "/", "def*/*-0"], no ["waypoint", "other/waypoint-0"]);
    for wrong in ["", "..", "a b", "a/b/c"] {
        assert!(is_refused(of!(node_name: wrong)), "{wrong}");
    }
}

/// specs/policies.md 3.2: exact, or a prefix with a plus; `5xx` as people write it.
#[test]
fn statuses_are_whole_or_beginnings() {
    texts!(response(), http_status_code: yes ["404", "4+", "40+", "4xx", "40x"], no ["400", "5+", "41+", "5xx"]);
    texts!(flow(), http_status_code: yes [""; 0], no ["404", "4+"]);
    for wrong in [
        "", "4", "40", "4040", "404+", "600", "6+", "x", "4x", "4++", "4+x", "0+",
    ] {
        assert!(is_refused(of!(http_status_code: wrong)), "{wrong}");
    }
}

/// specs/policies.md 3.2: expressions are searched for, in the path without escapes and query.
#[test]
fn requests_by_method_path_url_and_header() {
    texts!(flow(), http_method: yes ["POST", "post"], no ["GET", "pos"]);
    texts!(flow(), http_path: yes ["/a b/", "^/a", "c$", "b.c"], no ["q=1", "%20", "orders", "^a"]);
    texts!(flow(), http_url: yes ["%20", "q=1$", "^http://orders"], no ["a b"]);
    assert!(is_refused(of!(http_path: "(")) && is_refused(of!(http_url: "a{1000}{1000}")));
    let header = |key: &str, value: &str| HttpHeader {
        key: key.into(),
        value: value.into(),
    };
    assert!(wants(
        of!(http_header: header("user-agent", "curl")),
        &flow()
    ));
    assert!(!wants(
        of!(http_header: header("user-agent", "cur")),
        &flow()
    ));
    assert!(!wants(
        of!(http_header: header("User-Agent", "curl")),
        &flow()
    ));
}

/// specs/policies.md 3.2: HTTP filters beside an event type that leaves layer 7 out are a mistake.
#[test]
fn http_filters_need_events_of_layer_7() {
    let with = |types: &[i32]| FlowFilter {
        http_method: vec!["GET".into()],
        event_type: types
            .iter()
            .map(|number| EventTypeFilter {
                r#type: *number,
                ..EventTypeFilter::default()
            })
            .collect(),
        ..FlowFilter::default()
    };
    assert!(is_refused(with(&[event::TRACE])));
    assert!(!is_refused(with(&[event::TRACE, event::L7])));
    assert!(!is_refused(with(&[])));
}

#[test]
fn what_a_flow_is() {
    assert!(wants(of!(verdict: Verdict::Dropped), &flow()));
    assert!(!wants(of!(verdict: Verdict::Forwarded), &flow()));
    assert!(wants(
        of!(drop_reason_desc: DropReason::PolicyDeny),
        &flow()
    ));
    assert!(!wants(
        of!(drop_reason_desc: DropReason::Unknown),
        &response()
    ));
    assert!(wants(of!(reply: false), &flow()) && wants(of!(reply: true), &response()));
    assert!(wants(of!(encrypted: true), &flow()) && !wants(of!(encrypted: false), &flow()));
    assert!(wants(of!(ip_version: 1_i32), &flow()) && !wants(of!(ip_version: 2_i32), &flow()));
    assert!(wants(of!(traffic_direction: 1_i32), &flow()));
    texts!(flow(), protocol: yes ["http", "HTTP", "tcp"], no ["udp", "dns", "icmp", "kafka"]);
    assert!(is_refused(of!(protocol: "quic")));
    texts!(flow(), trace_id: yes ["abc"], no ["ab", ""]);
    texts!(flow(), uuid: yes ["u1"], no ["u"]);
    let flags = |syn, fin| TcpFlags {
        syn,
        fin,
        ..TcpFlags::default()
    };
    assert!(wants(of!(tcp_flags: flags(true, false)), &flow()));
    assert!(!wants(of!(tcp_flags: flags(true, true)), &flow()));
    let event = |number, match_sub_type| EventTypeFilter {
        r#type: number,
        match_sub_type,
        sub_type: 3,
    };
    assert!(wants(of!(event_type: event(event::L7, false)), &flow()));
    assert!(wants(of!(event_type: event(0, false)), &flow()));
    assert!(!wants(of!(event_type: event(event::L7, true)), &flow()));
    assert!(!wants(of!(dns_query: "a"), &flow()) && !wants(of!(ip_trace_id: 1_u64), &flow()));
    // Never half a filter: what can not be evaluated is refused.
    assert!(is_refused(FlowFilter {
        experimental: Some(Experimental {
            cel_expression: vec!["true".into()]
        }),
        ..FlowFilter::default()
    }));
}

/// A dropped flow without a direction counts as none of a reply.
#[test]
fn a_dropped_flow_without_direction_is_no_reply() {
    let mut unknown = flow();
    unknown.is_reply = None;
    assert!(wants(of!(reply: false), &unknown));
    unknown.verdict = Verdict::Forwarded as i32;
    assert!(!wants(of!(reply: false), &unknown) && !wants(of!(reply: true), &unknown));
}
