//! Tracing as the configuration resolves it, made ready for requests. Resolved is it in `cairn-config-schema`
//! (specs/istio-waypoint.md 4.11, 5.4).

use std::sync::Arc;

use cairn_config_schema::snapshot::{TagSource, TraceSettings, TraceTarget};
use http::header::HeaderName;

use super::sampler::Sampler;
use super::settings::{Receiver, Tag, TagValue, Tracing};

/// Istio's share of traces when nobody says another (specs/istio-waypoint.md 5.4): 1 %.
const ISTIO_RATIO: f64 = 0.01;

const MILLION: f64 = 1_000_000.0;

/// How requests are traced. `default`: as the environment says. `None`: not at all.
pub(crate) fn compile(
    settings: &TraceSettings,
    default: Option<&Arc<Tracing>>,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<Arc<Tracing>> {
    let said = settings.sampled_ppm.map(|ppm| f64::from(ppm) / MILLION);
    let of_environment = default.map(|tracing| tracing.sampler);
    let (receiver, sampler) = match &settings.to {
        TraceTarget::Unusable(_) => return None,
        TraceTarget::Unnamed => {
            let default = default?;
            (default.receiver.clone(), default.sampler)
        }
        TraceTarget::Collector(collector) => {
            let usual = Sampler::parent_or(ISTIO_RATIO);
            let receiver = Receiver::Collector(collector.clone());
            (receiver, of_environment.unwrap_or(usual))
        }
    };
    let sampler = match said {
        // The hop before decides first at Istio, whatever the share.
        Some(ratio) => Sampler::parent_or(ratio),
        None => sampler,
    };
    let tags = settings.tags.iter();
    let tags = tags.filter_map(|(name, source)| {
        let value = value(source, &variable)?;
        Some(Tag {
            name: name.clone(),
            value,
        })
    });
    Some(Arc::new(Tracing {
        sampler,
        propagation: default
            .map(|tracing| tracing.propagation)
            .unwrap_or_default(),
        tags: tags.collect(),
        reports: settings.reports,
        istio_tags: settings.istio_tags,
        receiver,
    }))
}

fn value(source: &TagSource, variable: impl Fn(&str) -> Option<String>) -> Option<TagValue> {
    Some(match source {
        TagSource::Literal(text) => TagValue::Literal(text.clone()),
        TagSource::Environment(name, default) => {
            let found = variable(name).map(Arc::from);
            TagValue::Literal(found.or_else(|| default.clone())?)
        }
        TagSource::Header(name, default) => TagValue::Header {
            // Looked at when the configuration was read.
            name: HeaderName::try_from(&**name).ok()?,
            default: default.clone(),
        },
    })
}
