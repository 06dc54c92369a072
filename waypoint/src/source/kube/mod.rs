//! The API server as a source: connects, follows, and hands what changed to the publisher, in good time and at
//! a bounded cost. What is watched and how is `cairn_kubernetes::watch`'s.

mod feed;
mod keep;
pub(super) mod pace;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::SystemTime;

use anyhow::Context;
use cairn_config_schema::origin::ObjectKey;
use cairn_kubernetes::client::{Access, connect};
use cairn_kubernetes::watch::{State, Wanted, Watch};
use tokio::sync::oneshot;

use crate::admin::{NotReady, Readiness};
use crate::publish::Publisher;
use crate::telemetry;

use feed::Feed;
use keep::Keeper;

/// What is followed, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which API server, and as whom.
    pub access: Access,
    /// Namespace of the ConfigMap with the settings of the mesh.
    pub istio_namespace: String,
    /// Folder in which what it said last is kept for the next start; `None`: it is not kept.
    pub state_dir: Option<PathBuf>,
}

/// The API server being followed. Dropping it ends that.
#[derive(Debug)]
pub struct Following {
    _end: oneshot::Sender<()>,
}

/// Follows the API server on a thread of its own from now on, and publishes what it says.
///
/// # Errors
/// When it is not known where the API server is, or the thread can not be started. That it can not be reached is
/// none.
pub fn follow(
    settings: Settings,
    gateway: Option<ObjectKey>,
    publisher: Arc<Mutex<Publisher>>,
    readiness: Arc<Readiness>,
) -> anyhow::Result<Following> {
    readiness.add(NotReady::NotSynced);
    let (keeper, stored) = match &settings.state_dir {
        Some(dir) => Keeper::open(dir.clone()),
        None => (Keeper::none(), None),
    };
    let (end, ended) = oneshot::channel();
    let (started, starting) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let run = async move {
        let client = match connect(&settings.access).await {
            Ok(client) => client,
            Err(error) => return drop(started.send(Err(error))),
        };
        let is_from_earlier = stored.is_some();
        let known = restore(stored);
        let wanted = Wanted::ForGateway(gateway);
        let watch = Watch::stream(client, wanted, &settings.istio_namespace, known).await;
        let observer = watch.observer();
        telemetry::kubernetes::show(observer.clone());
        readiness.tell_missing(move || observer.waiting());
        drop(started.send(Ok(())));
        let feed = Feed::new(watch, publisher, readiness, keeper, is_from_earlier);
        tokio::select! {
            () = feed.run() => {}
            _ = ended => {}
        }
    };
    std::thread::Builder::new()
        .name("kube-watch".to_owned())
        .spawn(move || runtime.block_on(run))?;
    starting
        .recv()
        .context("the watch of the API server ended at once")??;
    Ok(Following { _end: end })
}

/// What was stored, if it can be used, and says so.
fn restore(stored: Option<State>) -> Vec<(Arc<str>, Arc<str>)> {
    let Some(state) = stored else {
        return Vec::new();
    };
    let age = SystemTime::now().duration_since(state.at);
    let age_s = age.unwrap_or_default().as_secs();
    tracing::warn!(
        objects = state.objects.len(),
        age_s,
        "what the API server said when it was last read is in force, until it is read again"
    );
    telemetry::kubernetes::state_of(Some(state.at));
    state.objects
}
