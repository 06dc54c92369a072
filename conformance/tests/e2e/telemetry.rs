//! What operators see: metrics with the full label set, the access log, the admin endpoints.

use cairn_conformance::app::App;
use cairn_conformance::client::{self, curl};
use cairn_conformance::lab::{Lab, Port, Reach};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::manifests::DENY_ADMIN;

/// Every label of an HTTP series (specs/istio-waypoint.md 5.1): Kiali drops a series without one.
const LABELS: &[&str] = &[
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

#[tokio::test]
async fn requests_and_denials_are_counted_and_logged() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let _app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.write("policy", DENY_ADMIN);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    client::get(client.to("web", 80), "/fine?x=1").await;
    client::get(client.to("web", 80), "/admin").await;

    let cairn = lab.cairn();
    let ok = ["response_code=\"200\"", "reporter=\"waypoint\""];
    cairn.metric_reaches("istio_requests_total", &ok, 1.0).await;
    let denied = ["response_code=\"403\"", "destination_workload=\"unknown\""];
    cairn
        .metric_reaches("istio_requests_total", &denied, 1.0)
        .await;
    let page = cairn.metrics().await;
    for line in page
        .lines()
        .filter(|l| l.starts_with("istio_requests_total{"))
    {
        for label in LABELS {
            assert!(
                line.contains(&format!("{label}=\"")),
                "no {label} in {line}"
            );
        }
        for part in [
            "source_principal=\"spiffe://cluster.local/ns/shop/sa/viewer\"",
            "source_workload_namespace=\"shop\"",
            "destination_service=\"web.shop.svc.cluster.local\"",
            "destination_service_name=\"web\"",
            "destination_service_namespace=\"shop\"",
            "request_protocol=\"http\"",
        ] {
            assert!(line.contains(part), "no {part} in {line}");
        }
    }
    assert!(page.contains("istio_request_duration_milliseconds_bucket{"));
    assert!(page.contains("le=\"0.5\"") && page.contains("le=\"3600000\""));

    let fine = cairn
        .logged("the allowed one", |l| l["path"] == "/fine?x=1")
        .await;
    assert_eq!(fine["verdict"], "allow");
    assert_eq!(fine["response_code"], 200);
    assert_eq!(
        fine["source_principal"],
        "spiffe://cluster.local/ns/shop/sa/viewer"
    );
    assert_eq!(
        fine["destination_principal"],
        "spiffe://cluster.local/ns/shop/sa/web"
    );
    assert_eq!(fine["destination_workload"], "web-a");
    assert_eq!(fine["tunnel_authority"], "10.96.1.1:80");
    assert_eq!(fine["authority"], "web.shop");
    let denied = cairn
        .logged("the denied one", |l| l["path"] == "/admin")
        .await;
    assert_eq!(denied["verdict"], "deny");
    assert_eq!(denied["policy"], "AuthorizationPolicy/shop/no-admin");
    assert_eq!(denied["rule"], 0);
    assert_eq!(
        denied["response_code_details"],
        "rbac_access_denied_matched_policy[ns[shop]-policy[no-admin]-rule[0]]"
    );
    assert!(denied["reason"].is_string(), "{denied}");
}

#[tokio::test]
async fn tcp_streams_are_counted_and_logged() {
    let mut lab = Lab::new();
    lab.service("db", &[Port::new("tcp", 5432)]);
    let _app = lab.pod("db", "db-a", Reach::Hbone, App::tcp_echo);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let mut stream = TcpStream::connect(client.to("db", 5432)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut bytes = [0; 5];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut bytes)
        .await
        .unwrap();
    let cairn = lab.cairn();
    let labels = [
        "request_protocol=\"tcp\"",
        "destination_service=\"db.shop.svc.cluster.local\"",
    ];
    cairn
        .metric_reaches("istio_tcp_connections_opened_total", &labels, 1.0)
        .await;
    drop(stream);
    cairn
        .metric_reaches("istio_tcp_connections_closed_total", &labels, 1.0)
        .await;
    assert_eq!(
        cairn.metric("istio_tcp_sent_bytes_total", &labels).await,
        5.0
    );
    assert_eq!(
        cairn
            .metric("istio_tcp_received_bytes_total", &labels)
            .await,
        5.0
    );
    let line = cairn
        .logged("the stream", |l| l["tunnel_authority"] == "10.96.1.1:5432")
        .await;
    assert_eq!(line["bytes_received"], 5, "{line}");
    assert_eq!(line["verdict"], "allow", "{line}");
}

#[tokio::test]
async fn operators_endpoints_answer() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let _app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.start().await;
    let cairn = lab.cairn();
    for (address, path) in [
        (cairn.metrics, "/metrics"),
        (cairn.metrics, "/stats/prometheus"),
        (cairn.metrics, "/healthz/ready"),
        (cairn.ready, "/healthz/ready"),
        (cairn.admin, "/config_dump"),
        (cairn.admin, "/clusters"),
        (cairn.admin, "/help"),
    ] {
        let (_, out, _) = curl(&["-w", "%{http_code}", &format!("http://{address}{path}")]).await;
        assert!(out.ends_with("200"), "{path}: {out}");
    }
    let dump = cairn.config_dump().await.to_string();
    assert!(dump.contains("\"web\""), "{dump}");
    let (_, out, _) = curl(&[
        "-w",
        "%{http_code}",
        &format!("http://{}/nothing", cairn.admin),
    ])
    .await;
    assert!(out.ends_with("404"), "{out}");
    let metrics = cairn.metrics().await;
    for name in [
        "cairn_build_info{",
        "process_resident_memory_bytes",
        "istio_build{",
        "cairn_certificate_expiry",
    ] {
        assert!(metrics.contains(name), "{name} is missing");
    }
}
