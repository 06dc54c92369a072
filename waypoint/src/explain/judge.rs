//! Asks the engine: the runtime what an address stands for, the chain what becomes of a request. The
//! steps are those of `proxy::http` and `proxy::tcp`; each is the same call.

use std::net::SocketAddr;
use std::sync::Arc;

use cairn_authz::jwt::{self, KeySets, Login, Memory, Status};
use cairn_authz::{Attestation, Token, Verdict};
use cairn_config_schema::diagnostics::Severity;
use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{
    AbortAnswer, AppProtocol, CheckProtocol, ClaimMatch, ExternalProvider, HttpMatch, PathMatch,
    SHARE_PARTS, Snapshot, TextMatch,
};
use cairn_filters::authority;
use cairn_filters::chain::{
    Answer as Decided, Authenticated, Decision, External, PortChain, RequestView, facts,
    trial_facts,
};
use cairn_filters::outcome::{LocalReply, Outcome, is_grpc};
use cairn_routing::Found;
use http::header::{HOST, HeaderValue};
use http::{HeaderMap, Method};

use super::backends::backends;
use super::destination::{asked, why_not_served};
use super::report::{Answer, Asked, Client, Destination, HttpRequest, Refused, Report, Route};
use super::{chain, streams};
use crate::listener::admit::Refusal;
use crate::names::Names;
use crate::runtime::{Runtime, Target};

/// A waypoint fetches keys; a question about files does not.
const NO_KEYS: &str = "; explain fetches no keys: --jwks gives them";

/// Why no policy is asked about a stream: there is no request.
const NO_HTTP: &str = "the port declares HTTP, and the stream speaks none";

/// One request, or TCP stream.
pub struct Question<'a> {
    /// Who asks, see [`super::client`].
    pub from: Client,
    /// For what: service name, virtual IP or pod IP, and port.
    pub to: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Path and query as the client sends them.
    pub path: &'a str,
    /// Headers as the client sends them; `host` is `to` if it is not among them.
    pub headers: HeaderMap,
    /// No HTTP is spoken.
    pub tcp: bool,
    /// The server name of its TLS, which no HTTP is seen in either.
    pub server_name: Option<&'a str>,
    /// Keys for the sources that a waypoint would fetch from.
    pub keys: KeySets,
    /// Seconds since 1970: when it is asked.
    pub now_s: i64,
}

/// What becomes of it under this configuration.
///
/// # Errors
/// When `to` can not be understood. That it is not served is an answer, not an error.
pub fn judge(snapshot: Snapshot, question: Question<'_>) -> anyhow::Result<Report> {
    judge_on(
        &Runtime::compile(Arc::new(snapshot), None, &Names::default()),
        question,
    )
}

/// What becomes of it under this configuration, made ready to run.
///
/// # Errors
/// As [`judge`].
pub fn judge_on(runtime: &Runtime, question: Question<'_>) -> anyhow::Result<Report> {
    let snapshot = &*runtime.snapshot;
    let asked = asked(question.to, &question.from, snapshot)?;
    let errors = snapshot.diagnostics.iter();
    let errors = errors.filter(|d| d.severity == Severity::Error);
    let mut report = Report {
        passes: false,
        to: question.to.to_owned(),
        destination: None,
        refused: None,
        request: None,
        asks: Vec::new(),
        verdict: None,
        request_principal: None,
        route: None,
        faults: Vec::new(),
        answer: None,
        backends: Vec::new(),
        chain: Vec::new(),
        configuration_errors: errors.count(),
        client: question.from,
    };
    let trust_domain = report.client.identity.trust_domain();
    if !snapshot.mesh.accepts_trust_domain(trust_domain) {
        report.refused = Some(Refused {
            phase: "handshake",
            status: None,
            reason: format!("trust domain {trust_domain} is not accepted"),
        });
        return Ok(report);
    }
    let target = match runtime.find(&asked, report.client.identity.namespace()) {
        Ok(target) => target,
        Err(refusal) => {
            let why = why_not_served(
                &asked,
                report.client.identity.namespace(),
                &runtime.snapshot,
            );
            report.refused = Some(refused(refusal, why, &runtime.snapshot));
            return Ok(report);
        }
    };
    let speaks_none = question.tcp || question.server_name.is_some();
    let tcp = match target.protocol {
        AppProtocol::Tcp => true,
        AppProtocol::Sniff => speaks_none,
        // Taken for HTTP whatever comes (`listener::protocol`).
        _ => false,
    };
    report.destination = Some(Destination {
        address: target.destination,
        service: target.service.as_ref().map(|s| s.key.to_string()),
        protocol: target.protocol,
        taken_as: if tcp { "tcp" } else { "http" },
    });
    if tcp {
        streams::judge(&mut report, runtime, &target, question.server_name);
    } else if speaks_none {
        report.answer = Some(Answer {
            reason: Some(NO_HTTP.to_owned()),
            ..Answer::of(Outcome::BadRequest, false)
        });
    } else {
        let request = Request {
            method: question.method,
            path: question.path,
            headers: question.headers,
            to: question.to,
            keys: question.keys,
            now_s: question.now_s,
        };
        request.judge(&mut report, runtime, &target);
    }
    report.chain = chain::of(&runtime.snapshot, &report);
    Ok(report)
}

