//! The list of this node's pods from turn to turn: begins with what an earlier agent kept, takes what the API server
//! has, calls the roll, keeps it for the next agent, and says whether somebody may be missing. Waits for nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cairn_kubernetes::watch::{Objects, PodOfNode};

use super::find::Node;
use super::kept::{Kept, Known};
use super::roll::Roll;
use crate::node::PodList;
use crate::telemetry::node as telemetry;

/// The list, and what it is made of.
#[derive(Debug)]
pub(super) struct Listing {
    kept: Kept,
    roll: Roll,
    /// Uid of the pod that this process is in, which is not steered.
    own: Option<String>,
    /// What the API server had when it was looked at last.
    taken: Option<Arc<Objects>>,
    /// All of that could be read.
    is_read: bool,
    told: Option<Arc<PodList>>,
}

/// An object by its path, as JSON.
type Text = (Arc<str>, Arc<str>);

impl Listing {
    /// A list that begins with the pods that were kept, which are given as the API server had them. Who is not among
    /// those it has now may run all the same, deleted by force: nobody but the file knows of it.
    pub fn resume(
        state_dir: Option<&Path>,
        own: Option<String>,
        now: Instant,
    ) -> (Self, Vec<Text>) {
        let (kept, Known { listed, lingering }) = Kept::open(state_dir);
        let mut listing = Self {
            kept,
            roll: Roll::default(),
            own,
            taken: None,
            is_read: true,
            told: None,
        };
        let texts = listed.iter().map(|(_, text)| text);
        let (pods, _) = listing.read(lingering.iter().chain(texts));
        listing.roll.take(pods, now);
        (listing, listed)
    }

    /// Looks where everybody of these is; the list, if it is another than before.
    ///
    /// `synced`: the API server was asked, these are not from earlier.
    pub fn turn(
        &mut self,
        objects: &Arc<Objects>,
        synced: bool,
        node: &mut impl Node,
        now: Instant,
    ) -> Option<Arc<PodList>> {
        let is_same = |taken: &Arc<Objects>| Arc::ptr_eq(taken, objects);
        if !self.taken.as_ref().is_some_and(is_same) {
            let (pods, is_read) = self.read(objects.values());
            self.roll.take(pods, now);
            (self.taken, self.is_read) = (Some(objects.clone()), is_read);
        }
        let called = self.roll.call(node, now);
        telemetry::roll(&called.counts());
        let is_anybody_missing = called.awaited + called.overdue > 0;
        let list = PodList {
            pods: called.pods,
            is_complete: synced && self.is_read && !is_anybody_missing,
        };
        let told = self.told.as_deref();
        if told == Some(&list) {
            return None;
        }
        if told.is_none_or(|told| told.pods != list.pods) {
            self.kept.list(&list.pods);
        }
        let list = Arc::new(list);
        self.told = Some(list.clone());
        Some(list)
    }

    /// Keeps for the next agent what the API server had at the last turn, and who lingered. After the list was told:
    /// the disk may take its time.
    pub fn keep(&mut self, now: Instant) {
        if let Some(objects) = &self.taken {
            let lingering = self.roll.lingering().map(PodOfNode::text);
            self.kept.keep(objects, lingering.collect(), now);
        }
    }

    /// Whether somebody is waited for.
    pub fn is_waiting(&self) -> bool {
        self.roll.is_waiting()
    }

