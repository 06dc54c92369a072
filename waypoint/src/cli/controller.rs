//! `cairn controller`: makes what Gateways need and writes statuses. What it does is `cairn_kubernetes`'s; here are its
//! flags, its probes and its end.

mod probes;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use cairn_kubernetes::client;
use cairn_kubernetes::controller::{self, PodSettings, Settings, Standing};
use cairn_kubernetes::kinds::ISTIO_NAMESPACE;
use tokio::signal::unix::{SignalKind, signal};

use super::run::dns_name;
use super::{Outcome, access};
use crate::istiod::Address;
use crate::log;

/// See to the Gateways of a cluster: make a waypoint for each, and say in the status of Gateways, Services, routes
/// and policies what became of them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn controller --image registry.example/cairn:0.1\n  \
    cairn controller --image cairn:dev --kubeconfig ~/.kube/config --namespace cairn-system --leader-elect=false\n\n\
    Of several replicas one writes. SIGTERM gives the lease back. See docs/kubernetes.md."
)]
pub struct Args {
    /// Image of the waypoints' pods
    #[arg(long, value_name = "IMAGE", env = "CAIRN_IMAGE")]
    image: String,
    /// Namespace of the controller: of its lease, and of ConfigMaps with class-wide overlays
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "POD_NAMESPACE",
        default_value = "cairn-system"
    )]
    namespace: String,
    /// Work only while holding a lease, so that of several replicas one writes
    #[arg(long, value_name = "BOOL", env = "CAIRN_LEADER_ELECT", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Name of the lease
    #[arg(
        long,
        value_name = "NAME",
        env = "CAIRN_LEASE_NAME",
        default_value = "cairn-controller"
    )]
    lease_name: String,
    /// Name of this replica in the lease [default: that of the host and process]
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,
    /// GatewayClass to make if it is not there; empty: make none
    #[arg(
        long,
        value_name = "NAME",
        env = "CAIRN_GATEWAY_CLASS",
        default_value = "cairn-waypoint"
    )]
    gateway_class: String,
    /// Revision of the Gateways to see to (label `istio.io/rev` of Gateway or namespace)
    #[arg(
        long,
        value_name = "NAME",
        env = "CAIRN_REVISION",
        default_value = "default"
    )]
    revision: String,
    /// ClusterRoleBinding whose subjects are the waypoints; empty: leave them to others
    #[arg(
        long,
        value_name = "NAME",
        env = "CAIRN_WAYPOINT_ROLE",
        default_value = "cairn-waypoint"
    )]
    waypoint_role: String,
    /// Where waypoints get their certificates; empty: from the SPIFFE Workload API
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "CA_ADDR",
        default_value = "istiod.istio-system.svc:15012"
    )]
    ca_address: String,
    /// Trust domain of the mesh, in place of that of the ConfigMap `istio`
    #[arg(long, value_name = "DOMAIN", env = "CAIRN_TRUST_DOMAIN")]
    trust_domain: Option<String>,
    /// Domain that the hostnames of Services end in
    #[arg(long, value_name = "DOMAIN", env = "CAIRN_CLUSTER_DOMAIN", default_value = "cluster.local", value_parser = dns_name)]
    cluster_domain: String,
    /// Name of the cluster, for the CA and telemetry
    #[arg(
        long,
        value_name = "NAME",
        env = "CAIRN_CLUSTER_ID",
        default_value = "Kubernetes"
    )]
    cluster_id: String,
    /// Network of the cluster, as in `topology.istio.io/network`
    #[arg(long, value_name = "NAME", env = "CAIRN_NETWORK")]
    network: Option<String>,
    #[command(flatten)]
    istio: access::Istio,
    /// Have istiod tell the waypoints of workloads of other clusters (`cairn run --discovery`); empty: nobody does
    #[arg(long, value_name = "SOURCE", env = "CAIRN_DISCOVERY", value_parser = ["istiod", ""])]
    discovery: Option<String>,
    /// Where the waypoints ask istiod, if they do [default: istiod.istio-system.svc:15012]
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "CAIRN_XDS_ADDRESS",
        requires = "discovery",
        value_parser = istiod_address
    )]
    xds_address: Option<String>,
    /// How long a waypoint's requests in flight may take once its pod is told to stop
    #[arg(
        long,
        value_name = "SECONDS",
        env = "CAIRN_WAYPOINT_DRAIN_SECONDS",
        default_value_t = 25
    )]
    waypoint_drain_seconds: u32,
    #[command(flatten)]
    access: access::Args,
    /// Address for Prometheus
    #[arg(
        long,
        value_name = "ADDR",
        env = "CAIRN_METRICS_ADDR",
        default_value = "[::]:15020"
    )]
    metrics_addr: SocketAddr,
    /// Address for probes
    #[arg(
        long,
        value_name = "ADDR",
        env = "CAIRN_READY_ADDR",
        default_value = "[::]:15021"
    )]
    ready_addr: SocketAddr,
}

/// Runs until it is told to stop.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let _log = log::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<Outcome> {
    let access = args.access.clone().into();
    let client = client::connect(&access).await?;
    let standing = Arc::new(Standing::default());
    for address in [args.metrics_addr, args.ready_addr] {
        let served = probes::serve(address, standing.clone()).await;
        served.with_context(|| format!("open {address}"))?;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    controller::run(client, settings(args), standing, stop).await;
    Ok(Outcome::Fine)
}

/// As written, if the waypoints can read it.
fn istiod_address(text: &str) -> Result<String, String> {
    text.parse::<Address>().map(|_| text.to_owned())
}

fn settings(args: Args) -> Settings {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let discovery = args.discovery.and_then(some);
    let here = || {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!("{}_{}", host.trim(), std::process::id())
    };
    Settings {
        namespace: args.namespace,
        identity: args.identity.and_then(some).unwrap_or_else(here),
        lease: args.leader_elect.then_some(args.lease_name),
        class: some(args.gateway_class),
        revision: args.revision,
        waypoint_role: some(args.waypoint_role),
        pods: PodSettings {
            image: args.image,
            ca_address: some(args.ca_address),
            trust_domain: args.trust_domain,
            cluster_domain: args.cluster_domain,
            cluster_id: args.cluster_id,
            network: args.network,
            istio_namespace: Some(args.istio.istio_namespace).filter(|n| n != ISTIO_NAMESPACE),
            // A waypoint takes the address with discovery alone.
            xds_address: args.xds_address.filter(|_| discovery.is_some()),
            discovery,
            drain_s: args.waypoint_drain_seconds,
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// `cairn run` does not start with an address and without discovery.
    #[test]
    fn a_waypoint_is_told_where_istiod_is_if_it_asks() {
        let pods = |discovery: &str| {
            let flags = ["cairn", "--image", "i", "--xds-address", "istiod:1"];
            let flags = flags.into_iter().chain(["--discovery", discovery]);
            settings(Cli::try_parse_from(flags).unwrap().args).pods
        };
        assert_eq!(pods("istiod").xds_address.as_deref(), Some("istiod:1"));
        assert_eq!(pods("").xds_address, None);
    }
}
