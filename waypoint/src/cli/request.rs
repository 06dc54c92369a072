//! `cairn request`: one HTTP request, or some bytes, through an HBONE tunnel, as a client's ztunnel
//! would send it. The protocol is [`crate::client`]'s.

mod target;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use cairn_config_schema::identity::Identity;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::output::{self, Outcome};
use crate::client::{HttpClient, Tunnel};
use crate::tls::{IdentityFiles, LocalIdentity};
use crate::tunnel_stream::TunnelStream;
use target::Target;

const EXAMPLE: &str = "\
Examples:
  cairn request --via 127.0.0.1:15008 --identity-dir ./pki/shop/web --to 10.96.1.1:80 /items
  cairn request --via 127.0.0.1:15008 --identity-dir ./pki/shop/web http://web.shop.svc.cluster.local:80/items
  cairn request --via 127.0.0.1:15008 --identity-dir ./pki/shop/web --to 10.96.1.1:80 --repeat 200 /items

Exit code: 0 an answer came, whatever its status; 22 with --fail if it is 400 or more; 1 no answer:
no connection, a refused certificate, a refused CONNECT; 2 wrong usage.";

/// Most bytes printed of an answer to `--tcp`.
const TCP_ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Arguments of `cairn request`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Path, or whole URL; its host and port are asked for unless --to says otherwise
    #[arg(value_name = "URL", default_value = "/")]
    url: String,
    /// The waypoint's (or a ztunnel's) tunnel address
    #[arg(long, value_name = "HOST:PORT")]
    via: String,
    /// Folder with cert-chain.pem, key.pem and root-cert.pem of the client
    #[arg(long, value_name = "DIR", env = "CAIRN_IDENTITY_DIR")]
    identity_dir: PathBuf,
    /// Whom to ask for: virtual IP or hostname of a service, or IP of a pod, and port
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,
    /// Method; GET, or POST with --data
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    method: Option<Method>,
    /// A header, `Name: value`; may be given several times
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Body; @FILE takes it from a file, @- from stdin
    #[arg(short, long, value_name = "DATA")]
    data: Option<String>,
    /// Print status and headers too
    #[arg(short, long)]
    include: bool,
    /// Tell on stderr who answers and what happens
    #[arg(short, long)]
    verbose: bool,
    /// HTTP/2 with prior knowledge inside the tunnel
    #[arg(long)]
    http2: bool,
    /// No HTTP: send --data and print what comes back
    #[arg(long, conflicts_with_all = ["method", "headers", "http2", "include", "repeat", "fail"])]
    tcp: bool,
    /// Write the body to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Whom the certificate at the other end must name
    #[arg(long, value_name = "SPIFFE-ID", value_parser = identity)]
    expect_server: Option<Identity>,
    /// Send it so often over one stream and count the answers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Exit with 22 if the status is 400 or more
    #[arg(short, long)]
    fail: bool,
    /// Give up after so long
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    max_time: u64,
}

/// Runs `cairn request`.
pub fn request(args: &Args) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let limit = Duration::from_secs(args.max_time);
    runtime.block_on(async {
        match tokio::time::timeout(limit, run(args)).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("no answer within {} s (--max-time)", args.max_time),
        }
    })
}

