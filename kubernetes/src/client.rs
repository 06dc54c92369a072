//! How to reach the API server: a kubeconfig that is named, the pod's own service account, or the user's
//! kubeconfig. Sends nothing yet.

use std::path::{Path, PathBuf};

pub use kube_client::Client;
use kube_client::Config;
use kube_client::config::{KubeConfigOptions, Kubeconfig};

/// Which API server, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A kubeconfig file; without one the pod's own service account, then that of the user.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig, in place of its current one.
    pub context: Option<String>,
}

/// Why there is no way to the API server: what was tried, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig that was named, or the user's, can not be used.
    #[error(
        "can not use the kubeconfig {file}: {reason}; mend it, or name another with --kubeconfig and --context"
    )]
    Kubeconfig {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// Neither in a pod nor with a kubeconfig.
    #[error(
        "no API server to ask: not in a pod ({in_cluster}), and no kubeconfig in {tried}; name one with --kubeconfig"
    )]
    Nowhere {
        /// Why the pod's own account can not be used.
        in_cluster: String,
        /// Where a kubeconfig was looked for.
        tried: String,
    },
    /// The pod's own account or the kubeconfig has something that can not be used.
    #[error("can not make a client for {server}: {reason}")]
    Client {
        /// The API server's address.
        server: String,
        /// Why.
        reason: String,
    },
}

/// Makes a client, without asking the server anything. To be called on the runtime that it is used on.
///
/// # Errors
/// When there is no configuration, or it can not be used.
pub async fn connect(access: &Access) -> Result<Client, ConnectError> {
    of(configuration(access).await?)
}

/// The same for questions to pods through the API server: a pod that is not ready answers 503, which is an answer and
/// no reason to try again.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to_pods(access: &Access) -> Result<Client, ConnectError> {
    let mut config = configuration(access).await?;
    config.default_retry = false;
    of(config)
}

fn of(config: Config) -> Result<Client, ConnectError> {
    let server = config.cluster_url.to_string();
    Client::try_from(config).map_err(|error| ConnectError::Client {
        server,
        reason: error.to_string(),
    })
}

async fn configuration(access: &Access) -> Result<Config, ConnectError> {
    if let Some(file) = &access.kubeconfig {
        return from_file(file, access).await;
    }
    // A context is one of a kubeconfig, so that the pod's own account is not meant.
    let in_cluster = match (&access.context, Config::incluster()) {
        (None, Ok(config)) => return Ok(config),
        (None, Err(error)) => error.to_string(),
        (Some(_), _) => "a context was named".to_owned(),
    };
    let candidates = users_files();
    match candidates.iter().find(|file| file.exists()) {
        Some(file) => from_file(file, access).await,
        None => {
            let tried: Vec<String> = candidates.iter().map(|f| f.display().to_string()).collect();
            Err(ConnectError::Nowhere {
                in_cluster,
                tried: tried.join(", "),
            })
        }
    }
}

/// Where a user's kubeconfig may be: `KUBECONFIG`, else `~/.kube/config`.
fn users_files() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()) {
        return std::env::split_paths(&named).collect();
    }
    let home = std::env::var_os("HOME").unwrap_or_default();
    vec![Path::new(&home).join(".kube/config")]
}

async fn from_file(file: &Path, access: &Access) -> Result<Config, ConnectError> {
    let fault = |reason: String| ConnectError::Kubeconfig {
        file: file.display().to_string(),
        reason,
    };
    let kubeconfig = Kubeconfig::read_from(file).map_err(|e| fault(e.to_string()))?;
    let options = KubeConfigOptions {
        context: access.context.clone(),
        ..KubeConfigOptions::default()
    };
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|e| fault(e.to_string()))
}
