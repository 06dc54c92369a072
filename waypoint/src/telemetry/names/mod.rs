//! Every metric: its name, help text and labels. Values live elsewhere, so that this folder can be read
//! as the reference of what a scrape gives.

mod controller;
mod destinations;
mod discovery;
mod istio;
mod kubernetes;
mod node;
mod own;
mod policy;

pub use controller::*;
pub use destinations::*;
pub use discovery::*;
pub use istio::*;
pub use kubernetes::*;
pub use node::*;
pub use own::*;
pub use policy::*;

use prometheus::proto::MetricType;

/// How a metric appears in a scrape.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name as scraped.
    pub name: &'static str,
    /// One sentence, without a full stop.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricType,
    /// Label names in the order of exposition; `le` of histograms not included.
    pub labels: &'static [&'static str],
}

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    Metric {
        name,
        help,
        kind: MetricType::COUNTER,
        labels,
    }
}

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Metric {
    Metric {
        name,
        help,
        kind: MetricType::GAUGE,
        labels,
    }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        help,
        kind: MetricType::HISTOGRAM,
        labels: &HTTP_LABELS,
    }
}
