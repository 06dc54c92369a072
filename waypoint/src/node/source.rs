//! Where the node's pods come from. Here: a file. The cluster's API is `cluster`'s.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::diagnostics::Diagnostic;
use cairn_config_schema::parse::{NodePod, node_pods};
use tokio::time::{Interval, interval};

/// How often the file is looked at: it is small, and looking is simpler than watching.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// So many looks are waited at the start for a file that is written all the time: ten seconds.
const SETTLING_LOOKS_MAX: usize = 40;

/// The pods there are, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodList {
    /// Those that are known, each where it is.
    pub pods: Vec<NodePod>,
    /// There are no others: what the kernel knows besides is a pod no more. While somebody may be missing it is
    /// not forgotten, for it would go past policy.
    pub is_complete: bool,
}

/// Tells which pods there are.
pub trait PodSource {
    /// Waits until the list is another than that told last, and tells all of it. The first call
    /// answers at once. Dropped before it answers, it has lost nothing.
    fn next(&mut self) -> impl Future<Output = PodList> + Send;
}

/// Why there is no list of pods to begin with.
#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    /// No such file, or not allowed.
    #[error("read {0}: {1}")]
    Read(String, #[source] std::io::Error),
    /// It says something that can not be meant.
    #[error("the list of pods is wrong\n{0}")]
    Wrong(String),
}

/// The pods of a file, followed for changes.
#[derive(Debug)]
pub struct PodsFile {
    path: PathBuf,
    /// What was read last, right or wrong.
    text: Option<String>,
    /// What the last look found to be new: acted on if the next finds it too, because whoever writes
    /// in place may be half way, and half a list is a list that lacks pods.
    unsettled: Option<String>,
    untold: Option<Vec<NodePod>>,
    /// Kept from call to call: whoever waits for other things too begins to wait anew all the time.
    looks: Option<Interval>,
}

impl PodsFile {
    /// Reads the file as it is now.
    ///
    /// # Errors
    /// When it can not be read or is wrong: later that keeps the pods that were, but at the start
    /// there are none to keep.
    pub fn open(path: &Path) -> Result<Self, PodsError> {
        Self::of(path, read(path)?)
    }

    /// Reads the file once nobody writes it, for somebody who acts on what it lacks: waits until two
    /// looks find the same, unless it is older than that already.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_settled(path: &Path) -> Result<Self, PodsError> {
        let changed = std::fs::metadata(path).and_then(|found| found.modified());
        let age = changed.ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > POLL_INTERVAL) {
            return Self::open(path);
        }
        let text = settled(|| read(path), || std::thread::sleep(POLL_INTERVAL))?;
        Self::of(path, text)
    }

    fn of(path: &Path, text: String) -> Result<Self, PodsError> {
        let pods = parse(path, &text).map_err(PodsError::Wrong)?;
        Ok(Self {
            path: path.to_owned(),
            text: Some(text),
            unsettled: None,
            untold: Some(pods),
            looks: None,
        })
    }

    /// The pods the file had when it was opened, until they are told.
    pub fn pods(&self) -> &[NodePod] {
        self.untold.as_deref().unwrap_or_default()
    }

    /// The pods, if they are others than before, and the same for two looks. What can not be read
    /// changes nothing: pods that are steered stay so, for to forget them would let them pass policy
    /// by.
    fn look(&mut self) -> Option<Vec<NodePod>> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) => {
                self.unsettled = None;
                if self.text.take().is_some() {
                    tracing::error!(path = %self.path.display(), %error,
                        "the list of pods can not be read, the last good one stays in force");
                }
                return None;
            }
        };
        if self.text.as_ref() == Some(&text) {
            self.unsettled = None;
            return None;
        }
        if self.unsettled.as_ref() != Some(&text) {
            self.unsettled = Some(text);
            return None;
        }
        self.unsettled = None;
        let parsed = parse(&self.path, &text);
        self.text = Some(text);
        match parsed {
            Ok(pods) => Some(pods),
            Err(findings) => {
                tracing::error!(
                    "the list of pods is wrong, the last good one stays in force\n{findings}"
                );
                None
            }
        }
    }
}

impl PodSource for PodsFile {
    /// Whoever writes the file vouches for all of it.
    async fn next(&mut self) -> PodList {
        let is_complete = true;
        if let Some(pods) = self.untold.take() {
            return PodList { pods, is_complete };
        }
        loop {
            let looks = self.looks.get_or_insert_with(|| interval(POLL_INTERVAL));
            looks.tick().await;
            if let Some(pods) = self.look() {
                return PodList { pods, is_complete };
            }
        }
    }
}

