//! The pods of this node from the API server: follows those of the node, finds each on it by its uid, and tells the
//! agent what a pods file would. Enrols nobody.

mod find;
mod folder;
mod kept;
mod listing;
mod roll;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use cairn_kubernetes::client::{Access, Client, connect};
use cairn_kubernetes::watch::PodsOfNode;
use tokio::sync::watch;

use self::find::ThisNode;
use self::listing::Listing;
use super::{PodList, PodSource};

/// Between two looks for processes of a pod that is about to start, however long that takes. Its network is made before
/// the first of its containers, and with it a process that holds it, so that it is steered before that in most cases;
/// with a runtime that has no such process (CRI-O) it is found with its first container.
const LOOK: Duration = Duration::from_millis(100);

/// Between two looks at where everybody is.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// For so long the API server is waited for before what it said earlier is told: whom that lacks is not served.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which pods are followed, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which API server, and as whom.
    pub access: Access,
    /// The node's name.
    pub node: String,
    /// The cgroup above all pods.
    pub cgroup: PathBuf,
    /// That of this process, whose pod is not steered.
    pub own_cgroup: PathBuf,
    /// Folder in which the pods are kept for the next start; `None`: they are not.
    pub state_dir: Option<PathBuf>,
}

/// The pods of this node, followed for changes.
#[derive(Debug)]
pub struct PodsOfCluster {
    /// `None`: nobody knows yet.
    told: watch::Receiver<Option<Arc<PodList>>>,
}

impl PodsOfCluster {
    /// Follows them on a thread of its own, which goes on for as long as the process; `end` is dropped if it ends.
    ///
    /// # Errors
    /// When it is not known where the API server is, or the thread can not be started. That it can not be reached
    /// is none.
    pub fn follow(settings: Settings, end: impl Send + 'static) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (teller, told) = watch::channel(None);
        let (started, starting) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("node-pods".to_owned())
            .spawn(move || {
                let _end = end;
                runtime.block_on(async move {
                    match connect(&settings.access).await {
                        Ok(client) => {
                            drop(started.send(Ok(())));
                            follow(client, settings, teller).await;
                        }
                        Err(error) => drop(started.send(Err(error))),
                    }
                });
            })?;
        let ended = "the watch of this node's pods ended at once";
        starting.recv().context(ended)??;
        Ok(Self { told })
    }

    /// Waits until it is known which pods there are.
    pub async fn begun(&mut self) {
        if self.told.wait_for(Option::is_some).await.is_err() {
            // Its end ends the process.
            std::future::pending::<()>().await;
        }
        // It is news to whoever asks for the list.
        self.told.mark_changed();
    }
}

impl PodSource for PodsOfCluster {
    async fn next(&mut self) -> PodList {
        loop {
            if self.told.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let told = self.told.borrow_and_update().clone();
            if let Some(list) = told {
                return PodList::clone(&list);
            }
        }
    }
}

/// Follows the pods, and tells of each change, until nobody listens.
async fn follow(client: Client, settings: Settings, teller: watch::Sender<Option<Arc<PodList>>>) {
    let began = Instant::now();
    let own = own_pod(&settings.own_cgroup);
    let (mut listing, known) = Listing::resume(settings.state_dir.as_deref(), own, began);
    let Some(mut watch) = PodsOfNode::follow(client, &settings.node, known) else {
        tracing::error!("Pods are not watched");
        return;
    };
    tracing::info!(node = %settings.node, cgroup = %settings.cgroup.display(), "following the pods of this node");
    let mut node = ThisNode::new(&settings.cgroup);
    while !teller.is_closed() {
        let now = Instant::now();
        let is_told = teller.borrow().is_some();
        // First: what it says of the objects must not be older than they are.
        let synced = watch.synced();
        if let Some(objects) = watch.objects()
            && (is_told || synced || now > began + PATIENCE)
        {
            if let Some(news) = listing.turn(&objects, synced, &mut node, now) {
                teller.send_replace(Some(news));
            }
            if synced {
                listing.keep(now);
            }
        }
        let pause = match listing.is_waiting() || !is_told {
            true => LOOK,
            false => LOOK_AROUND,
        };
        tokio::select! {
            () = watch.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The uid of the pod that this process is in, if it is in one.
fn own_pod(cgroup: &Path) -> Option<String> {
    let mut folders = cgroup.iter().filter_map(|folder| folder.to_str());
    folders.find_map(folder::pod_uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_pod_is_known_by_its_cgroup() {
        let uid = "5f0c2c2e-8a0e-4a4d-9b0e-3f1f3f1f3f1f";
        let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        let own = format!("/sys/fs/cgroup/kubepods.slice/{slice}/cri-containerd-1.scope");
        assert_eq!(own_pod(Path::new(&own)).as_deref(), Some(uid));
        let service = Path::new("/sys/fs/cgroup/system.slice/cairn.service");
        assert_eq!(own_pod(service), None);
    }

    #[tokio::test]
    async fn the_list_is_told_once_it_is_known_and_then_when_it_changes() {
        let (teller, told) = watch::channel(None);
        let mut source = PodsOfCluster { told };
        teller.send_replace(Some(Arc::default()));
        source.begun().await;
        assert_eq!(source.next().await, PodList::default());
        let quiet = tokio::time::timeout(Duration::from_millis(1), source.next());
        quiet.await.unwrap_err();
        teller.send_replace(Some(Arc::default()));
        assert_eq!(source.next().await, PodList::default());
    }
}
