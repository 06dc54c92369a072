//! A service's latency while the one beside it gets what it is meant for, and ten times that: Cairn only. The
//! neighbour has a rate limit, so that what is too much is shed (issue 3, Proof: another service's p99 is
//! under 20 % worse).
//!
//! Load generators share a processor on a small machine, so a third measurement tells how much of the
//! difference is theirs: the same tenfold load, on another Cairn.

use serde::Serialize;

use super::rig::Rig;
use super::table::load_average;
use crate::cell::{Cell, Exchange, Mode, Pace, Path};
use crate::load::{Order, Outcome};
use crate::pki::NAMESPACE;
use crate::proxy::cairn::CONFIG_FOLDER;
use crate::proxy::mesh::{Mesh, vip};
use crate::proxy::{Product, Proxy};

/// What the neighbour gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Burden {
    /// What its limit lets pass.
    Meant,
    /// Ten times that.
    Tenfold,
    /// Ten times that, at a Cairn of its own.
    Elsewhere,
}

impl Burden {
    /// All, in the order of a round.
    pub const ALL: [Self; 3] = [Self::Meant, Self::Tenfold, Self::Elsewhere];

    fn times(self) -> u32 {
        match self {
            Self::Meant => 1,
            Self::Tenfold | Self::Elsewhere => 10,
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Beside {
    /// Round, from 0.
    pub round: u32,
    /// What the neighbour got.
    pub burden: Burden,
    /// Load average of the machine at the start.
    pub load_average: f64,
    /// Of the service that is looked at.
    pub calm: Outcome,
    /// Of its neighbour.
    pub neighbour: Outcome,
}

/// Measures all rounds.
///
/// # Errors
/// When Cairn does not start or a load process fails.
pub async fn measure(rig: &Rig) -> anyhow::Result<Vec<Beside>> {
    // A tenfold load is the rate of the table; the calm service has enough requests for a p99.
    let (meant, calm_rate) = (rig.options.rate / 10, rig.options.rate / 4);
    let shared = start(rig, "neighbour", meant).await?;
    let other = start(rig, "neighbour-elsewhere", meant).await?;
    let mut rows = Vec::new();
    for round in 0..rig.options.rounds {
        for n in 0..Burden::ALL.len() {
            // Each is the first in turn, for the machine is not the same from minute to minute.
            let at = (round as usize + n) % Burden::ALL.len();
            let Some(&burden) = Burden::ALL.get(at) else {
                continue;
            };
            let at = match burden {
                Burden::Elsewhere => &other,
                Burden::Meant | Burden::Tenfold => &shared,
            };
            let load_average = load_average();
            let calm = order(rig, &shared, Path::Plain, calm_rate);
            let neighbour = Order {
                sheds: true,
                ..order(rig, at, Path::Hbone, meant * burden.times())
            };
            let (calm, neighbour) = tokio::join!(rig.load(&calm), rig.load(&neighbour));
            let row = Beside {
                round,
                burden,
                load_average,
                calm: calm?,
                neighbour: neighbour?,
            };
            eprintln!(
                "round {round} {burden:?}: p50 {} us, p99 {} us; neighbour {} answers, {} shed",
                row.calm.p50_us, row.calm.p99_us, row.neighbour.requests, row.neighbour.shed
            );
            rows.push(row);
        }
    }
    Ok(rows)
}

/// A Cairn whose second service has a rate limit.
async fn start(rig: &Rig, name: &str, meant: u32) -> anyhow::Result<Proxy> {
    let mesh = Mesh::of_table(&rig.backend, !rig.options.no_route);
    let folder = rig.work_folder(name)?;
    let limited = mesh.services.iter().find(|s| s.vip == vip(Path::Hbone));
    let limited = limited.map_or("", |service| service.name.as_str());
    let burst = (meant / 4).max(1);
    let policy = format!(
        "apiVersion: cairn.dev/v1alpha1
kind: TrafficPolicy
metadata: {{name: limit, namespace: {NAMESPACE}}}
spec:
  targetRefs: [{{kind: Service, name: {limited}}}]
  rateLimits: [{{name: all, requests: {meant}, interval: 1s, burst: {burst}}}]
"
    );
    let config = folder.join(CONFIG_FOLDER);
    std::fs::create_dir_all(&config)?;
    std::fs::write(config.join("limit.yaml"), policy)?;
    let proxy = Proxy::start(Product::Cairn, &rig.launch(Product::Cairn, folder), &mesh).await?;
    rig.verify(&proxy).await?;
    Ok(proxy)
}

fn order(rig: &Rig, proxy: &Proxy, path: Path, rate: u32) -> Order {
    let cell = Cell {
        path,
        exchange: Exchange::Get1k,
        connections: 4,
        mode: Mode::Rate,
    };
    Order {
        pace: Pace {
            rate,
            ..rig.options.pace()
        },
        ..rig.order(proxy, cell)
    }
}
