//! What telemetry costs: Cairn started once for each way of telling of requests, every cell measured with
//! each in turn. Nothing here is compared with Envoy.

use serde::Serialize;

use super::rig::Rig;
use super::table::load_average;
use crate::cell::Cell;
use crate::load::Outcome;
use crate::proxy::mesh::Mesh;
use crate::proxy::telling::Telling;
use crate::proxy::{Product, Proxy};

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// Round, from 0.
    pub round: u32,
    /// How Cairn told of requests.
    pub telling: Telling,
    /// The cell.
    #[serde(flatten)]
    pub cell: Cell,
    /// Load average of the machine at the start.
    pub load_average: f64,
    /// What was measured.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Measures all cells.
///
/// # Errors
/// When Cairn does not start or a load process fails.
pub async fn measure(rig: &Rig) -> anyhow::Result<Vec<Told>> {
    let proxies = start(rig).await?;
    let cells = rig.options.cells();
    let total = cells.len() * proxies.len() * rig.options.rounds as usize;
    let mut rows = Vec::with_capacity(total);
    for round in 0..rig.options.rounds {
        for (n, &cell) in cells.iter().enumerate() {
            // Each is the first in turn, for the machine is not the same from minute to minute.
            let first = (round as usize + n) % proxies.len().max(1);
            let (before, after) = proxies.split_at(first);
            for (telling, proxy) in after.iter().chain(before) {
                let load_average = load_average();
                let outcome = rig.load(&rig.order(proxy, cell)).await?;
                eprintln!(
                    "[{:3}/{total}] {telling:10} {:6} {:9} {:4} {:10} {:7.1} us/req",
                    rows.len() + 1,
                    cell.path,
                    cell.exchange,
                    cell.connections,
                    cell.mode,
                    outcome.cpu_us,
                );
                rows.push(Told {
                    round,
                    telling: *telling,
                    cell,
                    load_average,
                    outcome,
                });
            }
        }
    }
    Ok(rows)
}

async fn start(rig: &Rig) -> anyhow::Result<Vec<(Telling, Proxy)>> {
    let mesh = Mesh::of_table(&rig.backend, !rig.options.no_route);
    let mut proxies = Vec::new();
    for &telling in &rig.options.tellings {
        let folder = rig.work_folder(&format!("telling-{telling}"))?;
        let mut launch = rig.launch(Product::Cairn, folder);
        launch.access_log = telling == Telling::AccessLog;
        launch.variables = telling.variables(rig.backend.plain_http);
        let proxy = Proxy::start(Product::Cairn, &launch, &mesh).await?;
        rig.verify(&proxy).await?;
        proxies.push((telling, proxy));
    }
    Ok(proxies)
}
