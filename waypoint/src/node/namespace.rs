//! A pod's network namespace: its listener, its cookie, its addresses. Each visit is a thread of its
//! own that enters, does one thing and ends, so that no thread that serves ever changes its namespace.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::process::{Process, led_by_a_process};
use super::site::HostSideError;
use cairn_kernel_redirect::{RedirectError, route_ipv6_slots};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

/// Port of the listener in a pod, when the pod does not use it itself.
const PORT: u16 = 15_001;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;

/// Why a pod's namespace can not be used.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The path leads nowhere, or is no namespace's.
    #[error(
        "network namespace {0}: {1}; give the path of the pod's namespace, /run/netns/NAME or /proc/PID/ns/net"
    )]
    Open(String, #[source] io::Error),
    /// Not allowed, or not a network namespace.
    #[error(
        "network namespace {0} can not be entered: {1}; it must be a network namespace, and CAP_SYS_ADMIN is needed"
    )]
    Enter(String, #[source] io::Error),
    /// The host's own.
    #[error(
        "network namespace {0} is the host's: pods on the host's network can not be steered, leave them out"
    )]
    Host(String),
    /// Whose it is can not be told, or is told to be another's.
    #[error(
        "network namespace {0} is that of a process in cgroup {1} and not in {2}, the pod's: its process id was given to another one, or `cgroup` is wrong; a path in /run/netns does not change its pod"
    )]
    OfAnother(String, PathBuf, PathBuf),
    /// By a link to a process's.
    #[error(
        "network namespace {0} is a link to that of a process, which may end; give /run/netns/NAME, or /proc/PID/ns/net itself"
    )]
    ByLink(String),
    /// Neither its own, nor from the host's side.
    #[error("{0}. From the host's side: {1}")]
    NorFromHost(Box<Self>, HostSideError),
    /// From the host's side, without a way from the pod to the listener.
    #[error(transparent)]
    HostRoute(RedirectError),
    /// No listener.
    #[error("no listener in network namespace {0}: {1}")]
    Listen(String, #[source] io::Error),
}

/// A network namespace, kept from going away by being open.
#[derive(Debug)]
pub struct Namespace {
    /// The open namespace.
    pub file: File,
    shown: String,
    /// Device and inode: what two paths of one namespace share.
    id: (u64, u64),
}

/// Where the path of a namespace leads now.
#[derive(Debug)]
pub enum Leads {
    /// Still there.
    Here,
    /// To another namespace.
    Elsewhere,
    /// It can not be told. The namespace may live on, with processes in it.
    Unknown(io::Error),
}

/// What one visit brings back.
#[derive(Debug)]
pub struct Inside {
    /// Bound to loopback, or to the host's end of the pod's link, so that nobody else reaches it.
    pub listener: TcpListener,
    /// What the kernel knows the pod by.
    pub cookie: u64,
    /// Whether the listener is reached at slots of IPv6 too.
    pub ipv6_slots: bool,
    /// Addresses of its interfaces other than loopback's and link-local ones.
    pub addresses: Vec<IpAddr>,
}

impl Namespace {
    /// Opens the namespace at a path. If that goes by a process, only if the process is in the pod's
    /// cgroup: its id may be another one's by now.
    ///
    /// # Errors
    /// [`NamespaceError`].
    pub fn open(path: &Path, cgroup: &Path) -> Result<Self, NamespaceError> {
        let shown = path.display().to_string();
        let failed = |e| NamespaceError::Open(shown.clone(), e);
        let process = Process::in_path(path).map_err(failed)?;
        let file = match &process {
            Some(process) => process.namespace(),
            None => File::open(path),
        };
        let file = file.map_err(failed)?;
        let strayed = match &process {
            Some(process) => process.strays_from(cgroup).map_err(failed)?,
            None => None,
        };
        if let Some(strayed) = strayed {
            return Err(NamespaceError::OfAnother(shown, strayed, cgroup.into()));
        }
        let id = identity(&file.metadata().map_err(failed)?);
        let own = std::fs::metadata("/proc/self/ns/net").map_err(failed)?;
        if identity(&own) == id {
            return Err(NamespaceError::Host(shown));
        }
        if process.is_none() && led_by_a_process(&file) {
            return Err(NamespaceError::ByLink(shown));
        }
        Ok(Self { file, shown, id })
    }

