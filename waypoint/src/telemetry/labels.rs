//! What the labels of Istio's metrics say about client, destination and service, with Istio's words
//! for what is missing (specs/istio-waypoint.md 5.1, 5.2). Counts nothing.

use std::sync::Arc;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{Service, Workload, WorkloadType};
use http::HeaderValue;

use super::exchange::Exchange;

/// Istio's word for what is not known.
pub const UNKNOWN: &str = "unknown";

/// Every label of the series that takes what exceeds the limit.
pub const OTHER: &str = "other";

/// Istio's word for a client without a revision.
const LATEST: &str = "latest";

/// The `source_*` labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the label of the same name
pub struct SourceLabels {
    pub workload: Arc<str>,
    pub canonical_service: Arc<str>,
    pub canonical_revision: Arc<str>,
    pub workload_namespace: Arc<str>,
    pub principal: Arc<str>,
    pub app: Arc<str>,
    pub version: Arc<str>,
    pub cluster: Arc<str>,
}

/// The `destination_*` labels that come from the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the label of the same name
pub struct DestinationLabels {
    pub workload: Arc<str>,
    pub workload_namespace: Arc<str>,
    pub principal: Arc<str>,
    pub app: Arc<str>,
    pub version: Arc<str>,
    pub canonical_service: Arc<str>,
    pub canonical_revision: Arc<str>,
    pub cluster: Arc<str>,
}

/// The `destination_service*` labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the label of the same name
pub struct ServiceLabels {
    pub host: Arc<str>,
    pub name: Arc<str>,
    pub namespace: Arc<str>,
}

/// The client's workload, if the one found by its address is the one that holds the certificate.
/// It is not for pods on the host's network and behind gateways, which share an address with
/// others; to name one of those would blame the wrong workload.
pub fn source_workload(exchange: &Exchange) -> Option<&Arc<Workload>> {
    let (peer, workload) = (&exchange.origin.peer.identity, exchange.source.as_ref()?);
    // The trust domain may differ by an alias (specs/istio-waypoint.md 2.1).
    let same = peer.namespace() == workload.identity.namespace()
        && peer.service_account() == workload.identity.service_account();
    same.then_some(workload)
}

impl SourceLabels {
    /// Labels of a client whose workload is known. Namespace and principal are the certificate's.
    pub fn of_workload(peer: &Identity, workload: &Workload, cluster: &Arc<str>) -> Self {
        Self {
            workload: or(&workload.workload_name, UNKNOWN),
            canonical_service: or(&workload.canonical_name, UNKNOWN),
            canonical_revision: or(&workload.canonical_revision, LATEST),
            workload_namespace: peer
                .namespace()
                .map_or_else(|| or(&workload.key.namespace, UNKNOWN), Arc::from),
            principal: peer.uri().into(),
            app: or(&workload.app, UNKNOWN),
            version: or(&workload.version, UNKNOWN),
            cluster: cluster_label(workload, cluster),
        }
    }

    /// Labels of a client that is known by its certificate and by what its baggage says.
    pub fn of_baggage(peer: &Identity, baggage: &Baggage<'_>) -> Self {
        let namespace = peer.namespace().or(baggage.namespace);
        Self {
            workload: baggage.workload.unwrap_or(UNKNOWN).into(),
            canonical_service: baggage.canonical_name.unwrap_or(UNKNOWN).into(),
            canonical_revision: baggage.canonical_revision.unwrap_or(LATEST).into(),
            workload_namespace: namespace.unwrap_or(UNKNOWN).into(),
            principal: peer.uri().into(),
            app: baggage.app.unwrap_or(UNKNOWN).into(),
            version: baggage.version.unwrap_or(UNKNOWN).into(),
            cluster: baggage.cluster.unwrap_or(UNKNOWN).into(),
        }
    }

    /// The same word everywhere.
    pub fn all(word: &str) -> Self {
        let word: Arc<str> = word.into();
        Self {
            workload: word.clone(),
            canonical_service: word.clone(),
            canonical_revision: word.clone(),
            workload_namespace: word.clone(),
            principal: word.clone(),
            app: word.clone(),
            version: word.clone(),
            cluster: word,
        }
    }
}

impl DestinationLabels {
    /// Labels of an endpoint. The principal is that of its service account, not of a certificate.
    pub fn of_workload(workload: &Workload, cluster: &Arc<str>) -> Self {
        Self {
            workload: or(&workload.workload_name, UNKNOWN),
            workload_namespace: or(&workload.key.namespace, UNKNOWN),
            principal: workload.identity.uri().into(),
            app: or(&workload.app, UNKNOWN),
            version: or(&workload.version, UNKNOWN),
            canonical_service: or(&workload.canonical_name, UNKNOWN),
            // Not `latest`, unlike the client's.
            canonical_revision: or(&workload.canonical_revision, UNKNOWN),
            cluster: cluster_label(workload, cluster),
        }
    }

    /// The same word everywhere.
    pub fn all(word: &str) -> Self {
        let word: Arc<str> = word.into();
        Self {
            workload: word.clone(),
            workload_namespace: word.clone(),
            principal: word.clone(),
            app: word.clone(),
            version: word.clone(),
            canonical_service: word.clone(),
            canonical_revision: word.clone(),
            cluster: word,
        }
    }
}

/// The cluster of a workload: `own`, unless istiod told of it as another one's.
pub(super) fn cluster_of<'w>(workload: &'w Workload, own: &'w str) -> &'w str {
    let (_, other) = workload.name_and_cluster();
    other.unwrap_or(own)
}

