//! What is spoken inside a tunnel: WebSocket, gRPC, HTTP/2, pipelining, 100-continue, TCP.

use std::process::Command;
use std::time::{Duration, Instant};

use cairn_conformance::app::{App, BANNER, read_exactly};
use cairn_conformance::client::{self, Connection};
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::process::Process;
use cairn_conformance::workspace;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

async fn web(ports: &[Port], reach: Reach) -> (Lab, App) {
    let mut lab = Lab::new();
    lab.service("web", ports);
    let app = lab.pod("web", "web-a", reach, |at| App::http("a", at));
    lab.start().await;
    (lab, app)
}

#[tokio::test]
async fn a_websocket_is_carried() {
    let (lab, _app) = web(&[Port::new("http", 80)], Reach::Hbone).await;
    let client = lab.client("shop/viewer").await;
    let stream = TcpStream::connect(client.to("web", 80)).await.unwrap();
    let request = "ws://web.shop/chat".into_client_request().unwrap();
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    assert_eq!(response.status(), 101);
    for text in ["hello", "world"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    let big = vec![7u8; 300_000];
    socket.send(Message::binary(big.clone())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(big));
    socket.close(None).await.unwrap();
    let line = lab
        .cairn()
        .logged("the upgrade", |line| line["path"] == "/chat")
        .await;
    assert_eq!(line["response_code"], 101);
}

const ONLY_ORDERS: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: orders}]
  rules:
  - to: [{operation: {paths: [/shop.Orders/Quote, /shop.Orders/Count, /shop.Orders/Fail]}}]
";

