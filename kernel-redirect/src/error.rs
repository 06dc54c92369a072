//! What can go wrong with the redirect; every message names the fix.

use std::io;
use std::path::PathBuf;

/// What stands behind an error of the loader.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the redirect is not in place, or not changed as asked. After an error from attaching, what
/// was attached before is attached still, and nothing else.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// Built without the program.
    #[error(
        "this build of Cairn has no kernel redirect: it was built without feature `bpf` or not for a little-endian Linux; use another build, or a waypoint (`cairn run`)"
    )]
    NotInThisBuild,

    /// The kernel lacks what the redirect can not do without.
    #[error(
        "kernel {found} is too old for the redirect, which needs {needed} or later; upgrade the node, or use a waypoint (`cairn run`)"
    )]
    KernelTooOld {
        /// Version of the running kernel.
        found: String,
        /// The oldest that works.
        needed: &'static str,
    },

    /// The process may not do this.
    #[error(
        "this needs {missing}, which this process does not have; run it as root, or give the container that capability (securityContext.capabilities.add)"
    )]
    MissingCapability {
        /// Names of capabilities, e.g. `CAP_BPF and CAP_NET_ADMIN`.
        missing: String,
    },

    /// An agent has this redirect in its hands.
    #[error("another agent works with {path}; end it first (`fuser {path}` names its process)")]
    Claimed {
        /// The folder of its pins.
        path: PathBuf,
    },

    /// Programs of a redirect that is pinned elsewhere are on the cgroup.
    #[error(
        "{cgroup} has a redirect already (program {program}) that is pinned in another folder than {bpffs}: two would steer the same connections; give this command that folder with `--bpffs`, or end its agent and run `cairn node detach --bpffs FOLDER` (`find /sys/fs/bpf -name cairn_connect4_link` names it)"
    )]
    Stranger {
        /// The pods' cgroup.
        cgroup: PathBuf,
        /// The kernel's id of the other redirect's program.
        program: u32,
        /// Where ours would be pinned.
        bpffs: PathBuf,
    },

    /// Not a folder of the unified cgroup hierarchy.
    #[error("{path} is no cgroup v2 folder ({why}); {fix}")]
    NoCgroup {
        /// What was given.
        path: PathBuf,
        /// What it is instead.
        why: String,
        /// Where cgroup v2 is mounted here, or how to get it.
        fix: String,
    },

    /// The slots of listeners in the host's namespace can not be made to lead there.
    #[error(
        "240.128.0.0/9 can not be routed (or no longer be) to this host's listeners for pods: {source}; CAP_NET_ADMIN is needed"
    )]
    HostRoute {
        /// What the kernel said.
        source: io::Error,
    },

    /// No BPF file system where programs and maps are to be pinned.
    #[error(
        "{path} is not on a BPF file system and none could be mounted ({source}); run `mount -t bpf bpf /sys/fs/bpf` on the node, and mount that folder into the container"
    )]
    NoBpffs {
        /// Where pins were to be made.
        path: PathBuf,
        /// Why mounting failed.
        source: io::Error,
    },

    /// A folder or pin could not be read or written.
    #[error("{path}: {doing}: {source}; is the folder on a BPF file system, and are we root?")]
    Pin {
        /// Which.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },

    /// A pinned map is not what this version made.
    #[error(
        "{path} was not made by this version of Cairn ({detail}); run `cairn node detach`, then start again"
    )]
    Layout {
        /// The pin.
        path: PathBuf,
        /// The difference.
        detail: String,
    },

    /// The kernel did not take the program or its maps.
    #[error(
        "the kernel did not load {what}: {source}; please report this with the kernel's version ({kernel})"
    )]
    Load {
        /// Program or map.
        what: String,
        /// Version of the running kernel.
        kernel: String,
        /// The kernel's words.
        source: Source,
    },

    /// The program could not be attached to the cgroup.
    #[error(
        "{program} could not be attached to {cgroup}: {source}; a program attached there without BPF_F_ALLOW_MULTI keeps others out: `bpftool cgroup tree` shows it"
    )]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// Of the pods.
        cgroup: PathBuf,
        /// The kernel's words.
        source: Source,
    },

    /// A map could not be read or changed.
    #[error(
        "map {map}: {doing}: {source}; if pins were removed by hand, run `cairn node detach` and start again"
    )]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        doing: &'static str,
        /// The kernel's words.
        source: Source,
    },

    /// A map of fixed size has no room.
    #[error(
        "map {map} is full at {limit} entries; start the agent with a larger --pods-max or --services-max, or enrol fewer pods on this node"
    )]
    Full {
        /// Name of the map.
        map: &'static str,
        /// Its size.
        limit: u32,
    },

    /// The maps asked for have less room than what an earlier process left needs.
    #[error(
        "{known} {what} from before, and with {flag} {asked} there is not room for all; start with {flag} {known} or more. Or run `cairn node detach` first: all connections go direct until the agent has started"
    )]
    TooSmall {
        /// What there are too many of.
        what: &'static str,
        /// The flag that says how many there can be.
        flag: &'static str,
        /// How many there are.
        known: usize,
        /// For how many there would be room.
        asked: u32,
    },

    /// The socket given for a pod can not be steered to.
    #[error(
        "the listener for the pod with network namespace cookie {netns_cookie} can not be used: {why}"
    )]
    Listener {
        /// Of the pod.
        netns_cookie: u64,
        /// What is wrong with it.
        why: String,
    },
}
