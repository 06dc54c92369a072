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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cairn_config_schema::origin::ObjectKey;
    use cairn_config_schema::snapshot::{ClusterKey, Collector, OtlpProtocol};

    use super::super::propagate::Propagation;
    use super::*;

    fn settings(to: TraceTarget) -> TraceSettings {
        TraceSettings {
            to,
            ..TraceSettings::default()
        }
    }

    fn collector() -> TraceTarget {
        TraceTarget::Collector(Arc::new(Collector {
            name: "otel".into(),
            cluster: ClusterKey::new(ObjectKey::new("shop", "otel"), 4317),
            protocol: OtlpProtocol::Grpc,
            timeout_ms: 10_000,
            headers: vec![],
            tag_bytes_max: 256,
        }))
    }

    /// Of the environment: a tenth of all traces, whatever their parents say.
    fn environment() -> Arc<Tracing> {
        Arc::new(Tracing {
            sampler: Sampler {
                parent_first: false,
                ratio: 0.1,
            },
            propagation: Propagation::default(),
            tags: vec![],
            reports: true,
            istio_tags: true,
            receiver: Receiver::Environment,
        })
    }

    fn compiled(
        settings: &TraceSettings,
        environment: Option<&Arc<Tracing>>,
    ) -> Option<Arc<Tracing>> {
        compile(settings, environment, |name| {
            (name == "SITE").then(|| "lab".to_owned())
        })
    }

    #[test]
    fn nobody_is_told_where_nobody_is_named_or_can_be() {
        let unusable = settings(TraceTarget::Unusable("no such provider".into()));
        assert!(compiled(&unusable, Some(&environment())).is_none());
        assert!(compiled(&settings(TraceTarget::Unnamed), None).is_none());
    }

    #[test]
    fn the_environment_is_told_where_the_configuration_names_nobody() {
        let tracing = compiled(&settings(TraceTarget::Unnamed), Some(&environment())).unwrap();
        assert_eq!(tracing.receiver, Receiver::Environment);
        assert_eq!(tracing.sampler, environment().sampler);
    }

    #[test]
    fn the_share_is_the_telemetrys_then_the_environments_then_istios() {
        let mut settings = settings(collector());
        let of = |settings: &_, environment: Option<&_>| {
            compiled(settings, environment).unwrap().sampler
        };
        assert_eq!(of(&settings, None), Sampler::parent_or(0.01));
        assert_eq!(of(&settings, Some(&environment())), environment().sampler);
        settings.sampled_ppm = Some(250_000);
        assert_eq!(
            of(&settings, Some(&environment())),
            Sampler::parent_or(0.25)
        );
    }

    #[test]
    fn tags_of_the_environment_are_read_once_and_left_out_if_they_are_not_there() {
        let environment = |name: &str, default: Option<&str>| {
            TagSource::Environment(name.into(), default.map(Into::into))
        };
        let mut settings = settings(collector());
        settings.tags = Arc::new(BTreeMap::from([
            ("a".into(), environment("SITE", None)),
            ("b".into(), environment("NONE", Some("usual"))),
            ("c".into(), environment("NONE", None)),
            ("d".into(), TagSource::Header("x-user".into(), None)),
        ]));
        let tracing = compiled(&settings, None).unwrap();
        let tags: Vec<_> = tracing
            .tags
            .iter()
            .map(|tag| (&*tag.name, &tag.value))
            .collect();
        assert_eq!(tags.len(), 3);
        assert_eq!(tags[0], ("a", &TagValue::Literal("lab".into())));
        assert_eq!(tags[1], ("b", &TagValue::Literal("usual".into())));
        assert_eq!(tags[2].0, "d");
    }
}
