//! Everything that the configuration is made of, as the API server has it now: one reflector for each kind.
//! Gives texts to the parser; what they mean is the parser's.

mod api;
mod backoff;
mod discovery;
mod hub;
mod mirror;
mod named;
mod of_node;
mod page;
mod reduce;
mod reflector;
mod refusal;
mod stored;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use kube_client::Client;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

pub use backoff::Backoff;
pub use of_node::{PodOfNode, PodsOfNode};
pub use refusal::{Reason, Refusal};
pub use stored::{Differences, State, Stored};

use crate::limits::PAGES_AT_ONCE;
use api::{Collection, Remote};
use discovery::Served;
use hub::Hub;
use mirror::Mirror;
use reduce::Detail;
use reflector::Reflector;

/// Objects by their paths (`kubernetes:KIND/NAMESPACE/NAME`), each as JSON.
pub type Objects = BTreeMap<Arc<str>, Arc<str>>;

/// How much is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Whole objects, but for the history of their fields.
    All,
    /// What the waypoint of this Gateway reads of them. `None`: of the only Gateway there is.
    ForGateway(Option<ObjectKey>),
}

/// One object that is new, changed or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is called where a file would be.
    pub path: Arc<str>,
    /// It as JSON; `None`: it is gone.
    pub text: Option<Arc<str>>,
}

impl Change {
    fn put(path: Arc<str>, text: Arc<str>) -> Self {
        Self {
            path,
            text: Some(text),
        }
    }

    fn gone(path: Arc<str>) -> Self {
        Self { path, text: None }
    }

    /// Whether it tells of endpoints: those change often, and a little later is soon enough.
    pub fn is_of_endpoints(&self) -> bool {
        ["kubernetes:Pod/", "kubernetes:EndpointSlice/"]
            .iter()
            .any(|prefix| self.path.starts_with(prefix))
    }
}

/// What is new since the last time; of each object the last that is known.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// By path.
    pub objects: Vec<Change>,
}

/// What is new and was not taken yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Nothing is.
    Nothing,
    /// Endpoints and nothing else ([`Change::is_of_endpoints`]).
    Endpoints,
    /// Something else, and endpoints perhaps.
    Others,
}

/// How the watch of one kind is doing.
#[derive(Clone, Debug)]
pub struct Health {
    /// The kind.
    pub kind: String,
    /// The API server has no such kind.
    pub is_absent: bool,
    /// A watch is open.
    pub is_connected: bool,
    /// Objects there are.
    pub objects: usize,
    /// Lists after the first.
    pub relists: u64,
    /// Failures by reason.
    pub errors: BTreeMap<Reason, u64>,
    /// Time since anything came, a bookmark too. `None`: nothing did.
    pub quiet_for: Option<Duration>,
}

/// What can be asked of a watch from elsewhere, as metrics and readiness do.
#[derive(Clone, Debug)]
pub struct Observer(Arc<Hub>);

impl Observer {
    /// How each kind is doing.
    pub fn health(&self) -> Vec<Health> {
        self.0.health()
    }

    /// What has not been listed yet, and what the API server said; empty: all was.
    pub fn waiting(&self) -> Vec<String> {
        self.0.waiting()
    }
}

/// A watch of every kind that is served. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    news: watch::Receiver<u64>,
    tasks: [AbortHandle; 2],
}

impl Watch {
    /// Follows everything and keeps it, to be read with [`Watch::objects`]. Returns at once. The settings of the mesh are
    /// those in `istio_namespace`.
    pub async fn start(client: Client, what: Wanted, istio_namespace: &str) -> Self {
        Self::begin(client, (&what, istio_namespace), true, Vec::new())
    }

    /// Follows everything and keeps only what changed, to be taken with [`Watch::changes`]. What is known
    /// from earlier counts until the first list of its kind.
    pub async fn stream(
        client: Client,
        what: Wanted,
        istio_namespace: &str,
        known: Vec<(Arc<str>, Arc<str>)>,
    ) -> Self {
        Self::begin(client, (&what, istio_namespace), false, known)
    }

