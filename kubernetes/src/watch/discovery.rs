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

/// How long an answer may take: one group must not keep the others waiting.
const ANSWER: Duration = Duration::from_secs(5);

/// What is served, as of the last look.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    /// Looks that succeeded; 0: nothing is known yet.
    pub round: u64,
    versions: Versions,
    /// Groups that could not be asked: their kinds are neither there nor missing.
    unknown: BTreeSet<&'static str>,
}

/// Versions by group and plural.
type Versions = FxHashMap<(&'static str, &'static str), &'static str>;

impl Served {
    /// The best version of a kind that is served. Kinds of the core are always there.
    pub fn version(&self, kind: &WatchedKind) -> Option<&'static str> {
        match kind.group {
            "" => kind.versions.first().copied(),
            group => self.versions.get(&(group, kind.plural)).copied(),
        }
    }

    /// Whether the last look says something of the kind, be it that there is none.
    pub fn is_known(&self, kind: &WatchedKind) -> bool {
        !self.unknown.contains(kind.group)
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
    let mut known = None;
    loop {
        match look(&client, known.take()).await {
            Ok(Looked {
                versions,
                unknown,
                refusal,
            }) => {
                // A server that starts may not have all of its kinds yet: what is missing is soon looked for again.
                let is_settled = {
                    let served = served.borrow();
                    served.round > 0 && served.versions == versions
                };
                served.send_modify(|served| {
                    served.round += 1;
                    served.versions = versions;
                    served.unknown = unknown;
                });
                let pause = match refusal {
                    Some(refusal) => {
                        hub.not_discovered(refusal);
                        backoff.next(fastrand::f64())
                    }
                    None => {
                        hub.discovered();
                        backoff.reset();
                        if is_settled { POLL } else { Duration::ZERO }
                    }
                };
                let is_complete = served.borrow().is_complete();
                tokio::time::sleep(PAUSE).await;
                known = tokio::select! {
                    () = wanted.notified() => None,
                    () = tokio::time::sleep(pause), if !is_complete => {
                        Some(served.borrow().versions.clone())
                    }
                };
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

async fn text(client: &Client, path: &str) -> Result<String, Refusal> {
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|e| Refusal::malformed(e.to_string()))?;
    match tokio::time::timeout(ANSWER, client.request_text(request)).await {
        Ok(answer) => Ok(answer?),
        // The client itself asks again for a while when the answer is 429 or 503.
        Err(_) => Err(Refusal {
            reason: Reason::Trouble,
            message: format!(
                "{path}: nothing that can be used within {} s",
                ANSWER.as_secs()
            ),
        }),
    }
}

async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Result<T, Refusal> {
    let text = text(client, path).await?;
    serde_json::from_str(&text).map_err(|e| Refusal::malformed(format!("{path}: {e}")))
}

/// Whether the API server has started: before that it may not have all of its kinds. One that does not say so, or
/// not to us, is taken at its word about kinds; two looks have to agree anyway.
async fn ready(client: &Client) -> Result<(), Refusal> {
    match text(client, "/readyz").await {
        Ok(_) => Ok(()),
        Err(refusal) if matches!(refusal.reason, Reason::Forbidden | Reason::Absent) => Ok(()),
        Err(Refusal { reason, message }) => Err(Refusal {
            reason,
            message: format!("/readyz: {}", message.lines().last().unwrap_or_default()),
        }),
    }
}

/// What a look saw.
#[derive(Debug)]
struct Looked {
    versions: Versions,
    /// Groups that could not be asked.
    unknown: BTreeSet<&'static str>,
    /// What the API server said of the last of them.
    refusal: Option<Refusal>,
}

/// Looks at what is served: everything, or what is missing from what is known.
async fn look(client: &Client, known: Option<Versions>) -> Result<Looked, Refusal> {
    ready(client).await?;
    let groups: Groups = get(client, "/apis").await?;
    let mut looked = Looked {
        versions: known.unwrap_or_default(),
        unknown: BTreeSet::new(),
        refusal: None,
    };
    let missing = WATCHED
        .iter()
        .filter(|kind| !looked.versions.contains_key(&(kind.group, kind.plural)));
    let ours: BTreeSet<&'static str> = missing.map(|kind| kind.group).collect();
    for group in groups.groups {
        let Some(name) = ours.get(&*group.name).filter(|name| !name.is_empty()) else {
            continue;
        };
        match look_at(client, name, group.versions).await {
            Ok(found) => {
                for (kind, rank) in found {
                    better(&mut looked.versions, kind, rank);
                }
            }
            // One group that is in trouble is no reason not to follow the others.
            Err(refusal) => {
                looked.unknown.insert(*name);
                looked.refusal = Some(Refusal {
                    message: format!("{name}: {refusal}"),
                    ..refusal
                });
            }
        }
    }
    Ok(looked)
}

/// The watched kinds of a group that are served, with the rank of the version.
async fn look_at(
    client: &Client,
    group: &'static str,
    versions: Vec<GroupVersion>,
) -> Result<Vec<(&'static WatchedKind, usize)>, Refusal> {
    let mut found = Vec::new();
    for GroupVersion { version } in versions {
        let kinds = WATCHED.iter().filter(|kind| kind.group == group);
        let kinds: Vec<_> = kinds
            .filter_map(|kind| {
                let rank = kind.versions.iter().position(|v| *v == version)?;
                Some((kind, rank))
            })
            .collect();
        if kinds.is_empty() {
            continue;
        }
        let there = match get::<Resources>(client, &format!("/apis/{group}/{version}")).await {
            Ok(resources) => resources.resources,
            // It went away between two questions.
            Err(refusal) if refusal.reason == Reason::Absent => continue,
            Err(refusal) => return Err(refusal),
        };
        let there: BTreeSet<&str> = there.iter().map(|r| r.name.as_str()).collect();
        found.extend(kinds.into_iter().filter(|(k, _)| there.contains(k.plural)));
    }
    Ok(found)
}

/// Notes that a version is served, unless a better one is.
fn better(versions: &mut Versions, kind: &'static WatchedKind, rank: usize) {
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

    /// An API server on a port of its own, which answers each path by these answers.
    async fn server(answers: &'static [(&'static str, u16, &'static str)]) -> Client {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await.unwrap());
                }
                let asked = String::from_utf8(asked).unwrap();
                let path = asked.split(' ').nth(1).unwrap();
                let answer = answers.iter().find(|(p, ..)| *p == path);
                let (_, code, body) = answer.copied().unwrap_or(("", 404, "not found"));
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {code} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                stream.write_all((head + body).as_bytes()).await.unwrap();
            }
        });
        let mut config = kube_client::Config::new(format!("http://{address}").parse().unwrap());
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    const GROUPS: &str = r#"{"groups":[
        {"name":"gateway.networking.k8s.io","versions":[{"version":"v1"}]},
        {"name":"security.istio.io","versions":[{"version":"v1"},{"version":"v1beta1"}]}]}"#;
    const ROUTES: &str = r#"{"resources":[{"name":"httproutes"}]}"#;
    const POLICIES: &str = r#"{"resources":[{"name":"authorizationpolicies"}]}"#;

    fn served(looked: Looked) -> Served {
        Served {
            round: 1,
            versions: looked.versions,
            unknown: looked.unknown,
        }
    }

    /// It may not list `security.istio.io` yet, and no policies would seem to be.
    #[tokio::test]
    async fn a_server_that_is_starting_is_not_asked_which_kinds_it_has() {
        let starting = server(&[
            (
                "/readyz",
                500,
                "[-]poststarthook/crd-informer-synced failed\nreadyz check failed",
            ),
            ("/apis", 200, r#"{"groups":[]}"#),
        ]);
        let refusal = look(&starting.await, None).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::Trouble);
        assert!(refusal.message.contains("readyz check failed"), "{refusal}");
        for code in [403, 404] {
            let answers = vec![("/readyz", code, "no"), ("/apis", 200, GROUPS)];
            let client = server(answers.leak()).await;
            assert!(look(&client, None).await.is_ok(), "{code}");
        }
    }

    #[tokio::test]
    async fn a_group_in_trouble_is_neither_there_nor_missing_and_others_are_followed() {
        let client = server(&[
            ("/readyz", 200, "ok"),
            ("/apis", 200, GROUPS),
            ("/apis/gateway.networking.k8s.io/v1", 200, ROUTES),
            ("/apis/security.istio.io/v1", 503, "down"),
            ("/apis/security.istio.io/v1beta1", 200, POLICIES),
        ]);
        let looked = look(&client.await, None).await.unwrap();
        let refusal = looked.refusal.as_ref().unwrap();
        assert!(
            refusal.message.starts_with("security.istio.io: "),
            "{refusal}"
        );
        let served = served(looked);
        let [route, policy] =
            ["HTTPRoute", "AuthorizationPolicy"].map(|k| watched_kind(k).unwrap());
        assert_eq!(
            (served.version(route), served.is_known(route)),
            (Some("v1"), true)
        );
        assert_eq!(
            (served.version(policy), served.is_known(policy)),
            (None, false)
        );
    }

    #[test]
    fn core_kinds_need_no_look() {
        let served = Served::default();
        assert_eq!(served.version(watched_kind("Pod").unwrap()), Some("v1"));
        assert_eq!(served.version(watched_kind("HTTPRoute").unwrap()), None);
    }
}
