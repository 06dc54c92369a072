//! The results as text for people and as rows for programs.

use std::fmt::Write as _;
use std::path::Path;

use super::Results;
use super::neighbour::{Beside, Burden};
use super::table::Row;
use super::telling::Told;
use crate::cell::Cell;
use crate::load::Outcome;
use crate::proxy::Product;
use crate::proxy::telling::Telling;

/// The tables, with medians over the rounds.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = conditions(&mut text, results);
    let _ = cells(&mut text, &results.cells);
    let _ = told(&mut text, &results.told);
    let _ = beside(&mut text, &results.beside);
    let _ = footprints(&mut text, results);
    text
}

fn conditions(text: &mut String, results: &Results) -> std::fmt::Result {
    let c = &results.conditions;
    writeln!(text, "{}  commit {}", c.date, c.commit)?;
    writeln!(
        text,
        "{} x {}, Linux {}",
        c.processors, c.processor, c.kernel
    )?;
    for version in &c.versions {
        writeln!(text, "{version}")?;
    }
    writeln!(text, "{} workers each, {}", c.workers, c.pinning)?;
    writeln!(text, "{}", c.command)?;
    for note in &c.notes {
        writeln!(text, "{note}")?;
    }
    if c.debug_build {
        writeln!(text, "DEBUG BUILD: these numbers mean nothing")?;
    }
    Ok(())
}

/// The median over rounds of one value of a cell and proxy.
fn median(rows: &[Row], cell: Cell, product: Product, value: fn(&Outcome) -> f64) -> Option<f64> {
    let rows = rows.iter();
    let rows = rows.filter(|r| r.cell == cell && r.product == product);
    middle(rows.map(|r| value(&r.outcome)).collect())
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2)?;
    let below = values.get((values.len() - 1) / 2)?;
    Some((middle + below) / 2.0)
}

