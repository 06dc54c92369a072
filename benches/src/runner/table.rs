//! The table: every cell, in every round, once for each proxy, in turn, so that a slow minute of
//! the machine falls on both.

use anyhow::ensure;
use serde::Serialize;

use super::rig::Rig;
use crate::cell::Cell;
use crate::load::Outcome;
use crate::proxy::{Product, Proxy};

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Round, from 0.
    pub round: u32,
    /// The proxy.
    pub product: Product,
    /// The cell.
    #[serde(flatten)]
    pub cell: Cell,
    /// Requests in flight on each connection.
    pub lanes_per_connection: usize,
    /// Load average of the machine at the start: above 2 or so someone else was at work.
    pub load_average: f64,
    /// What was measured.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Measures all cells.
///
/// # Errors
/// When a load process fails; errors within a cell are in its row.
pub async fn measure(rig: &Rig, proxies: &[Proxy]) -> anyhow::Result<Vec<Row>> {
    let cells = rig.options.cells();
    ensure!(
        !cells.is_empty(),
        "no cell is left of the table; --quick keeps 16 connections, get-1k and grpc"
    );
    let total = cells.len() * proxies.len() * rig.options.rounds as usize;
    let mut rows = Vec::with_capacity(total);
    for round in 0..rig.options.rounds {
        for (n, &cell) in cells.iter().enumerate() {
            let turned = (round as usize + n) % 2 == 1;
            let mut order: Vec<&Proxy> = proxies.iter().collect();
            if turned {
                order.reverse();
            }
            for proxy in order {
                let row = measure_one(rig, proxy, cell, round).await?;
                progress(&row, rows.len() + 1, total);
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

async fn measure_one(rig: &Rig, proxy: &Proxy, cell: Cell, round: u32) -> anyhow::Result<Row> {
    let load_average = load_average();
    let order = rig.order(proxy, cell);
    let outcome = rig.load(&order).await?;
    Ok(Row {
        round,
        product: proxy.product,
        cell,
        lanes_per_connection: order.lanes_per_connection,
        load_average,
        outcome,
    })
}

/// Load average of the machine over a minute.
pub(super) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    first.parse().unwrap_or_default()
}

fn progress(row: &Row, done: usize, total: usize) {
    let Row {
        product,
        cell,
        outcome,
        ..
    } = row;
    let errors = match (&outcome.first_error, outcome.errors) {
        (Some(first), count) => format!("  {count} ERRORS, first: {first}"),
        _ => String::new(),
    };
    eprintln!(
        "[{done:3}/{total}] {product:6} {:6} {:9} {:4} {:10} {:7.1} us/req {:8.0} rps  p50 {:6} us  p99 {:6} us  busy {:3.0} %{errors}",
        cell.path,
        cell.exchange,
        cell.connections,
        cell.mode,
        outcome.cpu_us,
        outcome.rps,
        outcome.p50_us,
        outcome.p99_us,
        outcome.busy * 100.0,
    );
}
