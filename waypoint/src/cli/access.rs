//! The flags that say which API server is meant, for every command that asks one.

use std::path::PathBuf;

use cairn_kubernetes::client::Access;
use cairn_kubernetes::kinds::ISTIO_NAMESPACE;

/// Which API server, and as whom.
#[derive(Clone, Debug, Default, clap::Args)]
// Its own name would be that of the group that a command's arguments are.
#[group(skip)]
pub struct Args {
    /// Kubeconfig that says where the API server is [default: the pod's own service account, then
    /// ~/.kube/config]
    #[arg(long, value_name = "FILE", env = "CAIRN_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, in place of its current one
    #[arg(long, value_name = "NAME", env = "CAIRN_CONTEXT")]
    context: Option<String>,
}

/// Whose settings are those of the mesh.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Istio {
    /// Namespace of the ConfigMap `istio` that holds the settings of the mesh; of others none is read
    #[arg(long, value_name = "NAMESPACE", env = "CAIRN_ISTIO_NAMESPACE", default_value = ISTIO_NAMESPACE, value_parser = super::run::dns_name)]
    pub istio_namespace: String,
}

impl From<Args> for Access {
    fn from(args: Args) -> Self {
        Self {
            kubeconfig: args.kubeconfig,
            context: args.context,
        }
    }
}
