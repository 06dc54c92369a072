//! What is kept of this node's pods: what the API server said of them, for a start without it; those that it has no
//! more and that run on, of whom nobody else tells; and the list that the agent has, for people. Believes nothing itself; the file's checksum is `cairn_kubernetes::watch::Stored`'s.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_config_schema::parse::NodePod;
use cairn_kubernetes::watch::{Differences, Objects, Stored};
use serde_json::{Value, json};

/// Between two writes. Who starts without the API server does not know a pod that came after the last.
const PAUSE: Duration = Duration::from_secs(5);

/// In `--state-dir`: what the API server said, and the list.
const FOLDER: &str = "node";
const LIST: &str = "pods.json";

/// Keeps them, if there is a folder for that.
#[derive(Debug, Default)]
pub(super) struct Kept {
    stored: Option<Stored>,
    list: Option<PathBuf>,
    /// What the file has: what the API server had, and those that lingered.
    written: Option<(Arc<Objects>, Vec<String>)>,
    next: Option<Instant>,
    told: bool,
}

/// Before the number of a pod that the API server had no more: its path may be another pod's by now.
const LINGERING: &str = "lingering/";

/// What was kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// What the API server had, by path, as JSON.
    pub listed: Vec<(Arc<str>, Arc<str>)>,
    /// Pods that it had no more, or as ended, and whose processes ran on.
    pub lingering: Vec<Arc<str>>,
}

impl Known {
    fn of(objects: Vec<(Arc<str>, Arc<str>)>) -> Self {
        let lingers = |(path, _): &(Arc<str>, Arc<str>)| path.starts_with(LINGERING);
        let (lingering, listed) = objects.into_iter().partition::<Vec<_>, _>(lingers);
        Self {
            listed,
            lingering: lingering.into_iter().map(|(_, text)| text).collect(),
        }
    }
}

impl Kept {
    /// Opens the folder, and gives what was kept there.
    pub fn open(state_dir: Option<&Path>) -> (Self, Known) {
        let Some(dir) = state_dir else {
            return (Self::default(), Known::default());
        };
        let stored = match Stored::open(dir.join(FOLDER)) {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(dir = %dir.display(), %error, "--state-dir can not be used: this node's pods are not kept for the next start");
                return (Self::default(), Known::default());
            }
        };
        let known = stored.load().unwrap_or_else(|error| {
            tracing::error!(%error, "the pods that were kept are not used, for they are not whole");
            None
        });
        let kept = Self {
            stored: Some(stored),
            list: Some(dir.join(LIST)),
            ..Self::default()
        };
        let objects = known.map(|state| state.objects).unwrap_or_default();
        (kept, Known::of(objects))
    }

    /// Keeps what the API server has, and the texts of pods that linger, if that is news and it is time.
    pub fn keep(&mut self, objects: &Arc<Objects>, lingering: Vec<String>, now: Instant) {
        let Some(stored) = &self.stored else { return };
        let is_written = self
            .written
            .as_ref()
            .is_some_and(|(written, before)| Arc::ptr_eq(written, objects) && *before == lingering);
        if is_written || self.next.is_some_and(|at| now < at) {
            return;
        }
        self.next = Some(now + PAUSE);
        let all = objects
            .iter()
            .map(|(path, text)| (path.clone(), Some(text.clone())));
        let besides = lingering.iter().enumerate().map(|(number, text)| {
            let path = format!("{LINGERING}{number}");
            (path.into(), Some(text.as_str().into()))
        });
        match stored.save(&all.chain(besides).collect::<Differences>(), true) {
            Ok(()) => (self.written, self.told) = (Some((objects.clone(), lingering)), false),
            Err(error) => self.failed(&error),
        }
    }

    /// Writes the list as a pods file, for `cairn node status --pods` and `connections --pods`.
    pub fn list(&mut self, pods: &[NodePod]) {
        let Some(path) = &self.list else { return };
        let list: Vec<Value> = pods.iter().map(entry).collect();
        let beside = path.with_extension("new");
        let text = Value::from(list).to_string();
        let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
        if let Err(error) = written {
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::error!(%error, "this node's pods can not be kept; tried again at the next change");
        }
    }
}

/// A pod as a pods file has it.
fn entry(pod: &NodePod) -> Value {
    json!({
        "name": pod.name,
        "namespace": pod.namespace,
        "serviceAccount": pod.service_account,
        "labels": pod.labels,
        "addresses": pod.addresses,
        "netns": pod.netns,
        "cgroup": pod.cgroup,
    })
}

#[cfg(test)]
mod tests {
    use cairn_config_schema::parse::node_pods;

    use super::*;

    #[test]
    fn what_was_kept_is_known_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let (mut kept, known) = Kept::open(Some(dir.path()));
        assert_eq!(known, Known::default());
        let objects = |text: &str| Arc::new(Objects::from([("p".into(), text.into())]));
        let now = Instant::now();
        kept.keep(&objects("{}"), vec![], now);
        let again = || Kept::open(Some(dir.path())).1;
        let known = |text: &str, lingering: &[&str]| Known {
            listed: vec![("p".into(), text.into())],
            lingering: lingering.iter().map(|&text| text.into()).collect(),
        };
        assert_eq!(again(), known("{}", &[]));
        let newer = objects("{\"x\":1}");
        kept.keep(&newer, vec![], now);
        assert_eq!(again(), known("{}", &[]), "not so soon");
        kept.keep(&newer, vec![], now + PAUSE);
        assert_eq!(again(), known("{\"x\":1}", &[]));

        // A pod that lingers comes and goes without news from the API server.
        let lingering = || vec!["{\"y\":1}".to_owned()];
        kept.keep(&newer, lingering(), now + PAUSE * 2);
        assert_eq!(again(), known("{\"x\":1}", &["{\"y\":1}"]));
        kept.keep(&newer, vec![], now + PAUSE * 3);
        assert_eq!(again(), known("{\"x\":1}", &[]));

        let file = dir.path().join(FOLDER).join("objects");
        fs::write(&file, "cairn-state-1 0\nhalf").unwrap();
        assert_eq!(
            again(),
            Known::default(),
            "what is not whole is not believed"
        );
        assert_eq!(Kept::open(None).1, Known::default());
    }

    #[test]
    fn the_list_is_a_pods_file() {
        let dir = tempfile::tempdir().unwrap();
        let (mut kept, _) = Kept::open(Some(dir.path()));
        let pod = NodePod {
            name: "web-1".into(),
            namespace: "shop".into(),
            service_account: "web".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            addresses: vec!["10.1.0.1".parse().unwrap()],
            netns: "/run/netns/cni-1".into(),
            host_interface: None,
            cgroup: "/sys/fs/cgroup/kubepods/pod1".into(),
        };
        let read = || {
            let text = fs::read_to_string(dir.path().join(LIST)).unwrap();
            node_pods(&text, &"pods.json".into()).unwrap()
        };
        kept.list(std::slice::from_ref(&pod));
        assert_eq!(read(), [pod]);
        kept.list(&[]);
        assert_eq!(read(), []);
    }
}
