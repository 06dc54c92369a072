//! An order as command line, for a load process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Order;
use crate::cell::{Exchange, Mode, Pace};

/// Options of `cairn-bench load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The proxy's tunnel address
    #[arg(long)]
    to: SocketAddr,
    /// What CONNECT asks for, VIP:PORT
    #[arg(long)]
    authority: String,
    /// Folder with cert-chain.pem, key.pem and root-cert.pem
    #[arg(long)]
    identity_dir: PathBuf,
    /// What to send
    #[arg(long, value_enum, default_value = "get-1k")]
    exchange: Exchange,
    /// Connections
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 4)]
    lanes: usize,
    /// When to send
    #[arg(long, value_enum, default_value = "saturated")]
    mode: Mode,
    /// Requests a second in mode `rate`
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// 429 is an answer, too
    #[arg(long)]
    sheds: bool,
    /// Load before the measured part, in milliseconds
    #[arg(long, default_value_t = 1000)]
    warm_up_ms: u64,
    /// The measured part, in milliseconds
    #[arg(long, default_value_t = 3000)]
    measure_ms: u64,
    /// Process whose time and memory are measured
    #[arg(long)]
    measured_pid: Option<u32>,
}

impl LoadArgs {
    /// The order they make.
    pub fn order(self) -> Order {
        Order {
            to: self.to,
            authority: self.authority,
            identity_folder: self.identity_dir,
            exchange: self.exchange,
            connections: self.connections,
            lanes_per_connection: self.lanes,
            mode: self.mode,
            sheds: self.sheds,
            pace: Pace {
                warm_up: Duration::from_millis(self.warm_up_ms),
                measure: Duration::from_millis(self.measure_ms),
                rate: self.rate,
            },
            measured: self.measured_pid,
        }
    }
}

/// The arguments that make an order.
pub fn arguments(order: &Order) -> Vec<String> {
    let mut arguments = vec!["load".to_owned()];
    let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    add("--to", order.to.to_string());
    add("--authority", order.authority.clone());
    add(
        "--identity-dir",
        order.identity_folder.to_string_lossy().into_owned(),
    );
    add("--exchange", order.exchange.to_string());
    add("--connections", order.connections.to_string());
    add("--lanes", order.lanes_per_connection.to_string());
    add("--mode", order.mode.to_string());
    add("--rate", order.pace.rate.to_string());
    add("--warm-up-ms", order.pace.warm_up.as_millis().to_string());
    add("--measure-ms", order.pace.measure.as_millis().to_string());
    if let Some(id) = order.measured {
        add("--measured-pid", id.to_string());
    }
    if order.sheds {
        arguments.push("--sheds".to_owned());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        line: LoadArgs,
    }

    #[test]
    fn an_order_survives_the_command_line() {
        let order = Order {
            to: "127.0.0.1:15008".parse().unwrap(),
            authority: "10.96.0.1:80".to_owned(),
            identity_folder: "x/y".into(),
            exchange: Exchange::Post16k,
            connections: 7,
            lanes_per_connection: 3,
            mode: Mode::Rate,
            sheds: true,
            pace: Pace {
                warm_up: Duration::from_millis(5),
                measure: Duration::from_millis(6),
                rate: 70,
            },
            measured: Some(1),
        };
        let line = Line::parse_from(arguments(&order));
        assert_eq!(arguments(&line.line.order()), arguments(&order));
    }
}