#[tokio::test]
async fn grpc_is_balanced_per_call_with_its_trailers() {
    let mut lab = Lab::new();
    lab.service("orders", &[Port::speaking("orders", 9090, "grpc")]);
    lab.write("policy", ONLY_ORDERS);
    let mut servers = Vec::new();
    for name in ["a", "b", "c"] {
        let address = lab.free_address();
        let mut command = Command::new(workspace::python());
        command
            .arg(workspace::root().join("conformance/apps/grpc_server.py"))
            .args([&address.to_string(), name]);
        let mut server = Process::start(&format!("grpc-{name}"), command, lab.folder());
        server.listening(address).await;
        lab.pod_at("orders", &format!("orders-{name}"), Reach::Hbone, address);
        servers.push(server);
    }
    lab.start().await;
    let pod = lab.client("shop/clerk").await;
    let mut command = Command::new(workspace::python());
    command
        .arg(workspace::root().join("conformance/apps/grpc_client.py"))
        .args([&pod.to("orders", 9090).to_string(), "90"]);
    let mut client = Process::start("grpc-client", command, lab.folder());
    let status = client.wait(Duration::from_secs(60)).await;
    assert!(status.success(), "{}", client.stderr());
    let seen: Value = serde_json::from_str(&client.stdout()).unwrap();

    let counts: Vec<u64> = ["a", "b", "c"]
        .iter()
        .map(|name| seen["servers"][name].as_u64().unwrap_or_default())
        .collect();
    assert_eq!(counts.iter().sum::<u64>(), 90);
    // 30 each are expected; 10 would be more than four standard deviations away.
    assert!(counts.iter().all(|n| *n >= 10), "on one channel: {seen}");
    assert_eq!(seen["numbers"], serde_json::json!(["0", "1", "2"]));
    assert!(seen["stream_trailer"].is_string());
    assert_eq!(seen["fail"][0], "NOT_FOUND");
    assert_eq!(seen["fail"][1], "no such order");
    assert!(
        seen["fail"][2].is_string(),
        "trailing metadata of a failure"
    );
    assert_eq!(seen["forbidden"][0], "PERMISSION_DENIED");
    let refused = lab
        .cairn()
        .logged("the denied call", |l| l["path"] == "/shop.Orders/Forbidden")
        .await;
    assert_eq!(refused["verdict"], "deny");
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_multiplexed() {
    let ports = [Port::new("http2", 80), Port::new("http", 81)];
    let (lab, _app) = web(&ports, Reach::Hbone).await;
    let client = lab.client("shop/viewer").await;
    for (port, upstream) in [(80, "HTTP/2.0"), (81, "HTTP/1.1")] {
        let mut connection = Connection::http2(client.to("web", port)).await;
        for path in ["/one", "/two?q=1"] {
            let answer = connection.get(path).await.unwrap();
            let echo = client::echo(&answer);
            assert_eq!(echo.path, path);
            assert_eq!(echo.version, upstream, "port {port}");
            assert_eq!(echo.header("host").as_deref(), Some("web.shop"));
        }
    }
    // The same with a client that is not the library Cairn is built on.
    let url = format!("http://{}/nghttp", client.to("web", 80));
    let output = Command::new("nghttp").arg(&url).output().unwrap();
    let body = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(body.contains("\"path\":\"/nghttp\""), "{body}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (lab, _app) = web(&[Port::new("http", 80)], Reach::Hbone).await;
    let client = lab.client("shop/viewer").await;
    let mut stream = TcpStream::connect(client.to("web", 80)).await.unwrap();
    let mut requests = String::new();
    for at in 0..10 {
        let connection = if at == 9 { "connection: close\r\n" } else { "" };
        requests += &format!("GET /number/{at}/x HTTP/1.1\r\nhost: web.shop\r\n{connection}\r\n");
    }
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let mut rest = &*text;
    for at in 0..10 {
        let path = format!("\"path\":\"/number/{at}/x\"");
        let found = rest.find(&path);
        let found = found.unwrap_or_else(|| panic!("{path} is missing or out of order in {text}"));
        rest = &rest[found + path.len()..];
    }
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body() {
    let (lab, _app) = web(&[Port::new("http", 80)], Reach::Hbone).await;
    let client = lab.client("shop/viewer").await;
    let mut stream = TcpStream::connect(client.to("web", 80)).await.unwrap();
    let head = "POST /upload HTTP/1.1\r\nhost: web.shop\r\ncontent-length: 5\r\n\
                expect: 100-continue\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(read_exactly(&mut stream, interim.len()).await, interim);
    stream.write_all(b"hello").await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.starts_with("HTTP/1.1 200"), "{rest}");
    assert!(rest.contains("\"body_bytes\":5"), "{rest}");
}

#[tokio::test]
async fn bodies_of_both_directions_arrive_whole() {
    let (lab, _app) = web(&[Port::new("http", 80)], Reach::Hbone).await;
    let client = lab.client("shop/viewer").await;
    let to = client.to("web", 80);
    for bytes in [0usize, 1, 65_535, 5_000_000] {
        let down = client::get(to, &format!("/bytes/{bytes}")).await;
        assert_eq!(down.body().len(), bytes);
        let request = http::Request::post("/up")
            .header("host", "web.shop")
            .body(http_body_util::Full::from(vec![b'x'; bytes]))
            .unwrap();
        let up = Connection::http1(to).await.send(request).await.unwrap();
        assert_eq!(client::echo(&up).body_bytes, bytes);
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let mut lab = Lab::new();
    // Declared as TCP, and undeclared: then the waypoint waits a moment for the client's bytes.
    let ports = [Port::new("tcp-mail", 25), Port::new("mail", 26)];
    lab.service("mail", &ports);
    let _app = lab.pod("mail", "mail-a", Reach::Hbone, App::server_first);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    for port in [25, 26] {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(client.to("mail", port)).await.unwrap();
        assert_eq!(read_exactly(&mut stream, BANNER.len()).await, BANNER);
        assert!(begin.elapsed() < Duration::from_secs(10), "port {port}");
        stream.write_all(b"HELO me").await.unwrap();
        assert_eq!(read_exactly(&mut stream, 7).await, b"HELO me");
        // The client's end reaches the application, and the application's end the client.
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }
}

#[tokio::test]
async fn an_undeclared_port_takes_http_for_http_and_the_rest_for_tcp() {
    let mut lab = Lab::new();
    lab.service("any", &[Port::new("any", 7000)]);
    let _app = lab.pod("any", "any-a", Reach::Plain, App::tcp_echo);
    lab.service("web", &[Port::new("any", 7001)]);
    let _web = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let mut stream = TcpStream::connect(client.to("any", 7000)).await.unwrap();
    let message = b"\x00\x01\x02 not HTTP at all";
    stream.write_all(message).await.unwrap();
    assert_eq!(read_exactly(&mut stream, message.len()).await, message);

    let to = client.to("web", 7001);
    let echo = client::echo(&client::get(to, "/sniffed").await);
    assert!(echo.header("x-request-id").is_some(), "went through HTTP");
    assert_eq!(echo.version, "HTTP/1.1");
    let mut connection = Connection::http2(to).await;
    let echo = client::echo(&connection.get("/sniffed").await.unwrap());
    assert_eq!(echo.version, "HTTP/2.0", "upstream as the client spoke");
}
