//! A reflector against an API server that answers by a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore, watch};

use super::Reflector;
use crate::kinds::watched_kind;
use crate::watch::api::{Api, Collection, Event, KindRef, Page, Take};
use crate::watch::discovery::Served;
use crate::watch::hub::Hub;
use crate::watch::mirror::Mirror;
use crate::watch::reduce::Detail;
use crate::watch::refusal::{Reason, Refusal};

/// What it answers, in order; when there is no more, it does not answer.
#[derive(Default)]
struct Script {
    lists: VecDeque<Result<(Vec<Value>, Page), Refusal>>,
    watches: VecDeque<Result<Vec<Result<Event, Refusal>>, Refusal>>,
    asked: Vec<String>,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Api for Scripted {
    async fn list(
        &self,
        _: &'static str,
        token: Option<String>,
        whole: bool,
        take: Take<'_>,
    ) -> Result<Page, Refusal> {
        let answer = {
            let mut script = self.0.lock().unwrap();
            let page = token.unwrap_or_else(|| if whole { "whole" } else { "first" }.to_owned());
            script.asked.push(format!("list {page}"));
            script.lists.pop_front()
        };
        match answer {
            Some(answer) => {
                let (items, page) = answer?;
                items.into_iter().try_for_each(take)?;
                Ok(page)
            }
            None => std::future::pending().await,
        }
    }

    async fn watch(
        &self,
        _: &'static str,
        from: &str,
    ) -> Result<BoxStream<'static, Result<Event, Refusal>>, Refusal> {
        let (answer, is_last) = {
            let mut script = self.0.lock().unwrap();
            script.asked.push(format!("watch {from}"));
            let answer = script.watches.pop_front();
            (answer, script.watches.is_empty())
        };
        let events = match answer {
            Some(answer) => stream::iter(answer?).boxed(),
            None => stream::empty().boxed(),
        };
        // The last watch stays open.
        Ok(match is_last {
            true => events.chain(stream::pending()).boxed(),
            false => events,
        })
    }
}

fn pod(name: &str, version: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": version},
        "status": {"podIP": ip},
    })
}

fn page(
    items: Vec<Value>,
    version: &str,
    next: Option<&str>,
) -> Result<(Vec<Value>, Page), Refusal> {
    let page = Page {
        version: version.to_owned(),
        next: next.map(str::to_owned),
    };
    Ok((items, page))
}

fn refused<T>(reason: Reason) -> Result<T, Refusal> {
    Err(Refusal {
        reason,
        message: reason.as_str().to_owned(),
    })
}

/// A reflector of Pods that follows a script, and what it was told of so far, by the names of pods.
struct Following {
    api: Scripted,
    hub: Arc<Hub>,
    known: std::collections::BTreeMap<String, String>,
    /// Changes taken.
    taken: usize,
}

impl Following {
    fn start(script: Script) -> Self {
        let collection = Collection {
            kind: KindRef(watched_kind("Pod").unwrap()),
            namespace: None,
            name: None,
        };
        let api = Scripted(Arc::new(Mutex::new(script)));
        let hub = Arc::new(Hub::new([collection.clone()], false));
        let reflector = Reflector {
            api: api.clone(),
            collection,
            detail: Detail::Needed,
            mirror: Mirror::default(),
            hub: hub.clone(),
            // Pods are of the core, which is always served.
            served: watch::Sender::new(Served::default()).subscribe(),
            look: Arc::new(Notify::new()),
            turns: Arc::new(Semaphore::new(1)),
        };
        tokio::spawn(reflector.run());
        Self {
            api,
            hub,
            known: Default::default(),
            taken: 0,
        }
    }

    /// Waits until these pods are there with these addresses.
    async fn until(&mut self, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, ip)| ((*name).to_owned(), (*ip).to_owned()))
            .collect();
        let mut news = self.hub.news.subscribe();
        loop {
            for change in self.hub.changes().objects {
                self.taken += 1;
                let name = change.path.rsplit('/').next().unwrap().to_owned();
                match change.text {
                    Some(text) => {
                        let object: Value = serde_json::from_str(&text).unwrap();
                        let ip = object["status"]["podIP"].as_str().unwrap().to_owned();
                        self.known.insert(name, ip);
                    }
                    None => drop(self.known.remove(&name)),
                }
            }
            if self
                .known
                .iter()
                .map(|(n, ip)| (n.clone(), ip.clone()))
                .eq(expected.clone())
            {
                return;
            }
            news.changed().await.unwrap();
        }
    }

    fn asked(&self) -> Vec<String> {
        self.api.0.lock().unwrap().asked.clone()
    }
}

