//! Routes of connections with real programs: curl and openssl to nginx by server name, and weights of
//! a TCPRoute (specs/istio-waypoint.md 4.4, specs/gateway-api.md 1.4; issue 3 item 1).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cairn_conformance::app::{App, BANNER, read_exactly};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use cairn_conformance::process::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A TLS server that answers with its name.
async fn nginx(name: &str, at: SocketAddr, folder: &Path) -> Process {
    let path = |end: &str| -> PathBuf { folder.join(format!("nginx-{name}{end}")) };
    let (key, cert, conf) = (path(".key"), path(".crt"), path(".conf"));
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"])
        .args(["-subj", &format!("/CN={name}.example"), "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert);
    assert!(openssl.output().expect("openssl runs").status.success());
    let text = format!(
        "daemon off; master_process off; pid {pid}; error_log stderr;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {tmp}; proxy_temp_path {tmp}; fastcgi_temp_path {tmp};\n\
           uwsgi_temp_path {tmp}; scgi_temp_path {tmp};\n\
           server {{ listen {at} ssl; ssl_certificate {cert}; ssl_certificate_key {key};\n\
             location / {{ return 200 \"{name} for $ssl_server_name\"; }} }} }}\n",
        pid = path(".pid").display(),
        tmp = path(".tmp").display(),
        cert = cert.display(),
        key = key.display(),
    );
    std::fs::write(&conf, text).expect("a file");
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&conf).arg("-p").arg(folder);
    let mut process = Process::start(&format!("nginx-{name}"), command, folder);
    process.listening(at).await;
    process
}

const BY_NAME: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: blue, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: front}]
  hostnames: [blue.example]
  rules: [{backendRefs: [{name: blue, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {name: green, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: front}]
  hostnames: [\"*.example\"]
  rules: [{backendRefs: [{name: green, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: lost, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: front}]
  hostnames: [lost.test]
  rules: [{backendRefs: [{name: nobody, port: 443}]}]
";

async fn tls_lab() -> (Lab, Client, [Process; 2]) {
    let mut lab = Lab::new();
    let port = Port::speaking("secure", 443, "tls");
    let mut servers = Vec::new();
    lab.service("front", &[port]);
    for name in ["blue", "green"] {
        lab.service(name, &[port]);
        let at = lab.free_address();
        servers.push(nginx(name, at, lab.folder()).await);
        lab.pod_at(name, &format!("{name}-a"), Reach::Hbone, at);
    }
    lab.write("routes", BY_NAME);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let servers = servers
        .try_into()
        .unwrap_or_else(|_| unreachable!("two servers"));
    (lab, client, servers)
}

/// curl to a name, by way of the client pod's entrance.
async fn curl(to: SocketAddr, name: &str) -> Output {
    let mut command = Command::new("curl");
    command
        .args([
            "-sk",
            "--max-time",
            "30",
            "--connect-to",
            &format!("::{to}"),
        ])
        .arg(format!("https://{name}/"));
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().expect("curl runs")
}

#[tokio::test]
async fn curl_reaches_the_server_that_its_tls_names() {
    let (lab, client, _servers) = tls_lab().await;
    let to = client.to("front", 443);
    for (name, expected) in [
        ("blue.example", "blue for blue.example"),
        ("BLUE.example", "blue for blue.example"),
        ("other.example", "green for other.example"),
        ("a.b.example", "green for a.b.example"),
    ] {
        let output = curl(to, name).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{error}");
    }
    let line = lab
        .cairn()
        .logged("the name", |line| {
            line["requested_server_name"] == "a.b.example"
        })
        .await;
    assert_eq!(line["route_name"], "shop.green.0");
    assert_eq!(line["destination_service"], "green.shop.svc.cluster.local");
}

#[tokio::test]
async fn a_name_that_no_route_has_is_reset_and_told() {
    let (lab, client, _servers) = tls_lab().await;
    let to = client.to("front", 443);
    for (name, flag, reason) in [
        ("no.test", "NR", "no route takes it"),
        ("lost.test", "NC", "Service shop/nobody does not exist"),
    ] {
        let output = curl(to, name).await;
        assert!(!output.status.success(), "{name}");
        assert_eq!(output.stdout, b"", "{name}");
        let line = lab
            .cairn()
            .logged(name, |line| line["requested_server_name"] == name)
            .await;
        assert_eq!(line["response_flags"], flag);
        assert_eq!(line["reason"], reason);
        assert_eq!(line["upstream_host"], serde_json::Value::Null);
    }
    let refused = lab
        .cairn()
        .metric("cairn_tunnel_refused_total", &["no_route"])
        .await;
    assert_eq!(refused, 2.0);
}

#[tokio::test]
async fn openssl_sees_the_certificate_of_the_server_that_it_names() {
    let (_lab, client, _servers) = tls_lab().await;
    let to = client.to("front", 443).to_string();
    for (arguments, expected) in [
        (vec!["-servername", "blue.example"], Some("CN=blue.example")),
        // TLS 1.2 says the name in the same place.
        (
            vec!["-servername", "x.example", "-tls1_2"],
            Some("CN=green.example"),
        ),
        // Without a name it is for no route.
        (vec!["-noservername"], None),
    ] {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &to]).args(&arguments);
        command.stdin(std::process::Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().expect("openssl runs");
        let text = String::from_utf8_lossy(&output.stdout).replace(' ', "");
        match expected {
            None => assert!(!text.contains("BEGINCERTIFICATE"), "{text}"),
            Some(name) => assert!(text.contains(name), "{arguments:?}: {text}"),
        }
    }
}

#[tokio::test]
async fn a_hello_in_pieces_arrives_whole_and_silence_is_reset() {
    let (_lab, client, _servers) = tls_lab().await;
    // Not TLS: nothing that a TLSRoute takes.
    let mut stream = TcpStream::connect(client.to("front", 443)).await.unwrap();
    stream.write_all(b"EHLO mail\r\n").await.unwrap();
    let read = stream.read(&mut [0; 16]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    // Silence: the limit is 5 s.
    let mut silent = TcpStream::connect(client.to("front", 443)).await.unwrap();
    let read = silent.read(&mut [0; 16]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

const SPLIT: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: split, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: mail}]
  rules:
  - backendRefs:
    - {name: mail, port: 25, weight: 7}
    - {name: next, port: 25, weight: 2}
    - {name: nobody, port: 25, weight: 1}
";

#[tokio::test]
async fn connections_are_split_by_weight_and_the_lost_share_is_refused() {
    let mut lab = Lab::new();
    let port = Port::new("tcp-mail", 25);
    let mut apps: Vec<App> = Vec::new();
    for name in ["mail", "next"] {
        lab.service(name, &[port]);
        let pod = format!("{name}-a");
        apps.push(lab.pod(name, &pod, Reach::Hbone, App::server_first));
    }
    lab.write("routes", SPLIT);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let mut refused = 0_u64;
    for _ in 0..1_000 {
        let mut stream = TcpStream::connect(client.to("mail", 25)).await.unwrap();
        // The server speaks first: nobody waits for the client's first bytes here.
        let mut banner = vec![0; BANNER.len()];
        match stream.read_exact(&mut banner).await {
            Ok(_) => assert_eq!(banner, BANNER),
            Err(_) => refused += 1,
        }
    }
    let (old, next) = (apps[0].connections(), apps[1].connections());
    assert_eq!(old + next + refused, 1_000);
    // Four standard deviations: 58, 51 and 38 of 1,000; each fails once in 16,000 runs.
    assert!((642..=758).contains(&old), "{old} {next} {refused}");
    assert!((149..=251).contains(&next), "{old} {next} {refused}");
    assert!((62..=138).contains(&refused), "{old} {next} {refused}");
    let counted = lab
        .cairn()
        .metric("cairn_tunnel_refused_total", &["no_route"])
        .await;
    assert_eq!(counted, refused as f64);
}

const VIRTUAL: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mail, namespace: shop}
spec:
  hosts: [mail]
  tcp:
  - match: [{port: 25}]
    route: [{destination: {host: next, port: {number: 25}}}]
";

#[tokio::test]
async fn a_virtual_service_sends_connections_elsewhere() {
    let mut lab = Lab::new();
    lab.service(
        "mail",
        &[Port::new("tcp-mail", 25), Port::new("tcp-submit", 587)],
    );
    lab.service("next", &[Port::new("tcp-mail", 25)]);
    let mail = lab.pod("mail", "mail-a", Reach::Hbone, App::server_first);
    let next = lab.pod("next", "next-a", Reach::Plain, App::server_first);
    lab.write("routes", VIRTUAL);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    for port in [25, 587] {
        let mut stream = TcpStream::connect(client.to("mail", port)).await.unwrap();
        assert_eq!(read_exactly(&mut stream, BANNER.len()).await, BANNER);
    }
    assert_eq!((mail.connections(), next.connections()), (1, 1));
    let line = lab
        .cairn()
        .logged("the rule", |line| line["route_name"] == "shop.mail.0")
        .await;
    assert_eq!(line["destination_service"], "next.shop.svc.cluster.local");
}
