//! The kernel laboratory: pods as network namespaces with a veth each and a cgroup each, all
//! connected to one namespace, the hub, that has every service's address. Nothing of it is in the
//! host's namespace, so that laboratories never meet. Asserts nothing about the redirect.

mod remains;

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cairn_conformance::skip::skipped;
use cairn_kernel_redirect::{
    EnrolledPod, Place, Redirect, RedirectError, cgroup2_root, host_key, netns_cookie,
    route_host_slots, route_ipv6_slots,
};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use self::remains::{remove_cgroup, remove_namespace, sweep};
use crate::processes::{App, Ready, StandIn, script};

/// How names of namespaces, cgroups and pins begin; the process id follows, so that what a killed
/// run left can be told from what another one uses.
const PREFIX: &str = "cairnlab";

/// How long a process may take to get ready or to go away.
const DEADLINE: Duration = Duration::from_secs(30);

/// Port of the stand-in for a waypoint in each pod.
pub const LISTENER_PORT: u16 = 15001;

/// A laboratory; dropping it removes everything of it.
#[derive(Debug)]
pub struct Lab {
    name: String,
    cgroup: PathBuf,
    place: Place,
    namespaces: Vec<String>,
    /// How many pods there are, for their addresses.
    pods: Cell<u8>,
}

/// A pod: a network namespace and a cgroup.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Of its network namespace, `/run/netns/...`.
    pub netns: PathBuf,
    /// Its own, below the one that is hooked.
    pub cgroup: PathBuf,
    /// On its veth.
    pub address: Ipv4Addr,
    /// On its veth.
    pub address6: Ipv6Addr,
    /// The hub's end of its veth.
    pub device: String,
}

impl Lab {
    /// A laboratory with a hub, or `None` where the machine does not allow one; that is said loudly,
    /// and a failure with REQUIRE_BPF=1.
    pub fn new() -> Option<Self> {
        match Self::make() {
            Ok(lab) => Some(lab),
            Err(why) => {
                skipped("the kernel tests", &why, "REQUIRE_BPF");
                None
            }
        }
    }

