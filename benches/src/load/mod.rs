//! The load generator: tunnels, lanes in them, three modes, and what came of it. One thread, so
//! that it costs the machine as little as it can.

mod arguments;
mod closed;
mod fresh;
mod lane;
mod open;
pub mod tally;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use futures::future::try_join_all;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::cell::{Exchange, Mode, Pace};
use crate::process::{CpuTime, cpu_time, memory};
use crate::tunnel::Tunnel;
pub use arguments::{LoadArgs, arguments};
pub use lane::{Lane, Template};
use tally::Tally;

/// What to send, where and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// The proxy's tunnel address.
    pub to: SocketAddr,
    /// What CONNECT asks for: `VIP:port`.
    pub authority: String,
    /// Folder with the client's certificate.
    pub identity_folder: PathBuf,
    /// The exchange.
    pub exchange: Exchange,
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each.
    pub lanes_per_connection: usize,
    /// When to send.
    pub mode: Mode,
    /// 429 is an answer, too: it is counted apart.
    pub sheds: bool,
    /// How long and how fast.
    pub pace: Pace,
    /// The process whose time and memory are measured.
    pub measured: Option<u32>,
}

/// What came of it, counted in the measured part alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests answered as they should be.
    pub requests: u64,
    /// Of them those that were answered 429, where that is an answer.
    #[serde(default)]
    pub shed: u64,
    /// Requests that failed or were answered wrongly, warm-up included. Anything but 0 makes the
    /// cell worthless.
    pub errors: u64,
    /// The first error.
    pub first_error: Option<String>,
    /// Length of the measured part.
    pub seconds: f64,
    /// Requests a second.
    pub rps: f64,
    /// Median latency; in mode `rate` from the intended time of sending.
    pub p50_us: u64,
    /// 99th percentile of latency.
    pub p99_us: u64,
    /// Mode `rate`: 99th percentile of how late a request was written, waiting for a free lane
    /// included. Far above 100: the load side was short of processor, or the proxy of speed.
    pub late_p99_us: u64,
    /// Processor time of the measured process per request: the number that matters.
    pub cpu_us: f64,
    /// Its part in user mode, by 10 ms ticks.
    pub cpu_user_us: f64,
    /// Its part in the kernel, by 10 ms ticks.
    pub cpu_system_us: f64,
    /// Share of one processor that the measured process used, 1.0 being all of it.
    pub busy: f64,
    /// Resident memory of the measured process at the end.
    pub resident_kib: u64,
    /// Most it ever had resident.
    pub peak_kib: u64,
}

/// Runs one order. Needs a `LocalSet`.
///
/// # Errors
/// When no load could be put on at all. Failed requests are counted, not returned.
pub async fn run(order: &Order) -> anyhow::Result<Outcome> {
    let tls = crate::tls::client(&order.identity_folder)?;
    let tally = Rc::new(Tally::new()?);
    let template = Rc::new(Template::new(order.exchange).shedding(order.sheds));
    match order.mode {
        Mode::Saturated => {
            for lane in lanes(order, &tls).await? {
                tokio::task::spawn_local(closed::drive(lane, template.clone(), tally.clone()));
            }
        }
        Mode::Rate => {
            let lanes = lanes(order, &tls).await?;
            open::start(lanes, &template, &tally, order.pace.rate)?;
        }
        Mode::Fresh => {
            for _ in 0..order.connections {
                let (order, tls) = (order.clone(), tls.clone());
                tokio::task::spawn_local(fresh::drive(order, tls, template.clone(), tally.clone()));
            }
        }
    }
    observe(order, &tally).await
}

async fn lanes(order: &Order, tls: &Arc<ClientConfig>) -> anyhow::Result<Vec<Lane>> {
    let connections = (0..order.connections).map(|_| async {
        let tunnel = Tunnel::connect(order.to, tls.clone()).await?;
        lane::open(&tunnel, order).await
    });
    let lanes = try_join_all(connections).await?;
    Ok(lanes.into_iter().flatten().collect())
}

async fn observe(order: &Order, tally: &Tally) -> anyhow::Result<Outcome> {
    tokio::time::sleep(order.pace.warm_up).await;
    let usage = || order.measured.map(cpu_time).transpose();
    let (start, before) = (Instant::now(), usage()?.unwrap_or_default());
    tally.start();
    tokio::time::sleep(order.pace.measure).await;
    tally.stop();
    let (elapsed, after) = (start.elapsed(), usage()?.unwrap_or_default());
    let memory = order.measured.map(memory).transpose()?.unwrap_or_default();
    let requests = tally.requests();
    let spent = |part: fn(&CpuTime) -> std::time::Duration| {
        let microseconds = part(&after).saturating_sub(part(&before)).as_secs_f64() * 1e6;
        microseconds / (requests.max(1) as f64)
    };
    let cpu_us = spent(|t| t.total);
    let seconds = elapsed.as_secs_f64();
    Ok(Outcome {
        requests,
        shed: tally.shed(),
        errors: tally.errors(),
        first_error: tally.first_error(),
        seconds,
        rps: requests as f64 / seconds,
        p50_us: tally.latency_us(0.50),
        p99_us: tally.latency_us(0.99),
        late_p99_us: tally.late_us(0.99),
        cpu_us,
        cpu_user_us: spent(|t| t.user),
        cpu_system_us: spent(|t| t.system),
        busy: cpu_us * requests as f64 / seconds / 1e6,
        resident_kib: memory.resident_kib,
        peak_kib: memory.peak_kib,
    })
}

/// One lane over a tunnel of its own, for probes.
pub async fn connect(order: &Order) -> anyhow::Result<Lane> {
    let tls = crate::tls::client(&order.identity_folder)?;
    let tunnel = Tunnel::connect(order.to, tls).await?;
    let single = Order {
        lanes_per_connection: 1,
        ..order.clone()
    };
    lane::open(&tunnel, &single).await?.pop().context("no lane")
}

/// One exchange over a tunnel of its own.
pub async fn once(order: &Order) -> anyhow::Result<http::Response<()>> {
    let mut lane = connect(order).await?;
    lane.exchange(&Template::new(order.exchange).shedding(order.sheds))
        .await
}
