//! Receivers that answer well, badly, too much, or not at all.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::http2_peer;

/// What one export comes to with a receiver that sends these bytes once it was asked.
async fn with(protocol: Protocol, answer: &'static [u8]) -> Result<Partial, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 4_096];
        let _ = stream.read(&mut asked).await;
        let _ = stream.write_all(answer).await;
        // As long as the other end waits.
        while matches!(stream.read(&mut asked).await, Ok(1..)) {}
    });
    let mut to = Destination::parse(&format!("http://{address}"), protocol, None, true).unwrap();
    to.timeout = Duration::from_millis(300);
    let mut transport = Transport::new(Signal::Traces, to, Way::Outside);
    transport.send(Bytes::from_static(b"message")).await
}

async fn http(answer: &'static [u8]) -> Result<Partial, Failure> {
    with(Protocol::Http, answer).await
}

fn is_again(result: Result<Partial, Failure>, pause: Option<u64>) -> bool {
    matches!(result, Err(Failure::Again(_, p)) if p == pause.map(Duration::from_secs))
}

#[tokio::test]
async fn an_empty_answer_means_that_everything_was_taken() {
    let taken = http(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(taken, Ok(Partial::default()));
}

/// OTLP wants answers in the form of the question; one that is not is read as what it says it is.
#[tokio::test]
async fn an_answer_is_read_in_the_form_that_it_names() {
    let json = b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: 65\r\n\r\n\
        {\"partialSuccess\":{\"rejectedSpans\":\"2\",\"errorMessage\":\"too old\"}}";
    for protocol in [Protocol::Json, Protocol::Http] {
        let partial = with(protocol, json).await.unwrap();
        assert_eq!((partial.rejected, &*partial.words), (2, "too old"));
    }
    let silent = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(with(Protocol::Json, silent).await, Ok(Partial::default()));
    let broken = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n{";
    let failed = with(Protocol::Json, broken).await;
    assert!(matches!(failed, Err(Failure::Final(_))), "{failed:?}");
}

#[tokio::test]
async fn what_is_busy_is_asked_again_when_it_wants_to_be() {
    let busy = b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    assert!(is_again(http(busy).await, Some(7)));
    let many = b"HTTP/1.1 429 Many\r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n";
    assert!(is_again(http(many).await, None));
}

#[tokio::test]
async fn other_statuses_are_for_good() {
    for answer in [
        &b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n"[..],
        b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n",
    ] {
        assert!(matches!(http(answer).await, Err(Failure::Final(_))));
    }
}

#[tokio::test]
async fn garbage_and_silence_are_failures_and_nothing_else() {
    assert!(matches!(
        http(b"\0\xff\xfe nonsense\r\n\r\n").await,
        Err(Failure::Again(..))
    ));
    assert!(is_again(http(b"").await, None));
    let unread = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\xff\xff\xff";
    assert!(matches!(http(unread).await, Err(Failure::Final(_))));
    assert!(is_again(
        with(Protocol::Grpc, b"HTTP/1.1 200 OK\r\n\r\n").await,
        None
    ));
    assert!(is_again(with(Protocol::Grpc, b"").await, None));
}

#[tokio::test]
async fn an_answer_without_end_is_not_gathered() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11000\r\n";
    static ENDLESS: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        [
            &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11000\r\n"[..],
            &[b'x'; 0x11000],
        ]
        .concat()
    });
    assert!(ENDLESS.starts_with(head));
    let failed = http(&ENDLESS).await;
    assert!(matches!(failed, Err(Failure::Final(_))), "{failed:?}");
}

#[tokio::test]
async fn nobody_there_is_worth_another_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let to = Destination::parse(&url, Protocol::Grpc, None, true).unwrap();
    let mut transport = Transport::new(Signal::Traces, to, Way::Outside);
    assert!(is_again(transport.send(Bytes::new()).await, None));
}

#[test]
fn a_post_has_the_host_the_type_and_the_headers_of_the_receiver() {
    let mut to = Destination::parse(
        "http://[::1]:4318",
        Protocol::Http,
        Some(Signal::Logs),
        true,
    )
    .unwrap();
    let tenant = (
        HeaderName::from_static("x-tenant"),
        HeaderValue::from_static("7"),
    );
    to.headers = vec![tenant];
    let request = request(&to, Bytes::new()).unwrap();
    assert_eq!(request.uri(), "/v1/logs");
    assert_eq!(request.headers()["host"], "[::1]:4318");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    assert_eq!(request.headers()["x-tenant"], "7");
    to.protocol = Protocol::Json;
    let request = super::request(&to, Bytes::new()).unwrap();
    assert_eq!(request.headers()["content-type"], "application/json");
}

