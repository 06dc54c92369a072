//! A rule of an AuthorizationPolicy as items of a CiliumNetworkPolicy: who, on which ports, and which
//! requests. Of an ALLOW rule what can not be said is left out; of a DENY rule nothing may be.

use std::collections::BTreeSet;

use http::header::{COOKIE, HOST, HeaderName};
use serde_json::{Map, Value, json};

use super::report::Outcome;
use super::texts;
use super::who::{self, Who};
use crate::limits::TRANSLATED_HTTP_RULES_MAX;
use crate::snapshot::{
    AppProtocol, Condition, Mesh, Operation, PathPattern, PolicyRule, ServicePort, StringMatch,
    Values,
};

/// What is to be told of parts of a rule: where in it, what becomes of it, and why.
pub(super) type Notes = Vec<(String, Outcome, String)>;

/// What a rule says.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub who: Vec<Who>,
    operations: Vec<Asked>,
    ports: Vec<Values<u16>>,
    /// Something of it only HTTP has: a TCP stream does not match it (specs/istio-waypoint.md 4.8).
    needs_http: bool,
}

/// One item of `to`.
#[derive(Clone, Debug, Default)]
struct Asked {
    ports: Values<u16>,
    http: Vec<Value>,
}

impl Said {
    /// On a port of the Service: the HTTP rules, of which one must match. `None`: it is not about the port.
    /// `Some(None)`: whatever is spoken.
    pub fn on(&self, port: &ServicePort) -> Option<Option<Vec<Value>>> {
        // Istio drops a rule on HTTP where the port is declared to be none.
        if self.needs_http && port.protocol == AppProtocol::Tcp {
            return None;
        }
        let port = port.number;
        let holds = |values: &Values<u16>| {
            let any_of = values.any_of.is_empty() || values.any_of.contains(&port);
            any_of && !values.none_of.contains(&port)
        };
        if !self.ports.iter().all(holds) {
            return None;
        }
        let of_port = self.operations.iter().filter(|asked| holds(&asked.ports));
        let asked: Vec<&Asked> = of_port.collect();
        if asked.is_empty() {
            return None;
        }
        if !self.needs_http {
            return Some(None);
        }
        let http: Vec<Value> = asked.iter().flat_map(|asked| asked.http.clone()).collect();
        (!http.is_empty()).then_some(Some(http))
    }

    /// Whether it asks for nothing that a connection does not have.
    pub fn is_of_connections(&self) -> bool {
        !self.needs_http
    }
}

/// Reads a rule that is not broken.
pub(super) fn read(rule: &PolicyRule, mesh: &Mesh, notes: &mut Notes) -> Said {
    let mut left_out = |path: String, what: String| {
        let why = format!("Cilium can not say {what}: it is left out");
        notes.push((path, Outcome::Narrower, why));
    };
    let mut said = Said {
        who: sources(rule, mesh, &mut left_out),
        needs_http: needs_http(rule),
        ..Said::default()
    };
    let mut headers: Vec<Vec<String>> = vec![Vec::new()];
    for (index, condition) in rule.when.iter().enumerate() {
        let path = format!("when[{index}]");
        let holds = match condition {
            Condition::DestinationPort(values) => {
                said.ports.push(values.clone());
                true
            }
            Condition::RequestHeader { name, values } => header(name, values, &mut headers),
            Condition::SourceNamespace(_)
            | Condition::SourcePrincipal(_)
            | Condition::SourceServiceAccount(_) => and_source(condition, mesh, &mut said.who),
            _ => false,
        };
        if !holds {
            left_out(
                path,
                "this condition, so that the rule allows nothing".to_owned(),
            );
            said.who.clear();
        }
    }
    let everything = [Operation::default()];
    let operations = match rule.to.as_slice() {
        [] => &everything[..],
        operations => operations,
    };
    let mut alternatives = 0_usize;
    for (index, operation) in operations.iter().enumerate() {
        let path = format!("to[{index}].operation");
        let mut missing =
            |field: &str| left_out(format!("{path}.{field}"), format!("this of {field}"));
        if let Some(asked) = of_operation(operation, &headers, &mut missing) {
            alternatives = alternatives.saturating_add(asked.http.len());
            said.operations.push(asked);
        }
    }
    if alternatives > TRANSLATED_HTTP_RULES_MAX {
        let why = format!(
            "it would be {alternatives} HTTP rules, and {TRANSLATED_HTTP_RULES_MAX} are the most"
        );
        notes.push((String::new(), Outcome::NotTranslated, why));
        said.who.clear();
    }
    said
}

/// Whether something of the rule only HTTP has: then no TCP stream matches any part of it.
fn needs_http(rule: &PolicyRule) -> bool {
    let by_source = rule
        .from
        .iter()
        .any(|source| !source.request_principals.is_empty());
    let by_operation = rule.to.iter().any(Operation::has_http_fields);
    let by_condition = rule.when.iter().any(|condition| {
        matches!(
            condition,
            Condition::RequestHeader { .. }
                | Condition::RequestPrincipal(_)
                | Condition::Audience(_)
                | Condition::Presenter(_)
                | Condition::Claim { .. }
        )
    });
    by_source || by_operation || by_condition
}

