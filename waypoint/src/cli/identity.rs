//! Flags of where the identity comes from, and the one place that decides between them. Gets no identity.

use std::path::{Path, PathBuf};

use crate::identity::{Expected, IstioCa, Source};
use crate::istiod::{Address, ControlPlane};
use crate::tls::IdentityFiles;

/// Where the agent's socket is in a pod as Istio lays it out (specs/istio-waypoint.md 3).
const WORKLOAD_SOCKET: &str = "/var/run/secrets/workload-spiffe-uds/socket";

const DEFAULT_DIR: &str = "/etc/certs";

/// Where the waypoint's certificate comes from.
#[derive(Debug, clap::Args)]
pub(super) struct IdentityArgs {
    /// Folder with cert-chain.pem, key.pem and root-cert.pem, re-read when they change [default:
    /// /etc/certs, where nothing else gives an identity]
    #[arg(
        long,
        value_name = "DIR",
        env = "CAIRN_IDENTITY_DIR",
        group = "identity_from"
    )]
    identity_dir: Option<PathBuf>,
    /// Get certificates from Istio's CA; Istio's CA_ADDR counts too, where no other flag says where from
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "CAIRN_CA_ADDRESS",
        group = "identity_from"
    )]
    ca_address: Option<Address>,
    /// Get certificates from the SPIFFE Workload API, unix:PATH; SPIFFE_ENDPOINT_SOCKET and a socket at
    /// /var/run/secrets/workload-spiffe-uds/socket count too, before CA_ADDR
    #[arg(
        long,
        value_name = "SOCKET",
        env = "CAIRN_SPIFFE_ENDPOINT",
        group = "identity_from"
    )]
    spiffe_endpoint: Option<String>,
    /// The name that the CA's certificate must have [default: ISTIOD_SAN, or its host]
    #[arg(long, value_name = "NAME", env = "CAIRN_CA_SERVER_NAME")]
    ca_server_name: Option<String>,
    /// File with the roots that the CA and peers are verified with, re-read when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "CAIRN_CA_ROOTS",
        default_value = "/var/run/secrets/istio/root-cert.pem"
    )]
    ca_roots: PathBuf,
    /// File with the pod's token for the CA, re-read each time
    #[arg(
        long,
        value_name = "FILE",
        env = "CAIRN_CA_TOKEN",
        default_value = "/var/run/secrets/tokens/istio-token"
    )]
    ca_token: PathBuf,
    /// What istiod calls this cluster [default: ISTIO_META_CLUSTER_ID, or Kubernetes]
    #[arg(long, value_name = "NAME", env = "CAIRN_CA_CLUSTER")]
    ca_cluster: Option<String>,
}

/// What the process was told beside its flags: its environment, and which files there are.
pub(super) struct Surroundings<'a> {
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    pub is_there: &'a dyn Fn(&Path) -> bool,
}

impl Surroundings<'static> {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self {
            variable: &|name| std::env::var(name).ok().filter(|value| !value.is_empty()),
            is_there: &|path| path.exists(),
        }
    }
}

impl IdentityArgs {
    /// Where the identity comes from: what a flag says (two are wrong usage), else the SPIFFE Workload API
    /// where it is there, else Istio's CA where the pod knows one, else files.
    ///
    /// # Errors
    /// When a variable can not be read.
    pub fn source(&self, around: &Surroundings<'_>) -> anyhow::Result<Source> {
        if let Some(dir) = &self.identity_dir {
            return Ok(files(dir));
        }
        if let Some(address) = &self.ca_address {
            return self.istio_ca(address.clone(), around);
        }
        let of_pod = || (around.variable)("SPIFFE_ENDPOINT_SOCKET");
        if let Some(endpoint) = self.spiffe_endpoint.clone().or_else(of_pod) {
            return Ok(spiffe(&endpoint));
        }
        // As Istio's agent: a socket that is there comes before the CA that every pod is told of.
        if (around.is_there)(Path::new(WORKLOAD_SOCKET)) {
            return Ok(spiffe(WORKLOAD_SOCKET));
        }
        for name in ["CA_ADDR", "CA_ADDRESS"] {
            if let Some(text) = (around.variable)(name) {
                let address = text.parse();
                let address = address.map_err(|e| anyhow::anyhow!("{name}={text}: {e}"))?;
                return self.istio_ca(address, around);
            }
        }
        Ok(files(Path::new(DEFAULT_DIR)))
    }

    /// How istiod is spoken to.
    ///
    /// # Errors
    /// When the cluster's name can not be sent.
    pub fn plane(
        &self,
        address: Address,
        around: &Surroundings<'_>,
    ) -> anyhow::Result<ControlPlane> {
        let first = |names: [&str; 2]| names.into_iter().find_map(|name| (around.variable)(name));
        let told = first(["ISTIOD_SAN", "ALT_CA_HOSTNAME"]);
        let cluster = first(["ISTIO_META_CLUSTER_ID", "CLUSTER_ID"]);
        let cluster = self.ca_cluster.clone().or(cluster);
        let cluster = cluster.unwrap_or_else(|| "Kubernetes".to_owned());
        anyhow::ensure!(
            cluster.is_ascii(),
            "cluster {cluster:?} has other letters than ASCII's"
        );
        Ok(ControlPlane {
            address,
            server_name: self.ca_server_name.clone().or(told),
            roots: self.ca_roots.clone(),
            token: self.ca_token.clone(),
            cluster: (cluster.parse())
                .map_err(|_| anyhow::anyhow!("cluster {cluster:?} can not be in a header"))?,
        })
    }

