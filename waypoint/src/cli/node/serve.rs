//! `cairn node` itself: what must be there and be known before anything is attached, and the agent's thread. Which
//! pods there are is its source's, what is steered the agent's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cairn_kernel_redirect::{Claim, Duty, Place, Redirect, Sizes, cgroup2_root, requirements};
use nix::sched::{CloneFlags, setns};
use tokio::sync::Notify;

use super::{Args, NO_CGROUP2};
use crate::admin::NotReady;
use crate::cli::{Outcome, run};
use crate::node::agent::ServingThread;
use crate::node::guard::Guard;
use crate::node::{Agent, PodSource, PodsFile, PodsOfCluster, cluster};
use crate::run::Running;

/// The cgroup of this process, whose own connections are never steered.
fn own_cgroup() -> anyhow::Result<PathBuf> {
    let root = cgroup2_root().context(NO_CGROUP2)?;
    let text = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.context("this process is in no cgroup of version 2")?;
    let own = root.join(path);
    // In a cgroup namespace of its own it is told that it is in the root of all.
    let own_id = std::process::id().to_string();
    if let Ok(processes) = fs::read_to_string(own.join("cgroup.procs")) {
        anyhow::ensure!(
            processes.lines().any(|id| id == own_id),
            "this process is not in {}, where /proc/self/cgroup says it is: mount the host's /sys/fs/cgroup into its container, and give its pod hostPID: true",
            own.display()
        );
    }
    Ok(own)
}

/// Goes to the cgroup namespace of the host, where its processes can be seen: in one of its own a container is told
/// neither where it is itself nor where others are. Before any thread is started, for each has its own.
fn see_cgroups_of_host() -> anyhow::Result<()> {
    let of = |process: &str| fs::metadata(format!("/proc/{process}/ns/cgroup"));
    let (own, first) = (of("self"), of("1"));
    if let (Ok(own), Ok(first)) = (own, first)
        && own.ino() != first.ino()
    {
        let namespace = fs::File::open("/proc/1/ns/cgroup").context("open /proc/1/ns/cgroup")?;
        setns(namespace, CloneFlags::CLONE_NEWCGROUP).context(
            "enter the host's cgroup namespace; CAP_SYS_ADMIN and CAP_SYS_PTRACE are needed",
        )?;
    }
    Ok(())
}

/// Where the pods are to come from.
fn pods(args: &Args, place: &Place, own_cgroup: &Path) -> anyhow::Result<Pods> {
    if let Some(file) = &args.pods {
        return Ok(Pods::File(PodsFile::open_settled(file)?));
    }
    let cluster = args.run.cluster().context("--pods or --kube is needed")?;
    let (access, state_dir) = cluster;
    let node = args.node_name.clone().context(
        "which node is this? Say --node-name, or set NODE_NAME by the downward API (spec.nodeName)",
    )?;
    anyhow::ensure!(
        !args.listen_in_host,
        "--listen-in-host needs the host's end of each pod's link, which the API server does not know: list the pods with --pods"
    );
    Ok(Pods::Cluster(cluster::Settings {
        access,
        node,
        cgroup: place.cgroup.clone(),
        own_cgroup: own_cgroup.to_owned(),
        state_dir,
    }))
}

/// Serves this node's pods until it is told to stop.
pub(super) fn serve(args: Args) -> anyhow::Result<Outcome> {
    // What is wrong with these is said before anything is opened or attached.
    requirements(match (args.listen_in_host, &args.pods) {
        (true, _) => Duty::Attach,
        (false, Some(_)) => Duty::EnterPods,
        (false, None) => Duty::FindPods,
    })?;
    see_cgroups_of_host()?;
    let place = args.place.place()?;
    let own_cgroup = own_cgroup()?;
    let start = Start {
        pods: pods(&args, &place, &own_cgroup)?,
        of: Attaching {
            own_cgroup,
            place,
            sizes: Sizes {
                services: args.services_max,
                pods: args.pods_max,
            },
            in_host: args.listen_in_host,
        },
    };
    // Held until the process ends.
    let claim = Claim::take(&start.of.place)?;
    run::serve(args.run, |running| {
        running.in_force().readiness.add(NotReady::NotSteering);
        start_agent(running, start).inspect_err(|_| {
            if let Err(error) = claim.give_up() {
                tracing::error!(%error, "what was attached stays: run `cairn node detach`");
            }
        })
    })
}

