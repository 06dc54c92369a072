//! Ways in which Cairn tells of requests, and what it is told to do so.

use std::fmt;
use std::net::SocketAddr;

use clap::ValueEnum;
use serde::Serialize;

/// What is told of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Telling {
    /// Nothing: Istio's metrics are switched off, as far as a Telemetry can.
    None,
    /// Metrics alone.
    Metrics,
    /// Metrics and an access log, to nowhere.
    AccessLog,
    /// Metrics and spans of one request in a hundred.
    #[value(name = "traces-1")]
    #[serde(rename = "traces-1")]
    Traces1,
    /// Metrics and spans of every request.
    #[value(name = "traces-100")]
    #[serde(rename = "traces-100")]
    Traces100,
    /// Metrics and flow records, which are on by default.
    Flows,
    /// Metrics, access log, flow records and spans of one request in a hundred.
    #[value(name = "all-1")]
    #[serde(rename = "all-1")]
    All1,
    /// All of it, and spans of every request.
    All,
}

/// Switches all of Istio's metrics off.
const NO_METRICS: &str = "---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata:
  name: none
  namespace: istio-system
spec:
  metrics:
  - providers:
    - name: prometheus
    overrides:
    - match:
        metric: ALL_METRICS
        mode: CLIENT_AND_SERVER
      disabled: true
";

impl Telling {
    /// Whether it writes an access log.
    pub fn has_access_log(self) -> bool {
        matches!(self, Self::AccessLog | Self::All1 | Self::All)
    }

    /// What its configuration holds beside the mesh.
    pub fn manifest(self) -> Option<&'static str> {
        (self == Self::None).then_some(NO_METRICS)
    }

    /// The share of requests that have spans; `None`: none has.
    fn sampled(self) -> Option<&'static str> {
        match self {
            Self::None | Self::Metrics | Self::AccessLog | Self::Flows => None,
            Self::Traces1 | Self::All1 => Some("0.01"),
            Self::Traces100 | Self::All => Some("1"),
        }
    }

    /// Variables of Cairn's environment. `collector`: who takes spans by OTLP over HTTP.
    pub fn variables(self, collector: SocketAddr) -> Vec<(String, String)> {
        let endpoint = format!("http://{collector}");
        let mut variables = Vec::new();
        if !matches!(self, Self::Flows | Self::All1 | Self::All) {
            variables.push(("CAIRN_FLOW_RECORDS", "0"));
        }
        if let Some(ratio) = self.sampled() {
            variables.extend([
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", ratio),
                // Room for a burst, so that spans are made and sent instead of dropped.
                ("OTEL_BSP_MAX_QUEUE_SIZE", "65536"),
                ("OTEL_BSP_SCHEDULE_DELAY", "200"),
            ]);
        }
        let owned = variables.into_iter();
        owned
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

impl fmt::Display for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Metrics => "metrics",
            Self::AccessLog => "access-log",
            Self::Traces1 => "traces-1",
            Self::Traces100 => "traces-100",
            Self::Flows => "flows",
            Self::All1 => "all-1",
            Self::All => "all",
        })
    }
}
