//! What a record is told as (specs/policies.md 3.1, 3.4).

use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::Action;
use http::StatusCode;

use super::*;
use crate::hubble::messages::{Flow, Verdict};
use crate::telemetry::exchange::Exchange;
use crate::telemetry::fixtures;
use crate::telemetry::otlp::fixtures::sampled;

fn teller() -> Teller {
    Teller {
        node: "waypoint-0".to_owned(),
        cluster: "default".to_owned(),
        seed: 7,
        redaction: Redaction {
            queries: false,
            headers: vec![USER_AGENT],
        },
    }
}

fn told(record: Record) -> Vec<Flow> {
    let flows = record.flows();
    let kept = Kept {
        number: 5,
        flows_before: 0,
        record,
    };
    let told = teller().flows(&kept);
    assert_eq!(
        told.len() as u64,
        flows,
        "flows are counted as they are told"
    );
    told
}

fn ended(mut exchange: Exchange) -> Vec<Flow> {
    told(Record::ended(
        &mut exchange,
        Duration::from_millis(12),
        false,
    ))
}

fn http(flow: &Flow) -> &Http {
    let record = flow.l7.as_ref().and_then(|l7| l7.record.as_ref()).unwrap();
    let layer7::Record::Http(http) = record;
    http
}

fn port(flow: &Flow) -> (u32, u32) {
    let layer4::Protocol::Tcp(tcp) = flow.l4.as_ref().unwrap().protocol.as_ref().unwrap();
    (tcp.source_port, tcp.destination_port)
}