/// A gRPC server allows few PINGs while a stream is quiet unless it was told otherwise, and ends the connection after
/// the fourth too many, with what is on its way.
#[tokio::test(start_paused = true)]
async fn a_quiet_log_service_is_not_pinged() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let to = Destination::parse("http://als:9000", Protocol::Grpc, None, true).unwrap();
    let mut transport = Transport::new(Signal::Logs, to, Way::Outside);
    transport.stream_entries(Vec::new());
    let quiet = async {
        transport.kept = Some(transport.speak(Noticed::new(ours)).await.unwrap());
        transport.send(Bytes::new()).await.unwrap();
        std::future::pending::<()>().await;
    };
    let pings = http2_peer::pings(theirs, Duration::from_secs(3600));
    let pings = tokio::select! {
        () = quiet => panic!("it has no end"),
        pings = pings => pings,
    };
    assert!(pings.is_empty(), "{pings:?}");
}

/// What a log service gets: in which connection, and bytes of a stream or its end.
type Told = mpsc::UnboundedReceiver<(usize, Option<Bytes>)>;

/// A log service that answers streams at their end, and sends GOAWAY in as many of its connections as it is told.
async fn log_service() -> (std::net::SocketAddr, Told, watch::Sender<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    let (leaves, leave) = watch::channel(0);
    tokio::spawn(async move {
        for number in 0.. {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(number, tcp, tell.clone(), leave.clone()));
        }
    });
    (address, told, leaves)
}

async fn serve(
    number: usize,
    tcp: TcpStream,
    tell: mpsc::UnboundedSender<(usize, Option<Bytes>)>,
    mut leave: watch::Receiver<usize>,
) {
    let mut connection = h2::server::handshake(tcp).await.unwrap();
    let mut has_left = false;
    loop {
        tokio::select! {
            request = connection.accept() => {
                let Some(Ok((request, mut answer))) = request else { return };
                let tell = tell.clone();
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(Ok(bytes)) = body.data().await {
                        let _ = body.flow_control().release_capacity(bytes.len());
                        if !bytes.is_empty() {
                            let _ = tell.send((number, Some(bytes)));
                        }
                    }
                    let head = http::Response::builder()
                        .header(CONTENT_TYPE, "application/grpc")
                        .header("grpc-status", "0");
                    let _ = answer.send_response(head.body(()).unwrap(), true);
                    let _ = tell.send((number, None));
                });
            }
            _ = leave.wait_for(|leaving| *leaving > number), if !has_left => {
                has_left = true;
                connection.graceful_shutdown();
            }
        }
    }
}

/// What a message of a stream holds, after gRPC's prefix.
fn entry(told: Option<(usize, Option<Bytes>)>) -> (usize, Option<String>) {
    let (number, bytes) = told.unwrap();
    let text = bytes.map(|bytes| String::from_utf8(bytes[5..].to_vec()).unwrap());
    (number, text)
}

/// A server that drains may be gone any time: what it gets after its GOAWAY may be read by nobody.
#[tokio::test]
async fn a_log_service_that_drains_gets_nothing_more_and_its_stream_ends_in_good_order() {
    let (address, mut told, leaves) = log_service().await;
    let url = format!("http://{address}");
    let to = Destination::parse(&url, Protocol::Grpc, None, true).unwrap();
    let mut transport = Transport::new(Signal::Logs, to, Way::Outside);
    transport.stream_entries(b"me:".to_vec());
    let mut send = async |entry: &'static str| {
        let taken = transport.send(Bytes::from_static(entry.as_bytes())).await;
        assert!(taken.unwrap().is_unanswered, "nobody said that it took it");
    };
    send("first").await;
    assert_eq!(entry(told.recv().await), (0, Some("me:first".into())));
    send("second").await;
    assert_eq!(entry(told.recv().await), (0, Some("second".into())));
    // It need not wait for another entry.
    leaves.send_replace(1);
    assert_eq!(entry(told.recv().await), (0, None));
    send("third").await;
    assert_eq!(entry(told.recv().await), (1, Some("me:third".into())));
    // One that comes while entries do: each arrives once, the next at last in a new stream.
    leaves.send_replace(2);
    for number in 0.. {
        assert!(
            number < 10_000,
            "it goes to whoever wants to end the connection"
        );
        let text = number.to_string();
        while let Err(failure) = transport.send(Bytes::from(text.clone())).await {
            // Taken back: it was handed over as the GOAWAY came.
            assert!(matches!(failure, Failure::Again(..)), "{failure:?}");
        }
        let (at, arrived) = loop {
            if let (at, Some(arrived)) = entry(told.recv().await) {
                break (at, arrived);
            }
        };
        assert_eq!(arrived.trim_start_matches("me:"), text);
        if at == 2 {
            break;
        }
    }
    transport.finish().await;
}
