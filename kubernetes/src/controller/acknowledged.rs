//! What the ready pods of a Gateway say that they serve: `GET /acknowledged` at their readiness port. A pod that does
//! not answer in time has acknowledged nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use futures::StreamExt;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::gateways::{label, text, with_prefix};
use super::objects::{GATEWAY_NAME, MANAGED, MANAGED_BY, STATUS_PORT};
use crate::limits::{ACKNOWLEDGED_BYTES_MAX, ACKNOWLEDGED_TIMEOUT, PODS_ASKED_AT_ONCE};
use crate::objects::controller_of;
use crate::versions::{Differs, Written, differs};
use crate::watch::Objects;

/// A pod that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyPod {
    /// Its name.
    pub name: String,
    /// Where it is asked.
    pub address: SocketAddr,
}

/// What a pod says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The Gateway that it serves; absent if it refuses everything.
    pub gateway: Option<String>,
    /// Generations in force, by `Kind/namespace/name`.
    pub objects: BTreeMap<String, i64>,
    /// Fingerprints of the same.
    pub fingerprints: BTreeMap<String, u64>,
    /// Objects that it does not tell of, for their number.
    pub left_out: usize,
}

/// The ready pods with our label for a Gateway, by name, each with the `uid` of who made it. Those that are on their way
/// out are not asked.
pub fn labelled_pods(objects: &Objects, gateway: &ObjectKey) -> Vec<(ReadyPod, Option<String>)> {
    let of_namespace = with_prefix(objects, format!("kubernetes:Pod/{}/", gateway.namespace));
    // Read only what has the label at all.
    let candidates = of_namespace.filter(|(_, pod)| pod.contains(MANAGED_BY));
    let pods = candidates.filter_map(|(_, pod)| ready(pod, gateway));
    pods.collect()
}

/// Of these the Gateway's replicas: those that its ReplicaSets made. Anybody's pod may have the label.
pub fn ready_pods(
    objects: &Objects,
    gateway: &ObjectKey,
    replica_sets: &BTreeSet<String>,
) -> Vec<ReadyPod> {
    let labelled = labelled_pods(objects, gateway).into_iter();
    let made = labelled.filter(|(_, by)| by.as_ref().is_some_and(|uid| replica_sets.contains(uid)));
    made.map(|(pod, _)| pod).collect()
}

fn ready(pod: &str, gateway: &ObjectKey) -> Option<(ReadyPod, Option<String>)> {
    let pod: Value = serde_json::from_str(pod).ok()?;
    let is_its = label(&pod, MANAGED) == Some(MANAGED_BY)
        && label(&pod, GATEWAY_NAME) == Some(&*gateway.name);
    if !is_its || pod.pointer("/metadata/deletionTimestamp").is_some() {
        return None;
    }
    let conditions = pod
        .pointer("/status/conditions")
        .and_then(Value::as_array)?;
    let is_ready =
        |c: &&Value| text(c, "/type") == Some("Ready") && text(c, "/status") == Some("True");
    conditions.iter().find(is_ready)?;
    let ip: IpAddr = text(&pod, "/status/podIP")?.parse().ok()?;
    let made_by = controller_of(&pod).map(str::to_owned);
    let pod = ReadyPod {
        name: text(&pod, "/metadata/name")?.to_owned(),
        address: SocketAddr::new(ip, STATUS_PORT),
    };
    Some((pod, made_by))
}

/// Asks all of them at once, some at a time; in their order.
pub async fn ask_all(pods: &[ReadyPod]) -> Vec<(String, Result<Answer, String>)> {
    // Each pod is moved in: futures that borrow it can not be told to be `Send` by those who await this.
    let pods: Vec<ReadyPod> = pods.to_vec();
    let asked = pods.into_iter().map(|pod| async move {
        let answer = timeout(ACKNOWLEDGED_TIMEOUT, ask(pod.address)).await;
        let answer = answer.unwrap_or_else(|_| Err(no_answer(ACKNOWLEDGED_TIMEOUT)));
        (pod.name, answer)
    });
    futures::stream::iter(asked)
        .buffered(PODS_ASKED_AT_ONCE)
        .collect()
        .await
}

fn no_answer(after: Duration) -> String {
    format!("it gave no answer within {} s", after.as_secs())
}

async fn ask(address: SocketAddr) -> Result<Answer, String> {
    let said = |what: &str, error: &dyn std::fmt::Display| format!("{what} {address}: {error}");
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| said("it can not be reached at", &error))?;
    let broke = |error: hyper::Error| said("no answer from", &error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broke)?;
    let request = http::Request::get("/acknowledged")
        .header(http::header::HOST, address.to_string())
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broke)?;
        let status = response.status();
        if status != http::StatusCode::OK {
            return Err(format!("it answered {status}"));
        }
        let body = Limited::new(response.into_body(), ACKNOWLEDGED_BYTES_MAX)
            .collect()
            .await;
        let body = body.map_err(|error| said("half an answer from", &error))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| said("no sense from", &error))
    };
    // The connection is driven by whoever uses it; when it ends, the exchange knows by itself whether it has all.
    let driven = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = exchange => answer,
        () = driven => Err("it closed the connection".to_owned()),
    }
}