/// specs/policies.md 3.4: request flow, response flow, policy-verdict flow.
#[test]
fn an_exchange_is_a_verdict_a_request_and_a_response() {
    let flows = ended(fixtures::http());
    let [verdict, request, response] = &flows[..] else {
        panic!("{flows:#?}");
    };
    assert_eq!(verdict.event_type.unwrap().r#type, event::POLICY_VERDICT);
    assert_eq!(verdict.verdict, Verdict::Forwarded as i32);

    assert_eq!(request.summary, "HTTP/1.1 GET http://httpbin:8000/a?b=1");
    assert_eq!(request.r#type, FlowType::L7 as i32);
    assert_eq!(request.event_type.unwrap().r#type, event::L7);
    assert_eq!(request.is_reply, Some(false));
    assert_eq!(request.traffic_direction, TrafficDirection::Ingress as i32);
    assert_eq!(http(request).code, 0);
    assert_eq!(port(request), (41000, 8080));
    let ip = request.ip.as_ref().unwrap();
    assert_eq!((&*ip.source, &*ip.destination), ("10.0.0.7", "10.0.0.9"));
    assert!(ip.encrypted);

    assert_eq!(
        response.summary,
        "HTTP/1.1 200 12ms (GET http://httpbin:8000/a?b=1)"
    );
    assert_eq!((response.is_reply, http(response).code), (Some(true), 200));
    assert_eq!(response.l7.as_ref().unwrap().latency_ns, 12_000_000);
    // Endpoints are the response's own: from the server to the client.
    assert_eq!(port(response), (8080, 41000));
    assert_eq!(response.source, request.destination);
    assert_eq!(response.source_service, request.destination_service);
    assert_eq!(response.destination_service, None);
}

/// specs/policies.md 3.3: identity, labels, pod, workloads.
#[test]
fn ends_have_labels_pod_workload_and_a_stable_identity() {
    let flows = ended(fixtures::http());
    let source = flows[1].source.as_ref().unwrap();
    assert_eq!(
        (&*source.namespace, &*source.pod_name),
        ("shop", "web-5d4f-x")
    );
    assert_eq!(
        (&*source.workloads[0].name, &*source.workloads[0].kind),
        ("web", "Deployment")
    );
    assert_eq!(
        source.labels,
        [
            "k8s:io.cilium.k8s.policy.cluster=default",
            "k8s:io.cilium.k8s.policy.serviceaccount=web",
            "k8s:io.kubernetes.pod.namespace=shop",
        ]
    );
    // In every replica and every version: clients keep it.
    assert_eq!(source.identity, 1_223_162);
    for flow in &flows {
        for end in [&flow.source, &flow.destination] {
            assert!((256..1 << 24).contains(&end.as_ref().unwrap().identity));
        }
    }
}

/// Pods of one Deployment have one identity: what tells them apart is not in it.
#[test]
fn replicas_share_an_identity() {
    let with = |hash: &str| {
        let mut exchange = fixtures::http();
        let mut workload = (*fixtures::workload("web", "v1")).clone();
        let labels = [("app", "web"), ("pod-template-hash", hash)];
        workload.labels = Some(Arc::new(labels.map(|(k, v)| (k.into(), v.into())).into()));
        exchange.source = Some(Arc::new(workload));
        ended(exchange)[1].source.clone().unwrap()
    };
    assert_eq!(with("a").identity, with("b").identity);
    assert!(with("a").labels.contains(&"k8s:app=web".to_owned()));
}

/// docs/kube-source.md, workloads from istiod.
#[test]
fn a_pod_of_another_cluster_is_told_as_that_ones() {
    let mut exchange = fixtures::http();
    let mut workload = (*fixtures::workload("web", "v1")).clone();
    workload.key = ObjectKey::new("shop", "web-9@east");
    exchange.source = Some(Arc::new(workload));
    let source = ended(exchange)[1].source.clone().unwrap();
    assert_eq!(
        (&*source.pod_name, &*source.cluster_name),
        ("web-9", "east")
    );
    let label = "k8s:io.cilium.k8s.policy.cluster=east";
    assert!(source.labels.contains(&label.to_owned()));
}

/// A client whose pod is not known is named by its certificate, and by its baggage for the workload alone.
#[test]
fn an_unknown_pod_is_known_by_its_certificate() {
    let mut exchange = fixtures::http();
    exchange.source = None;
    exchange.origin = fixtures::origin(
        "web",
        Some("k8s.deployment.name=frontend,k8s.namespace.name=elsewhere"),
    );
    let source = ended(exchange)[1].source.clone().unwrap();
    assert_eq!((&*source.namespace, &*source.pod_name), ("shop", ""));
    assert_eq!(source.workloads[0].name, "frontend");
}

/// specs/policies.md 3.4: 181 for an explicit denial, the policy by kind, namespace and name.
#[test]
fn a_denial_by_a_rule_names_it() {
    let mut exchange = fixtures::http();
    exchange.verdict = Some(fixtures::denied());
    exchange.reason = Some("rule 0 of no-writes matches".into());
    exchange.endpoint = None;
    exchange.http.as_mut().unwrap().status = Some(StatusCode::FORBIDDEN);
    let flows = ended(exchange);
    let [verdict, request, response] = &flows[..] else {
        panic!("{flows:#?}");
    };
    for flow in [verdict, request] {
        assert_eq!(flow.verdict, Verdict::Dropped as i32);
        assert_eq!(flow.drop_reason_desc, 181);
        assert_eq!(flow.drop_reason, 181);
        let by = &flow.ingress_denied_by[0];
        let name = (&*by.kind, &*by.namespace, &*by.name, by.revision);
        assert_eq!(name, ("AuthorizationPolicy", "default", "no-writes", 3));
    }
    assert_eq!(verdict.summary, "rule 0 of no-writes matches");
    assert_eq!(
        verdict.policy_log,
        [
            "denied by AuthorizationPolicy/default/no-writes rule 0",
            "rule 0 of no-writes matches",
            "audited by AuthorizationPolicy/default/watch rule 1",
            "dry run: would be allowed by AuthorizationPolicy/default/readers rule 1",
        ]
    );
    // Nothing was picked: the service is what there is.
    let destination = request.destination.as_ref().unwrap();
    assert_eq!(
        (&*destination.namespace, &*destination.pod_name),
        ("default", "")
    );
    // The answer itself went through.
    assert_eq!(response.verdict, Verdict::Forwarded as i32);
    assert_eq!(response.drop_reason_desc, 0);
}

/// specs/policies.md 3.4: 133 where nothing allows it, 189 where the token is bad.
#[test]
fn other_denials_have_reasons_of_their_own() {
    let mut exchange = fixtures::http();
    let mut denied = fixtures::denied();
    (denied.policy, denied.rule) = (None, None);
    exchange.verdict = Some(denied);
    assert_eq!(ended(exchange)[1].drop_reason_desc, 133);

    let mut exchange = fixtures::http();
    exchange.verdict = None;
    exchange.details = "jwt_authn_access_denied{Jwt_is_expired}".into();
    let flows = ended(exchange);
    assert_eq!(
        flows.len(),
        3,
        "a verdict is told of, though policy was not asked"
    );
    assert_eq!(flows[1].drop_reason_desc, 189);
    assert_eq!(flows[0].summary, "jwt_authn_access_denied{Jwt_is_expired}");
}

/// What failed for other reasons than policy is an error.
#[test]
fn no_endpoint_is_an_error() {
    let mut exchange = fixtures::http();
    exchange.flags = "UH";
    exchange.endpoint = None;
    exchange.http.as_mut().unwrap().status = Some(StatusCode::SERVICE_UNAVAILABLE);
    let flows = ended(exchange);
    assert_eq!(flows[1].verdict, Verdict::Error as i32);
    assert_eq!(flows[1].drop_reason_desc, 0);
    assert_eq!(
        flows[0].verdict,
        Verdict::Forwarded as i32,
        "policy had allowed it"
    );
}

/// What an ExternalAuth filter keeps out was allowed by policy: no policy denied it, tried or in force.
#[test]
fn what_a_server_denies_no_policy_denied() {
    let mut exchange = fixtures::http();
    let mut verdict = fixtures::denied();
    (verdict.allowed, verdict.rule) = (true, Some(0));
    verdict.policy = Some(fixtures::policy("readers", Action::Allow));
    verdict.dry_run.as_mut().unwrap().verdict.allowed = false;
    exchange.verdict = Some(verdict);
    exchange.details = "ext_authz_denied".into();
    let flows = ended(exchange);
    assert_eq!(flows.len(), 3, "no AUDIT: it did not pass");
    for flow in &flows[..2] {
        assert_eq!(flow.verdict, Verdict::Dropped as i32);
        assert!(flow.ingress_denied_by.is_empty());
        assert_eq!(flow.ingress_allowed_by[0].name, "readers");
    }
}

/// A dry run that would deny is an AUDIT verdict beside the real one (specs/policies.md 3.4).
#[test]
fn what_would_be_denied_is_audited() {
    let mut exchange = fixtures::http();
    let mut verdict = fixtures::denied();
    (verdict.allowed, verdict.policy, verdict.rule) = (true, None, None);
    verdict.dry_run.as_mut().unwrap().verdict.allowed = false;
    exchange.verdict = Some(verdict);
    let flows = ended(exchange);
    assert_eq!(flows.len(), 4);
    let audit = &flows[1];
    assert_eq!(audit.verdict, Verdict::Audit as i32);
    assert_eq!(audit.ingress_denied_by[0].name, "readers");
    assert_eq!(flows[0].verdict, Verdict::Forwarded as i32);
}

/// A TCP stream is told of when it opens and when it closes.
#[test]
fn a_stream_opens_and_closes() {
    let opened = told(Record::opened(&fixtures::tcp()));
    assert_eq!(opened.len(), 2);
    assert_eq!(opened[0].event_type.unwrap().r#type, event::POLICY_VERDICT);
    assert_eq!(opened[1].event_type.unwrap().r#type, event::TRACE);
    assert_eq!(opened[1].summary, "TCP Flags: SYN");
    let closed = Record::ended(&mut fixtures::tcp(), Duration::from_millis(12), true);
    let closed = told(closed);
    assert_eq!(closed.len(), 1);
    assert_eq!(
        closed[0].summary,
        "TCP Flags: ACK, FIN; 10 bytes received, 20 sent in 12ms"
    );
    assert_eq!(closed[0].is_reply, Some(true));
}

#[test]
fn a_stream_that_is_refused_is_dropped() {
    let mut exchange = fixtures::tcp();
    exchange.verdict = Some(fixtures::denied());
    let flows = ended(exchange);
    assert_eq!(flows.len(), 2);
    assert_eq!(flows[1].event_type.unwrap().r#type, event::DROP);
    assert_eq!(flows[1].verdict, Verdict::Dropped as i32);
}

/// The same flow has the same UUID whoever reads it, and no other has.
#[test]
fn uuids_are_stable_and_different() {
    let teller = teller();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..100 {
        for index in 0..4 {
            let uuid = teller.uuid(number, index);
            assert_eq!(uuid, teller.uuid(number, index));
            assert!(Uuid::parse_str(&uuid).is_ok() && seen.insert(uuid));
        }
    }
}

#[test]
fn every_flow_of_a_request_names_its_trace() {
    let exchange = sampled();
    let id = exchange.trace.id().unwrap().to_string();
    let flows = ended(exchange);
    assert!(flows.len() > 1);
    for flow in flows {
        let trace = flow.trace_context.and_then(|context| context.parent);
        assert_eq!(trace.unwrap().trace_id, id);
    }
}
