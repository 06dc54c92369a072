//! Ways in which Cairn tells of requests, and what it is told to do so. Metrics are always counted.

use std::fmt;
use std::net::SocketAddr;

use clap::ValueEnum;
use serde::Serialize;

/// What is told of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Telling {
    /// Metrics alone.
    Metrics,
    /// An access log, to nowhere.
    AccessLog,
    /// Spans of one request in a hundred.
    #[value(name = "traces-1")]
    #[serde(rename = "traces-1")]
    Traces1,
    /// Spans of every request.
    #[value(name = "traces-100")]
    #[serde(rename = "traces-100")]
    Traces100,
}

impl Telling {
    /// Variables of Cairn's environment. `collector`: who takes spans by OTLP over HTTP.
    pub fn variables(self, collector: SocketAddr) -> Vec<(String, String)> {
        let ratio = match self {
            Self::Metrics | Self::AccessLog => return Vec::new(),
            Self::Traces1 => "0.01",
            Self::Traces100 => "1",
        };
        let endpoint = format!("http://{collector}");
        // Room for a burst, so that spans are made and sent instead of dropped.
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", ratio),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "65536"),
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }
}

impl fmt::Display for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Metrics => "metrics",
            Self::AccessLog => "access-log",
            Self::Traces1 => "traces-1",
            Self::Traces100 => "traces-100",
        })
    }
}
