//! Mesh-wide settings from the ConfigMap `istio` and the flags (specs/istio-waypoint.md 3, 4.8).
//! Reading the ConfigMap's text is the parser's business.

use std::sync::Arc;

use super::virtual_traffic::{retry_condition, retry_words};
use super::{Findings, Options, unreadable};
use crate::diagnostics::{Code, Diagnostic};
use crate::duration;
use crate::identity::Identity;
use crate::limits::RETRIES_PER_REQUEST_MAX;
use crate::resources::istio::MeshConfigSpec;
use crate::resources::virtual_service::Retries;
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{BackOff, Mesh, PathNormalization, RetryPolicy};

const EFFECT_BLOCKED: &str = "every tunnel is refused until it is mended";

/// The mesh's settings, and the reason to refuse everything when they can not be known.
pub(super) fn resolve(
    resources: &Resources,
    options: &Options,
    findings: &mut Findings,
) -> (Mesh, Option<Arc<str>>) {
    let mut mesh = Mesh::default();
    let mut blocked = None;
    match choose(resources, findings) {
        Ok(Some(config)) => blocked = read(config, options, &mut mesh, findings),
        Ok(None) => {}
        Err(reason) => blocked = Some(reason),
    }
    if let Some(domain) = &options.cluster_domain {
        mesh.cluster_domain = domain.as_str().into();
    }
    if let Some(flag) = &options.trust_domain {
        if is_trust_domain(flag) {
            mesh.trust_domain = flag.as_str().into();
        } else {
            let message = format!("the flag --trust-domain is not a trust domain: '{flag}'");
            blocked.get_or_insert_with(|| message.as_str().into());
            findings.push(Diagnostic::error(Code::BadValue, message).with_effect(EFFECT_BLOCKED));
        }
    }
    (mesh, blocked)
}

/// The mesh configuration that [`resolve`] reads, for those who need more of it.
pub(super) fn in_force(resources: &Resources) -> Option<&Object<MeshConfigSpec>> {
    choose(resources, &mut Findings::new()).ok().flatten()
}

/// The ConfigMap to read: that of `istio-system` if there are several.
fn choose<'a>(
    resources: &'a Resources,
    findings: &mut Findings,
) -> Result<Option<&'a Object<MeshConfigSpec>>, Arc<str>> {
    let default_root = Mesh::default().root_namespace;
    let loaded = match resources.mesh_config.len() {
        0 => return Ok(None),
        1 => resources.mesh_config.values().next(),
        _ => {
            let in_root = resources
                .mesh_config
                .iter()
                .find(|(key, _)| key.namespace == default_root);
            findings.push(Diagnostic::error(
                Code::Conflict,
                format!(
                    "several ConfigMaps hold a MeshConfig: {}; {}",
                    join(resources.mesh_config.keys()),
                    match in_root {
                        Some((key, _)) => format!("{key} is used"),
                        None => "which one is meant is unknown".to_owned(),
                    }
                ),
            ));
            in_root.map(|(_, loaded)| loaded)
        }
    };
    match loaded {
        Some(Loaded::Good(object) | Loaded::KeptLastGood(object)) => Ok(Some(object)),
        Some(Loaded::Broken(broken)) => {
            let finding = unreadable(broken, EFFECT_BLOCKED);
            let reason = finding.message.as_str().into();
            findings.push(finding);
            Err(reason)
        }
        None => Err("several ConfigMaps hold a MeshConfig".into()),
    }
}

