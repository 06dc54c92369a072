//! Measures Cairn beside real Envoy: load, backends, both proxies' configuration, the runner.
//! Holds nothing that Cairn itself needs; `benches/README.md` says how to read the numbers.

pub mod app;
pub mod backend;
pub mod cell;
pub mod load;
pub mod pki;
pub mod plain;
pub mod process;
pub mod proxy;
pub mod runner;
pub mod tls;
pub mod tunnel;
