//! Runs the parts of a measurement in order and keeps what they find. Starts and ends everything
//! it needs; measures nothing itself.

mod conditions;
mod neighbour;
pub mod options;
mod reload;
mod report;
mod rig;
mod scale;
mod table;
mod telling;

use anyhow::Context;
use serde::Serialize;

use conditions::Conditions;
pub use options::{Options, Part};
use rig::Rig;

/// Everything one run found.
#[derive(Debug, Serialize)]
pub struct Results {
    conditions: Conditions,
    idle: Vec<scale::Footprint>,
    scale: Vec<scale::Footprint>,
    reload: Vec<reload::Reload>,
    cells: Vec<table::Row>,
    told: Vec<telling::Told>,
    beside: Vec<neighbour::Beside>,
}

impl Results {
    /// Whether something failed that would make a number worthless.
    fn has_errors(&self) -> bool {
        self.cells.iter().any(|row| row.outcome.errors > 0)
            || self.told.iter().any(|told| told.outcome.errors > 0)
            || self
                .beside
                .iter()
                .any(|b| b.calm.errors + b.neighbour.errors > 0)
            || self.reload.iter().any(|reload| reload.wrong_answers > 0)
    }
}

/// Runs all parts that were asked for, prints the tables and keeps the rows.
///
/// # Errors
/// When a proxy does not start, a part can not be run, or a cell had errors.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let rig = Rig::new(options).await?;
    let options = &rig.options;
    let mut results = Results {
        conditions: conditions::gather(options)?,
        idle: Vec::new(),
        scale: Vec::new(),
        reload: Vec::new(),
        cells: Vec::new(),
        told: Vec::new(),
        beside: Vec::new(),
    };
    if options.has(Part::Table) || options.has(Part::Idle) {
        let proxies = rig.start_all().await?;
        results.idle = scale::idle(&proxies)?;
        for proxy in &proxies {
            rig.verify(proxy).await?;
        }
        if options.has(Part::Table) {
            results.cells = table::measure(&rig, &proxies).await?;
        }
    }
    if options.has(Part::Telling) {
        results.told = telling::measure(&rig).await?;
    }
    if options.has(Part::Neighbour) {
        results.beside = neighbour::measure(&rig).await?;
    }
    if options.has(Part::Scale) {
        results.scale = scale::measure(&rig).await?;
    }
    if options.has(Part::Reload) {
        results.reload = reload::measure(&rig).await?;
    }
    let text = report::text(&results);
    println!("{text}");
    let kept = report::keep(&results, &text, &options.results).context("can not keep the rows")?;
    eprintln!(
        "kept as {kept}.json and {kept}.txt in {}",
        options.results.display()
    );
    anyhow::ensure!(
        !results.has_errors(),
        "some cells had errors; their numbers mean nothing"
    );
    Ok(())
}