/// What an agent starts with.
struct Start {
    pods: Pods,
    of: Attaching,
}

/// What is attached where.
struct Attaching {
    place: Place,
    own_cgroup: PathBuf,
    sizes: Sizes,
    in_host: bool,
}

/// Where the pods come from.
enum Pods {
    File(PodsFile),
    Cluster(cluster::Settings),
}

/// Waits until all of the configuration is known. Before that nothing would be flagged that is not known yet, and what
/// an earlier agent has flagged would be unflagged: it stays as it is in the kernel meanwhile.
async fn synced(running: &Running) {
    /// Looked at so often: the reason goes a moment after the version came.
    const LOOK: Duration = Duration::from_millis(50);
    let readiness = &running.in_force().readiness;
    while readiness.reasons().contains(&NotReady::NotSynced) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Starts the agent, once it is known what is to be flagged and which pods there are.
fn start_agent(running: &Running, start: Start) -> anyhow::Result<()> {
    match start.pods {
        Pods::File(file) => {
            until_known(running, synced(running))?;
            steer(running, file, start.of)
        }
        Pods::Cluster(settings) => {
            let ends = EndsWithAgent(running.stop());
            let mut pods = PodsOfCluster::follow(settings, ends)?;
            until_known(running, async {
                synced(running).await;
                pods.begun().await;
            })?;
            steer(running, pods, start.of)
        }
    }
}

/// Waits for what must be known first, unless the process is told to stop.
fn until_known(running: &Running, known: impl Future<Output = ()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stop = running.stop();
    runtime.block_on(async {
        tokio::select! {
            () = known => Ok(()),
            () = stop.notified() => anyhow::bail!("told to stop before it was known which pods there are"),
        }
    })
}

/// Starts the agent on a thread of its own, and returns once it steers. What can fail comes before
/// the programs are attached, as far as it can.
fn steer(
    running: &Running,
    source: impl PodSource + Send + 'static,
    start: Attaching,
) -> anyhow::Result<()> {
    let workers = running.workers().iter().map(|worker| ServingThread {
        pods: worker.pods.clone(),
        beat: worker.beat.clone(),
    });
    let workers = workers.collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let guard = Guard::start(&start.place).context("start the guard")?;
    let in_force = running.in_force().clone();
    let redirect = Redirect::attach_sized(&start.place, &start.own_cgroup, start.sizes)?;
    let agent = Agent::new(redirect, start.place, in_force, workers, Some(guard))?
        .listening_in_host(start.in_host);
    let (sender, started) = std::sync::mpsc::channel();
    let ends = EndsWithAgent(running.stop());
    std::thread::Builder::new()
        .name("node-agent".to_owned())
        .spawn(move || {
            let _ends = ends;
            // Who waits for the number waits below.
            runtime.block_on(agent.run(source, |failing| {
                let _ = sender.send(failing);
            }));
        })?;
    let failing = started.recv().context("the agent ended at once")?;
    running.in_force().readiness.remove(NotReady::NotSteering);
    tracing::info!(failing, "steering");
    Ok(())
}

/// Ends the process when the agent's thread ends, which only a panic can make it do: its listeners
/// are closed then, and without an agent they would stay so.
struct EndsWithAgent(Arc<Notify>);

impl Drop for EndsWithAgent {
    fn drop(&mut self) {
        tracing::error!("the agent has ended: this process ends too, to be started again");
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_whose_agent_panics_ends() {
        let stop = Arc::<Notify>::default();
        let ends = EndsWithAgent(stop.clone());
        let agent = std::thread::spawn(move || {
            let _ends = ends;
            panic!("as no agent should");
        });
        agent.join().unwrap_err();
        // Told before anybody waits, as at the start.
        stop.notified().await;
    }
}
