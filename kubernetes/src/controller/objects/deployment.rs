//! The Deployment of a waypoint: its pod as Istio's waypoints have it (specs/istio-waypoint.md 1.5, 1.6), so that what
//! users know of them holds.

use serde_json::{Value, json};

use super::{GATEWAY_NAME, HBONE_PORT, Parts, STATUS_PORT};
use crate::objects::put;

const METRICS_PORT: u16 = 15020;

/// From the last answer to the end of the process.
const AFTER_DRAIN_S: u32 = 5;

/// `scaled`: the number of replicas is an autoscaler's, and not to be said here, or it would be set back at each
/// change.
pub(super) fn deployment(parts: &Parts<'_>, scaled: bool) -> Value {
    let key = &parts.gateway.key;
    let mut annotations = parts.annotations();
    for (name, value) in [
        ("prometheus.io/scrape", "true".to_owned()),
        ("prometheus.io/port", METRICS_PORT.to_string()),
        ("prometheus.io/path", "/stats/prometheus".to_owned()),
        ("istio.io/rev", parts.gateway.revision.clone()),
    ] {
        annotations.insert(name.to_owned(), value);
    }
    let selector = json!({GATEWAY_NAME: &*key.name});
    let spread = |topology: &str| {
        json!({
            "maxSkew": 1,
            "topologyKey": topology,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector},
        })
    };
    let mut spec = json!({
        "selector": {"matchLabels": selector},
        // While none is ready, clients are refused (1.9): one goes when another is there.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
        "template": {
            "metadata": {"labels": parts.labels, "annotations": annotations},
            "spec": {
                "serviceAccountName": parts.names.service_account,
                "terminationGracePeriodSeconds": parts.settings.drain_s + AFTER_DRAIN_S,
                "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                "topologySpreadConstraints": [
                    spread("topology.kubernetes.io/zone"),
                    spread("kubernetes.io/hostname"),
                ],
                "containers": [container(parts)],
                "volumes": volumes(),
            },
        },
    });
    if !scaled {
        put(&mut spec, "", "replicas", json!(1));
    }
    json!({"spec": spec})
}

fn container(parts: &Parts<'_>) -> Value {
    let ready = json!({"path": "/healthz/ready", "port": STATUS_PORT});
    let mount = |name: &str, path: &str, read_only: bool| {
        let mut mount = json!({"name": name, "mountPath": path});
        if read_only {
            put(&mut mount, "", "readOnly", json!(true));
        }
        mount
    };
    json!({
        "name": "waypoint",
        "image": parts.settings.image,
        "args": [
            "run",
            "--kube",
            format!("--gateway={}", parts.gateway.key),
            format!("--drain-seconds={}", parts.settings.drain_s),
        ],
        "env": env(parts),
        "ports": [
            {"name": "hbone", "containerPort": HBONE_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
            {"name": "status-port", "containerPort": STATUS_PORT, "protocol": "TCP"},
        ],
        "startupProbe": {"httpGet": ready, "periodSeconds": 1, "failureThreshold": 30},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 15, "failureThreshold": 4},
        // No limit on the processor: a throttled proxy is a slow one for everybody behind it.
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {
            "runAsUser": 1337,
            "runAsGroup": 1337,
            "runAsNonRoot": true,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            mount("istio-token", "/var/run/secrets/tokens", true),
            mount("istio-ca-root-cert", "/var/run/secrets/istio", true),
            mount("workload-socket", "/var/run/secrets/workload-spiffe-uds", false),
            mount("state", "/var/lib/cairn", false),
            mount("tmp", "/tmp", false),
            mount("podinfo", "/etc/istio/pod", true),
        ],
    })
}

fn env(parts: &Parts<'_>) -> Value {
    let settings = parts.settings;
    let mut env = Vec::new();
    for (name, field) in [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_IP", "status.podIP"),
        ("HOST_IP", "status.hostIP"),
        ("NODE_NAME", "spec.nodeName"),
        ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
    ] {
        env.push(json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}));
    }
    let texts = [
        ("CAIRN_CLUSTER_DOMAIN", Some(&settings.cluster_domain)),
        ("CA_ADDR", settings.ca_address.as_ref()),
        ("ISTIO_META_CLUSTER_ID", Some(&settings.cluster_id)),
        ("ISTIO_META_NETWORK", settings.network.as_ref()),
        ("TRUST_DOMAIN", settings.trust_domain.as_ref()),
        ("CAIRN_ISTIO_NAMESPACE", settings.istio_namespace.as_ref()),
        ("CAIRN_DISCOVERY", settings.discovery.as_ref()),
        ("CAIRN_XDS_ADDRESS", settings.xds_address.as_ref()),
    ];
    for (name, value) in texts {
        env.extend(value.map(|value| json!({"name": name, "value": value})));
    }
    env.push(json!({"name": "CAIRN_STATE_DIR", "value": "/var/lib/cairn"}));
    Value::Array(env)
}

fn volumes() -> Value {
    json!([
        {
            "name": "istio-token",
            "projected": {"sources": [{"serviceAccountToken": {
                "audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token",
            }}]},
        },
        // Optional, for a mesh may have its roots from elsewhere.
        {"name": "istio-ca-root-cert", "configMap": {"name": "istio-ca-root-cert", "optional": true}},
        {"name": "workload-socket", "emptyDir": {}},
        // The last good configuration, with which it starts again while the API server is away.
        {"name": "state", "emptyDir": {}},
        // For sockets within the process: the root is read-only.
        {"name": "tmp", "emptyDir": {}},
        {
            "name": "podinfo",
            "downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
            ]},
        },
    ])
}
