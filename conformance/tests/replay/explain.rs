//! Whether `cairn explain` says what the engine says.

use std::process::Command;

use cairn_config_schema::origin::ObjectKey;
use cairn_conformance::golden::engine::Judged;
use cairn_conformance::golden::format::Ask;
use cairn_conformance::workspace;
use serde_json::Value;

use crate::apart::is_tcp_on_http;
use crate::waypoint::Replay;

/// What differs, where the configuration of the stage is all there is to know: `explain` has no memory
/// of a last good version.
pub async fn compare(replay: &Replay, ask: &Ask, judged: &Judged) -> Vec<String> {
    let explained = explain(replay, ask, judged).await;
    let verdict = &explained["verdict"];
    if is_tcp_on_http(ask, judged) {
        return match (verdict, explained["answer"]["status"].as_u64()) {
            (Value::Null, Some(400)) => Vec::new(),
            _ => vec![format!("explain takes a stream for HTTP: {explained}")],
        };
    }
    let mut wrong = Vec::new();
    let allowed = match judged.verdict {
        "allow" => Value::Bool(true),
        "deny" => Value::Bool(false),
        _ => Value::Null,
    };
    if verdict["allowed"] != allowed {
        wrong.push(format!(
            "explain's verdict is {}, expected {allowed}",
            verdict["allowed"]
        ));
    }
    let policy = &verdict["policy"]["key"];
    let by = match (policy["name"].as_str(), verdict["rule"].as_u64()) {
        (None, _) if judged.by.is_empty() => String::new(),
        (None, _) => "none".to_owned(),
        (Some(name), rule) => {
            let namespace = policy["namespace"].as_str().unwrap_or_default();
            let rule = rule.map_or_else(String::new, |rule| format!("#{rule}"));
            // Without a namespace, as it is with those of the cluster, there is no slash either.
            format!("{}{rule}", ObjectKey::new(namespace, name))
        }
    };
    if by != judged.by {
        wrong.push(format!("explain names {by}, expected {}", judged.by));
    }
    let answer = &explained["answer"];
    if let Ok(status) = judged.answer.parse::<u16>() {
        let right = match judged.grpc {
            Some(grpc) => answer["grpc_status"] == grpc,
            None => answer["status"] == status,
        };
        if !right {
            wrong.push(format!("explain answers {answer}, expected {status}"));
        }
    }
    if !judged.location.is_empty() && answer["location"] != judged.location.as_str() {
        wrong.push(format!("explain's location is {}", answer["location"]));
    }
    wrong
}

/// What differs for a peer of a trust domain that is not accepted, whom TLS does not let in.
pub async fn compare_foreign(replay: &Replay, ask: &Ask, judged: &Judged) -> Vec<String> {
    let explained = explain(replay, ask, judged).await;
    match explained["refused"]["phase"].as_str() {
        Some("handshake") => Vec::new(),
        _ => vec![format!("explain lets a foreign peer in: {explained}")],
    }
}

async fn explain(replay: &Replay, ask: &Ask, judged: &Judged) -> Value {
    let mut command = Command::new(workspace::cairn());
    command.arg("explain").arg("--config").arg(replay.config());
    if let Some(gateway) = replay.gateway() {
        command.args(["--gateway", gateway]);
    }
    command
        .args(["--from", ask.peer().uri()])
        .args(["--from-ip", &replay.source(ask).to_string()])
        .args(["--to", &judged.address.unwrap().to_string()])
        .args(["-o", "json"]);
    if let Some(name) = ask.server_name() {
        command.args(["--sni", name]);
    }
    if ask.is_tcp() {
        command.arg("--tcp");
    } else {
        let (method, target) = ask.method_and_target();
        command.args(["--method", method.as_str(), "--path", target]);
        for (name, value) in &ask.header_map() {
            command.args(["-H", &format!("{name}: {}", value.to_str().unwrap())]);
        }
    }
    let output = tokio::task::spawn_blocking(move || command.output().expect("cairn runs"));
    let output = output.await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        let error = String::from_utf8_lossy(&output.stderr);
        panic!("explain of {}: {e}: {error}", ask.shown())
    })
}