    fn istio_ca(&self, address: Address, around: &Surroundings<'_>) -> anyhow::Result<Source> {
        let plane = self.plane(address, around)?;
        Ok(Source::IstioCa(IstioCa { plane }))
    }
}

/// Who this waypoint is meant to be.
pub(super) fn expected(trust_domain: Option<String>, around: &Surroundings<'_>) -> Expected {
    let namespace = (around.variable)("POD_NAMESPACE");
    Expected {
        trust_domain,
        account: namespace.zip((around.variable)("SERVICE_ACCOUNT")),
    }
}

fn files(dir: &Path) -> Source {
    Source::Files(IdentityFiles {
        dir: dir.to_owned(),
    })
}

fn spiffe(endpoint: &str) -> Source {
    let endpoint = match endpoint.starts_with('/') {
        true => format!("unix:{endpoint}"),
        false => endpoint.to_owned(),
    };
    Source::SpiffeWorkloadApi { endpoint }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        identity: IdentityArgs,
    }

    /// What is chosen with these flags and variables; with an agent's socket where Istio has it, or without.
    fn chosen(flags: &[&str], variables: &[(&str, &str)], socket: bool) -> String {
        let flags = ["cairn"].iter().chain(flags);
        let Ok(cli) = Cli::try_parse_from(flags) else {
            return "wrong usage".to_owned();
        };
        match around(variables, socket, |around| cli.identity.source(around)) {
            Ok(source) => source.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// In a pod with these variables; with an agent's socket where Istio has it, or without.
    pub(in crate::cli) fn around<T>(
        variables: &[(&str, &str)],
        socket: bool,
        ask: impl FnOnce(&Surroundings<'_>) -> T,
    ) -> T {
        let variable = |name: &str| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| value.to_string())
        };
        ask(&Surroundings {
            variable: &variable,
            is_there: &|_| socket,
        })
    }

    const ISTIO: (&str, &str) = ("CA_ADDR", "istiod.istio-system.svc:15012");
    const SPIRE: (&str, &str) = ("SPIFFE_ENDPOINT_SOCKET", "unix:/run/spire.sock");

    #[test]
    fn a_flag_comes_before_what_the_pod_is_told() {
        let all = [ISTIO, SPIRE];
        let with = |flags: &[&str]| chosen(flags, &all, true);
        assert_eq!(with(&["--identity-dir", "/certs"]), "files in /certs");
        assert_eq!(with(&["--ca-address", "ca:1"]), "Istio CA ca:1");
        assert_eq!(
            with(&["--spiffe-endpoint", "unix:/a"]),
            "SPIFFE Workload API unix:/a"
        );
    }

    #[test]
    fn two_flags_are_wrong_usage() {
        for flags in [
            ["--identity-dir", "/certs", "--ca-address", "ca:1"],
            ["--identity-dir", "/certs", "--spiffe-endpoint", "unix:/a"],
            ["--ca-address", "ca:1", "--spiffe-endpoint", "unix:/a"],
        ] {
            assert_eq!(chosen(&flags, &[], false), "wrong usage", "{flags:?}");
        }
        assert_eq!(chosen(&["--ca-address", "ca"], &[], false), "wrong usage");
    }

    /// specs/istio-waypoint.md 3: a workload socket is used instead of istiod.
    #[test]
    fn without_a_flag_an_agents_socket_comes_before_istiod_and_istiod_before_files() {
        let socket = "SPIFFE Workload API unix:/var/run/secrets/workload-spiffe-uds/socket";
        assert_eq!(chosen(&[], &[ISTIO], true), socket);
        assert_eq!(
            chosen(&[], &[ISTIO, SPIRE], true),
            "SPIFFE Workload API unix:/run/spire.sock"
        );
        assert_eq!(
            chosen(&[], &[ISTIO], false),
            "Istio CA istiod.istio-system.svc:15012"
        );
        assert_eq!(chosen(&[], &[], false), "files in /etc/certs");
        assert!(chosen(&[], &[("CA_ADDR", "istiod")], false).starts_with("CA_ADDR=istiod: "));
    }

    #[test]
    fn the_name_of_istiod_and_of_the_cluster_are_the_pods_unless_flags_say_otherwise() {
        let cli = Cli::try_parse_from(["cairn"]).unwrap();
        let variable = |name: &str| match name {
            "ISTIOD_SAN" => Some("istiod.example".to_owned()),
            "ISTIO_META_CLUSTER_ID" => Some("west".to_owned()),
            _ => None,
        };
        let around = Surroundings {
            variable: &variable,
            is_there: &|_| false,
        };
        let plane = |cli: Cli| cli.identity.plane("ca:1".parse().unwrap(), &around);
        let told = plane(cli).unwrap();
        assert_eq!(told.name(), "istiod.example");
        assert_eq!(told.cluster, "west");
        let flags = ["cairn", "--ca-server-name", "a", "--ca-cluster", "b"];
        let told = plane(Cli::try_parse_from(flags).unwrap()).unwrap();
        assert_eq!(told.name(), "a");
        assert_eq!(told.cluster, "b");
        let flags = ["cairn", "--ca-cluster", "wéstern"];
        assert!(plane(Cli::try_parse_from(flags).unwrap()).is_err());
    }
}
