//! Flags as the server gets them, and flows as they are shown.

use clap::Parser;

use super::*;
use crate::hubble::messages::{
    Endpoint, EventType, Flow, FlowFilter, GetFlowsResponse, Ip, Policy, Service, Verdict,
    get_flows_response::ResponseTypes,
};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn asked(line: &str) -> GetFlowsRequest {
    let words = std::iter::once("observe").chain(line.split_whitespace());
    request(Line::try_parse_from(words).unwrap().args)
}

fn is_wrong(line: &str) -> bool {
    let words = std::iter::once("observe").chain(line.split_whitespace());
    Line::try_parse_from(words).is_err()
}

#[test]
fn without_flags_the_last_twenty() {
    assert_eq!(asked("").number, 20);
    assert_eq!(asked("--last 3").number, 3);
    assert_eq!(asked("--all").number, 0);
    assert_eq!(
        (asked("--first 3").number, asked("--first 3").first),
        (3, true)
    );
    assert_eq!((asked("-f").number, asked("-f").follow), (0, true));
    assert_eq!(asked("--since 5m").number, 0);
    assert!(is_wrong("--first 1 --last 1") && is_wrong("-f --first 1") && is_wrong("--since soon"));
}

/// As the `hubble` command does it: a flag about either end makes two filters, one for each.
#[test]
fn a_flag_about_either_end_makes_two_filters() {
    let request = asked("--pod shop/web --http-method GET --http-method POST");
    let [source, destination] = &request.whitelist[..] else {
        panic!("{request:?}");
    };
    assert_eq!(source.source_pod, ["shop/web"]);
    assert!(source.destination_pod.is_empty());
    assert_eq!(destination.destination_pod, ["shop/web"]);
    assert_eq!(source.http_method, ["GET", "POST"]);
    assert_eq!(destination.http_method, source.http_method);
    let one = asked("--from-pod shop/web --to-service shop/orders").whitelist;
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].destination_service, ["shop/orders"]);
}

#[test]
fn namespaces_are_those_of_bare_names() {
    let pods = |line: &str| asked(line).whitelist[0].source_pod.clone();
    assert_eq!(pods("--from-namespace shop"), ["shop/"]);
    assert_eq!(pods("--from-namespace shop --from-pod web"), ["shop/web"]);
    assert_eq!(pods("--namespace shop --pod web"), ["shop/web"]);
}

#[test]
fn not_turns_the_next_filter_round() {
    let request = asked("--verdict DROPPED --not --http-path ^/healthz --protocol http");
    assert_eq!(
        request.blacklist,
        [FlowFilter {
            http_path: vec!["^/healthz".into()],
            ..FlowFilter::default()
        }]
    );
    assert_eq!(request.whitelist[0].verdict, [2]);
    assert_eq!(request.whitelist[0].protocol, ["http"]);
    assert!(is_wrong("--verdict DROPPED --not"));
    assert!(is_wrong("--verdict NEVER") && is_wrong("--type x") && is_wrong("--tcp-flags a"));
}

fn denied() -> GetFlowsResponse {
    let flow = Flow {
        time: Some(Timestamp {
            seconds: 1_793_795_696,
            nanos: 789_000_000,
        }),
        verdict: Verdict::Dropped as i32,
        event_type: Some(EventType {
            r#type: 5,
            sub_type: 0,
        }),
        traffic_direction: 1,
        is_reply: Some(false),
        ip: Some(Ip {
            source: "10.0.0.7".into(),
            destination: "fd00::9".into(),
            ..Ip::default()
        }),
        source: Some(Endpoint {
            namespace: "shop".into(),
            pod_name: "web-1".into(),
            identity: 300,
            ..Endpoint::default()
        }),
        destination_service: Some(Service {
            name: "orders".into(),
            namespace: "shop".into(),
        }),
        ingress_denied_by: vec![Policy {
            name: "no-writes".into(),
            namespace: "shop".into(),
            kind: "AuthorizationPolicy".into(),
            ..Policy::default()
        }],
        summary: "rule 0 matches".into(),
        ..Flow::default()
    };
    GetFlowsResponse {
        response_types: Some(ResponseTypes::Flow(Box::new(flow))),
        ..GetFlowsResponse::default()
    }
}

/// specs/policies.md 3.1, with the policy named without being asked for.
#[test]
fn a_compact_line_names_the_policy() {
    let mut printer = Printer::new(Format::Compact, false, Paint::none());
    assert_eq!(
        printer.text(&denied()).unwrap(),
        "Nov 04 12:34:56.789: shop/web-1:0 (ID:300) -> shop/orders:0 (unknown) policy-verdict:none INGRESS \
        DENIED BY shop/no-writes (AuthorizationPolicy) (rule 0 matches)\n"
    );
}

#[test]
fn a_table_is_aligned_and_comes_at_the_end() {
    let mut printer = Printer::new(Format::Table, false, Paint::none());
    assert_eq!(printer.text(&denied()).unwrap(), "");
    let table = printer.end();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].find("SOURCE"), lines[1].find("shop/web-1"));
}
