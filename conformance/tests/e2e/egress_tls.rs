//! TLS and the PROXY protocol towards endpoints, with nginx at the other end (specs/istio-waypoint.md 4.7;
//! docs/egress.md).

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use cairn_conformance::app::App;
use cairn_conformance::client::{self, Answer};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use cairn_conformance::process::{Process, until};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::egress::{client_to, entry, get};
use crate::issuer::Issuer;

const HOST: &str = "api.example.com";
const AUTHORITY: &str = "api.example.com:80";

/// Answers with what it saw of the connection.
async fn nginx(folder: &Path, address: SocketAddr, listen: &str, tls: &str) -> Process {
    let folder = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; user root;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen {address} {listen};
    {tls}
    location / {{ return 200 \"$server_protocol $ssl_server_name $ssl_client_s_dn $proxy_protocol_addr $connection\"; }}
  }}
}}
"
    );
    let file = format!("{folder}/nginx.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("nginx");
    command.args(["-c", &file, "-e", &format!("{folder}/nginx.log")]);
    let mut process = Process::start("nginx", command, Path::new(&folder.to_string()));
    process.listening(address).await;
    process
}

fn certificate(folder: &Path, name: &str) -> String {
    let folder = folder.display();
    format!("ssl_certificate {folder}/{name}.pem; ssl_certificate_key {folder}/{name}.key;")
}

fn rule(host: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: out, namespace: shop}}\nspec: {{host: {host}, trafficPolicy: {{{policy}}}}}"
    )
}

/// `api.example.com:80`, which is an address outside.
fn declare(lab: &Lab, address: SocketAddr, protocol: &str) {
    let (ip, port) = (address.ip(), address.port());
    let spec = format!(
        "hosts: [{HOST}], resolution: STATIC, endpoints: [{{address: {ip}}}], ports: [{{number: 80, name: p, protocol: {protocol}, targetPort: {port}}}]"
    );
    lab.write("out", &entry("out", &spec));
}

async fn ask(client: &Client) -> Answer {
    get(client, AUTHORITY, HOST, "/").await.expect("an answer")
}

#[tokio::test]
async fn a_host_is_asked_by_its_name_and_must_have_a_certificate_for_it() {
    let mut lab = Lab::new();
    let (address, folder) = (lab.free_address(), lab.folder().to_owned());
    let issuer = Issuer::new(&folder, "ca");
    issuer.issue("host", &[HOST]);
    let _nginx = nginx(&folder, address, "ssl", &certificate(&folder, "host")).await;
    declare(&lab, address, "HTTP");
    let ca = folder.join("ca.pem").display().to_string();
    let simple = |more: &str| {
        rule(
            HOST,
            &format!("tls: {{mode: SIMPLE, caCertificates: {ca}{more}}}"),
        )
    };
    lab.write("rule", &simple(""));
    lab.start().await;
    let client = client_to(&lab, &[AUTHORITY]).await;
    let answer = ask(&client).await;
    let said = client::text(&answer);
    assert!(said.starts_with("HTTP/1.1 api.example.com"), "{said}");

    // Another name than the certificate's, whether asked for or only expected.
    for more in [
        ", sni: other.example.com",
        ", subjectAltNames: [other.example.com]",
    ] {
        lab.write("rule", &simple(more));
        until("another name is refused", async || {
            ask(&client).await.status() == 503
        })
        .await;
    }
    lab.write(
        "rule",
        &simple(", sni: other.example.com, subjectAltNames: [api.example.com]"),
    );
    until("the expected name counts", async || {
        ask(&client).await.status() == 200
    })
    .await;
    // Whom the system trusts does not vouch for it.
    lab.write("rule", &rule(HOST, "tls: {mode: SIMPLE}"));
    until("an unknown issuer is refused", async || {
        ask(&client).await.status() == 503
    })
    .await;
    let reason = "upstream_transport_failure_reason";
    let has = |line: &serde_json::Value| {
        line[reason]
            .as_str()
            .is_some_and(|r| r.contains("UnknownIssuer"))
    };
    lab.cairn().logged("why", has).await;
}

