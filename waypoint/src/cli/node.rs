//! `cairn node`: the agent and waypoint of one node, and what operators ask about its redirect. What
//! it does while it runs is [`crate::node`]'s and [`crate::run`]'s.

mod connections;
mod serve;
mod status;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::Context;
use cairn_kernel_redirect::{Claim, Place, Redirect, Sizes, cgroup2_root};
use clap::Subcommand;

use super::output::{self, Format};
use super::{Outcome, run};
use crate::limits::{FLAGGED_SERVICES_MAX, PODS_MAX};
use crate::log;
use crate::node::guard;

/// Serve the pods of this node: a program in the kernel steers their connections to services that
/// need a proxy (HTTP ports of a waypoint's services, routes, policies) to a listener in the pod
/// itself, and leaves all others alone. Takes what `cairn run` takes.
#[derive(Debug, clap::Args)]
// Its own name would be that of the group that `run`'s arguments are.
#[group(skip)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  cairn node --config ./mesh --pods ./pods.yaml --identity-dir ./pki/shop/waypoint\n  \
    cairn node --kube --node-name node-a --gateway shop/waypoint --state-dir /var/lib/cairn\n  \
    cairn node status\n  cairn node connections --pods ./pods.yaml --close\n  cairn node detach\n\n\
    Needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN (not with --listen-in-host), for pods of the API server CAP_SYS_PTRACE \
    too, cgroup v2 and Linux 5.15; see docs/node.md."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// List of this node's pods, YAML or JSON, followed for changes [with --kube: the pods of this node that the
    /// API server has]
    #[arg(
        long,
        required_unless_present = "kube",
        value_name = "FILE",
        env = "CAIRN_PODS"
    )]
    pods: Option<PathBuf>,
    /// Name of this node, whose pods are taken from the API server
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = run::dns_name)]
    node_name: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
    /// Service ports that can be flagged; those beyond go direct, and are reported
    #[arg(long, value_name = "NUMBER", env = "CAIRN_SERVICES_MAX",
        default_value_t = Sizes::default().services, value_parser = clap::value_parser!(u32).range(1..=i64::from(FLAGGED_SERVICES_MAX)))]
    services_max: u32,
    /// Pods that can be enrolled; those beyond go direct, and are reported
    #[arg(long, value_name = "NUMBER", env = "CAIRN_PODS_MAX",
        default_value_t = Sizes::default().pods, value_parser = clap::value_parser!(u32).range(1..=i64::from(PODS_MAX)))]
    pods_max: u32,
    /// Listen in the host's network namespace for pods whose own can not be entered: those that are
    /// listed with `hostInterface` and `addresses`
    #[arg(long, env = "CAIRN_LISTEN_IN_HOST")]
    listen_in_host: bool,
    #[command(flatten)]
    run: run::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what is attached, enrolled, flagged and counted
    Status(StatusArgs),
    /// Detach the programs and remove everything that is pinned: connections go direct
    Detach(DetachArgs),
    /// Connections of this node's pods that went direct before their service was flagged
    Connections(ConnectionsArgs),
    /// Started by `cairn node` beside itself
    #[command(hide = true)]
    Guard(PlaceArgs),
}

/// Where the redirect is.
#[derive(Clone, Debug, clap::Args)]
struct PlaceArgs {
    /// Folder for pinned programs and maps, on a BPF file system
    #[arg(
        long,
        value_name = "DIR",
        env = "CAIRN_BPFFS",
        default_value = "/sys/fs/bpf/cairn"
    )]
    bpffs: PathBuf,
    /// cgroup v2 folder above all pods [default: kubepods.slice or kubepods]
    #[arg(long, value_name = "DIR", env = "CAIRN_PODS_CGROUP")]
    cgroup: Option<PathBuf>,
}

/// Show what is attached, enrolled, flagged and counted, without a running agent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cairn node status --pods ./pods.yaml -o json")]
struct StatusArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// List of pods, to show their names
    #[arg(long, value_name = "FILE", env = "CAIRN_PODS")]
    pods: Option<PathBuf>,
    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Detach the programs and remove everything that is pinned. Connections that are steered go on, new
/// ones go direct, past policy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cairn node detach")]
struct DetachArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Connections of this node's pods to flagged services that do not pass the proxy: they were there
/// before the service was flagged.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cairn node connections --pods ./pods.yaml --close\n\nExit code 1: there are some, and they were not closed."
)]
struct ConnectionsArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// List of this node's pods
    #[arg(long, value_name = "FILE", env = "CAIRN_PODS")]
    pods: PathBuf,
    /// Close them: their processes see an error and connect again, through the proxy
    #[arg(long)]
    close: bool,
    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

impl PlaceArgs {
    /// The place, with the pods' cgroup found where it usually is.
    fn place(&self) -> anyhow::Result<Place> {
        let cgroup = match &self.cgroup {
            Some(cgroup) => cgroup.clone(),
            None => kubepods()?,
        };
        Ok(Place {
            bpffs: self.bpffs.clone(),
            cgroup,
        })
    }

    /// The place for those who only look at what is pinned.
    fn pinned(&self) -> Place {
        Place {
            bpffs: self.bpffs.clone(),
            cgroup: self.cgroup.clone().unwrap_or_default(),
        }
    }
}

const NO_CGROUP2: &str =
    "cgroup v2 is not mounted: boot the node with systemd.unified_cgroup_hierarchy=1, or mount it";

/// Where a kubelet has the cgroup of all pods: by either driver, and below `/kubelet` as kind's.
const KUBEPODS: [&str; 4] = [
    "kubepods.slice",
    "kubepods",
    "kubelet.slice/kubelet-kubepods.slice",
    "kubelet/kubepods",
];

fn kubepods() -> anyhow::Result<PathBuf> {
    let root = cgroup2_root().context(NO_CGROUP2)?;
    let usual = KUBEPODS.map(|name| root.join(name));
    let found = usual.into_iter().find(|folder| folder.is_dir());
    found.with_context(|| {
        format!(
            "neither kubepods.slice nor kubepods is in {}: give the cgroup of the pods with --cgroup",
            root.display()
        )
    })
}

/// Runs the agent, or the command given.
pub fn node(args: Args) -> anyhow::Result<Outcome> {
    match args.command {
        None => serve::serve(args),
        Some(Command::Status(args)) => {
            status::show(&args.place.pinned(), args.pods.as_deref(), args.output)
        }
        Some(Command::Detach(args)) => detach(&args),
        Some(Command::Connections(args)) => {
            connections::show(&args.place.pinned(), &args.pods, args.close, args.output)
        }
        Some(Command::Guard(args)) => {
            log::start()?;
            let line = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
            guard::guard(&mut UnixStream::from(line), &args.place()?)?;
            Ok(Outcome::Fine)
        }
    }
}

fn detach(args: &DetachArgs) -> anyhow::Result<Outcome> {
    let place = args.place.pinned();
    // An agent that goes on would believe that its pods are steered.
    let claim = place.bpffs.is_dir().then(|| Claim::take(&place));
    let _claim = claim.transpose()?;
    let gone = Redirect::detach(&place)?;
    match args.output {
        Format::Json => output::print_json(&serde_json::json!({
            "programs": gone.programs,
            "maps": gone.maps,
        }))?,
        Format::Text if gone.programs + gone.maps == 0 => {
            output::print("nothing was attached\n")?;
        }
        Format::Text => output::print(&format!(
            "detached {} and removed {}: new connections go direct\n",
            output::count(gone.programs, "program", "programs"),
            output::count(gone.maps, "map", "maps"),
        ))?,
    }
    Ok(Outcome::Fine)
}
