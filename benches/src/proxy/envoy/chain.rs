//! What happens to the requests of one service port: policy, routes, log.

use serde_json::{Value, json};

use super::{TYPE, cluster_name};
use crate::pki::{NAMESPACE, spiffe_id};
use crate::proxy::mesh::{ALLOWED_METHODS, CLIENT_ACCOUNT, Port, Service};

/// The filter that speaks HTTP.
pub(super) const HTTP_CONNECTION_MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

pub(super) fn service_chain(service: &Service, port: &Port, access_log: bool) -> Value {
    let name = cluster_name(service, port);
    let mut filters = vec![
        filter("rbac", "rbac.v3.RBAC", &json!({"rules": allow_rules()})),
        filter("fault", "fault.v3.HTTPFault", &json!({})),
        filter("cors", "cors.v3.Cors", &json!({})),
    ];
    if port.grpc {
        filters.push(filter(
            "grpc_stats",
            "grpc_stats.v3.FilterConfig",
            &json!({"emit_filter_state": true, "stats_for_all_methods": false}),
        ));
    }
    filters.push(router());
    let mut manager = json!({
        "@type": HTTP_CONNECTION_MANAGER,
        "stat_prefix": format!("inbound_0.0.0.0_{};", port.number),
        "server_name": "istio-envoy",
        "use_remote_address": false,
        "forward_client_cert_details": "SANITIZE",
        "normalize_path": true,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "proxy_100_continue": true,
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {
            "name": &name,
            "validate_clusters": false,
            "virtual_hosts": [{
                "name": format!("inbound|http|{}", port.number),
                "domains": ["*"],
                "routes": routes(service, &name),
            }],
        },
        "http_filters": filters,
    });
    if let (true, Some(fields)) = (access_log, manager.as_object_mut()) {
        fields.insert("access_log".to_owned(), json!([access_log_to_stdout()]));
    }
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
}

fn filter(name: &str, kind: &str, fields: &Value) -> Value {
    let mut config = fields.clone();
    if let Some(config) = config.as_object_mut() {
        config.insert(
            "@type".to_owned(),
            json!(format!("{TYPE}.extensions.filters.http.{kind}")),
        );
    }
    json!({"name": format!("envoy.filters.http.{name}"), "typed_config": config})
}

pub(super) fn router() -> Value {
    filter("router", "router.v3.Router", &json!({}))
}

fn allow_rules() -> Value {
    let methods: Vec<Value> = ALLOWED_METHODS
        .iter()
        .map(|m| json!({"header": {"name": ":method", "string_match": {"exact": m}}}))
        .collect();
    let peer = json!({"filter_state": {
        "key": "io.istio.peer_principal",
        "string_match": {"exact": spiffe_id(CLIENT_ACCOUNT)},
    }});
    json!({
        "action": "ALLOW",
        "policies": {(format!("ns[{NAMESPACE}]-policy[allow-client]-rule[0]")): {
            "permissions": [{"and_rules": {"rules": [{"or_rules": {"rules": methods}}]}}],
            "principals": [{"and_ids": {"ids": [{"or_ids": {"ids": [peer]}}]}}],
        }},
    })
}

fn routes(service: &Service, cluster: &str) -> Vec<Value> {
    let route = |matching: Value| {
        json!({
            "match": matching,
            "decorator": {"operation": format!("{}:80/*", service.hostname())},
            "route": {
                "cluster": cluster,
                "timeout": "0s",
                "max_stream_duration": {"max_stream_duration": "0s"},
                "retry_policy": {
                    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                    "num_retries": 2,
                    "host_selection_retry_max_attempts": "5",
                    "retry_host_predicate": [{
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typed_config": {
                            "@type": format!("{TYPE}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
                        },
                    }],
                },
            },
        })
    };
    if service.route_prefixes.is_empty() {
        return vec![route(json!({"prefix": "/"}))];
    }
    let matching = |prefix: &String| match prefix.as_str() {
        "/" => json!({"prefix": "/"}),
        prefix => json!({"path_separated_prefix": prefix}),
    };
    service
        .route_prefixes
        .iter()
        .map(|p| route(matching(p)))
        .collect()
}

/// Istio's default text format (specs/istio-waypoint.md 5.5).
fn access_log_to_stdout() -> Value {
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": format!("{TYPE}.extensions.access_loggers.file.v3.FileAccessLog"),
            "path": "/dev/stdout",
            "log_format": {"text_format_source": {"inline_string": "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"}},
        },
    })
}