/// A volume that comes later, an image without certificates: nothing is sent until there is somebody to trust.
#[tokio::test]
async fn the_systems_roots_are_looked_for_until_they_are_there() {
    let mut lab = Lab::new();
    let (address, folder) = (lab.free_address(), lab.folder().to_owned());
    let system = folder.join("system.pem");
    lab.variable("SSL_CERT_FILE", system.display());
    lab.variable("SSL_CERT_DIR", folder.join("none").display());
    let issuer = Issuer::new(&folder, "ca");
    issuer.issue("host", &[HOST]);
    let _nginx = nginx(&folder, address, "ssl", &certificate(&folder, "host")).await;
    declare(&lab, address, "HTTP");
    lab.write("rule", &rule(HOST, "tls: {mode: SIMPLE}"));
    lab.start().await;
    let client = client_to(&lab, &[AUTHORITY]).await;
    assert_eq!(ask(&client).await.status(), 503);
    fs::copy(folder.join("ca.pem"), &system).unwrap();
    until("the system's roots are read", async || {
        ask(&client).await.status() == 200
    })
    .await;
}

#[tokio::test]
async fn a_certificate_is_shown_and_files_are_followed() {
    let mut lab = Lab::new();
    let (address, folder) = (lab.free_address(), lab.folder().to_owned());
    let issuer = Issuer::new(&folder, "ca");
    issuer.issue("host", &[HOST]);
    issuer.issue("own", &["waypoint.example"]);
    let verify = format!(
        "{} ssl_verify_client on; ssl_client_certificate {}/ca.pem;",
        certificate(&folder, "host"),
        folder.display()
    );
    let _nginx = nginx(&folder, address, "ssl", &verify).await;
    declare(&lab, address, "HTTP");
    let at = folder.display();
    lab.write("rule", &rule(HOST, &format!("tls: {{mode: MUTUAL, caCertificates: {at}/ca.pem, clientCertificate: {at}/own.pem, privateKey: {at}/own.key}}")));
    lab.start().await;
    let client = client_to(&lab, &[AUTHORITY]).await;
    let said = client::text(&ask(&client).await);
    assert!(said.contains("CN=own"), "{said}");

    // A CA that did not issue the host's certificate: in force for new connections.
    let good = fs::read(folder.join("ca.pem")).unwrap();
    let other = Issuer::new(&folder, "other");
    fs::write(folder.join("ca.pem"), other.pem()).unwrap();
    let files = "cairn_tls_files_total";
    lab.cairn()
        .metric_reaches(files, &["result=\"success\""], 1.0)
        .await;
    until("the host is refused", async || {
        ask(&client).await.status() == 503
    })
    .await;
    // What is no certificate leaves the last good one in force.
    fs::write(folder.join("ca.pem"), &good).unwrap();
    lab.cairn()
        .metric_reaches(files, &["result=\"success\""], 2.0)
        .await;
    fs::write(folder.join("ca.pem"), "nonsense").unwrap();
    lab.cairn()
        .metric_reaches(files, &["result=\"failure\""], 1.0)
        .await;
    assert_eq!(ask(&client).await.status(), 200);
}

#[tokio::test]
async fn http2_is_agreed_on_where_the_port_declares_it() {
    let mut lab = Lab::new();
    let (address, folder) = (lab.free_address(), lab.folder().to_owned());
    Issuer::new(&folder, "ca").issue("host", &[HOST]);
    let _nginx = nginx(&folder, address, "ssl http2", &certificate(&folder, "host")).await;
    declare(&lab, address, "HTTP2");
    let ca = folder.join("ca.pem").display().to_string();
    lab.write(
        "rule",
        &rule(
            HOST,
            &format!("tls: {{mode: SIMPLE, caCertificates: {ca}}}"),
        ),
    );
    lab.start().await;
    let client = client_to(&lab, &[AUTHORITY]).await;
    let said = client::text(&ask(&client).await);
    assert!(said.starts_with("HTTP/2.0 api.example.com"), "{said}");
}

