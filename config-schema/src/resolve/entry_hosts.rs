//! `hosts` of a ServiceEntry: which of them are in force (specs/istio-waypoint.md 4.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Findings;
use super::service_entries::{Resolution, Written};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::ObjectKey;
use crate::snapshot::{Mesh, Service};

/// Why a host is not in force: code, reason, what to do.
type Fault = (Code, String, &'static str);

/// The hosts in force, in lower case and without a dot at the end.
pub(super) fn read(
    object: &Written,
    resolution: Resolution,
    mesh: &Mesh,
    services: &BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) -> Vec<Arc<str>> {
    let own = &object.origin.key.namespace;
    let mut hosts: Vec<Arc<str>> = Vec::new();
    for (index, written) in object.spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        let host = written.trim_end_matches('.').to_ascii_lowercase();
        let judged = judge(&host, resolution, own, mesh).and_then(|()| free(&host, own, services));
        match judged {
            Ok(()) => {
                let others = elsewhere(&host, own, services);
                findings.extend(others.map(|finding| object.mark(finding, &path)));
                if !hosts.iter().any(|h| **h == *host) {
                    hosts.push(host.into());
                }
            }
            Err((code, message, hint)) => {
                let finding = Diagnostic::error(code, message)
                    .with_effect("this host is not served, and nothing is sent to it")
                    .with_hint(hint);
                findings.push(object.mark(finding, &path));
            }
        }
    }
    if object.spec.hosts.is_empty() {
        let finding = Diagnostic::error(Code::MissingField, "a ServiceEntry needs hosts")
            .with_effect("it declares nothing");
        findings.push(object.mark(finding, "spec.hosts"));
    }
    hosts
}

fn judge(host: &str, resolution: Resolution, own: &str, mesh: &Mesh) -> Result<(), Fault> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if !is_name(name) {
        let hint = "a full name of DNS, without a port; its first label may be *";
        return Err((
            Code::BadValue,
            format!("'{host}' is no full name of a host"),
            hint,
        ));
    }
    let domain = format!("svc.{}", mesh.cluster_domain);
    let is_wildcard = name != host;
    // `*.local` would hold the whole cluster.
    if is_wildcard && (format!(".{domain}").ends_with(&format!(".{name}"))) {
        let message = format!("'{host}' takes in Services of the cluster");
        return Err((
            Code::Conflict,
            message,
            "leave them to their own namespaces",
        ));
    }
    if let Some(of_cluster) = name.strip_suffix(&format!(".{domain}")) {
        let namespace = of_cluster.rsplit('.').next();
        if is_wildcard || namespace != Some(own) {
            let message = format!("'{host}' is a host of another namespace");
            return Err((Code::Conflict, message, "declare it in that namespace"));
        }
    }
    match (resolution, is_wildcard) {
        (Resolution::Dynamic, false) => {
            let message = format!("DYNAMIC_DNS is for hosts that begin with *., '{host}' does not");
            Err((Code::BadValue, message, "resolution: DNS"))
        }
        (Resolution::Dns | Resolution::DnsRoundRobin, true) => {
            let message = format!("'{host}' can not be looked up");
            Err((
                Code::BadValue,
                message,
                "resolution: DYNAMIC_DNS looks up what a request asks for",
            ))
        }
        _ => Ok(()),
    }
}

/// Two labels at least, as DNS has them: a name without a dot is one of the client's search path.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_inner)
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label)
}

/// Whether no other object of the namespace has it already.
fn free(host: &str, own: &str, services: &BTreeMap<ObjectKey, Service>) -> Result<(), Fault> {
    let mut of_namespace = services.values().filter(|s| *s.key.namespace == *own);
    match of_namespace.find(|service| *service.hostname == *host) {
        Some(first) => {
            let message = format!("'{host}' is declared by {} already", first.origin);
            Err((
                Code::Conflict,
                message,
                "the older one is in force; make one object of them",
            ))
        }
        None => Ok(()),
    }
}

/// The same host, declared by another namespace: both are in force, each at its own addresses.
fn elsewhere(host: &str, own: &str, services: &BTreeMap<ObjectKey, Service>) -> Option<Diagnostic> {
    let mut others = services.values().filter(|s| *s.key.namespace != *own);
    let first = others.find(|service| *service.hostname == *host)?;
    let message = format!("{} declares '{host}', too", first.origin);
    let finding = Diagnostic::warning(Code::Conflict, message)
        .with_effect("each is served at its own addresses; the name alone stands for that of the caller's namespace")
        .with_hint("limit both with exportTo, or keep one");
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(host: &str, resolution: Resolution) -> Option<String> {
        let mesh = Mesh::default();
        let judged = judge(host, resolution, "shop", &mesh);
        judged.err().map(|(_, message, _)| message)
    }

    #[test]
    fn a_host_is_a_full_name_that_is_nobody_elses() {
        for (host, resolution, reason) in [
            ("api.example.com", Resolution::Dns, None),
            ("*.example.com", Resolution::Dynamic, None),
            ("old.shop.svc.cluster.local", Resolution::Static, None),
            (
                "mongo",
                Resolution::Static,
                Some("'mongo' is no full name of a host"),
            ),
            (
                "*",
                Resolution::Dynamic,
                Some("'*' is no full name of a host"),
            ),
            (
                "a..b",
                Resolution::Dns,
                Some("'a..b' is no full name of a host"),
            ),
            (
                "a.*.b",
                Resolution::Dns,
                Some("'a.*.b' is no full name of a host"),
            ),
            (
                "web.bank.svc.cluster.local",
                Resolution::Static,
                Some("'web.bank.svc.cluster.local' is a host of another namespace"),
            ),
            (
                "*.shop.svc.cluster.local",
                Resolution::Dynamic,
                Some("'*.shop.svc.cluster.local' is a host of another namespace"),
            ),
            (
                "*.cluster.local",
                Resolution::Dynamic,
                Some("'*.cluster.local' takes in Services of the cluster"),
            ),
            (
                "*.example.com",
                Resolution::Dns,
                Some("'*.example.com' can not be looked up"),
            ),
            (
                "api.example.com",
                Resolution::Dynamic,
                Some("DYNAMIC_DNS is for hosts that begin with *., 'api.example.com' does not"),
            ),
        ] {
            assert_eq!(said(host, resolution).as_deref(), reason, "{host}");
        }
    }
}
