//! Why a pod's connections are not steered, each with what to do about it. Logs nothing.

use std::io;
use std::path::PathBuf;

use cairn_config_schema::origin::ObjectKey;
use cairn_kernel_redirect::RedirectError;

use super::namespace::NamespaceError;

/// Why a pod's connections are not steered.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Its namespace can not be used.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel does not take it.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// No sockets in its namespace.
    #[error("no sockets in its network namespace: {0}")]
    Egress(io::Error),
    /// Its processes would not be steered.
    #[error(
        "its cgroup {0} is not below {1}, to which the redirect is attached, so its connections would not be steered; correct `cgroup`, or --cgroup"
    )]
    OtherCgroup(PathBuf, PathBuf),
    /// Nobody can tell whether they would be.
    #[error("its cgroup {0}: {1}; give the path of the pod's cgroup as this process sees it")]
    NoCgroup(PathBuf, #[source] io::Error),
    /// It has none, and none is listed.
    #[error(
        "its network namespace has no address but loopback and link-local ones; is the pod's network set up? If so list its `addresses`"
    )]
    NoAddress,
    /// Another pod has the same namespace by another path.
    #[error("its network namespace is that of {0}; a pod has one of its own")]
    Shared(ObjectKey),
    /// Another pod that is known by its cgroup has the same one, or one above or below.
    #[error(
        "its cgroup is that of {0}, above it or below it; a pod has one of its own, and is told by it where its listener is in the host's network namespace"
    )]
    SharedCgroup(ObjectKey),
    /// It would be told by the cgroup of all pods.
    #[error(
        "its cgroup {0} is that of all pods, to which the redirect is attached, so that connections of every pod would be taken for its own; give its own, below that"
    )]
    CgroupOfAll(PathBuf),
    /// No thread to look at it with.
    #[error("no thread to look at its network namespace with: {0}")]
    NoThread(io::Error),
    /// The kernel's map is full.
    #[error(
        "{0} pods are enrolled, which is all there is room for; start the agent with a larger --pods-max"
    )]
    Full(u32),
}