async fn run(args: &Args) -> anyhow::Result<Outcome> {
    let target = match Target::of(args) {
        Ok(target) => target,
        Err(error) => return Ok(output::wrong_usage(&error)),
    };
    let body = body(args.data.as_deref())?;
    let local = LocalIdentity::load(
        &IdentityFiles {
            dir: args.identity_dir.clone(),
        },
        1,
    )?;
    let via = address(&args.via).await?;
    args.tell(format_args!("* as {}", local.identity));
    let tunnel = Tunnel::connect(via, Arc::new(local), args.expect_server.as_ref()).await?;
    args.tell(format_args!(
        "* tunnel to {via}, which is {}",
        tunnel.server()
    ));
    let stream = tunnel.open(&target.authority).await?;
    args.tell(format_args!("* CONNECT {}: 200", target.authority));
    if args.tcp {
        return talk(args, stream, body).await;
    }
    let mut client = HttpClient::over(stream, args.http2).await?;
    if args.repeat > 1 {
        return repeat(args, &mut client, &target, &body).await;
    }
    let request = args.request(&target, body)?;
    args.tell_request(&request);
    let began = Instant::now();
    let response = client.fetch(request).await?;
    args.tell(format_args!(
        "* answered after {:.1} ms",
        began.elapsed().as_secs_f64() * 1e3
    ));
    if args.verbose {
        eprint!("{}", head(&response, "< "));
    }
    let mut out = Vec::new();
    if args.include {
        out.extend_from_slice(head(&response, "").as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(response.body());
    args.deliver(&out)?;
    let failed = args.fail && response.status().as_u16() >= 400;
    Ok(if failed {
        Outcome::HttpError
    } else {
        Outcome::Fine
    })
}

/// Sends the same request again and again and counts the answers by status and first line.
async fn repeat(
    args: &Args,
    client: &mut HttpClient,
    target: &Target,
    body: &Bytes,
) -> anyhow::Result<Outcome> {
    let mut answers: BTreeMap<(u16, String), u32> = BTreeMap::new();
    for _ in 0..args.repeat {
        let response = client.fetch(args.request(target, body.clone())?).await?;
        let text = String::from_utf8_lossy(response.body());
        let first: String = text
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(60)
            .collect();
        *answers
            .entry((response.status().as_u16(), first))
            .or_default() += 1;
    }
    let mut text = String::new();
    for ((status, first), number) in &answers {
        writeln!(text, "{number:>6} x {status} {first}")?;
    }
    args.deliver(text.as_bytes())?;
    let failed = args.fail && answers.keys().any(|(status, _)| *status >= 400);
    Ok(if failed {
        Outcome::HttpError
    } else {
        Outcome::Fine
    })
}

/// Sends bytes, says that there will be no more, and prints what comes back.
async fn talk(args: &Args, mut stream: TunnelStream, data: Bytes) -> anyhow::Result<Outcome> {
    let closed = "the stream was closed without an answer";
    stream.write_all(&data).await.context(closed)?;
    stream.shutdown().await.context(closed)?;
    let mut answer = Vec::new();
    let read = stream
        .take(TCP_ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await;
    args.deliver(&answer)?;
    read.context("the stream was reset")?;
    Ok(Outcome::Fine)
}

impl Args {
    fn request(&self, target: &Target, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        let host = match headers.get(HOST) {
            Some(host) => host.to_str().context("Host")?.to_owned(),
            None => target.host.clone(),
        };
        let uri = if self.http2 {
            headers.remove(HOST);
            let parts = Uri::builder().scheme("http").authority(host.as_str());
            parts.path_and_query(target.path.as_str()).build()
        } else {
            headers.entry(HOST).or_insert(HeaderValue::from_str(&host)?);
            Uri::builder().path_and_query(target.path.as_str()).build()
        };
        let uri = uri.with_context(|| format!("{} can not be sent to {host}", target.path))?;
        let agent = HeaderValue::from_static(concat!("cairn/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(agent);
        let mut method = Method::GET;
        if self.data.is_some() {
            method = Method::POST;
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.entry(CONTENT_TYPE).or_insert(form);
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = self.method.clone().unwrap_or(method);
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn tell(&self, words: std::fmt::Arguments<'_>) {
        if self.verbose {
            eprintln!("{words}");
        }
    }

    fn tell_request(&self, request: &Request<Full<Bytes>>) {
        self.tell(format_args!("> {} {}", request.method(), request.uri()));
        for (name, value) in request.headers() {
            self.tell(format_args!(
                "> {name}: {}",
                String::from_utf8_lossy(value.as_bytes())
            ));
        }
    }

    fn deliver(&self, bytes: &[u8]) -> anyhow::Result<()> {
        match &self.output {
            Some(file) => {
                std::fs::write(file, bytes).with_context(|| file.display().to_string())?
            }
            None => output::print_bytes(bytes)?,
        }
        Ok(())
    }
}

/// Status line and headers, each line with a mark in front.
fn head(response: &Response<Bytes>, mark: &str) -> String {
    let mut text = format!("{mark}{:?} {}\n", response.version(), response.status());
    for (name, value) in response.headers() {
        text.push_str(&format!(
            "{mark}{name}: {}\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    text
}

fn body(data: Option<&str>) -> anyhow::Result<Bytes> {
    let Some(data) = data else {
        return Ok(Bytes::new());
    };
    match data.strip_prefix('@') {
        None => Ok(Bytes::from(data.to_owned())),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).context("stdin")?;
            Ok(bytes.into())
        }
        Some(file) => Ok(std::fs::read(file).with_context(|| file.to_owned())?.into()),
    }
}

async fn address(text: &str) -> anyhow::Result<SocketAddr> {
    let mut found = tokio::net::lookup_host(text)
        .await
        .with_context(|| format!("--via {text}"))?;
    found
        .next()
        .with_context(|| format!("--via {text}: no address"))
}

pub(super) fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected `Name: value`")?;
    let name = name
        .trim()
        .parse()
        .map_err(|_| format!("`{name}` is not a header name"))?;
    let value = value
        .trim()
        .parse()
        .map_err(|_| format!("`{value}` is not a header value"))?;
    Ok((name, value))
}

fn identity(text: &str) -> Result<Identity, String> {
    Identity::parse(text).map_err(|e| e.to_string())
}
