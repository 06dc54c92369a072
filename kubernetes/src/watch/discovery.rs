//! Which of the watched kinds the API server serves, and in which version: asked at the start, and from then on
//! while one is missing, for CRDs come later than waypoints. Lists no objects.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube_client::Client;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use tokio::sync::{Notify, watch};

use super::backoff::Backoff;
use super::hub::Hub;
use super::refusal::{Reason, Refusal};
use crate::kinds::{WATCHED, WatchedKind};

/// How often it is asked while a kind is missing: a CRD is taken up so soon.
pub(super) const POLL: Duration = Duration::from_secs(10);

/// Asked for a look, it takes one no sooner than this after the last.
const PAUSE: Duration = Duration::from_secs(1);

/// What is served, as of the last look.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    /// Looks that succeeded; 0: nothing is known yet.
    pub round: u64,
    versions: FxHashMap<(&'static str, &'static str), &'static str>,
}

impl Served {
    /// The best version of a kind that is served. Kinds of the core are always there.
    pub fn version(&self, kind: &WatchedKind) -> Option<&'static str> {
        match kind.group {
            "" => kind.versions.first().copied(),
            group => self.versions.get(&(group, kind.plural)).copied(),
        }
    }

    fn is_complete(&self) -> bool {
        WATCHED.iter().all(|kind| self.version(kind).is_some())
    }
}

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
}

/// Asks for as long as anybody listens.
pub(super) async fn follow(
    client: Client,
    hub: Arc<Hub>,
    served: watch::Sender<Served>,
    wanted: Arc<Notify>,
) {
    let mut backoff = Backoff::default();
    loop {
        match look(&client).await {
            Ok(versions) => {
                backoff.reset();
                hub.discovered();
                served.send_modify(|served| {
                    served.round += 1;
                    served.versions = versions;
                });
                let is_complete = served.borrow().is_complete();
                tokio::time::sleep(PAUSE).await;
                tokio::select! {
                    () = wanted.notified() => {}
                    () = tokio::time::sleep(POLL), if !is_complete => {}
                }
            }
            Err(refusal) => {
                hub.not_discovered(refusal);
                tokio::time::sleep(backoff.next(fastrand::f64())).await;
            }
        }
        if served.is_closed() {
            return;
        }
    }
}

async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Result<T, Refusal> {
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|e| Refusal::malformed(e.to_string()))?;
    let text = client.request_text(request).await?;
    serde_json::from_str(&text).map_err(|e| Refusal::malformed(format!("{path}: {e}")))
}

async fn look(
    client: &Client,
) -> Result<FxHashMap<(&'static str, &'static str), &'static str>, Refusal> {
    let groups: Groups = get(client, "/apis").await?;
    let mut versions = FxHashMap::default();
    let ours: BTreeSet<&'static str> = WATCHED.iter().map(|kind| kind.group).collect();
    for group in groups.groups {
        let Some(name) = ours.get(&*group.name).filter(|name| !name.is_empty()) else {
            continue;
        };
        for GroupVersion { version } in group.versions {
            let kinds = WATCHED.iter().filter(|kind| kind.group == *name);
            let kinds: Vec<_> = kinds
                .filter_map(|kind| {
                    let rank = kind.versions.iter().position(|v| *v == version)?;
                    Some((kind, rank))
                })
                .collect();
            if kinds.is_empty() {
                continue;
            }
            let there = match get::<Resources>(client, &format!("/apis/{name}/{version}")).await {
                Ok(resources) => resources.resources,
                // It went away between two questions.
                Err(refusal) if refusal.reason == Reason::Absent => continue,
                Err(refusal) => return Err(refusal),
            };
            let there: BTreeSet<&str> = there.iter().map(|r| r.name.as_str()).collect();
            for (kind, rank) in kinds.into_iter().filter(|(k, _)| there.contains(k.plural)) {
                better(&mut versions, kind, rank);
            }
        }
    }
    Ok(versions)
}

/// Notes that a version is served, unless a better one is.
fn better(
    versions: &mut FxHashMap<(&'static str, &'static str), &'static str>,
    kind: &'static WatchedKind,
    rank: usize,
) {
    let Some(version) = kind.versions.get(rank) else {
        return;
    };
    let known = versions
        .entry((kind.group, kind.plural))
        .or_insert(*version);
    let known_rank = kind.versions.iter().position(|v| v == known);
    if known_rank.is_none_or(|known| rank < known) {
        *known = *version;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::watched_kind;

    #[test]
    fn of_several_versions_the_best_is_taken_in_whatever_order_they_come() {
        let kind = watched_kind("TLSRoute").unwrap();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut served = Served::default();
            for rank in order {
                better(&mut served.versions, kind, rank);
            }
            assert_eq!(served.version(kind), Some("v1"));
        }
    }

    #[test]
    fn core_kinds_need_no_look() {
        let served = Served::default();
        assert_eq!(served.version(watched_kind("Pod").unwrap()), Some("v1"));
        assert_eq!(served.version(watched_kind("HTTPRoute").unwrap()), None);
    }
}
