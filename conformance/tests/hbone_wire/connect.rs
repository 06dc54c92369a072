//! The CONNECT request (2.3 to 2.5): what is served, and what is refused without a packet leaving.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use cairn_conformance::lab::Reach;
use http::{Method, Request, StatusCode, Version};

use crate::mesh::{MAIL, Mesh, WEB, connect, status_of, status_word};

/// Listeners on one port of every loopback address a waypoint could be made to dial.
pub struct Tripwire {
    pub port: u16,
    listeners: Vec<TcpListener>,
}

impl Tripwire {
    pub fn new() -> Self {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let port = v4.local_addr().expect("an address").port();
        let mut listeners = vec![v4];
        // Machines without IPv6 have nothing to dial there either.
        listeners.extend(TcpListener::bind((Ipv6Addr::LOCALHOST, port)));
        for listener in &listeners {
            listener.set_nonblocking(true).expect("non-blocking");
        }
        Self { port, listeners }
    }

    pub fn was_touched(&self) -> bool {
        self.listeners.iter().any(|l| l.accept().is_ok())
    }
}

#[tokio::test]
async fn a_method_other_than_connect_is_a_400() {
    let mesh = Mesh::start().await;
    let mut tunnel = mesh.tunnel().await;
    let methods = [Method::GET, Method::POST, Method::OPTIONS, Method::HEAD];
    let count = methods.len() as f64;
    for method in methods {
        let request = Request::builder()
            .method(method.clone())
            .uri("https://10.96.1.1:80/")
            .version(Version::HTTP_2)
            .body(())
            .expect("a request");
        let (response, _) = tunnel.request(request, true).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{method}");
    }
    assert_eq!(mesh.refused("not_connect").await, count);
    assert!(tunnel.open(WEB).await.is_ok(), "the tunnel is fine");
    assert_eq!(mesh.web.connections(), 0);
}

#[tokio::test]
async fn what_is_not_declared_is_a_400_and_nothing_is_dialled() {
    let mesh = Mesh::start().await;
    let cairn = mesh.cairn();
    let wire = Tripwire::new();
    let port = wire.port;
    let unbound = "apiVersion: v1\nkind: Service\n\
                   metadata: {name: unbound, namespace: shop, labels: {istio.io/use-waypoint: none}}\n\
                   spec: {clusterIP: 10.96.1.200, ports: [{name: http, port: 80}]}\n";
    mesh.configure("unbound", unbound).await;
    let table = [
        ("10.96.1.1:81".to_owned(), "an undeclared port"),
        ("10.96.1.1:15008".to_owned(), "the tunnel port of a service"),
        (format!("10.96.1.1:{port}"), "a port of somebody else"),
        ("10.96.1.200:80".to_owned(), "a service that is not bound"),
        ("10.96.99.99:80".to_owned(), "an address of nobody"),
        (mesh.web.address.to_string(), "a pod, at a service waypoint"),
        (mesh.mail.address.to_string(), "a pod with TCP"),
        (format!("127.0.0.1:{port}"), "loopback"),
        (format!("127.8.9.10:{port}"), "all of loopback"),
        (format!("[::1]:{port}"), "IPv6 loopback"),
        (format!("[::ffff:127.0.0.1]:{port}"), "loopback, mapped"),
        (format!("[::127.0.0.1]:{port}"), "loopback, compatible"),
        (format!("[64:ff9b::127.0.0.1]:{port}"), "loopback, NAT64"),
        (format!("0.0.0.0:{port}"), "any address"),
        (format!("[::]:{port}"), "any IPv6 address"),
        (format!("[::ffff:0.0.0.0]:{port}"), "any address, mapped"),
        (format!("localhost:{port}"), "localhost by name"),
        (format!("LOCALHOST:{port}"), "localhost in capitals"),
        ("169.254.169.254:80".to_owned(), "the cloud's metadata"),
        ("[::ffff:169.254.169.254]:80".to_owned(), "the same, mapped"),
        ("[fd00:ec2::254]:80".to_owned(), "the same by IPv6"),
        ("metadata.google.internal:80".to_owned(), "the same by name"),
        ("[fe80::1]:80".to_owned(), "link-local"),
        ("224.0.0.1:80".to_owned(), "multicast"),
        ("[ff02::1]:80".to_owned(), "IPv6 multicast"),
        ("255.255.255.255:80".to_owned(), "broadcast"),
        (
            "nobody.shop.svc.cluster.local:80".to_owned(),
            "an unknown name",
        ),
        (
            "web.shop.svc.cluster.local:81".to_owned(),
            "a known name, an undeclared port",
        ),
        ("web.shop:80".to_owned(), "a short name"),
        (
            format!("127.0.0.1:{}", cairn.admin.port()),
            "the admin port",
        ),
        (cairn.admin.to_string(), "its own admin address"),
        (cairn.hbone.to_string(), "its own tunnel address"),
        (cairn.metrics.to_string(), "its own metrics"),
        (cairn.ready.to_string(), "its own readiness"),
    ];
    let mut tunnel = mesh.tunnel().await;
    for (authority, what) in &table {
        let status = status_of(tunnel.open(authority).await);
        assert_eq!(status, StatusCode::BAD_REQUEST, "{what}: {authority}");
    }
    assert!(!wire.was_touched());
    assert_eq!((mesh.web.connections(), mesh.mail.connections()), (0, 0));
    assert_eq!(mesh.refused("undeclared_port").await, 4.0);
    let all = mesh.refused("").await;
    let sum: f64 = mesh.refused("undeclared_port").await
        + mesh.refused("not_served").await
        + mesh.refused("bad_authority").await;
    assert_eq!(sum, table.len() as f64, "each is counted once, of {all}");
    assert!(tunnel.open(WEB).await.is_ok(), "the tunnel is fine");
}