    fn begin(
        client: Client,
        (what, istio_namespace): (&Wanted, &str),
        keeps: bool,
        mut known: Vec<(Arc<str>, Arc<str>)>,
    ) -> Self {
        known.retain(|(path, _)| named::is_followed(path, istio_namespace));
        let first = named::from_the_start(istio_namespace);
        let hub = Arc::new(Hub::new(first.iter().cloned(), keeps));
        let news = hub.news.subscribe();
        let (served, receiver) = watch::channel(Served::default());
        let look = Arc::new(Notify::new());
        let discovery = discovery::follow(client.clone(), hub.clone(), served, look.clone());
        let staff = Staff {
            client,
            hub: hub.clone(),
            detail: match what {
                Wanted::All => Detail::Whole,
                Wanted::ForGateway(_) => Detail::Needed,
            },
            served: receiver,
            look,
            turns: Arc::new(Semaphore::new(PAGES_AT_ONCE)),
            known,
        };
        let tasks = [
            tokio::spawn(discovery).abort_handle(),
            tokio::spawn(staff.run(first)).abort_handle(),
        ];
        Self { hub, news, tasks }
    }

    /// The last consistent set of objects; empty until every kind was listed once.
    pub fn objects(&self) -> Arc<Objects> {
        self.hub.objects()
    }

    /// What is new since the last time; nothing until every kind was listed once.
    pub fn changes(&self) -> Changes {
        self.hub.changes()
    }

    /// What [`Watch::changes`] would give.
    pub fn pending(&self) -> Pending {
        self.hub.pending()
    }

    /// Waits for news. Several changes at once are one; of a stream so are all changes of endpoints until they are
    /// taken.
    pub async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Every kind that is served was listed at least once.
    pub fn synced(&self) -> bool {
        self.hub.synced()
    }

    /// For those who ask how it is doing.
    pub fn observer(&self) -> Observer {
        Observer(self.hub.clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Has each collection followed by a reflector, those too that objects begin to name.
struct Staff {
    client: Client,
    hub: Arc<Hub>,
    detail: Detail,
    served: watch::Receiver<Served>,
    look: Arc<Notify>,
    turns: Arc<Semaphore>,
    /// What is known from earlier.
    known: Vec<(Arc<str>, Arc<str>)>,
}

impl Staff {
    async fn run(mut self, first: Vec<Collection>) {
        let mut all = JoinSet::new();
        let mut named: BTreeMap<Collection, AbortHandle> = BTreeMap::new();
        let known = std::mem::take(&mut self.known);
        let of = |collection: &Collection| {
            let of_it = known.iter().filter(|(path, _)| collection.has(path));
            Mirror::knowing(of_it.map(|(path, text)| (path, &**text)))
        };
        for collection in &first {
            all.spawn(self.reflector(collection.clone(), of(collection)).run());
        }
        if !known.is_empty() {
            let put = |(path, text): &(Arc<str>, Arc<str>)| Change::put(path.clone(), text.clone());
            self.hub.restore(known.iter().map(put).collect());
        }
        let mut from_earlier = Some(known);
        loop {
            let wanted = self.hub.named();
            let gone: Vec<_> = named.extract_if(.., |c, _| !wanted.contains(c)).collect();
            for (collection, task) in gone {
                task.abort();
                let paths = collection.path().into_iter().collect();
                self.hub.forget(&collection, paths);
            }
            for collection in wanted {
                if let Entry::Vacant(entry) = named.entry(collection) {
                    let collection = entry.key();
                    let earlier = from_earlier.iter().flatten();
                    let earlier = earlier.filter(|(path, _)| collection.has(path));
                    let mirror = Mirror::knowing(earlier.map(|(path, text)| (path, &**text)));
                    let reflector = self.reflector(collection.clone(), mirror);
                    entry.insert(all.spawn(reflector.run()));
                }
            }
            // What is named from now on is fetched; only the first round knows things from earlier.
            from_earlier = None;
            self.hub.rescope.notified().await;
        }
    }

    fn reflector(&self, collection: Collection, mirror: Mirror) -> Reflector<Remote> {
        Reflector {
            api: Remote {
                client: self.client.clone(),
                node: None,
                kept: reduce::kept(collection.kind.0, self.detail),
                collection: collection.clone(),
            },
            collection,
            detail: self.detail,
            mirror,
            hub: self.hub.clone(),
            served: self.served.clone(),
            look: self.look.clone(),
            turns: self.turns.clone(),
        }
    }
}