/// TLS to the application goes inside of the tunnel to its pod.
#[tokio::test]
async fn inside_of_the_tunnel_too() {
    let mut lab = Lab::new();
    let (address, folder) = (lab.free_address(), lab.folder().to_owned());
    Issuer::new(&folder, "ca").issue("host", &["web.shop.svc.cluster.local"]);
    let _nginx = nginx(&folder, address, "ssl", &certificate(&folder, "host")).await;
    lab.service("web", &[Port::new("http", 80)]);
    lab.pod_at("web", "web-1", Reach::Hbone, address);
    let ca = folder.join("ca.pem").display().to_string();
    lab.write(
        "rule",
        &rule(
            "web.shop.svc.cluster.local",
            &format!("tls: {{mode: SIMPLE, caCertificates: {ca}}}"),
        ),
    );
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let said = client::text(&client::get(client.to("web", 80), "/").await);
    assert!(
        said.starts_with("HTTP/1.1 web.shop.svc.cluster.local"),
        "{said}"
    );
}

/// A BackendTLSPolicy names who is to be trusted and what name the certificate must have
/// (specs/gateway-api.md 1.3); another certificate is not taken, and nothing goes there without TLS.
#[tokio::test]
async fn a_backend_tls_policy_says_whose_certificate_is_good() {
    let mut lab = Lab::new();
    let (address, folder) = (lab.free_address(), lab.folder().to_owned());
    Issuer::new(&folder, "ca").issue("host", &["inner.example"]);
    let _nginx = nginx(&folder, address, "ssl", &certificate(&folder, "host")).await;
    lab.service("web", &[Port::new("http", 80)]);
    lab.pod_at("web", "web-1", Reach::Plain, address);
    let policy = |hostname: &str| {
        let ca = fs::read_to_string(folder.join("ca.pem")).unwrap();
        let ca: String = ca.lines().map(|line| format!("    {line}\n")).collect();
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: shop}}\ndata:\n  ca.crt: |\n{ca}---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: web, namespace: shop}}
spec:
  targetRefs: [{{group: '', kind: Service, name: web}}]
  validation:
    hostname: {hostname}
    caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]
"
        )
    };
    lab.write("tls", &policy("inner.example"));
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let said = client::text(&client::get(client.to("web", 80), "/").await);
    assert!(said.starts_with("HTTP/1.1 inner.example"), "{said}");

    let version = lab.cairn().metric("cairn_snapshot_version", &[]).await;
    lab.write("tls", &policy("other.example"));
    let cairn = lab.cairn();
    cairn
        .metric_reaches("cairn_snapshot_version", &[], version + 1.0)
        .await;
    let refused = client::get(client.to("web", 80), "/refused").await;
    assert_eq!(refused.status(), 503, "{}", client::text(&refused));
}

#[tokio::test]
async fn nothing_goes_out_in_plain_text_where_tls_was_asked_for() {
    let mut lab = Lab::new();
    let app = App::http("plain", lab.free_address());
    declare(&lab, app.address, "HTTP");
    lab.write(
        "rule",
        &rule(HOST, "tls: {mode: SIMPLE, caCertificates: /nowhere/ca.pem}"),
    );
    lab.start().await;
    let client = client_to(&lab, &[AUTHORITY]).await;
    assert_eq!(ask(&client).await.status(), 503);
    let reason = "upstream_transport_failure_reason";
    let has = |line: &serde_json::Value| {
        line[reason]
            .as_str()
            .is_some_and(|r| r.contains("/nowhere/ca.pem"))
    };
    lab.cairn().logged("the file", has).await;
    lab.write(
        "rule",
        &rule(HOST, "tls: {mode: SIMPLE, credentialName: out-tls}"),
    );
    let refused = |line: &serde_json::Value| {
        line["reason"]
            .as_str()
            .is_some_and(|r| r.contains("credentialName"))
    };
    until("the rule is in force", async || {
        assert_eq!(ask(&client).await.status(), 503);
        lab.cairn().access_log().iter().any(refused)
    })
    .await;
    assert_eq!(app.requests(), 0);
}