    /// Reads texts of Pods, and whether all could be. One that can not is said: it is not steered.
    fn read<'t>(&self, texts: impl Iterator<Item = &'t Arc<str>>) -> (Vec<PodOfNode>, bool) {
        let (mut pods, mut is_read) = (Vec::new(), true);
        for text in texts {
            match PodOfNode::read(text) {
                Ok(pod) if self.own.as_ref() == Some(&pod.uid) => {}
                Ok(pod) => pods.push(pod),
                Err(error) => {
                    is_read = false;
                    tracing::error!(%error, %text, "a pod can not be read: its connections go direct, past policy, unless the kernel knows it from before");
                }
            }
        }
        (pods, is_read)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::roll::tests::{ByHand, pod};
    use super::*;

    /// A turn of which the API server was asked, and what is kept of it.
    fn turn(
        listing: &mut Listing,
        objects: &Arc<Objects>,
        node: &mut ByHand,
        now: Instant,
    ) -> Arc<PodList> {
        let list = listing.turn(objects, true, node, now);
        listing.keep(now);
        list.unwrap()
    }

    /// What the API server has: these pods, by uid and name.
    fn objects(pods: &[(&str, &str)]) -> Arc<Objects> {
        let object = |(uid, name): &(&str, &str)| (name.to_string().into(), text(uid, name));
        Arc::new(pods.iter().map(object).collect())
    }

    fn text(uid: &str, name: &str) -> Arc<str> {
        pod(uid, name).text().into()
    }

    fn names(list: &PodList) -> Vec<&str> {
        list.pods.iter().map(|pod| pod.name.as_str()).collect()
    }

    /// A node on which `u1` and `u2` run.
    fn node() -> ByHand {
        let running = [("u1", 4), ("u2", 5)];
        ByHand {
            pods: running.map(|(u, at)| (u.to_owned(), Some(at))).into(),
            ..ByHand::default()
        }
    }

    /// The kernel's withdrawal follows from the list: whom it lacks while it is complete goes past policy.
    #[test]
    fn a_pod_deleted_by_force_stays_listed_whichever_agent_runs() {
        let dir = tempfile::tempdir().unwrap();
        let resume = |now| Listing::resume(Some(dir.path()), None, now);
        let (now, mut node) = (Instant::now(), node());
        let (mut first, known) = resume(now);
        assert!(known.is_empty());
        let all = objects(&[("u1", "db-0"), ("u2", "web")]);
        let list = turn(&mut first, &all, &mut node, now);
        assert_eq!(
            (names(&list), list.is_complete),
            (vec!["db-0", "web"], true)
        );

        // Deleted while no agent runs: the next hears of it from the file alone.
        let (mut second, known) = resume(now);
        assert_eq!(known.len(), 2);
        let one = objects(&[("u2", "web")]);
        let list = turn(&mut second, &one, &mut node, now);
        assert_eq!(
            (names(&list), list.is_complete),
            (vec!["db-0", "web"], true)
        );

        // By now it is in the file for its processes alone.
        let (mut third, known) = resume(now);
        assert_eq!(known.len(), 1);
        let list = turn(&mut third, &one, &mut node, now);
        assert_eq!(names(&list), ["db-0", "web"]);

        // Its last process ends, and the file has it no more.
        node.pods.insert("u1".into(), None);
        let later = now + Duration::from_secs(60);
        let list = turn(&mut third, &one, &mut node, later);
        assert_eq!((names(&list), list.is_complete), (vec!["web"], true));
        node.pods.insert("u1".into(), Some(4));
        let (mut fourth, _) = resume(later);
        let list = turn(&mut fourth, &one, &mut node, later);
        assert_eq!(names(&list), ["web"]);
    }

    /// Without infra containers (CRI-O) a pod has no process between two of its containers; and what was kept lacks
    /// who came later.
    #[test]
    fn the_list_is_complete_once_the_api_server_was_asked_and_everybody_is_there() {
        let (now, mut node) = (Instant::now(), node());
        let (mut listing, _) = Listing::resume(None, None, now);
        let all = objects(&[("u1", "db-0"), ("u2", "web")]);
        let list = listing.turn(&all, false, &mut node, now).unwrap();
        assert_eq!(list.pods.len(), 2);
        assert!(!list.is_complete, "from earlier");
        let list = listing.turn(&all, true, &mut node, now).unwrap();
        assert!(list.is_complete);
        assert!(
            listing.turn(&all, true, &mut node, now).is_none(),
            "no news"
        );

        let more = objects(&[("u1", "db-0"), ("u2", "web"), ("u3", "job")]);
        let list = listing.turn(&more, true, &mut node, now).unwrap();
        assert!(!list.is_complete && listing.is_waiting(), "awaited");
        let late = now + Duration::from_secs(60);
        assert!(listing.turn(&more, true, &mut node, late).is_none());
        assert!(listing.is_waiting(), "overdue, and looked for as often");
        node.pods.insert("u3".into(), Some(6));
        let list = listing.turn(&more, true, &mut node, late).unwrap();
        assert_eq!((list.pods.len(), list.is_complete), (3, true));

        let mut wrong = Objects::clone(&more);
        wrong.insert("wrong".into(), "{}".into());
        let list = listing.turn(&wrong.into(), true, &mut node, late).unwrap();
        assert!(!list.is_complete, "it may be anybody");
    }

    #[test]
    fn the_agents_own_pod_is_not_listed() {
        let (now, mut node) = (Instant::now(), node());
        let (mut listing, _) = Listing::resume(None, Some("u1".to_owned()), now);
        let all = objects(&[("u1", "db-0"), ("u2", "web")]);
        let list = listing.turn(&all, true, &mut node, now).unwrap();
        assert_eq!((names(&list), list.is_complete), (vec!["web"], true));
    }
}
