//! Flags of who tells of workloads beside the objects of Kubernetes. Asks nobody.

use clap::ValueEnum;

use super::identity::{IdentityArgs, Surroundings};
use crate::istiod::Address;
use crate::source::istiod::{Asking, NodeNames};

/// Where istiod usually is (specs/istio-waypoint.md 6.1).
const ISTIOD: &str = "istiod.istio-system.svc:15012";

/// Who tells of workloads of other clusters.
#[derive(Debug, clap::Args)]
pub(super) struct DiscoveryArgs {
    /// Have istiod tell of workloads of other clusters, besides the configuration; it is spoken to as --ca-server-name,
    /// --ca-roots, --ca-token and --ca-cluster say
    #[arg(long, value_name = "SOURCE", env = "CAIRN_DISCOVERY")]
    discovery: Option<Discovery>,
    /// Where istiod is asked [default: XDS_ADDRESS, or istiod.istio-system.svc:15012]
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "CAIRN_XDS_ADDRESS",
        requires = "discovery"
    )]
    xds_address: Option<Address>,
    /// Take workloads on loopback and link-local addresses from istiod, too; for labs
    #[arg(long, env = "CAIRN_XDS_ALLOW_LOCAL", requires = "discovery")]
    xds_allow_local: bool,
    /// The network of this waypoint, whose workloads it reaches by their addresses [default: ISTIO_META_NETWORK or
    /// NETWORK, or the default network]
    #[arg(long, value_name = "NAME", env = "CAIRN_NETWORK")]
    network: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Discovery {
    /// Istio's control plane.
    Istiod,
}

impl DiscoveryArgs {
    /// The network of this waypoint, whoever tells of workloads. `None`: the default one.
    pub fn network(&self, around: &Surroundings<'_>) -> Option<String> {
        let mut of_pod = ["ISTIO_META_NETWORK", "NETWORK"].into_iter();
        let of_pod = || of_pod.find_map(around.variable);
        self.network.clone().or_else(of_pod)
    }

    /// Whom to ask. `None`: nobody.
    ///
    /// # Errors
    /// When a variable can not be read.
    pub fn asking(
        self,
        identity: &IdentityArgs,
        cluster_domain: Option<&str>,
        around: &Surroundings<'_>,
    ) -> anyhow::Result<Option<Asking>> {
        let Some(Discovery::Istiod) = self.discovery else {
            return Ok(None);
        };
        let network = self.network(around).unwrap_or_default();
        let variable = around.variable;
        let first = |names: [&str; 2]| names.into_iter().find_map(variable);
        let address = match self.xds_address {
            Some(address) => address,
            None => {
                let text = variable("XDS_ADDRESS").unwrap_or_else(|| ISTIOD.to_owned());
                let address = text.parse();
                address.map_err(|e| anyhow::anyhow!("XDS_ADDRESS={text}: {e}"))?
            }
        };
        let node = NodeNames {
            pod: variable("POD_NAME"),
            namespace: variable("POD_NAMESPACE"),
            account: variable("SERVICE_ACCOUNT"),
            ip: first(["POD_IP", "INSTANCE_IP"]),
            gateway: variable("GATEWAY_NAME"),
            network,
            domain: cluster_domain.unwrap_or("cluster.local").to_owned(),
        };
        Ok(Some(Asking {
            plane: identity.plane(address, around)?,
            node,
            allow_local: self.xds_allow_local,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::tests::around;
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        identity: IdentityArgs,
        #[command(flatten)]
        discovery: DiscoveryArgs,
    }

    fn asking(flags: &[&str], variables: &[(&str, &str)]) -> Result<Option<Asking>, String> {
        let flags = ["cairn"].iter().chain(flags);
        let cli = Cli::try_parse_from(flags).map_err(|error| error.kind().to_string())?;
        let ask = |around: &Surroundings<'_>| cli.discovery.asking(&cli.identity, None, around);
        around(variables, false, ask).map_err(|error| error.to_string())
    }

    const ON: [&str; 2] = ["--discovery", "istiod"];

    #[test]
    fn nobody_is_asked_unless_it_is_wanted() {
        assert!(
            asking(&[], &[("XDS_ADDRESS", "istiod:15012")])
                .unwrap()
                .is_none()
        );
        assert!(asking(&["--xds-address", "istiod:1"], &[]).is_err());
        assert!(asking(&["--discovery", "else"], &[]).is_err());
    }

    #[test]
    fn a_flag_comes_before_the_pods_variables_and_these_before_the_usual_place() {
        let at = |flags: &[&str], variables: &[(&str, &str)]| {
            let flags: Vec<&str> = ON.iter().chain(flags).copied().collect();
            asking(&flags, variables).map(|a| a.unwrap().plane.address.to_string())
        };
        let pod = [("XDS_ADDRESS", "pilot.other.svc:15012")];
        assert_eq!(at(&[], &[]).unwrap(), ISTIOD);
        assert_eq!(at(&[], &pod).unwrap(), "pilot.other.svc:15012");
        assert_eq!(at(&["--xds-address", "a:1"], &pod).unwrap(), "a:1");
        let wrong = at(&[], &[("XDS_ADDRESS", "pilot")]).unwrap_err();
        assert!(wrong.starts_with("XDS_ADDRESS=pilot: "), "{wrong}");
    }

    /// specs/istio-waypoint.md 1.5.
    #[test]
    fn cluster_and_network_are_the_pods_unless_flags_say_otherwise() {
        let pod = [
            ("ISTIO_META_CLUSTER_ID", "west"),
            ("ISTIO_META_NETWORK", "net-1"),
            ("POD_IP", "10.0.0.9"),
        ];
        let told = asking(&ON, &pod).unwrap().unwrap();
        assert_eq!(told.plane.cluster, "west");
        assert_eq!(told.node.network, "net-1");
        assert_eq!(told.node.ip.as_deref(), Some("10.0.0.9"));
        let flags = [&ON[..], &["--network", "net-2", "--ca-cluster", "east"]].concat();
        let told = asking(&flags, &pod).unwrap().unwrap();
        assert_eq!(told.plane.cluster, "east");
        assert_eq!(told.node.network, "net-2");
    }
}
