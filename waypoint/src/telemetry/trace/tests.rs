//! A request's place in its trace: what it is told, what it tells on, what is noted of it.

use std::sync::Arc;

use cairn_filters::header_change::Headers as _;
use http::{HeaderMap, HeaderValue};

use super::propagate::Propagation;
use super::sampler::Sampler;
use super::settings::{Receiver, Tag, Tracing};
use super::*;
use crate::telemetry::fixtures;

const CLIENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn tracing(ratio: f64) -> Tracing {
    Tracing {
        sampler: Sampler::parent_or(ratio),
        propagation: Propagation::default(),
        tags: vec![],
        reports: true,
        istio_tags: true,
        receiver: Receiver::Environment,
    }
}

fn begin(headers: &HeaderMap, tracing: Tracing) -> Trace {
    let mut next = 0;
    Trace::begin(headers, &Arc::new(tracing), || {
        next += 1;
        next
    })
}

fn with(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
}

fn told(trace: &Trace, mut headers: HeaderMap) -> HeaderMap {
    trace.inject(&mut headers);
    headers
}

#[test]
fn a_sampled_request_tells_its_own_span_and_keeps_the_clients_as_its_parent() {
    let headers = with("traceparent", CLIENT);
    let trace = begin(&headers, tracing(0.0));
    assert_eq!(
        trace.id().unwrap().to_string(),
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
    let parent = trace.recording().unwrap().parent.unwrap();
    assert_eq!(parent.to_string(), "00f067aa0ba902b7");
    let told = told(&trace, headers);
    let own = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01";
    assert_eq!(told.get("traceparent").unwrap(), own);
}

#[test]
fn each_attempt_has_a_span_of_its_own() {
    let headers = with("traceparent", CLIENT);
    let mut trace = begin(&headers, tracing(0.0));
    for span in [11, 12] {
        trace.begin_attempt(&fixtures::endpoint(None), || span);
        let mut sent = headers.clone();
        trace.inject_attempt(&mut sent);
        let own = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{span:016x}-01");
        assert_eq!(sent.get("traceparent").unwrap(), own.as_str());
        trace.end_attempt(|attempt| attempt.fail("connect", "refused"));
    }
    let attempts = &trace.recording().unwrap().attempts;
    assert!(
        attempts
            .iter()
            .all(|a| a.ended.is_some() && a.error == Some("connect"))
    );
}

#[test]
fn the_context_of_an_unsampled_client_goes_on_untouched() {
    for headers in [
        with("traceparent", UNSAMPLED),
        with("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0"),
    ] {
        let trace = begin(&headers, tracing(1.0));
        assert!(!trace.is_recorded() && trace.id().is_some());
        assert_eq!(told(&trace, headers.clone()), headers);
    }
}

#[test]
fn a_client_without_a_trace_is_given_one_even_if_it_is_not_kept() {
    let trace = begin(&HeaderMap::new(), tracing(0.0));
    assert!(!trace.is_recorded());
    let told = told(&trace, HeaderMap::new());
    let header = told.get("traceparent").unwrap().to_str().unwrap();
    assert!(header.ends_with("-00"), "{header}");
    assert!(header.contains(&trace.id().unwrap().to_string()));
}

#[test]
fn a_client_that_speaks_b3_is_answered_in_b3_and_w3c() {
    let headers = with("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
    let trace = begin(&headers, tracing(0.0));
    let told = told(&trace, headers);
    let b3 = "80f198ee56343ba864fe8b2a57d3eff7-0000000000000001-1";
    assert_eq!(told.get("b3").unwrap(), b3);
    let w3c = "00-80f198ee56343ba864fe8b2a57d3eff7-0000000000000001-01";
    assert_eq!(told.get("traceparent").unwrap(), w3c);
}

#[test]
fn what_vendors_said_of_a_trace_that_can_not_be_read_is_not_told_on() {
    let mut headers = with("traceparent", "00-nonsense");
    headers.insert("tracestate", HeaderValue::from_static("vendor=1"));
    let trace = begin(&headers, tracing(1.0));
    let told = told(&trace, headers);
    assert!(told.get("tracestate").is_none());
    assert_ne!(told.get("traceparent").unwrap(), "00-nonsense");
}

#[test]
fn without_reporting_the_context_goes_on_and_nothing_is_noted() {
    let silent = Tracing {
        reports: false,
        ..tracing(1.0)
    };
    let headers = with("traceparent", CLIENT);
    let trace = begin(&headers, silent);
    assert!(trace.recording().is_none() && trace.span().is_none());
    assert_eq!(told(&trace, headers.clone()), headers);
}

#[test]
fn tags_from_headers_are_taken_as_the_client_sent_them() {
    let tag = |header: &'static str| Tag {
        name: header.into(),
        value: TagValue::Header {
            name: header.parse().unwrap(),
            default: None,
        },
    };
    let tagged = Tracing {
        tags: vec![tag("x-user"), tag("x-none")],
        ..tracing(1.0)
    };
    let mut headers = with("x-user", "me");
    let trace = begin(&headers, tagged);
    headers.set(&"x-user".parse().unwrap(), HeaderValue::from_static("you"));
    let tags = &trace.recording().unwrap().tags;
    assert_eq!(tags, &[Some(HeaderValue::from_static("me")), None]);
}

#[test]
fn nothing_traced_still_knows_the_clients_trace() {
    let trace = Trace::of_client(&with("traceparent", CLIENT));
    assert_eq!(
        trace.id().unwrap().to_string(),
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
    assert_eq!(
        told(&trace, with("traceparent", CLIENT)),
        with("traceparent", CLIENT)
    );
}
