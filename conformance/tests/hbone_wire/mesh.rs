//! The mesh that every test of this suite talks to, and how it talks: one waypoint, a client with
//! tunnels in the test's own hands. Judges nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cairn_conformance::app::App;
use cairn_conformance::cairn::Cairn;
use cairn_conformance::hbone::{Refused, Stream, Tls, Tunnel};
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::process::until;
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::endpoint::Endpoint;

/// `web`: an HTTP echo that tells what it was sent.
pub const WEB: &str = "10.96.1.1:80";
/// `raw`: HTTP, its endpoint keeps every byte it gets.
pub const RAW: &str = "10.96.1.2:80";
/// `mail`: declared TCP, the server speaks first, then echoes.
pub const MAIL: &str = "10.96.1.3:25";
/// `quiet`: declared TCP, echoes.
pub const QUIET: &str = "10.96.1.4:7";
/// `guess`: undeclared, the server speaks first.
pub const GUESS: &str = "10.96.1.5:4000";

/// Longer than anything here takes, the drain included.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A waypoint and what is behind it.
pub struct Mesh {
    pub lab: Lab,
    /// Source address of the client's tunnels.
    pub source: IpAddr,
    /// Endpoint of [`WEB`].
    pub web: App,
    /// Endpoint of [`RAW`].
    pub raw: Endpoint,
    /// Endpoint of [`MAIL`].
    pub mail: App,
    _others: [App; 2],
}

impl Mesh {
    pub async fn start() -> Self {
        Self::start_with(&[], Endpoint::answering_ok).await
    }

    /// With more flags, and another endpoint behind [`RAW`].
    pub async fn start_with(flags: &[&str], raw: impl FnOnce(SocketAddr) -> Endpoint) -> Self {
        let mut lab = Lab::new();
        lab.service("web", &[Port::new("http", 80)]);
        lab.service("raw", &[Port::new("http", 80)]);
        lab.service("mail", &[Port::new("tcp", 25)]);
        lab.service("quiet", &[Port::new("tcp", 7)]);
        lab.service("guess", &[Port::new("main", 4000)]);
        let web = lab.pod("web", "web-a", Reach::Plain, |at| App::http("a", at));
        let raw = raw(lab.free_address());
        lab.pod_at("raw", "raw-a", Reach::Plain, raw.address);
        let mail = lab.pod("mail", "mail-a", Reach::Plain, App::server_first);
        let others = [
            lab.pod("quiet", "quiet-a", Reach::Plain, App::tcp_echo),
            lab.pod("guess", "guess-a", Reach::Plain, App::server_first),
        ];
        lab.start_with(flags).await;
        let source = lab.client_address();
        Self {
            lab,
            source,
            web,
            raw,
            mail,
            _others: others,
        }
    }

    pub fn cairn(&self) -> &Cairn {
        self.lab.cairn()
    }

    /// TLS of the client `shop/viewer`, as ztunnel does it.
    pub fn tls(&self) -> Tls {
        Tls::of(&self.lab.identities.folder_of("shop/viewer"))
    }

    pub async fn tunnel(&self) -> Tunnel {
        self.tunnel_with(&self.tls()).await.expect("a tunnel")
    }

    pub async fn tunnel_with(&self, tls: &Tls) -> Result<Tunnel, String> {
        Tunnel::connect(tls, self.cairn().hbone, self.source).await
    }

    /// A stream in a tunnel of its own.
    pub async fn stream(&self, authority: &str) -> Stream {
        self.tunnel().await.open(authority).await.expect("a 200")
    }

    /// The status of a CONNECT.
    pub async fn connect_status(&self, authority: &str) -> StatusCode {
        status_of(self.tunnel().await.open(authority).await)
    }

    /// Whether a client gets as far as a CONNECT that is answered 200.
    pub async fn accepts(&self, tls: &Tls) -> bool {
        match self.tunnel_with(tls).await {
            Ok(mut tunnel) => tunnel.open(WEB).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Sends bytes in a stream of its own and reads until the other side ends it.
    pub async fn exchange(&self, authority: &str, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.stream(authority).await;
        stream.write_all(bytes.as_ref()).await.expect("a write");
        read_all(&mut stream).await
    }

    /// Writes a file of configuration and waits until it is in force.
    pub async fn configure(&self, name: &str, yaml: &str) {
        let cairn = self.cairn();
        let before = cairn.metric("cairn_snapshot_version", &[]).await;
        self.lab.write(name, yaml);
        cairn
            .metric_reaches("cairn_snapshot_version", &[], before + 1.0)
            .await;
    }

    /// Puts an AuthorizationPolicy on a service: `rules` as YAML in flow style.
    pub async fn allow_only(&self, service: &str, rules: &str) {
        let yaml = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: only-{service}, namespace: shop}}\nspec:\n  \
             targetRefs: [{{group: \"\", kind: Service, name: {service}}}]\n  rules: {rules}\n"
        );
        self.configure(&format!("only-{service}"), &yaml).await;
    }

    /// How often a CONNECT was refused for a reason.
    pub async fn refused(&self, reason: &str) -> f64 {
        let label = format!("reason=\"{reason}\"");
        let cairn = self.cairn();
        cairn.metric("cairn_tunnel_refused_total", &[&label]).await
    }

    /// Waits until a stream has left every count of Cairn's: what it held is released.
    pub async fn no_stream_is_left(&self) {
        until("every stream has ended", async || {
            let cairn = self.cairn();
            cairn.metric("cairn_downstream_streams", &[]).await == 0.0
        })
        .await;
    }
}

/// A plain CONNECT request.
pub fn connect(authority: &str) -> http::request::Builder {
    Request::builder().method(Method::CONNECT).uri(authority)
}

/// The status that answered a CONNECT.
pub fn status_of(opened: Result<Stream, Refused>) -> StatusCode {
    match opened {
        Ok(_) => StatusCode::OK,
        Err(Refused::Status(status)) => status,
        Err(Refused::Reset(error)) => panic!("a reset in place of a status: {error}"),
    }
}

/// Everything until the end of the stream, which must come and must be a proper end.
pub async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    read_to_end(stream, DEADLINE)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The same within a time of the test's own; what is wrong in words.
pub async fn read_to_end(
    stream: &mut (impl AsyncReadExt + Unpin),
    deadline: Duration,
) -> Result<String, String> {
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(deadline, stream.read_to_end(&mut bytes)).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match ended {
        Ok(Ok(_)) => Ok(text),
        Ok(Err(error)) => Err(format!("the stream broke ({error}) after {text:?}")),
        Err(_) => Err(format!("the stream stays open after {text:?}")),
    }
}

/// Everything until what was read ends with `end`.
pub async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while !bytes.ends_with(end.as_bytes()) {
            match stream.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    let ended = tokio::time::timeout(DEADLINE, read).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match ended {
        Ok(Ok(())) => text,
        Ok(Err(error)) => panic!("the stream ended ({error}) after {text:?}"),
        Err(_) => panic!("no {end:?} in {text:?}"),
    }
}

/// The status code of an HTTP/1.1 answer; "" when there is none.
pub fn status_word(answer: &str) -> &str {
    answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .unwrap_or_default()
}

/// How many HTTP/1.1 answers are in what was read.
pub fn answers(read: &str) -> usize {
    let status = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    read.split("HTTP/1.1 ")
        .skip(1)
        .filter(|r| status(r))
        .count()
}
