//! Entries held against bytes that Envoy's own descriptors made, and what is said of exchanges.

use std::sync::Arc;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    AccessLog, ClusterKey, Collector, LogSink, OtlpProtocol, Telemetry, TelemetrySettings,
};
use prost::encoding::decode_key;

use super::super::fixtures::{batching, drained};
use super::super::process::Names;
use super::super::queue::Queue;
use super::messages::{HttpAccessLogEntries, StreamAccessLogsMessage, TcpAccessLogEntries};
use super::*;
use crate::telemetry::exchange::Headers;
use crate::telemetry::fixtures;
use crate::telemetry::settings::AllSettings;

const ELAPSED: Duration = Duration::from_millis(7);

/// Made by the descriptors in Envoy 1.40's program: every field that is told, each with a value of its own.
const ENVOY_HTTP: &[u8] = include_bytes!("tests/envoy_http.bin");
const ENVOY_TCP: &[u8] = include_bytes!("tests/envoy_tcp.bin");

fn at(ip: &str, port_value: u32) -> Option<Address> {
    let address = ip.to_owned();
    Some(Address {
        socket_address: Some(SocketAddress {
            address,
            port_value,
        }),
    })
}

/// What has no name in `messages` would be missing after it was read and written again.
#[test]
fn messages_are_those_of_envoy() {
    for bytes in [ENVOY_HTTP, ENVOY_TCP] {
        let read = StreamAccessLogsMessage::decode(bytes).unwrap();
        assert_eq!(read.encode_to_vec(), bytes);
    }
    let read = StreamAccessLogsMessage::decode(ENVOY_TCP).unwrap();
    let entry = read.tcp_logs.unwrap().log_entry.remove(0);
    let bytes = ConnectionProperties {
        received_bytes: 10,
        sent_bytes: 20,
    };
    assert_eq!(entry.connection_properties, Some(bytes));
}

#[test]
fn a_stream_of_envoy_begins_as_ours_do() {
    let read = StreamAccessLogsMessage::decode(ENVOY_HTTP).unwrap();
    let identifier = read.identifier.unwrap();
    let node = identifier.node.unwrap();
    assert_eq!(
        [
            &*identifier.log_name,
            &node.id,
            &node.cluster,
            &node.user_agent_name,
            &node.user_agent_version
        ],
        ["log", "waypoint~1", "waypoint.shop", "cairn", "1"]
    );
}

#[test]
fn fields_of_a_request_are_named_as_envoy_means_them() {
    let read = StreamAccessLogsMessage::decode(ENVOY_HTTP).unwrap();
    let entry = read.http_logs.unwrap().log_entry.remove(0);
    let nanos = |nanos| Some(Seconds { seconds: 0, nanos });
    let common = AccessLogCommon {
        downstream_remote_address: at("10.0.0.7", 41000),
        downstream_local_address: at("10.96.1.2", 8000),
        tls_properties: Some(TlsProperties {
            tls_version: TLS_1_3,
            tls_sni_hostname: "sni.example".into(),
            peer_certificate_properties: Some(CertificateProperties {
                subject_alt_name: vec![SubjectAltName {
                    uri: "spiffe://peer".into(),
                }],
            }),
        }),
        start_time: Some(Seconds {
            seconds: 1_793_795_696,
            nanos: 789_000_000,
        }),
        time_to_last_downstream_tx_byte: nanos(6_000_000),
        upstream_remote_address: at("10.0.0.9", 8080),
        upstream_local_address: at("10.0.0.2", 50000),
        upstream_cluster: "inbound-vip|8000|http|httpbin.default.svc.cluster.local;".into(),
        response_flags: entry.common_properties.clone().unwrap().response_flags,
        upstream_transport_failure_reason: "tls broke".into(),
        route_name: "shop.web.0".into(),
        downstream_direct_remote_address: at("10.0.0.7", 41001),
        duration: nanos(7_000_000),
        upstream_request_attempt_count: 2,
        connection_termination_details: "rbac_denied".into(),
        stream_id: "id-1".into(),
        access_log_type: DOWNSTREAM_END,
    };
    let request = HttpRequestProperties {
        request_method: number_of(&Method::PATCH),
        scheme: "http".into(),
        authority: "httpbin:8000".into(),
        path: "/a?b=1".into(),
        user_agent: "curl/8".into(),
        referer: "r".into(),
        forwarded_for: "f".into(),
        request_id: "id-1".into(),
        original_path: "/o".into(),
        request_headers_bytes: 100,
        request_body_bytes: 10,
        request_headers: [("x-a".into(), "1".into())].into(),
    };
    let response = HttpResponseProperties {
        response_code: Some(Number { value: 200 }),
        response_headers_bytes: 200,
        response_body_bytes: 20,
        response_headers: [("x-b".into(), "2".into())].into(),
        response_code_details: "via_upstream".into(),
    };
    let expected = HttpAccessLogEntry {
        common_properties: Some(common),
        protocol_version: 2,
        request: Some(request),
        response: Some(response),
    };
    assert_eq!(entry, expected);
}

