//! Where a pod's listener is: in the pod's own network namespace or, if that can not be entered and the
//! agent was told so, in the host's, bound to the host's end of the pod's link. Who connects follows
//! from the listener either way (kernel-redirect/README.md).

use std::io;

use cairn_config_schema::parse::NodePod;
use cairn_kernel_redirect::{CGROUP_DEPTH_MAX, LinkError, host_key, pod_link, route_host_slots};

use super::cgroup;
use super::namespace::{Inside, Leads, Namespace, NamespaceError, listen_on};
use crate::upstream::Egress;

/// Where a pod's listener is.
#[derive(Debug)]
pub enum Site {
    /// In the pod.
    Pod(Namespace),
    /// In the host.
    Host(HostSide),
}

/// Why a pod can not be served from the host's side.
#[derive(Debug, thiserror::Error)]
pub enum HostSideError {
    /// Not asked for.
    #[error("start the agent with --listen-in-host, if its pods' namespaces can not be entered")]
    NotTold,
    /// The list says too little.
    #[error("its `{0}` must be listed")]
    Unlisted(&'static str),
    /// What comes in by its link could come from others.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Its cgroup is not there.
    #[error("its cgroup: {0}")]
    Cgroup(io::Error),
    /// The program would not find it.
    #[error(
        "its cgroup lies {0} folders deep, and the program looks no deeper than {CGROUP_DEPTH_MAX}; list the pod's own, and no container's"
    )]
    TooDeep(usize),
    /// How deep it lies can not be told.
    #[error(
        "the root of all cgroups can not be seen, so that nobody knows how deep its own lies; mount the host's /sys/fs/cgroup into the agent's container"
    )]
    DepthUnknown,
}

/// The host's end of a pod's link.
#[derive(Debug)]
pub struct HostSide {
    interface: String,
    /// Of the interface: a new one has a new index, whatever it is called.
    index: u32,
    /// Of its cgroup, and of those above it: the innermost first.
    cgroup: Vec<u64>,
}

impl Site {
    /// The site of a pod. The host's side only where `in_host` and the pod's namespace can not be
    /// used.
    ///
    /// # Errors
    /// [`NamespaceError`].
    pub fn of(pod: &NodePod, in_host: bool) -> Result<Self, NamespaceError> {
        let entered = Namespace::open(&pod.netns, &pod.cgroup).and_then(|namespace| {
            namespace.cookie()?;
            Ok(namespace)
        });
        let error = match entered {
            Ok(namespace) => return Ok(Self::Pod(namespace)),
            Err(error @ (NamespaceError::Open(..) | NamespaceError::Enter(..))) => error,
            Err(error) => return Err(error),
        };
        if pod.host_interface.is_none() && !in_host {
            return Err(error);
        }
        HostSide::of(pod, in_host)
            .map(Self::Host)
            .map_err(|from_host| NamespaceError::NorFromHost(Box::new(error), from_host))
    }

    /// What the kernel knows the pod by.
    ///
    /// # Errors
    /// [`NamespaceError`].
    pub fn key(&self) -> Result<u64, NamespaceError> {
        match self {
            Self::Pod(namespace) => namespace.cookie(),
            Self::Host(side) => Ok(host_key(side.cgroup_id())),
        }
    }

    /// Where the pod's listing leads now.
    pub fn seen_from(&self, pod: &NodePod) -> Leads {
        match self {
            Self::Pod(namespace) => namespace.seen_from(&pod.netns, &pod.cgroup),
            Self::Host(side) => side.seen_from(pod),
        }
    }

    /// Opens the listener and looks around.
    ///
    /// # Errors
    /// [`NamespaceError`].
    pub fn visit(&self) -> Result<Inside, NamespaceError> {
        match self {
            Self::Pod(namespace) => namespace.visit(),
            Self::Host(side) => side.visit(),
        }
    }

    /// The way out for the pod's requests.
    ///
    /// # Errors
    /// When the pod's namespace can not be entered.
    pub fn egress(&self) -> io::Result<Egress> {
        match self {
            Self::Pod(namespace) => Egress::enter(&namespace.file),
            Self::Host(_) => Ok(Egress::from_host()),
        }
    }
}

impl HostSide {
    fn of(pod: &NodePod, in_host: bool) -> Result<Self, HostSideError> {
        if !in_host {
            return Err(HostSideError::NotTold);
        }
        let interface = pod.host_interface.clone();
        let interface = interface.ok_or(HostSideError::Unlisted("hostInterface"))?;
        // There are no interfaces to look at.
        if pod.addresses.is_empty() {
            return Err(HostSideError::Unlisted("addresses"));
        }
        let cgroup = cgroup::lineage(&pod.cgroup).map_err(HostSideError::Cgroup)?;
        let cgroup = cgroup.ok_or(HostSideError::DepthUnknown)?;
        if cgroup.len() > CGROUP_DEPTH_MAX {
            return Err(HostSideError::TooDeep(cgroup.len()));
        }
        Ok(Self {
            index: pod_link(&interface)?,
            interface,
            cgroup,
        })
    }

    /// 0, which no cgroup has, for the root of all.
    fn cgroup_id(&self) -> u64 {
        self.cgroup.first().copied().unwrap_or_default()
    }

    /// Whether the processes of one are among those of the other: who is known by its cgroup would
    /// have its connections taken for the other's.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.cgroup.contains(&other.cgroup_id()) || other.cgroup.contains(&self.cgroup_id())
    }

    /// Whether its processes are all those in the cgroup of this id, and in folders below.
    pub(super) fn has_all_of(&self, cgroup_id: u64) -> bool {
        self.cgroup_id() == cgroup_id
    }

    fn seen_from(&self, pod: &NodePod) -> Leads {
        match Self::of(pod, true) {
            Ok(found) if found.index == self.index && found.cgroup_id() == self.cgroup_id() => {
                Leads::Here
            }
            // Whoever has its interface's or its cgroup's name now is another pod.
            Ok(_) => Leads::Elsewhere,
            Err(error) => Leads::Unknown(io::Error::other(error)),
        }
    }

    fn visit(&self) -> Result<Inside, NamespaceError> {
        let listen = |e| NamespaceError::Listen(format!("of the host, on {}", self.interface), e);
        let listener = listen_on(self.interface.as_bytes()).map_err(listen)?;
        // The name may have become another interface's since.
        if pod_link(&self.interface).ok() != Some(self.index) {
            return Err(listen(io::Error::other("the interface has changed")));
        }
        let address = listener.local_addr().map_err(listen)?;
        let ipv6_too = route_host_slots(address.port()).map_err(NamespaceError::HostRoute)?;
        Ok(Inside {
            ipv6_slots: ipv6_too && address.is_ipv6(),
            listener,
            cookie: host_key(self.cgroup_id()),
            addresses: Vec::new(),
        })
    }
}