/// Why a pod does not serve this version of its Gateway, or a later one. `None`: it does.
pub fn behind(
    answer: &Result<Answer, String>,
    gateway: &ObjectKey,
    written: impl Into<Written>,
) -> Option<String> {
    let written = written.into();
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return Some(why.clone()),
    };
    let here = gateway.to_string();
    let name = format!("Gateway/{here}");
    let told = (&answer.objects, &answer.fingerprints);
    match differs(told, &name, written) {
        Some(Differs::Missing) => Some("it does not know the Gateway yet".to_owned()),
        Some(Differs::Generation(has)) if has < written.generation => {
            Some(format!("it has generation {has}"))
        }
        Some(Differs::Text(has)) => Some(format!("it has another text of generation {has}")),
        Some(Differs::Generation(_)) | None => {
            let refuses = answer.gateway.as_deref() != Some(&*here);
            refuses.then(|| "it refuses every tunnel".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::gateways::tests::objects;
    use cairn_config_schema::resources::Version;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn pod(name: &str, ready: &str) -> Value {
        json!({"kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {MANAGED: MANAGED_BY, GATEWAY_NAME: "waypoint"},
                "ownerReferences": [{"kind": "ReplicaSet", "uid": "s-1", "controller": true}]},
            "status": {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn ready_pods_are_those_of_the_gateway_that_stay() {
        let mut going = pod("going", "True");
        going["metadata"]["deletionTimestamp"] = json!("2026-11-22T00:00:00Z");
        let mut others = pod("others", "True");
        others["metadata"]["labels"][GATEWAY_NAME] = json!("another");
        let mut foreign = pod("foreign", "True");
        foreign["metadata"]["labels"][MANAGED] = json!("istio.io-mesh-controller");
        let mut labelled = pod("labelled", "True");
        labelled["metadata"]["ownerReferences"] = json!([]);
        let mut of_another_set = pod("of-another-set", "True");
        of_another_set["metadata"]["ownerReferences"][0]["uid"] = json!("s-2");
        let ours = [pod("a", "True"), pod("b", "False")];
        let not_ours = [going, others, foreign, labelled, of_another_set];
        let all = objects(&[&ours[..], &not_ours].concat());
        let sets = BTreeSet::from(["s-1".to_owned()]);
        let ready = ready_pods(&all, &ObjectKey::new("shop", "waypoint"), &sets);
        assert_eq!(
            ready,
            [ReadyPod {
                name: "a".to_owned(),
                address: "10.0.0.7:15021".parse().unwrap()
            }]
        );
    }

    #[test]
    fn a_pod_is_behind_until_it_serves_the_generation() {
        let key = ObjectKey::new("shop", "waypoint");
        let with = |gateway: Option<&str>, generation: Option<i64>| -> Result<Answer, String> {
            let objects = generation.map(|n| ("Gateway/shop/waypoint".to_owned(), n));
            Ok(Answer {
                gateway: gateway.map(str::to_owned),
                objects: objects.into_iter().collect(),
                ..Answer::default()
            })
        };
        let here = Some("shop/waypoint");
        for (answer, expected) in [
            (with(here, Some(4)), None),
            (with(here, Some(5)), None),
            (with(here, Some(3)), Some("it has generation 3")),
            (with(None, Some(4)), Some("it refuses every tunnel")),
            (with(None, None), Some("it does not know the Gateway yet")),
            (
                Err("it gave no answer within 2 s".to_owned()),
                Some("it gave no answer within 2 s"),
            ),
        ] {
            let version = Version {
                generation: 4,
                fingerprint: 1,
            };
            let why = behind(&answer, &key, version);
            assert_eq!(why.as_deref(), expected, "{answer:?}");
        }
        let mut annotated = with(here, Some(4)).unwrap();
        annotated.fingerprints = [("Gateway/shop/waypoint".to_owned(), 2)].into();
        let written = |fingerprint| Version {
            generation: 4,
            fingerprint,
        };
        let annotated = Ok(annotated);
        assert_eq!(behind(&annotated, &key, written(2)), None);
        assert_eq!(
            behind(&annotated, &key, written(1)).as_deref(),
            Some("it has another text of generation 4")
        );
    }

    /// One answers, one refuses, one is not there.
    #[tokio::test]
    async fn every_pod_is_asked_and_what_it_says_is_told() {
        let serve = async |text: &'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let n = stream.read(&mut head).await.unwrap();
                assert!(head[..n].starts_with(b"GET /acknowledged HTTP/1.1\r\n"));
                stream.write_all(text.as_bytes()).await.unwrap();
            });
            address
        };
        let good = "HTTP/1.1 200 OK\r\ncontent-length: 45\r\n\r\n{\"gateway\":\"s/w\",\"objects\":{\"Gateway/s/w\":3}}";
        let bad = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [
            serve(good).await,
            serve(bad).await,
            gone.local_addr().unwrap(),
        ];
        drop(gone);
        let pods: Vec<_> = addresses
            .into_iter()
            .map(|address| ReadyPod {
                name: "p".to_owned(),
                address,
            })
            .collect();
        let answers = ask_all(&pods).await;
        let [(_, Ok(first)), (_, Err(second)), (_, Err(third))] = &answers[..] else {
            panic!("{answers:?}")
        };
        assert_eq!(first.objects.get("Gateway/s/w"), Some(&3));
        assert!(second.contains("503"), "{second}");
        assert!(third.contains("can not be reached"), "{third}");
    }
}
