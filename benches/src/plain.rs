//! Load over plain TCP, without a tunnel: what the kernel redirect is measured with. Who steers the
//! connections, and in which network namespace this runs, is the caller's.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::app;
use crate::load::tally::Tally;
use crate::process::{cpu_time, packet_threads, system_cpu_time};

/// Bytes of an answer.
const ANSWER_BYTES: usize = 1024;

/// What to do.
#[derive(Subcommand)]
pub enum Plain {
    /// Serve the application over HTTP/1.1, and print a line once it listens
    Serve {
        /// Where
        address: SocketAddr,
    },
    /// GET 1 KiB over connections that are kept, each as soon as it has its answer
    Get(GetArgs),
    /// Connect and close, one after the other
    Connect(ConnectArgs),
}

/// How to GET.
#[derive(Args)]
pub struct GetArgs {
    /// Whom
    address: SocketAddr,
    /// Connections
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Measured seconds
    #[arg(long, default_value_t = 3.0)]
    measure_seconds: f64,
    /// Seconds of load before
    #[arg(long, default_value_t = 1.0)]
    warm_up_seconds: f64,
    /// Process whose processor time is told as well
    #[arg(long)]
    process: Option<u32>,
    /// Other processes that take part: with them, this one and the kernel's own threads for packets
    /// the processor time of all together is told
    #[arg(long)]
    with: Vec<u32>,
}

/// How to connect.
#[derive(Args)]
pub struct ConnectArgs {
    /// Whom
    address: SocketAddr,
    /// How often
    #[arg(long, default_value_t = 4000)]
    times: usize,
}

/// What came of GETs, per request where the name says so.
#[derive(Serialize)]
struct Got {
    requests: u64,
    errors: u64,
    first_error: Option<String>,
    rps: f64,
    /// Processor time of the whole machine but idling, microseconds per request.
    system_us: f64,
    /// Of the process that was named, user and kernel.
    process_us: Option<f64>,
    /// Of all that take part, ksoftirqd included: what others do on the machine is not in it.
    together_us: f64,
    p50_us: u64,
    p99_us: u64,
}

/// What came of connect().
#[derive(Serialize)]
struct Connected {
    connections: usize,
    p50_ns: u64,
    p90_ns: u64,
}

/// Does it and prints what came of it as JSON.
///
/// # Errors
/// When nothing listens there, or a connection can not be made.
pub async fn run(what: Plain) -> anyhow::Result<()> {
    match what {
        Plain::Serve { address } => serve(address).await,
        Plain::Get(order) => print(&get(&order).await?),
        Plain::Connect(order) => print(&connect(&order)?),
    }
}

fn print(outcome: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(outcome)?);
    Ok(())
}

async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("ready");
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        spawn_local(app::serve(tcp, false));
    }
}

async fn get(order: &GetArgs) -> anyhow::Result<Got> {
    let tally = Rc::new(Tally::new()?);
    for _ in 0..order.connections {
        let tcp = TcpStream::connect(order.address).await?;
        tcp.set_nodelay(true)?;
        let (send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
        spawn_local(async move {
            // Its error is that of the exchange under way.
            let _ = connection.await;
        });
        spawn_local(drive(send, order.address.to_string(), tally.clone()));
    }
    let seconds = |s: f64| Duration::from_secs_f64(s.clamp(0.1, 60.0));
    tokio::time::sleep(seconds(order.warm_up_seconds)).await;
    let process = || order.process.map(cpu_time).transpose();
    let mut all: Vec<u32> = order.with.iter().copied().chain(order.process).collect();
    all.push(std::process::id());
    all.extend(packet_threads()?);
    let together = || -> anyhow::Result<Duration> {
        let each = all.iter().map(|id| Ok(cpu_time(*id)?.total));
        each.sum()
    };
    let (system_before, process_before) = (system_cpu_time()?, process()?);
    let together_before = together()?;
    let began = Instant::now();
    tally.start();
    tokio::time::sleep(seconds(order.measure_seconds)).await;
    tally.stop();
    let took = began.elapsed();
    let together_after = together()?;
    let (system_after, process_after) = (system_cpu_time()?, process()?);
    let requests = tally.requests();
    ensure!(requests > 0, "nothing was answered");
    let each = |time: Duration| time.as_secs_f64() * 1e6 / requests as f64;
    Ok(Got {
        requests,
        errors: tally.errors(),
        first_error: tally.first_error(),
        rps: requests as f64 / took.as_secs_f64(),
        system_us: each(system_after.saturating_sub(system_before)),
        process_us: process_before
            .zip(process_after)
            .map(|(before, after)| each(after.total.saturating_sub(before.total))),
        together_us: each(together_after.saturating_sub(together_before)),
        p50_us: tally.latency_us(0.5),
        p99_us: tally.latency_us(0.99),
    })
}

async fn drive(mut send: SendRequest<Empty<Bytes>>, host: String, tally: Rc<Tally>) {
    loop {
        let sent = Instant::now();
        let outcome = exchange(&mut send, &host).await;
        let over = outcome.is_err();
        tally.ended(sent, outcome);
        if over {
            return;
        }
    }
}

async fn exchange(send: &mut SendRequest<Empty<Bytes>>, host: &str) -> anyhow::Result<()> {
    let request = Request::get(format!("/bytes/{ANSWER_BYTES}"))
        .header(HOST, host)
        .body(Empty::new())?;
    send.ready().await?;
    let response = send.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status == StatusCode::OK, "answered {status}");
    ensure!(body.len() == ANSWER_BYTES, "answered {} bytes", body.len());
    Ok(())
}

fn connect(order: &ConnectArgs) -> anyhow::Result<Connected> {
    let mut times = Vec::with_capacity(order.times);
    for _ in 0..order.times {
        let began = Instant::now();
        let connection = std::net::TcpStream::connect(order.address)?;
        times.push(began.elapsed());
        // A reset, so that no port waits in TIME_WAIT.
        SockRef::from(&connection).set_linger(Some(Duration::ZERO))?;
    }
    times.sort_unstable();
    let at = |part: usize| -> io::Result<u64> {
        let time = times.get(times.len() * part / 100);
        let time = time.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    };
    Ok(Connected {
        connections: times.len(),
        p50_ns: at(50).context("no connection")?,
        p90_ns: at(90)?,
    })
}
