//! `cairn run`: the waypoint on files. What it does while it runs is [`crate::run`]'s.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{ISTIO_TEXT, Locality, LogFormat, WrittenFormat};
use cairn_kubernetes::client::Access;
use clap::ValueEnum;
use http::HeaderName;

use super::Outcome;
use super::discovery::DiscoveryArgs;
use super::identity::{self, IdentityArgs, Surroundings};
use crate::hubble::{self, Redaction};
use crate::limits::{FLOW_RECORDS, FLOW_RECORDS_MAX, METRIC_IDLE_MINUTES, METRIC_IDLE_MINUTES_MAX};
use crate::names::Servers;
use crate::telemetry::otlp::environment::Environment;
use crate::tls::ApiFiles;
use crate::{admin, log, run, source, telemetry};

/// Serve as a waypoint, configured by files or folders of Kubernetes YAML or by the API server, both
/// watched for changes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cairn pki ./pki --identity shop/waypoint\n  \
    cairn run --config ./mesh --gateway shop/waypoint --identity-dir ./pki/shop/waypoint\n\n\
    SIGHUP reads everything again, SIGTERM drains and leaves. CAIRN_LOG sets the log level \
    (info, debug, cairn_waypoint=debug,h2=warn)."
)]
pub struct Args {
    /// Files and folders of Kubernetes YAML or JSON
    #[arg(long, required_unless_present = "kube", num_args = 1.., value_name = "PATH", env = "CAIRN_CONFIG", value_delimiter = ',')]
    config: Vec<PathBuf>,
    /// Take the configuration from the API server; files of --config count besides
    #[arg(long, env = "CAIRN_KUBE")]
    kube: bool,
    #[command(flatten)]
    access: super::access::Args,
    #[command(flatten)]
    istio: super::access::Istio,
    /// Folder in which what the API server said last is kept, so that this waypoint can start while the server
    /// is away [default: none]
    #[arg(long, value_name = "DIR", env = "CAIRN_STATE_DIR", requires = "kube")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    discovery: DiscoveryArgs,
    /// The Gateway to serve; not needed when there is only one of a waypoint class
    #[arg(long, value_name = "NS/NAME", env = "CAIRN_GATEWAY", value_parser = object_key)]
    gateway: Option<ObjectKey>,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Address for clients' tunnels
    #[arg(
        long,
        value_name = "ADDR",
        env = "CAIRN_HBONE_ADDR",
        default_value = "[::]:15008"
    )]
    hbone_addr: SocketAddr,
    /// Address for Prometheus
    #[arg(
        long,
        value_name = "ADDR",
        env = "CAIRN_METRICS_ADDR",
        default_value = "[::]:15020"
    )]
    metrics_addr: SocketAddr,
    /// Address for readiness probes
    #[arg(
        long,
        value_name = "ADDR",
        env = "CAIRN_READY_ADDR",
        default_value = "[::]:15021"
    )]
    ready_addr: SocketAddr,
    /// Address for operators on this machine
    #[arg(
        long,
        value_name = "ADDR",
        env = "CAIRN_ADMIN_ADDR",
        default_value = "127.0.0.1:15000"
    )]
    admin_addr: SocketAddr,
    /// Port on which endpoints listen for tunnels
    #[arg(
        long,
        value_name = "PORT",
        env = "CAIRN_UPSTREAM_HBONE_PORT",
        default_value_t = 15008
    )]
    upstream_hbone_port: u16,
    /// Threads that serve; one per core when absent
    #[arg(long, value_name = "N", env = "CAIRN_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Trust domain, in place of that of the ConfigMap `istio`
    #[arg(long, value_name = "DOMAIN", env = "CAIRN_TRUST_DOMAIN")]
    trust_domain: Option<String>,
    /// Domain that the hostnames of Services end in [default: cluster.local]
    #[arg(long, value_name = "DOMAIN", env = "CAIRN_CLUSTER_DOMAIN", value_parser = dns_name)]
    cluster_domain: Option<String>,
    /// Where this waypoint runs, REGION/ZONE/SUBZONE, for balancing by place; the zone is that of endpoints
    /// on its node when absent
    #[arg(long, value_name = "PLACE", env = "CAIRN_LOCALITY")]
    locality: Option<String>,
    /// Refuse traffic to services with an L7 policy that is not enforced as it is written
    #[arg(long, env = "CAIRN_STRICT")]
    strict: bool,
    /// Fetch keys of token issuers from loopback and link-local addresses, too; for labs
    #[arg(long, env = "CAIRN_JWKS_ALLOW_LOCAL")]
    jwks_allow_local: bool,
    /// Ask this server for names of endpoints, several with commas [default: those of /etc/resolv.conf]
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "CAIRN_DNS_SERVER",
        value_delimiter = ','
    )]
    dns_server: Vec<SocketAddr>,
    /// Let names of endpoints lead to loopback and link-local addresses, too; for labs
    #[arg(long, env = "CAIRN_DNS_ALLOW_LOCAL")]
    dns_allow_local: bool,
    /// Say in the body of a denial which policy and rule decided, or which rule came nearest; for labs
    #[arg(long, env = "CAIRN_EXPLAIN_DENIALS")]
    explain_denials: bool,
    /// Minutes after which a series of metrics is forgotten in which nothing was counted; 0: never
    #[arg(long, value_name = "MINUTES", env = "CAIRN_METRICS_IDLE_MINUTES", default_value_t = METRIC_IDLE_MINUTES, value_parser = clap::value_parser!(u32).range(..=i64::from(METRIC_IDLE_MINUTES_MAX)))]
    metrics_idle_minutes: u32,
    /// How long requests in flight may take once the process is told to stop
    #[arg(
        long,
        value_name = "SECONDS",
        env = "CAIRN_DRAIN_SECONDS",
        default_value_t = 25
    )]
    drain_seconds: u64,
    /// Address for Hubble's API, which `cairn observe`, the `hubble` command and its UI read; usually
    /// 127.0.0.1:4245 [default: none]
    #[arg(long, value_name = "ADDR", env = "CAIRN_HUBBLE_ADDR")]
    hubble_addr: Option<SocketAddr>,
    /// Certificate of Hubble's API, PEM, leaf first; it is served in TLS then, and the files are re-read when
    /// they change
    #[arg(
        long,
        value_name = "FILE",
        env = "CAIRN_HUBBLE_TLS_CERT",
        requires = "hubble_tls_key",
        requires = "hubble_addr"
    )]
    hubble_tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "CAIRN_HUBBLE_TLS_KEY",
        requires = "hubble_tls_cert"
    )]
    hubble_tls_key: Option<PathBuf>,
    /// Let in only clients of Hubble's API with a certificate that one of these has signed, PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "CAIRN_HUBBLE_TLS_CLIENT_CA",
        requires = "hubble_tls_cert"
    )]
    hubble_tls_client_ca: Option<PathBuf>,
    /// Exchanges whose flow records are kept; 0: none
    #[arg(long, value_name = "N", env = "CAIRN_FLOW_RECORDS", default_value_t = FLOW_RECORDS as u64, value_parser = clap::value_parser!(u64).range(..=FLOW_RECORDS_MAX as u64))]
    flow_records: u64,
    /// Leave queries of URLs out of flow records
    #[arg(long, env = "CAIRN_FLOW_REDACT_QUERY")]
    flow_redact_query: bool,
    /// Headers whose values flow records show, of user-agent and x-request-id
    #[arg(
        long,
        value_name = "NAME",
        env = "CAIRN_FLOW_HEADERS",
        value_delimiter = ',',
        default_value = "user-agent,x-request-id"
    )]
    flow_headers: Vec<HeaderName>,
    /// One line per request and TCP stream on stdout
    #[arg(
        long,
        value_name = "FORMAT",
        env = "CAIRN_ACCESS_LOG",
        default_value = "json"
    )]
    access_log: AccessLog,
    /// What a line looks like, in place of what the ConfigMap `istio` says: `cairn` (JSON), `istio` (Istio's
    /// text), text or a JSON object with Envoy's operators
    #[arg(
        long,
        value_name = "FORMAT",
        env = "CAIRN_ACCESS_LOG_FORMAT",
        value_parser = log_format
    )]
    access_log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AccessLog {
    /// JSON lines.
    Json,
    /// None.
    Off,
}

