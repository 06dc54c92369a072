//! `envoyHttpAls` and `envoyTcpAls`: who gets what, and what is told of what is not supported.

use cairn_config_schema::diagnostics::Severity;
use cairn_config_schema::snapshot::{EntryKind, EntryLog, LogSink, Snapshot};

use super::mesh::mesh_config;
use super::support::{key, shop_with};

const SERVER: &str = "
apiVersion: v1
kind: Service
metadata: {name: als, namespace: observability}
spec:
  clusterIP: 10.0.9.9
  ports:
  - {name: grpc, port: 9000}
";

const LOGS: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs, namespace: shop}
spec:
  accessLogging: [{providers: [{name: requests}, {name: streams}]}]
";

fn with(requests: &str, streams: &str) -> Snapshot {
    let to = "service: als.observability.svc.cluster.local, port: 9000";
    let mesh = mesh_config(
        "istio-system",
        &format!(
            "extensionProviders:
- {{name: requests, envoyHttpAls: {{{to}{requests}}}}}
- {{name: streams, envoyTcpAls: {{{to}{streams}}}}}"
        ),
    );
    shop_with(&[SERVER, &mesh, LOGS])
}

fn logs(snapshot: &Snapshot) -> Vec<&EntryLog> {
    let settings = snapshot.telemetry.of_service(Some(&key("shop/web")));
    let logs = &settings.access_log;
    let entries = logs.iter().map(|log| match &log.sink {
        LogSink::Entries(log) => &**log,
        other => panic!("{other:?}"),
    });
    entries.collect()
}

#[test]
fn logs_of_requests_and_of_streams_have_their_names_and_headers() {
    let snapshot = with(
        ", additionalRequestHeadersToLog: [X-User, x-user, Accept], additionalResponseHeadersToLog: [X-A]",
        ", logName: own",
    );
    let [requests, streams] = logs(&snapshot)[..] else {
        panic!("{:?}", snapshot.telemetry)
    };
    assert_eq!(
        (&*requests.log_name, &*streams.log_name),
        ("http_envoy_accesslog", "own")
    );
    let expected = EntryKind::Http {
        request_headers: vec!["x-user".into(), "accept".into()],
        response_headers: vec!["x-a".into()],
    };
    assert_eq!(
        (&requests.kind, &streams.kind),
        (&expected, &EntryKind::Tcp)
    );
    assert_eq!(requests.collector.cluster.port, 9000);
    let of_default = with("", "");
    assert_eq!(&*logs(&of_default)[1].log_name, "tcp_envoy_accesslog");
}

#[test]
fn what_can_not_be_logged_is_told_with_its_place() {
    let many: Vec<String> = (0..70).map(|n| format!("x-{n}")).collect();
    let requests = format!(
        ", filterStateObjectsToLog: [a], additionalResponseTrailersToLog: [b], \
         additionalRequestHeadersToLog: ['no name', ok], additionalResponseHeadersToLog: [{}]",
        many.join(", ")
    );
    let snapshot = with(&requests, ", filterStateObjectsToLog: [a]");
    for (path, severity) in [
        (
            "[0].envoyHttpAls.filterStateObjectsToLog",
            Severity::Warning,
        ),
        (
            "[0].envoyHttpAls.additionalResponseTrailersToLog",
            Severity::Warning,
        ),
        (
            "[0].envoyHttpAls.additionalRequestHeadersToLog[0]",
            Severity::Error,
        ),
        (
            "[0].envoyHttpAls.additionalResponseHeadersToLog",
            Severity::Error,
        ),
        ("[1].envoyTcpAls.filterStateObjectsToLog", Severity::Warning),
    ] {
        let path = format!("data.mesh.extensionProviders{path}");
        let found = snapshot.diagnostics.iter().find(|d| d.path == path);
        let found = found.unwrap_or_else(|| panic!("{path}: {:?}", snapshot.diagnostics));
        assert_eq!(found.severity, severity, "{path}");
    }
    let EntryKind::Http {
        request_headers,
        response_headers,
    } = &logs(&snapshot)[0].kind
    else {
        panic!("{:?}", logs(&snapshot))
    };
    assert_eq!(request_headers[..], ["ok".into()]);
    assert_eq!(response_headers.len(), 64);
}