/// What asks for the mesh's own TLS gets the tunnel or nothing: requests, TCP streams, and of two
/// endpoints the one that has one.
#[tokio::test]
async fn the_meshs_own_tls_is_the_tunnel_or_nothing() {
    let mut lab = Lab::new();
    let outside = App::http("outside", lab.free_address());
    declare(&lab, outside.address, "HTTP");
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("db", &[Port::new("tcp", 9000)]);
    let inside = lab.pod("web", "web-1", Reach::Hbone, |at| App::http("inside", at));
    let plain = lab.pod("web", "web-2", Reach::Plain, |at| App::http("plain", at));
    let db = lab.pod("db", "db-1", Reach::Plain, App::server_first);
    let rules: Vec<String> = [
        HOST,
        "web.shop.svc.cluster.local",
        "db.shop.svc.cluster.local",
    ]
    .iter()
    .map(|host| {
        let eject = "outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 60s}";
        let rule = rule(host, &format!("tls: {{mode: ISTIO_MUTUAL}}, {eject}"));
        rule.replace("name: out,", &format!("name: {},", host.replace('.', "-")))
    })
    .collect();
    lab.write("rules", &rules.join("\n---\n"));
    lab.start().await;
    let client = client_to(&lab, &[AUTHORITY]).await;
    assert_eq!(ask(&client).await.status(), 503);
    let says_why = |line: &serde_json::Value| {
        let reason = line["upstream_transport_failure_reason"].as_str();
        reason.is_some_and(|r| r.contains("has no tunnel (HBONE), and tls.mode ISTIO_MUTUAL"))
    };
    lab.cairn().logged("why", says_why).await;
    let client = lab.client("shop/viewer").await;
    for _ in 0..10 {
        let answer = client::get(client.to("web", 80), "/").await;
        assert_eq!(client::echo(&answer).app, "inside");
    }
    let mut stream = TcpStream::connect(client.to("db", 9000)).await.unwrap();
    let mut nothing = Vec::new();
    let _ = stream.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty(), "{nothing:?}");
    for app in [&outside, &plain, &db] {
        assert_eq!(app.connections(), 0);
    }
    assert_eq!(inside.requests(), 10);
    // It says nothing of the endpoints.
    let ejected = lab.cairn().metric("cairn_endpoints_ejected", &[]).await;
    assert_eq!(ejected, 0.0);
}

#[tokio::test]
async fn an_endpoint_is_told_whose_connection_it_is() {
    for version in ["V1", "V2"] {
        let mut lab = Lab::new();
        let (address, folder) = (lab.free_address(), lab.folder().to_owned());
        Issuer::new(&folder, "ca").issue("host", &[HOST]);
        let _nginx = nginx(
            &folder,
            address,
            "ssl proxy_protocol",
            &certificate(&folder, "host"),
        )
        .await;
        declare(&lab, address, "HTTP");
        let ca = folder.join("ca.pem").display().to_string();
        lab.write("rule", &rule(HOST, &format!("proxyProtocol: {{version: {version}}}, tls: {{mode: SIMPLE, caCertificates: {ca}}}")));
        lab.start().await;
        let (one, other) = (
            client_to(&lab, &[AUTHORITY]).await,
            client_to(&lab, &[AUTHORITY]).await,
        );
        for client in [&one, &other, &one] {
            let said = client::text(&ask(client).await);
            let told = format!(" {} ", client.address);
            assert!(said.contains(&told), "{version}: {said} has no {told}");
        }
    }
}