/// Reads a format of the access log. What is wrong in it is wrong usage, unlike in the configuration.
fn log_format(text: &str) -> Result<LogFormat, String> {
    let written = |template: serde_json::Value| {
        Arc::new(WrittenFormat {
            template,
            omits_empty: false,
            at: None,
        })
    };
    let format = match text {
        "cairn" => LogFormat::Cairn,
        "istio" => LogFormat::Text(written(ISTIO_TEXT.into())),
        text if text.trim_start().starts_with('{') => LogFormat::Json(written(
            serde_json::from_str(text).map_err(|e| e.to_string())?,
        )),
        text => LogFormat::Text(written(text.into())),
    };
    let mut wrong = Vec::new();
    telemetry::access_log::template::Format::read(&format, &mut wrong);
    match wrong.into_iter().next() {
        Some(wrong) => Err(wrong.words()),
        None => Ok(format),
    }
}

/// Reads `NS/NAME`.
pub(super) fn object_key(text: &str) -> Result<ObjectKey, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(ObjectKey::new(namespace, name))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

/// Reads a DNS name; in lower case and without the dot that may end it, for hostnames are compared so.
pub(super) fn dns_name(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match name.len() <= 253 && name.split('.').all(is_label) {
        true => Ok(name),
        false => Err("expected a DNS name, like cluster.local".to_owned()),
    }
}

