//! The rate limit service of a TrafficPolicy: where it is, and what it is told. What it answers is not
//! known here.

use std::sync::Arc;

use super::values::Reading;
use crate::diagnostics::Code;
use crate::resolve::route_backends::{Backends, Reference};
use crate::resources::cairn::{GlobalRateLimit as Written, LimitDescriptorEntry};
use crate::snapshot::{ClusterKey, DescriptorValue, GlobalRateLimit, LimitDescriptor};

/// How long an answer may take when the policy does not say: Envoy's default.
const TIMEOUT_DEFAULT_MS: u64 = 20;

const PATH: &str = "spec.globalRateLimit";

/// Reads it. `None`: the policy is broken.
pub(super) fn read(
    written: &Written,
    backends: &Backends<'_>,
    reading: &mut Reading<'_, '_>,
) -> Option<GlobalRateLimit> {
    let cluster = cluster(written, backends, reading)?;
    if written.domain.is_empty() {
        return reading.missing(
            &format!("{PATH}.domain"),
            "a global rate limit needs a domain",
            "domain: shop",
        );
    }
    let timeout_ms = match &written.timeout {
        Some(text) => reading.duration(text, &format!("{PATH}.timeout"))?,
        None => TIMEOUT_DEFAULT_MS,
    };
    if written.descriptors.is_empty() {
        return reading.missing(
            &format!("{PATH}.descriptors"),
            "a global rate limit needs descriptors",
            "descriptors: [{entries: [{key: generic_key, value: shop}]}]",
        );
    }
    let descriptors = written.descriptors.iter().enumerate();
    let descriptors: Option<Vec<LimitDescriptor>> = descriptors
        .map(|(at, written)| {
            let path = format!("{PATH}.descriptors[{at}].entries");
            descriptor(&written.entries, &path, reading)
        })
        .collect();
    Some(GlobalRateLimit {
        cluster,
        domain: written.domain.as_str().into(),
        timeout_ms,
        fail_open: written.fail_open.unwrap_or(true),
        descriptors: descriptors?,
    })
}

fn cluster(
    written: &Written,
    backends: &Backends<'_>,
    reading: &mut Reading<'_, '_>,
) -> Option<ClusterKey> {
    let service = &written.service;
    let own = &*reading.object.origin.key.namespace;
    let found = backends.target(&Reference {
        group: None,
        kind: None,
        namespace: service.namespace.as_deref().unwrap_or(own),
        name: &service.name,
        port: Some(i32::from(service.port)),
    });
    match found {
        Ok(cluster) => Some(cluster),
        Err(unresolved) => {
            let path = format!("{PATH}.service.{}", unresolved.field);
            reading.wrong(
                Code::BackendNotFound,
                &path,
                unresolved.reason,
                &unresolved.hint,
            );
            None
        }
    }
}

fn descriptor(
    entries: &[LimitDescriptorEntry],
    path: &str,
    reading: &mut Reading<'_, '_>,
) -> Option<LimitDescriptor> {
    if entries.is_empty() {
        return reading.missing(
            path,
            "a descriptor needs entries",
            "entries: [{key: generic_key, value: shop}]",
        );
    }
    let entries = entries.iter().enumerate();
    let entries = entries.map(|(at, written)| entry(written, &format!("{path}[{at}]"), reading));
    entries.collect()
}

fn entry(
    written: &LimitDescriptorEntry,
    path: &str,
    reading: &mut Reading<'_, '_>,
) -> Option<(Arc<str>, DescriptorValue)> {
    let value = match (&written.value, &written.from) {
        _ if written.key.is_empty() => None,
        (Some(value), None) => Some(DescriptorValue::Literal(value.as_str().into())),
        (None, Some(from)) => {
            let key = reading.key(from, &format!("{path}.from"))?;
            Some(DescriptorValue::Of(key))
        }
        (Some(_), Some(_)) | (None, None) => None,
    };
    match value {
        Some(value) => Some((written.key.as_str().into(), value)),
        None => reading.missing(
            path,
            "an entry has a key, and either a value or from",
            "{key: tenant, from: {type: Header, header: x-tenant}}",
        ),
    }
}
