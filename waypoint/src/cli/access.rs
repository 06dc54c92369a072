//! The flags that say which API server is meant, for every command that asks one.

use std::path::PathBuf;

use cairn_kubernetes::client::Access;

/// Which API server, and as whom.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Kubeconfig that says where the API server is [default: the pod's own service account, then
    /// ~/.kube/config]
    #[arg(long, value_name = "FILE", env = "CAIRN_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, in place of its current one
    #[arg(long, value_name = "NAME", env = "CAIRN_CONTEXT")]
    context: Option<String>,
}

impl From<Args> for Access {
    fn from(args: Args) -> Self {
        Self {
            kubeconfig: args.kubeconfig,
            context: args.context,
        }
    }
}