#[tokio::test]
async fn it_lists_in_pages_and_watches_from_there() {
    let mut following = Following::start(Script {
        lists: [
            page(vec![pod("a", "1", "10.0.0.1")], "7", Some("next")),
            page(vec![pod("b", "2", "10.0.0.2")], "7", None),
        ]
        .into(),
        watches: [Ok(vec![
            Ok(Event::Put(pod("c", "8", "10.0.0.3"))),
            Ok(Event::Deleted(pod("a", "9", "10.0.0.1"))),
        ])]
        .into(),
        ..Script::default()
    });
    following
        .until(&[("b", "10.0.0.2"), ("c", "10.0.0.3")])
        .await;
    assert_eq!(following.asked(), ["list first", "list next", "watch 7"]);
    assert!(following.hub.synced());
}

/// Nothing of a list counts before its last page is there: half of it would look like deletions.
#[tokio::test]
async fn a_list_whose_pages_expire_is_taken_as_a_whole() {
    let mut following = Following::start(Script {
        lists: [
            page(vec![pod("a", "1", "10.0.0.1")], "7", Some("next")),
            refused(Reason::Expired),
            page(vec![pod("b", "2", "10.0.0.2")], "9", None),
        ]
        .into(),
        ..Script::default()
    });
    following.until(&[("b", "10.0.0.2")]).await;
    assert_eq!(
        following.asked()[..3],
        ["list first", "list next", "list whole"]
    );
}

/// A watch that ends goes on where it was: at the last event or bookmark.
#[tokio::test]
async fn a_watch_that_ends_or_breaks_goes_on_where_it_stood() {
    let mut following = Following::start(Script {
        lists: [page(vec![], "1", None)].into(),
        watches: [
            Ok(vec![Ok(Event::Put(pod("a", "2", "10.0.0.1")))]),
            refused(Reason::Unreachable),
            Ok(vec![
                Ok(Event::Bookmark("5".to_owned())),
                refused(Reason::Unreachable),
            ]),
            Ok(vec![Ok(Event::Put(pod("a", "6", "10.0.0.9")))]),
        ]
        .into(),
        ..Script::default()
    });
    following.until(&[("a", "10.0.0.9")]).await;
    assert_eq!(
        following.asked(),
        ["list first", "watch 1", "watch 2", "watch 2", "watch 5"]
    );
}

/// 410: what is there stays until the new list is, and then what is missing from it is gone.
#[tokio::test]
async fn a_version_that_expired_is_listed_again_without_withdrawing_anything_before() {
    let mut following = Following::start(Script {
        lists: [
            page(
                vec![pod("a", "1", "10.0.0.1"), pod("b", "1", "10.0.0.2")],
                "1",
                None,
            ),
            refused(Reason::Trouble),
            page(vec![pod("b", "3", "10.0.0.2")], "9", None),
        ]
        .into(),
        watches: [Ok(vec![refused(Reason::Expired)]), Ok(vec![])].into(),
        ..Script::default()
    });
    following
        .until(&[("a", "10.0.0.1"), ("b", "10.0.0.2")])
        .await;
    following.until(&[("b", "10.0.0.2")]).await;
    assert_eq!(
        following.asked()[..4],
        ["list first", "watch 1", "list first", "list first"]
    );
    let health = following.hub.health();
    assert_eq!(health[0].relists, 1);
    assert_eq!(health[0].errors[&Reason::Expired], 1);
    assert_eq!(health[0].errors[&Reason::Trouble], 1);
}

/// A policy that may not be read is not a policy that is not there.
#[tokio::test]
async fn what_may_not_be_listed_is_waited_for_and_said() {
    let following = Following::start(Script {
        lists: [refused(Reason::Forbidden)].into(),
        ..Script::default()
    });
    while following.hub.health()[0].errors[&Reason::Forbidden] == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!following.hub.synced());
    assert_eq!(following.hub.waiting(), ["Pod: forbidden"]);
    assert!(following.hub.changes().objects.is_empty());
    let mut news = following.hub.news.subscribe();
    assert!(news.changed().now_or_never().is_none(), "nothing to tell");
}

/// What others write into a status makes no news.
#[tokio::test(start_paused = true)]
async fn an_object_that_says_the_same_is_no_news() {
    let mut noted = pod("a", "2", "10.0.0.1");
    noted["status"]["conditions"] = json!([{"type": "Ready"}]);
    let mut following = Following::start(Script {
        lists: [page(vec![pod("a", "1", "10.0.0.1")], "1", None)].into(),
        watches: [
            // Ends at once, so that the list is taken before the next.
            Ok(vec![]),
            Ok(vec![
                Ok(Event::Put(noted)),
                Ok(Event::Put(pod("b", "3", "10.0.0.2"))),
            ]),
        ]
        .into(),
        ..Script::default()
    });
    following.until(&[("a", "10.0.0.1")]).await;
    following
        .until(&[("a", "10.0.0.1"), ("b", "10.0.0.2")])
        .await;
    assert_eq!(following.taken, 2, "that of the list, and b");
}

