//! The whole way of an ask, as `cairn explain` shows it: what the CNI and ztunnel make of it, too.

use std::collections::BTreeMap;

use cairn_authz::jwt::KeySets;
use cairn_config_schema::snapshot::Snapshot;
use cairn_waypoint::explain::{Client, Link, LinkOutcome, Question, judge};
use http::Method;

use super::format::Ask;
use super::tokens;

/// The links by their names: the outcome, and behind it the policies that decide. Several of one name
/// are parted by `; `.
pub fn of(snapshot: &Snapshot, ask: &Ask) -> BTreeMap<String, String> {
    let (method, path) = match ask.is_tcp() {
        true => (Method::GET, "/"),
        false => ask.method_and_target(),
    };
    let report = judge(
        snapshot.clone(),
        Question {
            from: Client {
                identity: ask.peer(),
                ip: ask.source_ip(),
                pod: None,
            },
            to: ask.to(),
            method: &method,
            path,
            headers: ask.header_map(),
            tcp: ask.is_tcp(),
            server_name: ask.server_name(),
            keys: KeySets::default(),
            now_s: tokens::NOW_S,
        },
    );
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    for link in report.expect("a question that can be asked").chain {
        let shown = shown(&link);
        let there = links.entry(link.link.to_owned()).or_default();
        match there.is_empty() {
            true => *there = shown,
            false => *there = format!("{there}; {shown}"),
        }
    }
    links
}

fn shown(link: &Link) -> String {
    let outcome = match link.outcome {
        LinkOutcome::Passes => "passes",
        LinkOutcome::Denied => "denied",
        LinkOutcome::Unknown => "unknown",
    };
    let policies: Vec<String> = link.policies.iter().map(|p| p.key.to_string()).collect();
    format!("{outcome} {}", policies.join(","))
        .trim_end()
        .to_owned()
}