fn cluster_label(workload: &Workload, own: &Arc<str>) -> Arc<str> {
    let (_, other) = workload.name_and_cluster();
    other.map_or_else(|| own.clone(), Arc::from)
}

/// What a workload is, as Istio's peer metadata has it.
pub(super) fn type_of(workload: &Workload) -> &'static str {
    match workload.workload_type {
        WorkloadType::Deployment => "deployment",
        WorkloadType::CronJob => "cronjob",
        WorkloadType::Job => "job",
        WorkloadType::Pod => "pod",
    }
}

impl ServiceLabels {
    /// Labels of a service.
    pub fn of_service(service: &Service) -> Self {
        Self {
            host: service.hostname.clone(),
            name: service.key.name.clone(),
            namespace: service.key.namespace.clone(),
        }
    }

    /// The same word everywhere.
    pub fn all(word: &str) -> Self {
        let word: Arc<str> = word.into();
        Self {
            host: word.clone(),
            name: word.clone(),
            namespace: word,
        }
    }
}

fn or(text: &Arc<str>, missing: &str) -> Arc<str> {
    if text.is_empty() {
        missing.into()
    } else {
        text.clone()
    }
}

/// What the client's ztunnel says of its workload (specs/istio-waypoint.md 2.3). The client can
/// write what it likes here, so it names workloads in telemetry and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // named as the labels they become
pub struct Baggage<'a> {
    pub workload: Option<&'a str>,
    pub namespace: Option<&'a str>,
    pub canonical_name: Option<&'a str>,
    pub canonical_revision: Option<&'a str>,
    pub app: Option<&'a str>,
    pub version: Option<&'a str>,
    pub cluster: Option<&'a str>,
}

impl<'a> Baggage<'a> {
    /// Reads a header. Unknown keys, and values no Kubernetes name or label could have, are
    /// left out.
    pub fn parse(header: Option<&'a HeaderValue>) -> Self {
        let mut baggage = Self::default();
        let text = header.and_then(|h| h.to_str().ok()).unwrap_or_default();
        for member in text.split(',') {
            // Properties after a semicolon belong to the member, not to its value.
            let member = member.split(';').next().unwrap_or_default();
            let Some((key, value)) = member.split_once('=') else {
                continue;
            };
            let value = value.trim();
            if !is_name(value) {
                continue;
            }
            let field = match key.trim() {
                "k8s.deployment.name" | "k8s.cronjob.name" | "k8s.job.name" | "k8s.pod.name" => {
                    &mut baggage.workload
                }
                "k8s.namespace.name" => &mut baggage.namespace,
                "k8s.cluster.name" => &mut baggage.cluster,
                "service.name" => &mut baggage.canonical_name,
                "service.version" => &mut baggage.canonical_revision,
                "app.name" => &mut baggage.app,
                "app.version" => &mut baggage.version,
                _ => continue,
            };
            *field = Some(value);
        }
        baggage
    }
}

fn is_name(value: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
    (1..=253).contains(&value.len()) && value.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use cairn_config_schema::origin::ObjectKey;

    use super::*;

    #[test]
    fn baggage_names_workload_service_and_cluster() {
        let header = HeaderValue::from_static(
            "k8s.cluster.name=c1, k8s.namespace.name=shop,k8s.deployment.name=web;p=1,service.name=web-svc,service.version=v2,cloud.region=r",
        );
        assert_eq!(
            Baggage::parse(Some(&header)),
            Baggage {
                workload: Some("web"),
                namespace: Some("shop"),
                canonical_name: Some("web-svc"),
                canonical_revision: Some("v2"),
                cluster: Some("c1"),
                ..Baggage::default()
            }
        );
    }

    #[test]
    fn odd_baggage_is_no_baggage() {
        for text in [
            "",
            ",",
            "service.name",
            "service.name=",
            "service.name=a b",
            "=x",
            "service.name=\"x\"",
        ] {
            let header = HeaderValue::from_str(text).unwrap();
            assert_eq!(Baggage::parse(Some(&header)), Baggage::default(), "{text}");
        }
    }

    /// docs/kube-source.md, workloads from istiod.
    #[test]
    fn a_workload_of_another_cluster_is_reported_as_that_ones() {
        let near = crate::telemetry::fixtures::workload("web", "v1");
        let mut far = (*near).clone();
        far.key = ObjectKey::new("shop", "web-9@east");
        for (workload, expected) in [(&*near, "home"), (&far, "east")] {
            let own = "home".into();
            let source = SourceLabels::of_workload(&workload.identity, workload, &own);
            let destination = DestinationLabels::of_workload(workload, &own);
            assert_eq!(
                (&*source.cluster, &*destination.cluster),
                (expected, expected)
            );
        }
    }

    #[test]
    fn namespace_and_principal_are_the_certificates() {
        let peer = Identity::parse("spiffe://td/ns/real/sa/me").unwrap();
        let baggage = Baggage {
            namespace: Some("claimed"),
            workload: Some("web"),
            ..Baggage::default()
        };
        let labels = SourceLabels::of_baggage(&peer, &baggage);
        assert_eq!(&*labels.workload_namespace, "real");
        assert_eq!(&*labels.principal, "spiffe://td/ns/real/sa/me");
        assert_eq!((&*labels.workload, &*labels.app), ("web", UNKNOWN));
        assert_eq!(&*labels.canonical_revision, LATEST);
    }
}
