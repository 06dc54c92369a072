//! Rules of Cilium, as resolved, as rules of an AuthorizationPolicy: who, and which requests. Ports are those of
//! the Service, which whoever calls this knows.

use std::collections::BTreeSet;

use http::header::{COOKIE, HOST};
use serde_json::{Map, Value, json};

use super::cilium_peers;
use super::ground::Ground;
use super::report::{Draft, Outcome};
use super::texts;
use crate::origin::Origin;
use crate::snapshot::{AuthenticationMode, CiliumHttpRule, HttpRules, NetworkRule};

/// A rule of an AuthorizationPolicy without ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rule {
    from: Option<Vec<Value>>,
    operation: Map<String, Value>,
    when: Vec<Value>,
}

impl Rule {
    /// Whether something of it only HTTP has.
    pub fn asks_for_http(&self) -> bool {
        !self.operation.is_empty() || !self.when.is_empty()
    }

    /// For these ports of the Service.
    pub fn written(mut self, ports: &BTreeSet<u16>) -> Value {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        self.operation.insert("ports".into(), json!(ports));
        let mut rule = Map::new();
        if let Some(from) = self.from {
            rule.insert("from".into(), json!(from));
        }
        rule.insert("to".into(), json!([{"operation": self.operation}]));
        if !self.when.is_empty() {
            rule.insert("when".into(), json!(self.when));
        }
        Value::Object(rule)
    }
}

/// The rules that allow what one of Cilium's allows, or less. What is left out is noted.
pub(super) fn of_rule(
    ground: &Ground<'_>,
    origin: &Origin,
    rule: &NetworkRule,
    draft: &mut Draft,
) -> Vec<Rule> {
    let at = &*rule.path;
    if let Some(why) = &rule.broken {
        draft.note(origin, at, Outcome::NotTranslated, &**why);
    }
    if rule.authentication == Some(AuthenticationMode::Required) {
        let why = "an AuthorizationPolicy does not ask how a client is known: one whose plain text a node steers (`cairn node`) would be allowed";
        draft.note(origin, at, Outcome::Wider, why);
    }
    let mut notes = Vec::new();
    let who = cilium_peers::who(ground, &rule.peers, &mut notes);
    for (outcome, why) in notes {
        draft.note(origin, at, outcome, why);
    }
    if who.is_empty() {
        return Vec::new();
    }
    let mesh = &ground.snapshot.mesh;
    let from: Option<Vec<Value>> = who.iter().map(|who| who.source(mesh)).collect();
    let new = |operation, when| Rule {
        from: from.clone(),
        operation,
        when,
    };
    match &rule.http {
        HttpRules::NotAsked => vec![new(Map::new(), Vec::new())],
        HttpRules::Calico(_) => Vec::new(),
        HttpRules::Cilium(http) => {
            let mut rules = Vec::new();
            for (index, http) in http.iter().enumerate() {
                let at = format!("{at}.rules.http[{index}]");
                let written = of_http(ground, origin, http, &at, draft);
                rules.extend(written.map(|(operation, when)| new(operation, when)));
            }
            rules
        }
    }
}

/// What an HTTP rule asks. `None`: it is left out.
fn of_http(
    ground: &Ground<'_>,
    origin: &Origin,
    rule: &CiliumHttpRule,
    at: &str,
    draft: &mut Draft,
) -> Option<(Map<String, Value>, Vec<Value>)> {
    let mode = ground.snapshot.mesh.path_normalization;
    let mut left_out = |field: &str, why: &str| {
        let why = format!("{why}: the rule is left out");
        draft.note(origin, format!("{at}.{field}"), Outcome::Narrower, why);
    };
    if rule.never.is_some() {
        return None;
    }
    let mut operation = Map::new();
    let mut wider = Vec::new();
    if let Some(method) = &rule.method {
        let Some(words) = texts::words(method.source()) else {
            left_out(
                "method",
                "an AuthorizationPolicy has words for methods, and no expressions",
            );
            return None;
        };
        operation.insert("methods".into(), json!(words));
    }
    for (field, list, read) in [
        (
            "path",
            "paths",
            rule.path.as_ref().map(|p| texts::path(p.source(), mode)),
        ),
        (
            "host",
            "hosts",
            rule.host.as_ref().map(|p| texts::host(p.source())),
        ),
    ] {
        match read {
            None => {}
            Some(None) => {
                left_out(field, "an AuthorizationPolicy can not say this expression");
                return None;
            }
            Some(Some(read)) => {
                operation.insert(list.into(), json!([read.pattern]));
                wider.extend(read.wider.map(|why| (field, why)));
            }
        }
    }
    let when = match conditions(rule) {
        Ok(when) => when,
        Err(index) => {
            let why = "an AuthorizationPolicy reads this header in another way";
            left_out(&format!("headers[{index}]"), why);
            return None;
        }
    };
    // Refused by how it is written (`cilium_refused`).
    if !rule.header_matches.is_empty() {
        return None;
    }
    for (field, why) in wider {
        draft.note(origin, format!("{at}.{field}"), Outcome::Wider, why);
    }
    // Whatever is asked, it must be HTTP.
    if operation.is_empty() && when.is_empty() {
        operation.insert("methods".into(), json!(["*"]));
    }
    Some((operation, when))
}

/// `headers` of a rule as conditions; or which of them can not be one.
fn conditions(rule: &CiliumHttpRule) -> Result<Vec<Value>, usize> {
    let mut when = Vec::new();
    for (index, (name, value)) in rule.headers.iter().enumerate() {
        let value = match value {
            None => Some("*"),
            Some(value) => value.to_str().ok().filter(|v| is_plain_value(v)),
        };
        // Lines of cookies are joined in two ways, and Host is not where other headers are.
        let value = value.filter(|_| *name != COOKIE && *name != HOST);
        let value = value.ok_or(index)?;
        when.push(json!({"key": format!("request.headers[{name}]"), "values": [value]}));
    }
    Ok(when)
}

/// Whether the text means itself as a value of a condition.
fn is_plain_value(value: &str) -> bool {
    !value.is_empty() && !value.starts_with('*') && !value.ends_with('*') && value.trim() == value
}
