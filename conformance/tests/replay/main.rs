//! The golden cases over real sockets: what the engine says to an ask is what `cairn run` does, what
//! its access log tells and what `cairn explain` explains (DESIGN section 5: the same input gives
//! the same verdict everywhere). Addresses of pods are moved to loopback, those that asks come from among
//! them; what can not be asked there is only explained (`apart`).

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod apart;
mod explain;
mod observe;
mod waypoint;

use std::collections::BTreeMap;
use std::path::Path;

use apart::Apart;
use cairn_config_schema::snapshot::Snapshot;
use cairn_conformance::golden::engine::{Judged, judge};
use cairn_conformance::golden::format::{Ask, Stage};
use cairn_conformance::golden::{cases, stages};
use observe::Observed;
use waypoint::{Apps, Replay};

#[tokio::test]
async fn the_data_path_does_what_the_engine_says() {
    let mut apps = Apps::default();
    let mut wrong = Vec::new();
    let mut asked = Asked::default();
    for (name, case) in cases() {
        let found = replay(&case, &mut apps, &mut asked).await;
        wrong.extend(found.into_iter().map(|w| format!("{name}: {w}")));
    }
    println!("{asked:?}");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // Every ask is at least explained, and what is only explained is the exception (63 of 1324).
    let explained: usize = asked.explained.values().sum();
    assert!(
        asked.left_out == 0 && explained * 15 < asked.all,
        "{asked:?}"
    );
    // Policies that look at the pods of clients are asked by those pods (325).
    assert!(asked.from_pods > 300, "{asked:?}");
}

/// How many asks there were.
#[derive(Debug, Default)]
struct Asked {
    all: usize,
    /// Of them, over the sockets from the address of a pod.
    from_pods: usize,
    /// Of them, only explained.
    explained: BTreeMap<Apart, usize>,
    /// Of them, neither sent nor explained.
    left_out: usize,
}

/// What differs in one case.
async fn replay(case: &Path, apps: &mut Apps, asked: &mut Asked) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut replay = Replay::default();
    for (at, stage) in stages(case).unwrap().into_iter().enumerate() {
        let snapshot = replay.stage(case, &stage).await;
        apps.start(&snapshot);
        let mut seen = Vec::new();
        // Later stages may have a last good version in force, which `explain` does not know.
        let explains = at == 0 || stage.fresh;
        for ask in asks(&stage).map(waypoint::on_loopback_ask) {
            asked.all += 1;
            let judged = judge(&snapshot, &ask);
            if let Some(why) = Apart::of(&snapshot, &ask, judged.as_ref()) {
                if let Some(judged) = judged.as_ref().filter(|_| explains) {
                    *asked.explained.entry(why).or_default() += 1;
                    let differences = match accepts(&snapshot, &ask) {
                        true => explain::compare(&replay, &ask, judged).await,
                        false => explain::compare_foreign(&replay, &ask, judged).await,
                    };
                    wrong.extend(differences.iter().map(|d| format!("{}: {d}", ask.shown())));
                } else {
                    asked.left_out += 1;
                }
                continue;
            }
            asked.from_pods += usize::from(ask.ip.is_some());
            let observed = replay.ask(&snapshot, &ask).await;
            let differences = match (accepts(&snapshot, &ask), &judged, &observed) {
                (false, _, Observed::NoTunnel(_)) => Vec::new(),
                (false, _, other) => vec![format!("a foreign peer got {other:?}")],
                (true, None, Observed::Refused(_)) => Vec::new(),
                (true, None, other) => vec![format!("not refused: {other:?}")],
                (true, Some(judged), observed) => {
                    let mut differences = observe::compare(judged, &ask, observed, apps);
                    if explains {
                        differences.extend(explain::compare(&replay, &ask, judged).await);
                    }
                    seen.push((ask.clone(), judged.clone(), observed.request_id()));
                    differences
                }
            };
            wrong.extend(differences.iter().map(|d| format!("{}: {d}", ask.shown())));
        }
        wrong.extend(replay.compare_log(seen).await);
    }
    wrong
}

/// Whether the peer gets a tunnel at all.
fn accepts(snapshot: &Snapshot, ask: &Ask) -> bool {
    snapshot
        .mesh
        .accepts_trust_domain(ask.peer().trust_domain())
}

fn asks(stage: &Stage) -> impl Iterator<Item = Ask> {
    let asks = stage.asks.iter();
    asks.map(|ask| ask.with_defaults(&stage.default))
}

/// What the access log must say of an ask.
fn compare_line(judged: &Judged, line: &serde_json::Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut compare = |what: &str, expected: &str, found: String| {
        if expected != found {
            wrong.push(format!(
                "the log's {what} is {found:?}, expected {expected:?}"
            ));
        }
    };
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    compare("verdict", judged.verdict, text("verdict"));
    let policy = text("policy");
    let policy = policy.split_once('/').map_or("", |(_kind, key)| key);
    let by = match (policy, line["rule"].as_u64()) {
        ("", _) => String::new(),
        (policy, None) => policy.to_owned(),
        (policy, Some(rule)) => format!("{policy}#{rule}"),
    };
    let expected = if judged.by == "none" { "" } else { &judged.by };
    compare("policy and rule", expected, by);
    if judged.answer != "forward" && !judged.answer.is_empty() {
        compare("details", &judged.details, text("response_code_details"));
    }
    wrong
}

#[test]
fn a_difference_is_noticed() {
    let ask: Ask = serde_saphyr::from_str("{from: shop/viewer, send: GET /}").unwrap();
    let judged = Judged {
        answer: "403".into(),
        verdict: "deny",
        by: "shop/no#0".into(),
        ..Judged::default()
    };
    let apps = Apps::default();
    let ok = observe::parse(b"HTTP/1.1 200 OK\r\nlocation: /x\r\n\r\n{}", "1".into());
    assert_eq!(observe::compare(&judged, &ask, &ok, &apps).len(), 2);
    let denied = observe::parse(b"HTTP/1.1 403 Forbidden\r\n\r\n", "1".into());
    assert_eq!(observe::compare(&judged, &ask, &denied, &apps).len(), 0);
    let line = serde_json::json!({"verdict": "allow", "policy": null, "rule": null});
    assert_eq!(compare_line(&judged, &line).len(), 2);
}
