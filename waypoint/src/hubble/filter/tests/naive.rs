//! Lists of filters against a naive reading of the flow's JSON, for any flow (specs/policies.md 3.2).

use proptest::prelude::*;
use serde_json::Value;

use super::flow;
use crate::hubble::filter::Filters;
use crate::hubble::messages::{
    Endpoint, Flow, FlowFilter, Http, Layer4, Layer7, Tcp, Verdict, layer4, layer7,
};

/// The naive reading: the flow's JSON, field by field, value by value.
fn naive(filter: &FlowFilter, flow: &Value) -> bool {
    let text = |path: &str| {
        flow.pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let number = |path: &str| flow.pointer(path).and_then(Value::as_u64);
    let any = |values: &[String], test: &dyn Fn(&str) -> bool| {
        values.is_empty() || values.iter().any(|value| test(value))
    };
    let pod = |end: &str, name: &str| {
        let (namespace, prefix) = name.split_once('/').unwrap_or(("default", name));
        let has = (
            text(&format!("/{end}/namespace")),
            text(&format!("/{end}/pod_name")),
        );
        has != ("", "") && (namespace.is_empty() || has.0 == namespace) && has.1.starts_with(prefix)
    };
    let verdict = |wanted: &i32| Verdict::try_from(*wanted).unwrap().name() == text("/verdict");
    let code = number("/l7/http/code").unwrap_or(0).to_string();
    any(&filter.source_pod, &|name| pod("source", name))
        && any(&filter.destination_pod, &|name| pod("destination", name))
        && any(&filter.http_method, &|method| {
            !text("/l7/http/method").is_empty()
                && method.to_lowercase() == text("/l7/http/method").to_lowercase()
        })
        && any(&filter.http_status_code, &|wanted| {
            code != "0"
                && (code == wanted
                    || wanted
                        .strip_suffix('+')
                        .is_some_and(|p| code.starts_with(p)))
        })
        && any(&filter.destination_port, &|port| {
            number("/l4/TCP/destination_port").is_some_and(|has| has.to_string() == port)
        })
        && any(&filter.protocol, &|protocol| match protocol {
            "tcp" => flow.pointer("/l4/TCP").is_some(),
            _ => flow.pointer("/l7/http").is_some(),
        })
        && (filter.verdict.is_empty() || filter.verdict.iter().any(verdict))
        && (filter.reply.is_empty()
            || match flow.pointer("/is_reply").and_then(Value::as_bool) {
                Some(reply) => filter.reply.contains(&reply),
                None => text("/verdict") == "DROPPED" && filter.reply.contains(&false),
            })
}

fn some<T: Clone + std::fmt::Debug + 'static>(
    values: &'static [T],
) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(proptest::sample::select(values), 0..3)
}

fn texts(values: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    some(values).prop_map(|values| values.into_iter().map(str::to_owned).collect())
}

fn any_filter() -> impl Strategy<Value = FlowFilter> {
    (
        texts(&["shop/", "shop/web", "/w", "web", "other/"]),
        texts(&["shop/", "shop/web", "other/a"]),
        texts(&["get", "POST"]),
        texts(&["404", "4+", "40+", "200", "2+"]),
        texts(&["80", "8080"]),
        texts(&["tcp", "http"]),
        some(&[0, 1, 2, 3]),
        some(&[true, false]),
    )
        .prop_map(
            |(from, to, method, status, port, protocol, verdict, reply)| FlowFilter {
                source_pod: from,
                destination_pod: to,
                http_method: method,
                http_status_code: status,
                destination_port: port,
                protocol,
                verdict,
                reply,
                ..FlowFilter::default()
            },
        )
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let of = |values: &'static [&'static str]| proptest::sample::select(values);
    (
        of(&["", "shop", "default", "other"]),
        of(&["", "web-1", "a"]),
        of(&["", "GET", "POST"]),
        proptest::sample::select(&[0_u32, 200, 404, 400][..]),
        proptest::sample::select(&[0_u32, 80, 8080][..]),
        0..4_i32,
        proptest::option::of(any::<bool>()),
        any::<[bool; 2]>(),
    )
        .prop_map(
            |(namespace, pod, method, code, port, verdict, is_reply, [l4, l7])| {
                let mut flow = flow();
                let end = Endpoint {
                    namespace: namespace.into(),
                    pod_name: pod.into(),
                    ..Endpoint::default()
                };
                (flow.source, flow.destination) = (Some(end), flow.source);
                let tcp = layer4::Protocol::Tcp(Tcp {
                    destination_port: port,
                    ..Tcp::default()
                });
                let http = layer7::Record::Http(Http {
                    code,
                    method: method.into(),
                    ..Http::default()
                });
                flow.l4 = l4.then_some(Layer4 {
                    protocol: Some(tcp),
                });
                flow.l7 = l7.then_some(Layer7 {
                    record: Some(http),
                    ..Layer7::default()
                });
                (flow.verdict, flow.is_reply) = (verdict, is_reply);
                flow
            },
        )
}

proptest! {
    /// Fields and, values or; one of the whitelist and none of the blacklist.
    #[test]
    fn lists_of_filters_are_read_as_a_naive_reader_would(
        white in proptest::collection::vec(any_filter(), 0..3),
        black in proptest::collection::vec(any_filter(), 0..2),
        flow in any_flow(),
    ) {
        let mut json = serde_json::to_value(&flow).unwrap();
        if flow.verdict == 0 {
            // Default values have no place in JSON.
            json["verdict"] = "VERDICT_UNKNOWN".into();
        }
        let naive = (white.is_empty() || white.iter().any(|f| naive(f, &json)))
            && !black.iter().any(|f| naive(f, &json));
        prop_assert_eq!(Filters::new(&white, &black).unwrap().want(&flow), naive);
    }
}
