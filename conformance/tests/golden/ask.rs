//! Compares what the engine says to an ask with what its case expects.

use std::collections::BTreeMap;

use cairn_config_schema::snapshot::Snapshot;
use cairn_conformance::golden::chain;
use cairn_conformance::golden::engine::{Judged, judge};
use cairn_conformance::golden::format::{Answer, Ask, Full};
use http::HeaderMap;

const SHARE_TOLERANCE_POINTS: f64 = 1.5;

/// What differs; empty when all is as expected.
pub fn run(snapshot: &Snapshot, ask: &Ask) -> Vec<String> {
    let expected = ask.expected();
    let mut wrong = Wrong::default();
    match (judge(snapshot, ask), word(&expected.answer).as_deref()) {
        (None, Some("refused")) => {}
        (None, _) => wrong.push(format!("refused, expected {expected:?}")),
        (Some(_), Some("refused")) => wrong.push("served, expected to be refused".into()),
        (Some(judged), answer) => {
            let answer = answer.filter(|word| *word != "served").map(str::to_owned);
            wrong.compare("answer", &answer, &judged.answer);
            compare(&judged, &expected, &mut wrong);
            if !expected.chain.is_empty() {
                compare_chain(&chain::of(snapshot, ask), &expected, &mut wrong);
            }
        }
    }
    wrong.list
}

fn word(answer: &Option<Answer>) -> Option<String> {
    match answer {
        Some(Answer::Status(status)) => Some(status.to_string()),
        Some(Answer::Word(word)) => Some(word.clone()),
        None => None,
    }
}

#[derive(Default)]
struct Wrong {
    list: Vec<String>,
}

impl Wrong {
    fn push(&mut self, text: String) {
        self.list.push(text);
    }

    fn compare(&mut self, what: &str, expected: &Option<String>, found: &str) {
        if let Some(expected) = expected
            && *expected != found
        {
            self.push(format!("{what} is {found:?}, expected {expected:?}"));
        }
    }
}

fn compare(judged: &Judged, expected: &Full, wrong: &mut Wrong) {
    wrong.compare("protocol", &expected.protocol, judged.protocol);
    wrong.compare("verdict", &expected.verdict, judged.verdict);
    wrong.compare("by", &expected.by, &judged.by);
    wrong.compare("details", &expected.details, &judged.details);
    wrong.compare("location", &expected.location, &judged.location);
    wrong.compare("route", &expected.route, &judged.route);
    wrong.compare("path", &expected.path, &judged.path);
    if let Some(part) = &expected.reason
        && !judged.reason.contains(part.as_str())
    {
        wrong.push(format!(
            "reason is {:?}, expected {part:?} in it",
            judged.reason
        ));
    }
    if judged.asks != expected.asks {
        wrong.push(format!(
            "asks {:?}, expected {:?}",
            judged.asks, expected.asks
        ));
    }
    for (what, expected, found) in [
        ("audit", &expected.audit, &judged.audit),
        ("dry-run", &expected.dry_run, &judged.dry_run),
    ] {
        if expected.as_ref().is_some_and(|expected| expected != found) {
            wrong.push(format!("{what} is {found:?}, expected {expected:?}"));
        }
    }
    let verdict = &expected.dry_run_verdict;
    wrong.compare("dry-run-verdict", verdict, &judged.dry_run_verdict);
    if expected.grpc.is_some() && judged.grpc != expected.grpc {
        wrong.push(format!(
            "grpc is {:?}, expected {:?}",
            judged.grpc, expected.grpc
        ));
    }
    compare_backends(judged, expected, wrong);
    let (request, response) = (&judged.request_headers, &judged.response_headers);
    compare_headers("request", request, &expected.request_headers, wrong);
    compare_headers("response", response, &expected.response_headers, wrong);
}

/// Each link that is expected, with its policies if they are.
fn compare_chain(found: &BTreeMap<String, String>, expected: &Full, wrong: &mut Wrong) {
    for (link, expected) in &expected.chain {
        let found = found.get(link).map_or("absent", String::as_str);
        let outcome = found.split(' ').next().unwrap_or_default();
        if found != expected && outcome != expected {
            wrong.push(format!("chain {link} is {found:?}, expected {expected:?}"));
        }
    }
}

fn compare_backends(judged: &Judged, expected: &Full, wrong: &mut Wrong) {
    let all_to_one = judged
        .shares
        .keys()
        .next()
        .filter(|_| judged.shares.len() == 1);
    let backend = all_to_one.map_or("", String::as_str);
    wrong.compare("backend", &expected.backend, backend);
    if let Some(expected) = &expected.shares {
        let close = |(to, share): (&String, &f64)| {
            let found = judged.shares.get(to).copied().unwrap_or_default();
            (found - share).abs() <= SHARE_TOLERANCE_POINTS
        };
        if judged.shares.len() != expected.len() || !expected.iter().all(close) {
            wrong.push(format!(
                "shares are {:?}, expected {expected:?}",
                judged.shares
            ));
        }
    }
    if let Some(expected) = &expected.endpoints {
        let found: Vec<String> = judged
            .endpoints
            .get(backend)
            .into_iter()
            .flatten()
            .map(ToString::to_string)
            .collect();
        if found != *expected {
            wrong.push(format!("endpoints are {found:?}, expected {expected:?}"));
        }
    }
}

fn compare_headers(
    what: &str,
    found: &HeaderMap,
    expected: &BTreeMap<String, Option<String>>,
    wrong: &mut Wrong,
) {
    for (name, expected) in expected {
        let values: Vec<_> = found
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        let found = (!values.is_empty()).then(|| values.join(","));
        if found != *expected {
            wrong.push(format!(
                "{what} header {name} is {found:?}, expected {expected:?}"
            ));
        }
    }
}