/// The numbers are those of `ResponseFlags` in Envoy's descriptors, the short names those of its documentation.
#[test]
fn each_short_flag_is_the_field_that_envoy_has_for_it() {
    for (short, number) in [
        ("LH", 1),
        ("UH", 2),
        ("UT", 3),
        ("LR", 4),
        ("UR", 5),
        ("UF", 6),
        ("UC", 7),
        ("UO", 8),
        ("NR", 9),
        ("DI", 10),
        ("FI", 11),
        ("RL", 12),
        ("UAEX", 13),
        ("RLSE", 14),
        ("DC", 15),
        ("URX", 16),
        ("SI", 17),
        ("IH", 18),
        ("DPE", 19),
        ("UMSDR", 20),
        ("RFCF", 21),
        ("NFCF", 22),
        ("DT", 23),
        ("UPE", 24),
        ("NC", 25),
        ("OM", 26),
        ("DF", 27),
        ("DR", 28),
    ] {
        let bytes = flags(short).unwrap().encode_to_vec();
        let (found, _) = decode_key(&mut &bytes[..]).unwrap();
        assert_eq!(found, number, "{short}");
    }
    assert_eq!(flags(""), None);
    assert_eq!(flags("-"), None);
    let both = flags("UF,URX").unwrap();
    assert!(both.upstream_connection_failure && both.upstream_retry_limit_exceeded);
}

fn log(kind: EntryKind) -> Arc<EntryLog> {
    Arc::new(EntryLog {
        collector: Collector {
            name: "logs".into(),
            cluster: ClusterKey::new(ObjectKey::new("shop", "als"), 9000),
            protocol: OtlpProtocol::Grpc,
            timeout_ms: 1_000,
            headers: vec![],
            tag_bytes_max: 256,
        },
        log_name: "shop-log".into(),
        kind,
    })
}

fn of_http() -> Arc<EntryLog> {
    log(EntryKind::Http {
        request_headers: vec!["x-user".into(), "user-agent".into(), "x-nope".into()],
        response_headers: vec!["x-answer".into()],
    })
}

/// What a log of requests and one of TCP streams get of an exchange.
fn told(mut exchange: Exchange, headers: Headers<'_>) -> Vec<StreamAccessLogsMessage> {
    let access_log = [of_http(), log(EntryKind::Tcp)].map(|log| AccessLog {
        provider: "logs".into(),
        sink: LogSink::Entries(log),
        filter: None,
    });
    let telemetry = Telemetry {
        waypoint: Arc::new(TelemetrySettings {
            access_log: access_log.into(),
            ..TelemetrySettings::default()
        }),
        ..Telemetry::default()
    };
    let settings = AllSettings::compile(&telemetry, None);
    exchange.settings = settings.of_service(None).unusual();
    let queue = Queue::new(Process::default(), batching(8, 8), false);
    let seen = Seen {
        exchange: &exchange,
        elapsed: ELAPSED,
        headers,
    };
    queue.tell(&mut queue.join(), &seen);
    let parcels = drained(&queue).into_iter().flat_map(|(_, parcels)| parcels);
    let read = |message: bytes::Bytes| StreamAccessLogsMessage::decode(message).unwrap();
    parcels.map(|parcel| read(parcel.message.clone())).collect()
}