fn read(path: &Path) -> Result<String, PodsError> {
    let shown = || path.display().to_string();
    std::fs::read_to_string(path).map_err(|e| PodsError::Read(shown(), e))
}

/// What two looks find alike, with a pause between; of a file that never rests the last one.
fn settled<E>(
    mut look: impl FnMut() -> Result<String, E>,
    mut pause: impl FnMut(),
) -> Result<String, E> {
    let mut text = look()?;
    for _ in 0..SETTLING_LOOKS_MAX {
        pause();
        let again = look()?;
        if again == text {
            break;
        }
        text = again;
    }
    Ok(text)
}

/// The list in a text; `Err` has one line for each finding.
fn parse(path: &Path, text: &str) -> Result<Vec<NodePod>, String> {
    let file: Arc<str> = path.display().to_string().into();
    node_pods(text, &file).map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(line).collect();
        lines.join("\n")
    })
}

fn line(finding: &Diagnostic) -> String {
    let place = finding.location.as_ref();
    let place = place.map_or_else(String::new, |place| format!("{place}: "));
    let path = match finding.path.as_str() {
        "" => String::new(),
        path => format!("{path}: "),
    };
    let hint = finding.hint.as_ref();
    let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
    format!("{place}{path}{}{hint}", finding.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> String {
        format!(
            "- {{name: {name}, namespace: shop, serviceAccount: web, netns: /run/netns/{name}, cgroup: /sys/fs/cgroup/{name}}}\n"
        )
    }

    fn names(pods: &[NodePod]) -> Vec<&str> {
        pods.iter().map(|pod| pod.name.as_str()).collect()
    }

    #[tokio::test]
    async fn changes_are_told_and_what_is_wrong_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.yaml");
        std::fs::write(&path, pod("a")).unwrap();
        let mut file = PodsFile::open(&path).unwrap();
        let first = file.next().await;
        assert_eq!((names(&first.pods), first.is_complete), (vec!["a"], true));

        std::fs::write(&path, pod("a").replace("netns", "netnss")).unwrap();
        assert_eq!([file.look(), file.look()], [None, None], "no change");
        assert!(
            file.text.as_ref().unwrap().contains("netnss"),
            "it was judged"
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.look(), None, "nor is a missing one");

        std::fs::write(&path, format!("{}{}", pod("a"), pod("b"))).unwrap();
        let last = file.next().await;
        assert_eq!(
            (names(&last.pods), last.is_complete),
            (vec!["a", "b"], true)
        );
    }

    #[test]
    fn a_list_that_is_being_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.yaml");
        let all = format!("{}{}{}", pod("a"), pod("b"), pod("c"));
        std::fs::write(&path, &all).unwrap();
        let mut file = PodsFile::open(&path).unwrap();

        // Truncated, then half of it, then all: each a moment only.
        std::fs::write(&path, "").unwrap();
        assert_eq!(file.look(), None);
        std::fs::write(&path, pod("a")).unwrap();
        assert_eq!(file.look(), None);
        std::fs::write(&path, &all).unwrap();
        assert_eq!([file.look(), file.look()], [None, None], "as it was");

        std::fs::write(&path, pod("a")).unwrap();
        assert_eq!(file.look(), None);
        assert_eq!(names(&file.look().unwrap()), ["a"], "it stays so");

        std::fs::write(&path, "").unwrap();
        assert_eq!([file.look(), file.look()], [None, None], "empty is no list");
        std::fs::write(&path, "[]").unwrap();
        assert_eq!([file.look(), file.look()], [None, Some(Vec::new())]);
    }

    #[test]
    fn a_list_that_is_being_written_at_the_start_is_waited_for() {
        let whole = format!("{}{}", pod("a"), pod("b"));
        let states = [
            "".to_owned(),
            pod("a"),
            whole.clone(),
            whole.clone(),
            pod("late"),
        ];
        let (mut at, mut pauses) = (0, 0);
        let look = || {
            at += 1;
            Ok::<_, PodsError>(states[at - 1].clone())
        };
        assert_eq!(settled(look, || pauses += 1).unwrap(), whole);
        assert_eq!(pauses, 3);

        let mut looks = 0;
        let restless = || {
            looks += 1;
            Ok::<_, PodsError>(looks.to_string())
        };
        settled(restless, || {}).unwrap();
        assert_eq!(looks, SETTLING_LOOKS_MAX + 1, "not for ever");
    }

    #[test]
    fn a_wrong_list_at_the_start_is_an_error_with_places() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.yaml");
        std::fs::write(&path, pod("a").replace("netns", "netnss")).unwrap();
        let error = PodsFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("pods.yaml:1:"), "{error}");
        assert!(error.contains("netnss"), "{error}");
        assert!(error.contains("did you mean"), "{error}");
    }
}