fn of_kind(kind: &str) -> Collection {
    Collection {
        kind: KindRef(watched_kind(kind).unwrap()),
        namespace: None,
        name: None,
    }
}

/// A server that starts may not have the kind yet: one look that misses it says nothing.
#[tokio::test]
async fn a_kind_is_missing_from_the_start_only_after_two_looks() {
    let collection = of_kind("AuthorizationPolicy");
    let hub = Arc::new(Hub::new([collection.clone()], false));
    let served = watch::Sender::new(Served::default());
    let reflector = Reflector {
        api: Scripted::default(),
        collection,
        detail: Detail::Needed,
        mirror: Mirror::default(),
        hub: hub.clone(),
        served: served.subscribe(),
        look: Arc::new(Notify::new()),
        turns: Arc::new(Semaphore::new(1)),
    };
    tokio::spawn(reflector.run());
    for (round, is_there) in [(1, false), (2, true)] {
        served.send_modify(|served| served.round = round);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(hub.synced(), is_there, "look {round}");
    }
}

/// 404 for Pods is a fault on the way, and neither silence nor a circle is the answer.
#[tokio::test(start_paused = true)]
async fn a_kind_of_the_core_that_is_said_to_be_missing_is_waited_for() {
    let absent = || refused(Reason::Absent);
    let mut following = Following::start(Script {
        lists: [
            absent(),
            absent(),
            page(vec![pod("a", "1", "10.0.0.1")], "1", None),
        ]
        .into(),
        ..Script::default()
    });
    let began = tokio::time::Instant::now();
    following.until(&[("a", "10.0.0.1")]).await;
    assert!(began.elapsed().as_millis() >= 750, "{:?}", began.elapsed());
    assert_eq!(following.hub.health()[0].errors[&Reason::Absent], 2);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_expires_again_and_again_is_not_listed_in_a_circle() {
    let list = || page(vec![], "1", None);
    let expired = || Ok(vec![refused(Reason::Expired)]);
    let mut following = Following::start(Script {
        lists: [
            list(),
            list(),
            list(),
            page(vec![pod("a", "1", "10.0.0.1")], "2", None),
        ]
        .into(),
        watches: [expired(), expired(), expired(), Ok(vec![])].into(),
        ..Script::default()
    });
    let began = tokio::time::Instant::now();
    following.until(&[("a", "10.0.0.1")]).await;
    assert!(began.elapsed().as_millis() >= 750, "{:?}", began.elapsed());
}

/// A connection that died is told by the bookmarks that do not come.
#[tokio::test(start_paused = true)]
async fn a_watch_that_says_nothing_for_long_is_broken() {
    let mut following = Following::start(Script {
        lists: [page(vec![], "1", None)].into(),
        watches: [Ok(vec![])].into(),
        ..Script::default()
    });
    // The last of a script stays open and says nothing; the one after it is of another connection.
    let began = tokio::time::Instant::now();
    while following.asked().len() < 2 {
        tokio::task::yield_now().await;
    }
    {
        let mut script = following.api.0.lock().unwrap();
        let news = Ok(Event::Put(pod("a", "2", "10.0.0.1")));
        script.watches.push_back(Ok(vec![news]));
    }
    following.until(&[("a", "10.0.0.1")]).await;
    let waited = began.elapsed().as_secs();
    assert!((90..=92).contains(&waited), "{waited} s");
    assert_eq!(following.hub.health()[0].errors[&Reason::Broken], 1);
}

/// What happened meanwhile comes before it is said that the watch is open, for others wait for that.
#[tokio::test(start_paused = true)]
async fn after_a_failure_a_watch_is_open_once_it_told_what_was_missed() {
    let mut following = Following::start(Script {
        lists: [page(vec![], "1", None)].into(),
        watches: [
            Ok(vec![refused(Reason::Broken)]),
            Ok(vec![Ok(Event::Put(pod("a", "2", "10.0.0.1")))]),
        ]
        .into(),
        ..Script::default()
    });
    following.until(&[("a", "10.0.0.1")]).await;
    assert!(!following.hub.health()[0].is_connected);
    while !following.hub.health()[0].is_connected {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
