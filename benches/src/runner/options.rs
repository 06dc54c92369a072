//! What to measure, as the command line says it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cell::{Cell, Exchange, Mode, Pace, Path};
use crate::proxy::Product;
use crate::proxy::telling::Telling;

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Cells under load.
    Table,
    /// Memory without load, two services.
    Idle,
    /// Memory without load, 1,000 services of ten endpoints with a route each.
    Scale,
    /// Cells under load, for each way of telling of requests (Cairn only; not in a run by default).
    Telling,
    /// A service's latency beside one that gets ten times its load (Cairn only; not in a run by default).
    Neighbour,
    /// Time from file saved to in force, one route of 5,000 changed (Cairn only).
    Reload,
}

/// Options of `cairn-bench`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The Envoy program
    #[arg(long, default_value = "target/venv/bin/envoy")]
    pub envoy: PathBuf,
    /// The Cairn program; measure a release build
    #[arg(long, default_value = "target/release/cairn")]
    pub cairn: PathBuf,
    /// Proxies to measure, in the order of the first cell
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["envoy", "cairn"])]
    pub products: Vec<Product>,
    /// Parts to run
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["table", "idle", "scale", "reload"])]
    pub parts: Vec<Part>,
    /// Paths of the table
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["plain", "hbone"])]
    pub paths: Vec<Path>,
    /// Exchanges of the table
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["get-1k", "get-64k", "post-16k", "grpc"])]
    pub exchanges: Vec<Exchange>,
    /// Client connections of the table
    #[arg(long, value_delimiter = ',', default_values = ["1", "16", "256"])]
    pub connections: Vec<usize>,
    /// Modes of the table; `fresh` is measured for get-1k with 16 connections at once only
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["saturated", "rate", "fresh"])]
    pub modes: Vec<Mode>,
    /// What is told of requests, in the part `telling`; ratios are to the first
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["none", "metrics", "access-log", "traces-1", "traces-100", "flows", "all-1", "all"])]
    pub tellings: Vec<Telling>,
    /// Rounds; in each, every cell is measured once for each proxy, in turn
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Measured seconds of a cell
    #[arg(long, default_value_t = 3.0)]
    pub measure_seconds: f64,
    /// Seconds of load before a cell is measured
    #[arg(long, default_value_t = 1.0)]
    pub warm_up_seconds: f64,
    /// Requests a second in mode `rate`
    #[arg(long, default_value_t = 2000)]
    pub rate: u32,
    /// Requests in flight, shared by the connections (one each at least)
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
    /// Worker threads of each proxy
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// Processors of the proxies, as `taskset --cpu-list` takes them, or `any`
    #[arg(long, default_value = "0")]
    pub proxy_cpus: String,
    /// Processors of load generator and backend, or `any`
    #[arg(long, default_value = "1")]
    pub load_cpus: String,
    /// No HTTPRoute: requests go to the service by default
    #[arg(long)]
    pub no_route: bool,
    /// Both proxies log each request (to nowhere); off is Istio's default
    #[arg(long)]
    pub access_log: bool,
    /// One short round of a few cells, to see that everything works
    #[arg(long)]
    pub quick: bool,
    /// Folder to keep the rows in
    #[arg(long, default_value = "benches/results")]
    pub results: PathBuf,
}

impl Options {
    /// Applies `--quick`.
    pub fn settle(mut self) -> Self {
        if self.quick {
            self.rounds = 1;
            self.measure_seconds = self.measure_seconds.min(1.0);
            self.warm_up_seconds = self.warm_up_seconds.min(0.5);
            self.exchanges
                .retain(|e| matches!(e, Exchange::Get1k | Exchange::Grpc));
            self.connections.retain(|c| *c == 16);
        }
        self
    }

    /// Whether a part is asked for.
    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// The cells of the table, in order.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &path in &self.paths {
            for &exchange in &self.exchanges {
                for &connections in &self.connections {
                    for &mode in &self.modes {
                        let cell = Cell {
                            path,
                            exchange,
                            connections,
                            mode,
                        };
                        if mode != Mode::Fresh || (exchange == Exchange::Get1k && connections == 16)
                        {
                            cells.push(cell);
                        }
                    }
                }
            }
        }
        cells
    }

    /// How long and how fast each cell runs.
    pub fn pace(&self) -> Pace {
        Pace {
            warm_up: Duration::from_secs_f64(self.warm_up_seconds.clamp(0.0, 60.0)),
            measure: Duration::from_secs_f64(self.measure_seconds.clamp(0.1, 60.0)),
            rate: self.rate,
        }
    }
}

/// A `taskset` list, `None` for `any`.
pub fn cpus(list: &str) -> Option<&str> {
    (list != "any").then_some(list)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn cells(line: &[&str]) -> Vec<Cell> {
        let line = [&["x"], line].concat();
        Line::parse_from(line).options.settle().cells()
    }

    #[test]
    fn the_whole_table_is_what_the_issue_asks_for() {
        // Two paths, four exchanges, three connection counts, two modes; and one fresh cell a path.
        assert_eq!(cells(&[]).len(), 2 * 4 * 3 * 2 + 2);
    }

    #[test]
    fn quick_keeps_a_cell_of_each_path_and_protocol() {
        assert_eq!(cells(&["--quick", "--modes", "saturated"]).len(), 4);
    }
}