/// What the entry of the request has in common with those of streams.
fn common_of_the_request() -> AccessLogCommon {
    let nanos = |nanos| Some(Seconds { seconds: 0, nanos });
    AccessLogCommon {
        downstream_remote_address: at("10.0.0.7", 41000),
        downstream_direct_remote_address: at("10.0.0.7", 41000),
        downstream_local_address: at("10.96.1.2", 8000),
        tls_properties: Some(TlsProperties {
            tls_version: TLS_1_3,
            tls_sni_hostname: String::new(),
            peer_certificate_properties: Some(CertificateProperties {
                subject_alt_name: vec![SubjectAltName {
                    uri: "spiffe://cluster.local/ns/shop/sa/web".into(),
                }],
            }),
        }),
        start_time: Some(Seconds {
            seconds: 1_793_795_696,
            nanos: 789_000_000,
        }),
        duration: nanos(7_000_000),
        time_to_last_downstream_tx_byte: nanos(7_000_000),
        upstream_remote_address: at("10.0.0.9", 8080),
        upstream_local_address: None,
        upstream_cluster: "inbound-vip|8000|http|httpbin.default.svc.cluster.local;".into(),
        response_flags: flags("UF"),
        upstream_transport_failure_reason: "refused".into(),
        route_name: "default".into(),
        upstream_request_attempt_count: 1,
        connection_termination_details: String::new(),
        stream_id: "id-1".into(),
        access_log_type: DOWNSTREAM_END,
    }
}

#[test]
fn a_request_has_an_entry_in_the_log_of_requests_alone() {
    let header =
        |name: &'static str, value| (name.parse().unwrap(), HeaderValue::from_static(value));
    let request = HeaderMap::from_iter([
        header("x-user", "me"),
        header("authorization", "secret"),
        header("referer", "/from"),
    ]);
    let response = HeaderMap::from_iter([header("x-answer", "42"), header("set-cookie", "secret")]);
    let headers = Headers {
        request: Some(&request),
        response: Some(&response),
    };
    let mut exchange = fixtures::http();
    exchange.flags = "UF";
    exchange.upstream_failure = Some("refused".into());
    let messages = told(exchange, headers);
    let [message] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!((&message.identifier, &message.tcp_logs), (&None, &None));
    let Some(HttpAccessLogEntries { log_entry }) = &message.http_logs else {
        panic!("{message:?}")
    };
    let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = HttpAccessLogEntry {
        common_properties: Some(common_of_the_request()),
        protocol_version: 2,
        request: Some(HttpRequestProperties {
            request_method: 1,
            scheme: "http".into(),
            authority: "httpbin:8000".into(),
            path: "/a?b=1".into(),
            user_agent: "curl/8".into(),
            referer: "/from".into(),
            request_id: "id-1".into(),
            request_headers_bytes: 100,
            request_body_bytes: 10,
            request_headers: [of("user-agent", "curl/8"), of("x-user", "me")].into(),
            ..HttpRequestProperties::default()
        }),
        response: Some(HttpResponseProperties {
            response_code: Some(Number { value: 200 }),
            response_headers_bytes: 200,
            response_body_bytes: 20,
            response_headers: [of("x-answer", "42")].into(),
            response_code_details: "via_upstream".into(),
        }),
    };
    assert_eq!(log_entry[..], [expected]);
}

#[test]
fn a_tcp_stream_has_an_entry_in_the_log_of_streams_alone() {
    let mut exchange = fixtures::tcp();
    exchange.details = "rbac_access_denied".into();
    let messages = told(exchange, Headers::default());
    let [message] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!(message.http_logs, None);
    let Some(TcpAccessLogEntries { log_entry }) = &message.tcp_logs else {
        panic!("{message:?}")
    };
    let [entry] = &log_entry[..] else {
        panic!("{message:?}")
    };
    let bytes = ConnectionProperties {
        received_bytes: 10,
        sent_bytes: 20,
    };
    assert_eq!(entry.connection_properties, Some(bytes));
    let common = entry.common_properties.as_ref().unwrap();
    assert_eq!(common.connection_termination_details, "rbac_access_denied");
    assert_eq!(common.access_log_type, TCP_CONNECTION_END);
    assert_eq!(
        common.upstream_cluster,
        "inbound-vip|8000|tcp|httpbin.default.svc.cluster.local;"
    );
    assert_eq!(common.time_to_last_downstream_tx_byte, None);
}

#[test]
fn a_stream_begins_with_who_sends_it() {
    let names = Names {
        gateway: Some(("shop", "waypoint")),
        pod: Some("waypoint-1"),
        ip: Some("10.0.0.2"),
        domain: "cluster.local",
        ..Names::default()
    };
    let process = Process::new(&names, &Default::default());
    let first = StreamAccessLogsMessage::decode(&*identifier(&of_http(), &process)).unwrap();
    let identifier = first.identifier.unwrap();
    assert_eq!(identifier.log_name, "shop-log");
    let node = identifier.node.unwrap();
    assert_eq!(
        node.id,
        "waypoint~10.0.0.2~waypoint-1.shop~shop.svc.cluster.local"
    );
    assert_eq!(node.cluster, "waypoint.shop");
}