fn read(
    config: &Object<MeshConfigSpec>,
    options: &Options,
    mesh: &mut Mesh,
    findings: &mut Findings,
) -> Option<Arc<str>> {
    let spec = &config.spec;
    let mut blocked = None;
    mesh.root_namespace = match &spec.root_namespace {
        Some(namespace) if !namespace.is_empty() => namespace.as_str().into(),
        _ => config.origin.key.namespace.clone(),
    };
    if let Some(trust_domain) = &spec.trust_domain {
        if is_trust_domain(trust_domain) {
            mesh.trust_domain = trust_domain.as_str().into();
        } else {
            let message = format!("trustDomain '{trust_domain}' is not a trust domain");
            let effect = match &options.trust_domain {
                Some(_) => "the flag --trust-domain is used",
                None => EFFECT_BLOCKED,
            };
            if options.trust_domain.is_none() {
                blocked = Some(Arc::from(message.as_str()));
            }
            let finding = Diagnostic::error(Code::BadValue, message).with_effect(effect);
            findings.push(config.mark(finding, "data.mesh.trustDomain"));
        }
        if let Some(flag) = options.trust_domain.as_ref().filter(|f| *f != trust_domain) {
            let finding = Diagnostic::warning(
                Code::Conflict,
                format!("trustDomain is '{trust_domain}', the flag --trust-domain says '{flag}'"),
            )
            .with_effect(format!("'{flag}' is used"));
            findings.push(config.mark(finding, "data.mesh.trustDomain"));
        }
    }
    for alias in &spec.trust_domain_aliases {
        if is_trust_domain(alias) {
            mesh.trust_domain_aliases.push(alias.as_str().into());
        } else {
            let finding = Diagnostic::error(
                Code::BadValue,
                format!("trustDomainAliases: '{alias}' is not a trust domain"),
            )
            .with_effect("peers of no further trust domain are accepted for it");
            findings.push(config.mark(finding, "data.mesh.trustDomainAliases"));
        }
    }
    if let Some(mode) = &spec.path_normalization {
        mesh.path_normalization = path_normalization(config, mode, findings);
    }
    match spec.connect_timeout_ms {
        Some(0) => {
            let finding = Diagnostic::error(Code::BadValue, "connectTimeout is zero")
                .with_effect(format!("{} ms is used", mesh.connect_timeout_ms));
            findings.push(config.mark(finding, "data.mesh.connectTimeout"));
        }
        Some(timeout_ms) => mesh.connect_timeout_ms = timeout_ms,
        None => {}
    }
    if let Some(written) = &spec.default_http_retry_policy {
        mesh.retry = default_retry(written, config, findings);
    }
    blocked
}

/// `defaultHttpRetryPolicy`. What is wrong in it is as if it were not there.
fn default_retry(
    written: &Retries,
    config: &Object<MeshConfigSpec>,
    findings: &mut Findings,
) -> RetryPolicy {
    let mut say = |field: &str, message: String, effect: &str| {
        let finding = Diagnostic::warning(Code::Unsupported, message).with_effect(effect);
        let path = format!("data.mesh.defaultHttpRetryPolicy.{field}");
        findings.push(config.mark(finding, &path));
    };
    let mut policy = RetryPolicy::DEFAULT;
    match u32::try_from(written.attempts) {
        Ok(attempts) if attempts <= RETRIES_PER_REQUEST_MAX => policy.retries_max = attempts,
        _ => {
            let message = format!(
                "{} is no number of retries that a request gets",
                written.attempts
            );
            say("attempts", message, "2 are made");
        }
    }
    for word in retry_words(written.retry_on.as_deref().unwrap_or_default()) {
        if !retry_condition(word, &mut policy.on) {
            let message = format!("requests are not retried on '{word}'");
            say("retryOn", message, "the other conditions are in force");
        }
    }
    if let Some(text) = &written.backoff {
        match duration::go_ms(text).filter(|ms| *ms > 0) {
            Some(base_ms) => policy.back_off = BackOff::from_base(base_ms),
            None => {
                let message = format!("'{text}' is not a duration such as 25ms");
                say("backoff", message, "retries do not wait");
            }
        }
    }
    let others = [
        ("perTryTimeout", written.per_try_timeout.is_some()),
        (
            "retryRemoteLocalities",
            written.retry_remote_localities.is_some(),
        ),
        (
            "retryIgnorePreviousHosts",
            written.retry_ignore_previous_hosts == Some(false),
        ),
    ];
    for (field, _) in others.iter().filter(|(_, is_set)| *is_set) {
        say(
            field,
            format!("{field} is not honoured for the whole mesh"),
            "it is as if it were not there",
        );
    }
    policy
}

fn path_normalization(
    config: &Object<MeshConfigSpec>,
    mode: &str,
    findings: &mut Findings,
) -> PathNormalization {
    match mode {
        "NONE" => PathNormalization::None,
        "BASE" | "DEFAULT" => PathNormalization::Base,
        "MERGE_SLASHES" => PathNormalization::MergeSlashes,
        "DECODE_AND_MERGE_SLASHES" => PathNormalization::DecodeAndMergeSlashes,
        unknown => {
            let finding = Diagnostic::error(
                Code::BadValue,
                format!("pathNormalization.normalization '{unknown}' is unknown"),
            )
            .with_effect("paths are normalised strictly; ambiguous ones are answered 400")
            .with_hint("DEFAULT, NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES");
            findings.push(config.mark(finding, "data.mesh.pathNormalization.normalization"));
            PathNormalization::Strict
        }
    }
}

fn is_trust_domain(text: &str) -> bool {
    // The rules are those of the SPIFFE ID that it becomes a part of.
    Identity::of_workload(text, "n", "s").is_ok_and(|id| id.trust_domain() == text)
}

fn join<T: std::fmt::Display>(items: impl Iterator<Item = T>) -> String {
    let texts: Vec<String> = items.map(|item| item.to_string()).collect();
    texts.join(", ")
}