fn refused(refusal: Refusal, why: Option<String>, snapshot: &Snapshot) -> Refused {
    let blocked = snapshot
        .waypoint
        .as_ref()
        .and_then(|w| w.blocked.as_deref());
    let reason = match (refusal, blocked) {
        (Refusal::NoGateway, Some(blocked)) => blocked.to_owned(),
        (Refusal::NoGateway, None) => "there is no Gateway to serve".to_owned(),
        _ => why
            .unwrap_or_else(|| "nothing in the configuration has this address or name".to_owned()),
    };
    Refused {
        phase: "connect",
        status: Some(refusal.status().as_u16()),
        reason,
    }
}

pub(super) fn name_of(target: &Target) -> String {
    match &target.service {
        Some(_) => target.cluster.key().to_string(),
        None => target.destination.to_string(),
    }
}

struct Request<'a> {
    method: &'a Method,
    path: &'a str,
    headers: HeaderMap,
    to: &'a str,
    keys: KeySets,
    now_s: i64,
}

impl Request<'_> {
    /// Who it is from, and who it would be from with what is tried.
    fn authenticate(&self, chain: &PortChain) -> (Authenticated, Option<Authenticated>) {
        let asked = jwt::Request {
            method: self.method,
            headers: &self.headers,
            query: self.path.split_once('?').map(|(_, query)| query),
        };
        let mut memory = Memory::new();
        let mut login = chain.authenticate(&asked, &self.keys, &mut memory, self.now_s);
        let trial = chain.try_token(&asked, &self.keys, &mut memory, self.now_s);
        if let Err(failure) = &mut login
            && failure.status == Status::NoKeys
        {
            failure.reason.push_str(NO_KEYS);
        }
        (login, trial)
    }

    fn judge(mut self, report: &mut Report, runtime: &Runtime, target: &Target) {
        let host = default_host(self.to, target.destination);
        self.headers.entry(HOST).or_insert(host);
        let grpc = is_grpc(&self.headers);
        let authority = match authority::of_request(None, &self.headers) {
            Ok(authority) => authority.into_owned(),
            Err(error) => {
                report.answer = Some(Answer {
                    reason: Some(error.to_string()),
                    ..Answer::of(Outcome::BadAuthority, grpc)
                });
                return;
            }
        };
        let client = report.client.identity.clone();
        let id = || HeaderValue::from_static("(generated)");
        target
            .chain
            .clean(&mut self.headers, None, Some(&client), id);
        let (login, trial) = self.authenticate(&target.chain);
        let view = RequestView {
            peer: Some(&client),
            attested_by: Attestation::Certificate,
            source_ip: report.client.ip,
            destination: target.destination,
            method: self.method,
            target: self.path,
            authority: &authority,
            headers: &self.headers.clone(),
            login: Some(&login),
            trial: trial.as_ref(),
            external: External::Unasked,
        };
        let consultation = target.chain.consult(&view);
        report.asks = consultation.questions.iter().map(asked_of).collect();
        target.chain.take_token(&login, &mut self.headers);
        let token = login.as_ref().ok().and_then(Login::token);
        report.request_principal = token.and_then(Token::principal);
        let view = RequestView {
            headers: &self.headers,
            external: External::Settled(consultation.route.as_ref()),
            ..view
        };
        let decision = target.chain.decide(&view);
        report.request = Some(HttpRequest {
            method: self.method.to_string(),
            authority: authority.clone(),
            sent: self.path.to_owned(),
            normalised: decision
                .target
                .as_ref()
                .map(|t| t.path_and_query().into_owned()),
        });
        report.route = decision.found.as_ref().map(route);
        let explain = |verdict: Option<&Verdict>| {
            let (normalised, found) = (decision.target.as_ref()?, decision.found.as_ref());
            let facts = facts(&view, normalised, found);
            let in_trial = trial_facts(&view, normalised, found);
            let policies = target.chain.policies();
            Some(policies.explain_verdict(verdict?, &facts, &in_trial))
        };
        let allowed_by: Vec<_> = (consultation.questions.iter())
            .map(|question| question.provider.clone())
            .collect();
        if let Some(question) = target.chain.unasked(&view, &allowed_by) {
            let verdict = question.denied();
            report.verdict = explain(Some(&verdict));
            return too_late(report, &question, &verdict, grpc);
        }
        report.verdict = explain(decision.verdict.as_ref());
        report.asks.extend(asked_by_filters(&decision));
        report.answer = answer(&decision, grpc);
        if decision.answer == Decided::Forward {
            report.faults = fault_words(&decision);
            report.backends = backends(&decision, runtime, target, &self.headers, grpc);
            report.passes = report.backends.iter().all(|b| b.answer.is_none());
        } else {
            report.passes = matches!(decision.answer, Decided::Redirect { .. });
        }
    }
}