    fn make() -> Result<Self, String> {
        sweep();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = cgroup2_root().ok_or("cgroup v2 is not mounted")?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}", std::process::id());
        let cgroup = root.join(&name);
        let pods = cgroup.join("pods");
        fs::create_dir_all(&pods).map_err(|e| format!("{}: {e} (not root?)", pods.display()))?;
        let mut lab = Self {
            place: Place {
                bpffs: Path::new("/sys/fs/bpf").join(&name),
                cgroup: pods,
            },
            cgroup,
            name,
            namespaces: Vec::new(),
            pods: Cell::new(0),
        };
        fs::create_dir(lab.waypoint_cgroup()).map_err(|e| e.to_string())?;
        lab.attachable()?;
        lab.namespace("hub")?;
        Ok(lab)
    }

    /// What keeps the redirect from being attached on this machine, but not a fault of ours.
    fn attachable(&self) -> Result<(), String> {
        match Redirect::attach(&self.place, &self.waypoint_cgroup()) {
            Ok(_) => Redirect::detach(&self.place)
                .map(drop)
                .map_err(|e| e.to_string()),
            Err(
                e @ (RedirectError::NotInThisBuild
                | RedirectError::KernelTooOld { .. }
                | RedirectError::MissingCapability { .. }
                | RedirectError::NoBpffs { .. }),
            ) => Err(e.to_string()),
            Err(e) => panic!("{e}"),
        }
    }

    /// Where the redirect of this laboratory is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The cgroup of the waypoint: below the hooked one, so that only the exemption keeps its own
    /// connections from being steered.
    pub fn waypoint_cgroup(&self) -> PathBuf {
        self.place.cgroup.join("waypoint")
    }

    /// Removes the hooked cgroup, which must have no pods yet, and makes it again.
    pub fn renew_cgroups(&self) {
        fs::remove_dir(self.waypoint_cgroup()).unwrap();
        fs::remove_dir(&self.place.cgroup).unwrap();
        fs::create_dir_all(self.waypoint_cgroup()).unwrap();
    }

    /// A cgroup that is not below the hooked one.
    pub fn outside_cgroup(&self) -> PathBuf {
        let outside = self.cgroup.join("outside");
        fs::create_dir_all(&outside).expect("a cgroup");
        outside
    }

    /// The namespace to which all pods are connected.
    pub fn hub(&self) -> Pod {
        Pod {
            netns: self.netns("hub"),
            cgroup: self.outside_cgroup(),
            address: Ipv4Addr::new(10, 64, 0, 1),
            address6: "fd00:64::1".parse().unwrap(),
            device: String::new(),
        }
    }

    /// Gives the hub an address, as a service's or a server's.
    pub fn address(&self, address: &str) {
        let ip: IpAddr = address.parse().unwrap();
        let length = if ip.is_ipv4() { 32 } else { 128 };
        self.ip(
            "hub",
            &[&format!("addr add {address}/{length} dev lo {}", nodad(ip))],
        );
    }

    /// A new pod, connected to the hub.
    pub fn pod(&mut self, name: &str) -> Pod {
        let number = self.pods.get() + 1;
        self.pods.set(number);
        self.namespace(name).unwrap();
        let cgroup = self.place.cgroup.join(name);
        fs::create_dir(&cgroup).expect("a cgroup");
        let pod = Pod {
            netns: self.netns(name),
            cgroup,
            address: Ipv4Addr::new(10, 64, number, 2),
            address6: Ipv6Addr::new(0xfd00, 0x64, u16::from(number), 0, 0, 0, 0, 2),
            device: format!("pod{number}"),
        };
        let hub = self.full("hub");
        self.ip(
            name,
            &[
                &format!("link add eth0 type veth peer name pod{number} netns {hub}"),
                &format!("addr add {}/24 dev eth0", pod.address),
                &format!("addr add {}/64 dev eth0 nodad", pod.address6),
                "link set eth0 up",
                &format!("route add default via 10.64.{number}.1"),
                &format!("route add default via fd00:64:{number:x}::1"),
            ],
        );
        self.ip(
            "hub",
            &[
                &format!("addr add 10.64.{number}.1/24 dev pod{number}"),
                &format!("addr add fd00:64:{number:x}::1/64 dev pod{number} nodad"),
                &format!("link set pod{number} up"),
            ],
        );
        pod
    }

    fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    fn netns(&self, name: &str) -> PathBuf {
        Path::new("/run/netns").join(self.full(name))
    }

    fn namespace(&mut self, name: &str) -> Result<(), String> {
        let full = self.full(name);
        run(Command::new("ip").args(["netns", "add", &full]))?;
        self.namespaces.push(full);
        self.ip(name, &["link set lo up"]);
        Ok(())
    }

    /// Runs `ip` commands in a namespace: of a pod by its name, or `hub`.
    pub fn ip(&self, name: &str, commands: &[&str]) {
        let mut ip = Command::new("ip")
            .args(["-n", &self.full(name), "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip runs");
        let text = commands.join("\n");
        ip.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = ip.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{text}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Attaches the redirect of this laboratory, with the waypoint's cgroup as its own.
    pub fn attach(&self) -> Redirect {
        Redirect::attach(&self.place, &self.waypoint_cgroup()).unwrap()
    }

    /// A stand-in for the waypoint in a pod, enrolled; nobody else has its listener open.
    pub fn enrol(&self, redirect: &mut Redirect, pod: &Pod) -> StandIn {
        self.enrol_on(redirect, pod, LISTENER_PORT)
    }

    /// As [`enrol`](Self::enrol), on another port.
    pub fn enrol_on(&self, redirect: &mut Redirect, pod: &Pod, port: u16) -> StandIn {
        let (stand_in, listener) = self.stand_in_on(pod, port);
        redirect.enrol(&stand_in.pod, listener.as_fd()).unwrap();
        stand_in
    }

    /// A stand-in for the waypoint in a pod, and its listener.
    pub fn stand_in(&self, pod: &Pod) -> (StandIn, TcpListener) {
        self.stand_in_on(pod, LISTENER_PORT)
    }

    fn stand_in_on(&self, pod: &Pod, port: u16) -> (StandIn, TcpListener) {
        let (listener, ipv6) = pod.within(|| {
            let listener = listen_on(b"lo", port);
            let ipv6 = route_ipv6_slots(listener.as_fd());
            (listener, ipv6)
        });
        let enrolled = EnrolledPod {
            netns_cookie: netns_cookie(listener.as_fd()).unwrap(),
            listener_port: port,
            ipv6_slots: ipv6.is_ok(),
        };
        self.serve(enrolled, "waypoint", listener)
    }

    /// A stand-in for the waypoint in the hub, as the host's namespace is used for pods whose own can
    /// not be entered; it greets with `name`.
    pub fn stand_in_in_hub(&self, pod: &Pod, name: &str) -> (StandIn, TcpListener) {
        let device = pod.device.as_bytes();
        let (listener, ipv6) = self.hub().within(|| {
            let listener = listen_on(device, LISTENER_PORT);
            (listener, route_host_slots(LISTENER_PORT))
        });
        let cgroup = fs::metadata(&pod.cgroup).unwrap().ino();
        let enrolled = EnrolledPod {
            netns_cookie: host_key(cgroup),
            listener_port: LISTENER_PORT,
            ipv6_slots: ipv6.unwrap(),
        };
        self.serve(enrolled, name, listener)
    }

    fn serve(
        &self,
        enrolled: EnrolledPod,
        name: &str,
        listener: TcpListener,
    ) -> (StandIn, TcpListener) {
        let process = self.serve_on(name, listener.try_clone().unwrap());
        let stand_in = StandIn {
            pod: enrolled,
            process,
        };
        (stand_in, listener)
    }

    /// A process that accepts at this socket and greets with `name`.
    pub fn serve_on(&self, name: &str, listener: TcpListener) -> Ready {
        let hub = self.hub();
        let mut command = script(&hub.netns, &self.waypoint_cgroup(), &["serve", name]);
        command.stdin(OwnedFd::from(listener));
        Ready::start(command)
    }

    /// A server in the hub that greets with `name`.
    pub fn server(&self, name: &str, addresses: &[(&str, u16)]) -> Ready {
        let hub = self.hub();
        let mut arguments = vec!["serve".to_owned(), name.to_owned()];
        for (address, port) in addresses {
            arguments.extend([(*address).to_owned(), port.to_string()]);
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        Ready::start(script(&hub.netns, &hub.cgroup, &arguments))
    }

    /// A server in the hub that answers datagrams.
    pub fn datagrams(&self, address: &str, port: u16) -> Ready {
        let hub = self.hub();
        let port = port.to_string();
        Ready::start(script(&hub.netns, &hub.cgroup, &["udp", address, &port]))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Redirect::detach(&self.place);
        for namespace in &self.namespaces {
            remove_namespace(namespace);
        }
        remove_cgroup(&self.cgroup);
    }
}

impl Pod {
    /// Does something on a thread inside the pod's network namespace (and not its cgroup).
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let netns = fs::File::open(&self.netns).unwrap();
                setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// An application in the pod.
    pub fn app(&self) -> App {
        App::start(&self.netns, &self.cgroup)
    }

    /// An application in the pod's network namespace and in another cgroup.
    pub fn app_in(&self, cgroup: &Path) -> App {
        App::start(&self.netns, cgroup)
    }
}

/// A socket as the waypoint has it for each pod: reached through one device.
pub fn listen_on(device: &[u8], port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_only_v6(false).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind_device(Some(device)).unwrap();
    if device != b"lo" {
        socket.set_ip_transparent_v4(true).unwrap();
    }
    let anywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    socket.bind(&anywhere.into()).unwrap();
    socket.listen(4096).unwrap();
    socket.into()
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", said.trim()))
}

/// Waits for a state that sends no event.
pub fn until(what: &str, ready: impl FnMut() -> bool) {
    assert!(in_time(ready), "not in time: {what}");
}

fn in_time(mut ready: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + DEADLINE;
    while !ready() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

fn nodad(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "" } else { "nodad" }
}