impl Args {
    /// Which API server the configuration comes from, if it does, and where what it says is kept.
    pub(super) fn cluster(&self) -> Option<(Access, Option<PathBuf>)> {
        self.kube
            .then(|| (self.access.clone().into(), self.state_dir.clone()))
    }
}

/// Runs until it is told to stop.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    serve(args, |_| Ok(()))
}

/// Serves until it is told to stop. `beside` is started once the waypoint serves.
pub(super) fn serve(
    args: Args,
    beside: impl FnOnce(&run::Running) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    // Dropped last, so that it takes the others' last words.
    let _log = log::start()?;
    raise_descriptor_limit();
    let _access_log = match args.access_log {
        AccessLog::Json => {
            telemetry::access_log::start_on_stdout().context("start the access log")?
        }
        AccessLog::Off => None,
    };
    let running = run::start(settings(args)?)?;
    beside(&running)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(running.until_stopped())?;
    Ok(Outcome::Fine)
}

fn settings(args: Args) -> anyhow::Result<run::Settings> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Istio's own pod variable is honoured where both exist (DESIGN section 8).
    let trust_domain = args
        .trust_domain
        .or_else(|| std::env::var("TRUST_DOMAIN").ok());
    let kube = args.kube.then(|| source::kube::Settings {
        access: args.access.into(),
        istio_namespace: args.istio.istio_namespace,
        state_dir: args.state_dir,
    });
    let of_pod = || kube.as_ref().and_then(|_| gateway_of_pod());
    let around = Surroundings::of_process();
    let cluster_domain = args.cluster_domain.as_deref();
    let network = args.discovery.network(&around);
    let discovery = args
        .discovery
        .asking(&args.identity, cluster_domain, &around)?;
    Ok(run::Settings {
        config: args.config,
        network,
        discovery,
        gateway: args.gateway.or_else(of_pod),
        kube,
        identity: args.identity.source(&around)?,
        expected: identity::expected(trust_domain.clone(), &around),
        hbone_addr: args.hbone_addr,
        addresses: admin::Addresses {
            metrics: args.metrics_addr,
            ready: args.ready_addr,
            admin: args.admin_addr,
        },
        upstream_hbone_port: args.upstream_hbone_port,
        workers: args.workers.map_or(cores, usize::from),
        trust_domain,
        cluster_domain: args.cluster_domain,
        locality: args.locality.as_deref().map(Locality::parse),
        strict: args.strict,
        access_log_format: args.access_log_format,
        jwks_allow_local: args.jwks_allow_local,
        dns_servers: match args.dns_server {
            servers if servers.is_empty() => Servers::System,
            servers => Servers::Only(servers),
        },
        dns_allow_local: args.dns_allow_local,
        explain_denials: args.explain_denials,
        metrics_idle: (args.metrics_idle_minutes > 0)
            .then(|| Duration::from_secs(u64::from(args.metrics_idle_minutes) * 60)),
        drain: Duration::from_secs(args.drain_seconds),
        otel: Environment::read()?,
        flows: hubble::Settings {
            records: usize::try_from(args.flow_records).unwrap_or(FLOW_RECORDS_MAX),
            address: args.hubble_addr,
            tls: args
                .hubble_tls_cert
                .zip(args.hubble_tls_key)
                .map(|(certificate, key)| ApiFiles {
                    certificate,
                    key,
                    client_ca: args.hubble_tls_client_ca,
                }),
            redaction: Redaction {
                queries: args.flow_redact_query,
                headers: args.flow_headers,
            },
        },
        set_log_filter: log::set_filter,
    })
}

/// The Gateway that a pod is made for, as the downward API tells it: its own namespace, and its label
/// `gateway.networking.k8s.io/gateway-name` in `GATEWAY_NAME`.
fn gateway_of_pod() -> Option<ObjectKey> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (namespace, name) = (variable("POD_NAMESPACE")?, variable("GATEWAY_NAME")?);
    Some(ObjectKey::new(namespace, name))
}

/// Ten thousand streams need more descriptors than a shell's usual 1,024.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_domain_is_a_dns_name() {
        assert_eq!(dns_name("K8s.Example.com."), Ok("k8s.example.com".into()));
        assert_eq!(dns_name("local"), Ok("local".into()));
        for wrong in ["", ".", ".local", "a..b", "-a.b", "a/b", "a b", "a:80"] {
            assert!(dns_name(wrong).is_err(), "{wrong}");
        }
    }
}