/// What becomes of a request that somebody should have been asked about.
fn too_late(report: &mut Report, question: &cairn_authz::Question, verdict: &Verdict, grpc: bool) {
    let reason = question.too_late();
    if let Some(explanation) = &mut report.verdict {
        explanation.reason.clone_from(&reason);
    }
    report.answer = Some(Answer {
        details: verdict.response_code_details().unwrap_or_default(),
        reason: Some(reason),
        ..Answer::of(Outcome::Denied, grpc)
    });
}

pub(super) fn asked_of(question: &cairn_authz::Question) -> Asked {
    let policy = question.policy.origin.clone();
    to_be_asked(&question.provider, policy, question.rule)
}

/// Whom the ExternalAuth filters of its rule and of the rule's backends ask: of these the one that it
/// goes to.
fn asked_by_filters(decision: &Decision<'_>) -> Vec<Asked> {
    let Some(Found::Rule(rule)) = &decision.found else {
        return Vec::new();
    };
    let backends = decision.backends().iter().filter(|b| b.weight > 0);
    let of_backends = backends.filter_map(|b| decision.external_auth_of(Some(b)));
    let asked = decision.external_auth().into_iter().chain(of_backends);
    asked
        .map(|provider| to_be_asked(provider, rule.route.origin.clone(), rule.rule))
        .collect()
}

fn to_be_asked(provider: &ExternalProvider, policy: Origin, rule: usize) -> Asked {
    Asked {
        provider: provider.name.to_string(),
        service: provider.cluster.to_string(),
        protocol: match provider.protocol {
            CheckProtocol::Http(_) => "http",
            CheckProtocol::Grpc(_) => "grpc",
        },
        fails_open: provider.fail_open,
        policy,
        rule,
    }
}

/// Host as an HTTP client would send it: without the port when that is HTTP's own.
fn default_host(to: &str, destination: SocketAddr) -> HeaderValue {
    let host = match to.strip_suffix(&format!(":{}", destination.port())) {
        Some(host) if destination.port() == 80 => host,
        _ => to,
    };
    HeaderValue::from_str(host).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
}

fn route(found: &Found) -> Route {
    match found {
        Found::Default => Route::Default,
        Found::NoMatch => Route::None,
        Found::Rule(reference) => Route::Rule {
            route: reference.route.origin.clone(),
            rule: reference.rule,
            name: reference
                .rule()
                .and_then(|r| r.name.as_deref().map(str::to_owned)),
            matched: reference.matched().map(match_words).unwrap_or_default(),
        },
    }
}