type Column = (&'static str, fn(&Outcome) -> f64, usize);

/// Heading, value, decimals.
const COLUMNS: [Column; 6] = [
    ("CPU us/req", |o| o.cpu_us, 1),
    ("rps", |o| o.rps, 0),
    ("p50 us", |o| o.p50_us as f64, 0),
    ("p99 us", |o| o.p99_us as f64, 0),
    ("RSS MiB", |o| o.resident_kib as f64 / 1024.0, 1),
    ("busy %", |o| o.busy * 100.0, 0),
];

fn cells(text: &mut String, rows: &[Row]) -> std::fmt::Result {
    let mut order: Vec<Cell> = Vec::new();
    for row in rows {
        if !order.contains(&row.cell) {
            order.push(row.cell);
        }
    }
    if order.is_empty() {
        return Ok(());
    }
    write!(
        text,
        "\n{:6} {:9} {:>5} {:10}",
        "path", "exchange", "conns", "mode"
    )?;
    for (heading, ..) in COLUMNS {
        write!(text, " | {heading:^22}")?;
    }
    write!(text, "\n{:33}", "")?;
    for _ in COLUMNS {
        write!(text, " | {:>8}{:>8}{:>6}", "envoy", "cairn", "ratio")?;
    }
    writeln!(text)?;
    for cell in order {
        write!(
            text,
            "{:6} {:9} {:>5} {:10}",
            cell.path, cell.exchange, cell.connections, cell.mode
        )?;
        for (_, value, decimals) in COLUMNS {
            let of = |product| median(rows, cell, product, value);
            let (envoy, cairn) = (of(Product::Envoy), of(Product::Cairn));
            let ratio = envoy.zip(cairn).map(|(e, c)| c / e);
            write!(
                text,
                " | {:>8}{:>8}{:>6}",
                number(envoy, decimals),
                number(cairn, decimals),
                number(ratio, 2)
            )?;
        }
        let errors: u64 = rows
            .iter()
            .filter(|r| r.cell == cell)
            .map(|r| r.outcome.errors)
            .sum();
        if errors > 0 {
            write!(text, " | {errors} ERRORS")?;
        }
        writeln!(text)?;
    }
    writeln!(text, "medians over rounds; ratio is cairn / envoy")
}

/// What all telemetry together may cost, over none.
const ALL_ON_MAX: f64 = 1.25;

/// Processor time for each way of telling of requests.
fn told(text: &mut String, rows: &[Told]) -> std::fmt::Result {
    let mut order: Vec<(Cell, Telling)> = Vec::new();
    for row in rows {
        if !order.contains(&(row.cell, row.telling)) {
            order.push((row.cell, row.telling));
        }
    }
    let Some((_, first)) = order.first().copied() else {
        return Ok(());
    };
    let cpu = |cell, telling| {
        let rows = rows
            .iter()
            .filter(|r| r.cell == cell && r.telling == telling);
        middle(rows.map(|r| r.outcome.cpu_us).collect())
    };
    writeln!(
        text,
        "\nCPU us/req of cairn, by what is told of requests; ratio to {first}"
    )?;
    for &(cell, telling) in &order {
        let (found, base) = (cpu(cell, telling), cpu(cell, first));
        let ratio = found.zip(base).map(|(found, base)| found / base);
        let Cell {
            path,
            exchange,
            connections,
            mode,
        } = cell;
        let (found, ratio) = (number(found, 1), number(ratio, 2));
        writeln!(
            text,
            "{path:6} {exchange:9} {connections:>5} {mode:10} | {telling:10} {found:>8}{ratio:>6}"
        )?;
    }
    // What the goal is about (issue 6).
    let of_all = |all: Telling| {
        let cells = order.iter().filter(|(_, telling)| *telling == all);
        let ratio = |cell| Some(cpu(cell, all)? / cpu(cell, Telling::None)?);
        cells.filter_map(|(cell, _)| ratio(*cell)).reduce(f64::max)
    };
    for all in [Telling::All1, Telling::All] {
        if let Some(ratio) = of_all(all) {
            let met = if ratio <= ALL_ON_MAX { "met" } else { "missed" };
            writeln!(
                text,
                "{all} / none, the highest: {ratio:.2}; goal at most {ALL_ON_MAX}: {met}"
            )?;
        }
    }
    Ok(())
}

/// Latency of a service, by what its neighbour gets.
fn beside(text: &mut String, rows: &[Beside]) -> std::fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    let of = |burden, value: fn(&Beside) -> f64| {
        let rows = rows.iter().filter(|row| row.burden == burden);
        middle(rows.map(value).collect())
    };
    writeln!(
        text,
        "\ncairn, a service while its neighbour gets what it is meant for, or ten times that; medians over rounds"
    )?;
    for burden in Burden::ALL {
        writeln!(
            text,
            "{:10} | p50 us {:>8} | p99 us {:>8} | written late, p99 us {:>6} | neighbour: {:>8} answers, {:>8} shed",
            format!("{burden:?}").to_lowercase(),
            number(of(burden, |row| row.calm.p50_us as f64), 0),
            number(of(burden, |row| row.calm.p99_us as f64), 0),
            number(of(burden, |row| row.calm.late_p99_us as f64), 0),
            number(of(burden, |row| row.neighbour.requests as f64), 0),
            number(of(burden, |row| row.neighbour.shed as f64), 0),
        )?;
    }
    let p99 = |burden| of(burden, |row| row.calm.p99_us as f64);
    let to = |burden| p99(Burden::Tenfold).zip(p99(burden)).map(|(a, b)| a / b);
    writeln!(
        text,
        "p99 with the tenfold load: {} of that with the load meant, {} of that with the tenfold load on another cairn",
        number(to(Burden::Meant), 2),
        number(to(Burden::Elsewhere), 2)
    )
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.decimals$}"))
}

fn footprints(text: &mut String, results: &Results) -> std::fmt::Result {
    for found in results.idle.iter().chain(&results.scale) {
        writeln!(
            text,
            "\n{:6} without load, {} services: RSS {:.1} MiB, peak {:.1} MiB, ready after {} ms",
            found.product,
            found.services,
            found.resident_kib as f64 / 1024.0,
            found.peak_kib as f64 / 1024.0,
            found.start_up_ms
        )?;
    }
    for reload in &results.reload {
        let (median, max) = reload.median_and_max_ms();
        writeln!(
            text,
            "\ncairn  one of {} routes changed in a file of {}: in force {median:.0} ms after saving (median of {}), {max:.0} ms at most; {} of {} answers wrong",
            reload.routes,
            reload.routes_in_file,
            reload.in_force_ms.len(),
            reload.wrong_answers,
            reload.answers
        )?;
    }
    Ok(())
}

/// Writes rows and text into a folder and returns their name without ending.
pub fn keep(results: &Results, text: &str, folder: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder)?;
    let name = results.conditions.date.replace(':', "");
    let rows = serde_json::to_vec_pretty(results)?;
    std::fs::write(folder.join(format!("{name}.json")), rows)?;
    std::fs::write(folder.join(format!("{name}.txt")), text)?;
    Ok(name)
}