#[tokio::test]
async fn a_declared_endpoint_on_a_port_of_the_waypoint_itself_is_not_dialled() {
    let mut mesh = Mesh::start().await;
    let cairn = mesh.cairn();
    let own = [cairn.hbone, cairn.metrics, cairn.ready, cairn.admin];
    for (service, pod) in [("web", "web-a"), ("mail", "mail-a")] {
        mesh.lab.remove_pod(pod);
        for (at, address) in own.into_iter().enumerate() {
            let name = format!("{service}-own-{at}");
            mesh.lab.pod_at(service, &name, Reach::Plain, address);
        }
    }
    // Both files of endpoints must be in force: the last endpoint of each is in the dump.
    let count = |dump: &str, address: SocketAddr| dump.matches(&address.to_string()).count();
    let gone = [mesh.web.address, mesh.mail.address];
    cairn_conformance::process::until("the endpoints are in force", async || {
        let dump = mesh.cairn().config_dump().await.to_string();
        gone.iter().all(|a| count(&dump, *a) == 0) && own.iter().all(|a| count(&dump, *a) >= 2)
    })
    .await;
    for _ in 0..8 {
        let status = mesh.connect_status(MAIL).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let request = "GET /stats HTTP/1.1\r\nhost: web.shop\r\nconnection: close\r\n\r\n";
        let answer = mesh.exchange(WEB, request).await;
        assert_eq!(status_word(&answer), "503", "{answer}");
    }
    assert_eq!(mesh.refused("no_endpoint").await, 8.0);
    let reason = "upstream_transport_failure_reason";
    let line = mesh
        .cairn()
        .logged("the reason", |line| line[reason].is_string());
    let line = line.await[reason].to_string();
    assert!(line.contains("a port of this waypoint itself"), "{line}");
}

#[tokio::test]
async fn unknown_headers_and_odd_baggage_are_ignored() {
    let mesh = Mesh::start().await;
    let mut tunnel = mesh.tunnel().await;
    for (name, value) in [
        ("x-unknown", "whatever"),
        ("baggage", ""),
        ("baggage", ",,=,a=b;c,k8s.namespace.name"),
        ("forwarded", "for=;host="),
        ("traceparent", "00-zz"),
        ("x-forwarded-network", "other"),
        ("x-istio-source", "waypoint"),
    ] {
        let request = connect(WEB)
            .header(name, value)
            .body(())
            .expect("a CONNECT");
        let (response, _) = tunnel.request(request, false).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{name}: {value}");
    }
}

#[tokio::test]
async fn forwarded_and_baggage_do_not_influence_policy() {
    let mesh = Mesh::start().await;
    let spoofed = |authority| {
        connect(authority)
            .header("forwarded", "for=\"203.0.113.7:1234\";host=web.shop")
            .header("x-forwarded-for", "203.0.113.7")
            .header(
                "baggage",
                "k8s.namespace.name=admin,k8s.deployment.name=boss",
            )
            .body(())
            .expect("a CONNECT")
    };
    for source in [
        "{ipBlocks: [203.0.113.7]}",
        "{remoteIpBlocks: [203.0.113.7]}",
        "{namespaces: [admin]}",
    ] {
        mesh.allow_only("mail", &format!("[{{from: [{{source: {source}}}]}}]"))
            .await;
        let mut tunnel = mesh.tunnel().await;
        let (response, _) = tunnel
            .request(spoofed(MAIL), false)
            .await
            .expect("a status");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{source}");
    }
    // The same rule lets in who is really there.
    let real = format!("[{{from: [{{source: {{ipBlocks: [{}]}}}}]}}]", mesh.source);
    mesh.allow_only("mail", &real).await;
    let mut tunnel = mesh.tunnel().await;
    let (response, _) = tunnel
        .request(spoofed(MAIL), false)
        .await
        .expect("a status");
    assert_eq!(response.status(), StatusCode::OK);
}