fn sources(rule: &PolicyRule, mesh: &Mesh, left_out: &mut impl FnMut(String, String)) -> Vec<Who> {
    if rule.from.is_empty() {
        return vec![Who::Anybody];
    }
    let mut all = Vec::new();
    for (index, source) in rule.from.iter().enumerate() {
        let (said, unsayable) = who::of_source(source, mesh);
        for field in unsayable {
            left_out(format!("from[{index}].source"), format!("this of {field}"));
        }
        all.extend(said);
    }
    all.sort();
    all.dedup();
    all
}

/// Narrows the sources by a condition on them. Returns whether it can be said.
fn and_source(condition: &Condition, mesh: &Mesh, who: &mut Vec<Who>) -> bool {
    let (said, whole) = match condition {
        Condition::SourceNamespace(values) => who::values(values, who::namespace),
        Condition::SourcePrincipal(values) => who::values(values, |v| who::principal(v, mesh)),
        Condition::SourceServiceAccount(values) => who::values(values, who::account),
        _ => return false,
    };
    if let Some(said) = said {
        *who = who::both(who, &said);
    }
    whole
}

/// Adds a header to each of the alternatives. Returns whether it can be said.
fn header(
    name: &HeaderName,
    values: &Values<StringMatch>,
    alternatives: &mut Vec<Vec<String>>,
) -> bool {
    // Cilium joins lines of cookies with a comma, Envoy's RBAC with a semicolon.
    if *name == COOKIE || *name == HOST || !values.none_of.is_empty() {
        return false;
    }
    let mut lines = BTreeSet::new();
    for value in &values.any_of {
        let line = match value {
            StringMatch::Any => name.to_string(),
            StringMatch::Exact(text) if is_plain(text) => format!("{name} {text}"),
            _ => return false,
        };
        lines.insert(line);
    }
    let with = |line: &String| {
        let line = line.clone();
        alternatives.iter().map(move |headers| {
            let mut headers = headers.clone();
            headers.push(line.clone());
            headers
        })
    };
    let all = lines
        .iter()
        .flat_map(with)
        .take(TRANSLATED_HTTP_RULES_MAX + 1);
    *alternatives = all.collect();
    true
}

/// Whether the text can stand behind the first space of a header rule.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// What one operation asks. `None`: nothing can match what can be said of it.
fn of_operation(
    operation: &Operation,
    headers: &[Vec<String>],
    left_out: &mut impl FnMut(&str),
) -> Option<Asked> {
    let negated = [
        ("notMethods", operation.methods.none_of.is_empty()),
        ("notPaths", operation.paths.none_of.is_empty()),
        ("notHosts", operation.hosts.none_of.is_empty()),
    ];
    if let Some((field, _)) = negated.iter().find(|(_, absent)| !absent) {
        left_out(field);
        return None;
    }
    let paths = paths(&operation.paths.any_of, left_out)?;
    let hosts: Vec<Option<String>> = match operation.hosts.any_of.as_slice() {
        [] => vec![None],
        // Istio compares hosts without their case.
        hosts => hosts
            .iter()
            .map(|host| Some(format!("(?i){}", texts::of_text(host)?)))
            .collect(),
    };
    let methods: Option<Vec<String>> = operation
        .methods
        .any_of
        .iter()
        .map(texts::of_text)
        .collect();
    let methods = methods.filter(|methods| !methods.is_empty());
    let mut http = Vec::new();
    let combined = paths
        .iter()
        .flat_map(|path| hosts.iter().map(move |host| (path, host)));
    let combined = combined.flat_map(|(path, host)| headers.iter().map(move |h| (path, host, h)));
    for (path, host, headers) in combined.take(TRANSLATED_HTTP_RULES_MAX + 1) {
        let mut rule = Map::new();
        if let Some(methods) = &methods {
            rule.insert("method".into(), json!(methods.join("|")));
        }
        rule.extend(path.as_ref().map(|path| ("path".to_owned(), json!(path))));
        rule.extend(host.as_ref().map(|host| ("host".to_owned(), json!(host))));
        if !headers.is_empty() {
            rule.insert("headers".into(), json!(headers));
        }
        http.push(Value::Object(rule));
    }
    Some(Asked {
        ports: operation.ports.clone(),
        http,
    })
}

/// Expressions for paths; one that is absent is any. `None`: there are some, and none can be said.
fn paths(patterns: &[PathPattern], left_out: &mut impl FnMut(&str)) -> Option<Vec<Option<String>>> {
    if patterns.is_empty() {
        return Some(vec![None]);
    }
    let mut found = Vec::new();
    for pattern in patterns {
        match texts::of_path(pattern) {
            Some(path) => found.push(Some(path)),
            None => left_out("paths"),
        }
    }
    (!found.is_empty()).then_some(found)
}