    /// Whether the path still leads to this namespace. Where it leads by a process that is not in the
    /// pod's cgroup says nothing about the pod.
    pub fn seen_from(&self, path: &Path, cgroup: &Path) -> Leads {
        match std::fs::metadata(path) {
            Ok(found) if identity(&found) == self.id => Leads::Here,
            Ok(_) => match Self::open(path, cgroup) {
                Ok(found) if found.id == self.id => Leads::Here,
                Err(NamespaceError::Open(_, error)) => Leads::Unknown(error),
                Err(error @ (NamespaceError::OfAnother(..) | NamespaceError::ByLink(_))) => {
                    Leads::Unknown(io::Error::other(error))
                }
                _ => Leads::Elsewhere,
            },
            Err(error) => Leads::Unknown(error),
        }
    }

    /// Opens the listener and looks around.
    ///
    /// # Errors
    /// [`NamespaceError`].
    pub fn visit(&self) -> Result<Inside, NamespaceError> {
        let listen = |e| NamespaceError::Listen(self.shown.clone(), e);
        let (listener, addresses) = self.within(|| (listen_on(b"lo"), addresses()))?;
        let listener = listener.map_err(listen)?;
        let cookie = cairn_kernel_redirect::netns_cookie(listener.as_fd()).map_err(listen)?;
        let addresses = addresses.map_err(listen)?;
        let ipv6_slots = route_ipv6_slots(listener.as_fd()).is_ok();
        Ok(Inside {
            listener,
            cookie,
            ipv6_slots,
            addresses,
        })
    }

    /// The kernel's name for it.
    ///
    /// # Errors
    /// [`NamespaceError::Enter`].
    pub fn cookie(&self) -> Result<u64, NamespaceError> {
        let found = self.within(|| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            cairn_kernel_redirect::netns_cookie(socket.as_fd())
        })?;
        found.map_err(|e| NamespaceError::Enter(self.shown.clone(), e))
    }

    /// Runs something inside, on a thread of its own.
    ///
    /// # Errors
    /// [`NamespaceError::Enter`].
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        let entered = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("in-pod".to_owned());
            let thread = thread.spawn_scoped(scope, || {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                io::Result::Ok(work())
            })?;
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread inside it ended early")))
        });
        entered.map_err(|e| NamespaceError::Enter(self.shown.clone(), e))
    }
}

fn identity(found: &std::fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// On every address, reached through one device only. In a pod that is `lo`, so that nobody reaches it
/// from outside (specs/kernel-redirect.md 1, pitfall 14). At another one, the host's, it is transparent:
/// the slots are no addresses of the host, and it answers from them all the same.
pub(super) fn listen_on(device: &[u8]) -> io::Result<TcpListener> {
    let anywhere = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let only_v4 = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let in_use = |e: &io::Error| e.kind() == io::ErrorKind::AddrInUse;
    let free = |address: fn(u16) -> SocketAddr| match listen(device, address(PORT)) {
        Err(error) if in_use(&error) => listen(device, address(0)),
        done => done,
    };
    // A pod without IPv6 has steered connections too.
    free(anywhere).or_else(|_| free(only_v4))
}

fn listen(device: &[u8], address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind_device(Some(device))?;
    if device != b"lo" {
        socket.set_ip_transparent_v4(true)?;
    }
    // A process before us may have left connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Those that others know the pod by: nothing of the loopback interface, where a service mesh or a
/// resolver may have put addresses that are no pod's, and no link-local ones.
fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(address) = interface.address else {
            continue;
        };
        if interface.interface_name == "lo" {
            continue;
        }
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
        let Some(ip) = v4.or(v6) else {
            continue;
        };
        let link_local = match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if !ip.is_loopback() && !link_local && !found.contains(&ip) {
            found.push(ip);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_gone_is_not_one_that_leads_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("web"), folder.path().join("other"));
        // Any file will do: nobody enters it.
        std::fs::write(&path, "").unwrap();
        std::fs::write(&other, "").unwrap();
        let namespace = Namespace::open(&path, folder.path()).unwrap();
        assert!(matches!(
            namespace.seen_from(&path, folder.path()),
            Leads::Here
        ));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            namespace.seen_from(&path, folder.path()),
            Leads::Unknown(_)
        ));
        std::fs::rename(&other, &path).unwrap();
        assert!(matches!(
            namespace.seen_from(&path, folder.path()),
            Leads::Elsewhere
        ));
    }
}
