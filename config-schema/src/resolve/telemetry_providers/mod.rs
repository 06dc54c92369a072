//! Providers of telemetry in the mesh configuration, and its defaults: who gets spans and access logs
//! (specs/istio-waypoint.md 4.11, 5.4, 5.5). Providers of authorization are read in `providers`.

mod entry_log;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Findings, Options};
use crate::origin::ObjectKey;
use crate::resources::Object;
use crate::resources::istio::MeshConfigSpec;
use crate::snapshot::{BUILT_IN_LOG, Collector, LogSink, Service, TraceTarget};
use read::Reading;

/// The provider of Istio's metrics that is always there.
const PROMETHEUS: &str = "prometheus";

/// What a Telemetry may name, and what holds without one.
#[derive(Debug)]
pub(super) struct TelemetryProviders {
    providers: BTreeMap<String, TelemetryProvider>,
    /// Who gets spans when no Telemetry says.
    pub default_traces: TraceTarget,
    /// Access logs when no Telemetry says.
    pub default_logs: Vec<Arc<str>>,
}

/// What a provider is for.
#[derive(Clone, Debug)]
enum TelemetryProvider {
    Traces(Arc<Collector>),
    Log(LogSink),
    Prometheus,
    /// For nothing, for this reason.
    Unusable(Arc<str>),
}

impl TelemetryProviders {
    /// Whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.providers.contains_key(name)
    }

    /// Names, for a hint.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.providers.keys().map(String::as_str).collect();
        names.join(", ")
    }

    /// Who gets the spans that are for this provider.
    pub fn traces(&self, name: &str) -> TraceTarget {
        match self.providers.get(name) {
            Some(TelemetryProvider::Traces(collector)) => TraceTarget::Collector(collector.clone()),
            Some(TelemetryProvider::Unusable(reason)) => TraceTarget::Unusable(reason.clone()),
            Some(_) => TraceTarget::Unusable(format!("provider '{name}' takes no spans").into()),
            None => {
                TraceTarget::Unusable(format!("there is no extension provider '{name}'").into())
            }
        }
    }

    /// Where the lines of an access log go.
    pub fn sink(&self, name: &str) -> Option<LogSink> {
        match self.providers.get(name)? {
            TelemetryProvider::Log(sink) => Some(sink.clone()),
            _ => None,
        }
    }

    /// Why one that is there takes no access log.
    pub fn no_log(&self, name: &str) -> Option<String> {
        match self.providers.get(name)? {
            TelemetryProvider::Log(_) => None,
            TelemetryProvider::Unusable(reason) => Some(reason.to_string()),
            _ => Some(format!("provider '{name}' takes no access log")),
        }
    }

    /// Why one that is there takes no metrics.
    pub fn no_metrics(&self, name: &str) -> Option<String> {
        match self.providers.get(name)? {
            TelemetryProvider::Prometheus => None,
            TelemetryProvider::Unusable(reason) => Some(reason.to_string()),
            _ => Some(format!("provider '{name}' takes no metrics")),
        }
    }

    /// Whether it is where Cairn's metrics go.
    pub fn is_prometheus(&self, name: &str) -> bool {
        let found = self.providers.get(name);
        matches!(found, Some(TelemetryProvider::Prometheus))
    }
}

/// Reads what the mesh configuration in force says of telemetry.
pub(super) fn resolve(
    config: Option<&Object<MeshConfigSpec>>,
    options: &Options,
    services: &BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) -> TelemetryProviders {
    let builtin = |sink| {
        BTreeMap::from([
            (BUILT_IN_LOG.to_owned(), TelemetryProvider::Log(sink)),
            (PROMETHEUS.to_owned(), TelemetryProvider::Prometheus),
        ])
    };
    let flag = options.access_log_format.clone();
    let Some(config) = config else {
        return TelemetryProviders {
            providers: builtin(LogSink::Stdout(flag.unwrap_or_default())),
            default_traces: TraceTarget::Unnamed,
            default_logs: vec![BUILT_IN_LOG.into()],
        };
    };
    let mut reading = Reading {
        config,
        services,
        findings,
    };
    let (is_on, format) = reading.mesh_log();
    let mut providers = builtin(LogSink::Stdout(flag.unwrap_or(format)));
    for (index, written) in config.spec.extension_providers.iter().enumerate() {
        let path = format!("data.mesh.extensionProviders[{index}]");
        if let Some(provider) = reading.provider(&written.name, &written.kind, &path) {
            providers.insert(written.name.clone(), provider);
        }
    }
    let mut known = TelemetryProviders {
        providers,
        default_traces: TraceTarget::Unnamed,
        default_logs: is_on.then(|| BUILT_IN_LOG.into()).into_iter().collect(),
    };
    reading.defaults(&mut known);
    known
}
