//! What becomes of a TCP stream: its route, the verdict, where it may go. The calls are those of
//! `proxy::tcp_open`.

use cairn_authz::Attestation;
use cairn_config_schema::snapshot::{AppProtocol, HostPattern, ServerNames, StreamMatch};
use cairn_filters::Failure;
use cairn_filters::chain::{StreamView, tcp_facts};
use cairn_routing::{FoundStream, ServerName};

use super::backends::of_streams;
use super::judge::{asked_of, name_of};
use super::report::{Backend, Refused, Report, Route};
use crate::listener::admit::Refusal;
use crate::runtime::{Runtime, Target};

/// Judges it. Without a server name, the client speaks no TLS.
pub(super) fn judge(
    report: &mut Report,
    runtime: &Runtime,
    target: &Target,
    server_name: Option<&str>,
) {
    let client = report.client.clone();
    let name = match server_name {
        Some(name) => ServerName::Named(name.to_ascii_lowercase().into()),
        None => ServerName::NotTls,
    };
    let view = StreamView {
        peer: Some(&client.identity),
        attested_by: Attestation::Certificate,
        source_ip: client.ip,
        destination: target.destination,
        found: None,
    };
    let chain = &target.chain;
    let found = chain.route_stream(&view, &name);
    let view = StreamView {
        found: Some(&found),
        ..view
    };
    let facts = tcp_facts(&view);
    let verdict = match chain.consult_tcp(&view) {
        Err(question) => {
            report.verdict = Some(chain.policies().explain(&facts));
            question.denied()
        }
        Ok(questions) => {
            report.asks = questions.iter().map(asked_of).collect();
            report.verdict = Some(chain.policies().explain_settled(&facts));
            chain.decide_tcp_settled(&view)
        }
    };
    if !matches!(found, FoundStream::Default) {
        report.route = Some(route(&found));
    }
    // Only a port that declares TCP is known to be TCP when CONNECT is answered, and a server name is
    // read after it.
    let asks = chain.asks_for_server_name(view.peer);
    let early = target.protocol == AppProtocol::Tcp;
    let refused = |refusal: Refusal, early: bool, reason: &str| Refused {
        phase: if early { "connect" } else { "stream" },
        status: early.then(|| refusal.status().as_u16()),
        reason: reason.to_owned(),
    };
    if !verdict.allowed {
        let early = early && (!asks || verdict.network.is_none());
        report.refused = Some(refused(Refusal::PolicyDenied, early, "policy denies it"));
        return;
    }
    let early = early && !asks;
    if let Err(failure) = chain.stream_backend(&found, 0)
        && !matches!(
            failure,
            Failure::InvalidBackend(_) | Failure::UnknownDestination(_)
        )
    {
        report.refused = Some(refused(Refusal::NoRoute, early, failure.reason()));
        return;
    }
    report.backends = match found.rule() {
        Some(rule) => of_streams(rule, runtime),
        None => {
            let mut backend = Backend::new(name_of(target), 1, 100.0);
            backend.fill(Some(&target.cluster), false);
            vec![backend]
        }
    };
    report.passes = (report.backends.iter()).all(|b| b.answer.is_none() && !b.endpoints.is_empty());
    if report.backends.iter().all(|b| b.endpoints.is_empty()) {
        let reason = "no backend has an endpoint";
        report.refused = Some(refused(Refusal::NoEndpoint, early, reason));
    }
}

fn route(found: &FoundStream) -> Route {
    match found {
        FoundStream::Default => Route::Default,
        FoundStream::NoMatch => Route::None,
        FoundStream::Rule(reference) => Route::Rule {
            route: reference.route.origin.clone(),
            rule: reference.rule,
            name: reference
                .rule()
                .and_then(|rule| rule.name.as_deref().map(str::to_owned)),
            matched: reference.matched().map(match_words).unwrap_or_default(),
        },
    }
}

fn match_words(matched: &StreamMatch) -> String {
    let name = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::EndsWith(end) => format!("*{end}"),
    };
    let mut words = vec![match &matched.server_names {
        None => "any connection".to_owned(),
        Some(ServerNames::Any) => "any TLS".to_owned(),
        Some(ServerNames::Of(names)) => {
            let names: Vec<String> = names.iter().map(name).collect();
            format!("server name {}", names.join(" or "))
        }
    }];
    let networks: Vec<String> = matched
        .destinations
        .iter()
        .map(ToString::to_string)
        .collect();
    if !networks.is_empty() {
        words.push(format!("to {}", networks.join(" or ")));
    }
    let caller = matched.caller_namespace.iter();
    words.extend(caller.map(|namespace| format!("caller of namespace {namespace}")));
    let labels = matched.caller_labels.iter();
    words.extend(labels.map(|(key, value)| format!("caller with {key}={value}")));
    words.join(", ")
}
