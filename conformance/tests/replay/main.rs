//! The golden cases over real sockets: what the engine says to an ask is what `cairn run` does, what
//! its access log tells and what `cairn explain` explains (DESIGN section 5: the same input gives
//! the same verdict everywhere). Asks from an address that loopback has not are left out.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod explain;
mod observe;
mod waypoint;

use std::path::Path;

use cairn_conformance::golden::engine::{Judged, judge};
use cairn_conformance::golden::format::{Ask, Stage};
use cairn_conformance::golden::{cases, stages};
use observe::Observed;
use waypoint::{Apps, Replay};

#[tokio::test]
async fn the_data_path_does_what_the_engine_says() {
    let mut apps = Apps::default();
    let mut wrong = Vec::new();
    let mut asked = 0;
    for (name, case) in cases() {
        let found = replay(&case, &mut apps, &mut asked).await;
        wrong.extend(found.into_iter().map(|w| format!("{name}: {w}")));
    }
    println!("{asked} asks");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What differs in one case.
async fn replay(case: &Path, apps: &mut Apps, asked: &mut u32) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut replay = Replay::default();
    for (at, stage) in stages(case).unwrap().into_iter().enumerate() {
        let snapshot = replay.stage(case, &stage).await;
        apps.start(&snapshot);
        let mut seen = Vec::new();
        for ask in askable(&stage) {
            *asked += 1;
            let judged = judge(&snapshot, &ask);
            // No provider runs here; tests/e2e/ext_authz.rs has some.
            if let Some(judged) = judged.as_ref().filter(|j| !j.asks.is_empty()) {
                let differences = explain::compare(&replay, &ask, judged).await;
                wrong.extend(differences.iter().map(|d| format!("{}: {d}", ask.shown())));
                continue;
            }
            let accepted = snapshot
                .mesh
                .accepts_trust_domain(ask.peer().trust_domain());
            let observed = replay.ask(&snapshot, &ask).await;
            let differences = match (accepted, &judged, &observed) {
                (false, _, Observed::NoTunnel(_)) => Vec::new(),
                (false, _, other) => vec![format!("a foreign peer got {other:?}")],
                (true, None, Observed::Refused(_)) => Vec::new(),
                (true, None, other) => vec![format!("not refused: {other:?}")],
                (true, Some(judged), observed) => {
                    let mut differences = observe::compare(judged, &ask, observed, apps);
                    if at == 0 || stage.fresh {
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

/// The asks that can be sent from a loopback address.
fn askable(stage: &Stage) -> impl Iterator<Item = Ask> {
    stage
        .asks
        .iter()
        .map(|ask| ask.with_defaults(&stage.default))
        .filter(|ask| ask.ip.is_none())
        .map(waypoint::on_loopback_ask)
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
    let policy = text("policy").replacen("AuthorizationPolicy/", "", 1);
    let by = match (policy.as_str(), line["rule"].as_u64()) {
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