fn fault_words(decision: &Decision<'_>) -> Vec<String> {
    let Some(Found::Rule(reference)) = &decision.found else {
        return Vec::new();
    };
    let fault = reference.rule().and_then(|r| r.traffic.fault.as_deref());
    let percent = |share: u32| f64::from(share) * 100.0 / f64::from(SHARE_PARTS);
    let delay = fault.and_then(|f| f.delay);
    let delay = delay.map(|d| format!("{} % wait {} ms", percent(d.share), d.delay_ms));
    let abort = fault.and_then(|f| f.abort).map(|a| {
        let answer = match a.answer {
            AbortAnswer::Http(status) => status.as_u16().to_string(),
            AbortAnswer::Grpc(status) => format!("gRPC status {status}"),
        };
        format!("{} % are answered {answer}", percent(a.share))
    });
    delay.into_iter().chain(abort).collect()
}

fn match_words(matched: &HttpMatch) -> String {
    let text = |value: &TextMatch| match value {
        TextMatch::Exact(value) => format!("= {value}"),
        TextMatch::Prefix(value) => format!("begins with {value}"),
        TextMatch::Present => "present".to_owned(),
        TextMatch::Regex(pattern) => format!("~ {}", pattern.source()),
    };
    let mut words = vec![match &matched.path {
        PathMatch::Exact(path) => format!("path = {path}"),
        PathMatch::Prefix(prefix) if prefix.is_empty() => "any path".to_owned(),
        PathMatch::Prefix(prefix) => format!("path prefix {prefix}"),
        PathMatch::Begins { text, ignore_case } => match ignore_case {
            false => format!("path begins with {text}"),
            true => format!("path begins with {text} in any case"),
        },
        PathMatch::Regex(pattern) => format!("path ~ {}", pattern.source()),
    }];
    words.extend(matched.method.as_ref().map(|m| format!("method {m}")));
    let headers = matched.headers.iter();
    words.extend(headers.map(|h| format!("header {} {}", h.name, text(&h.value))));
    let query = matched.query.iter();
    words.extend(query.map(|q| format!("query {} {}", q.name, text(&q.value))));
    if let Some(more) = &matched.more {
        words.extend(more.method.as_ref().map(|m| format!("method {}", text(m))));
        let without = more.without_headers.iter();
        words.extend(without.map(|h| format!("not header {} {}", h.name, text(&h.value))));
        let caller = more.caller_namespace.iter();
        words.extend(caller.map(|namespace| format!("caller of namespace {namespace}")));
        let labels = more.caller_labels.iter();
        words.extend(labels.map(|(key, value)| format!("caller with {key}={value}")));
        let claim = |c: &ClaimMatch| format!("claim {} {}", c.path.join("."), text(&c.value));
        words.extend(more.claims.iter().map(claim));
        let without = more.without_claims.iter();
        words.extend(without.map(|c| format!("not {}", claim(c))));
    }
    words.join(", ")
}

fn answer(decision: &Decision<'_>, grpc: bool) -> Option<Answer> {
    let outcome = decision.answer.outcome()?;
    // A redirect is a redirect, to gRPC too.
    let grpc = grpc && !matches!(outcome, Outcome::Redirected | Outcome::DirectResponse);
    let mut answer = Answer::of(outcome, grpc);
    if let Some(details) = decision.details() {
        answer.details = details.into_owned();
    }
    answer.reason = decision.reason().map(|reason| reason.into_owned());
    if let Decided::Unauthenticated(failure) = &decision.answer {
        answer.body = failure.status.message().to_owned();
    }
    if let Decided::Direct(direct) = &decision.answer {
        answer.status = direct.status.as_u16();
        answer.body = String::from_utf8_lossy(&direct.body).into_owned();
    }
    if let Decided::Redirect { status, location } = &decision.answer {
        answer.status = status.as_u16();
        answer.location = Some(String::from_utf8_lossy(location.as_bytes()).into_owned());
    }
    Some(answer)
}

impl Answer {
    pub(super) fn of(outcome: Outcome, grpc: bool) -> Self {
        let row = outcome.row();
        let LocalReply {
            status,
            grpc_status,
            grpc_message,
            body,
            ..
        } = outcome.reply(grpc);
        Self {
            status: status.as_u16(),
            grpc_status,
            body: if grpc { grpc_message } else { body }.to_owned(),
            location: None,
            flag: if row.flag.is_empty() { "-" } else { row.flag }.to_owned(),
            details: row.details.to_owned(),
            reason: None,
        }
    }
}
