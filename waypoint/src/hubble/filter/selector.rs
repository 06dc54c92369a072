//! Selectors of labels, in Kubernetes' syntax, with Cilium's prefixes of where a label is from:
//! `app=web,k8s:tier in (a, b),!reserved:world`. Without one, or with `any:`, it may be from anywhere.

use super::Invalid;

/// What all must hold.
#[derive(Debug)]
pub struct Selector(Vec<Requirement>);

#[derive(Debug)]
struct Requirement {
    /// Where it is from; empty: anywhere.
    source: String,
    key: String,
    asks: Asks,
}

#[derive(Debug)]
enum Asks {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

impl Selector {
    /// Reads a selector; an empty one selects everything.
    pub fn read(text: &str) -> Result<Self, Invalid> {
        let parts = split(text);
        if text.trim().is_empty() {
            return Ok(Self(Vec::new()));
        }
        let read = parts.iter().map(|part| requirement(part.trim()));
        let read: Option<Vec<_>> = read.collect();
        read.map(Self)
            .ok_or_else(|| Invalid::new(format!("{text:?} is not a selector of labels")))
    }

    /// Whether it selects what has these labels, `source:key=value` each.
    pub fn selects(&self, labels: &[String]) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &[String]) -> bool {
        let mut values = labels.iter().map(|label| parts(label));
        let value = values.find_map(|(source, key, value)| {
            let from = self.source.is_empty() || self.source == source;
            (from && self.key == key).then_some(value)
        });
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.asks {
            Asks::Exists => value.is_some(),
            Asks::Absent => value.is_none(),
            Asks::In(wanted) => value.is_some_and(|v| wanted.iter().any(|w| w == v)),
            Asks::NotIn(unwanted) => !value.is_some_and(|v| unwanted.iter().any(|w| w == v)),
            Asks::Above(bound) => number().is_some_and(|n| n > *bound),
            Asks::Below(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

/// Source, key and value of a label.
fn parts(label: &str) -> (&str, &str, &str) {
    let (name, value) = label.split_once('=').unwrap_or((label, ""));
    let (source, key) = name.split_once(':').unwrap_or(("", name));
    (source, key, value)
}

/// At the commas that are not in parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let at_comma = |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    text.split(at_comma).collect()
}

fn requirement(text: &str) -> Option<Requirement> {
    if let Some(name) = text.strip_prefix('!') {
        return with(name, Asks::Absent);
    }
    if let Some((name, value)) = text.split_once("!=") {
        return with(name, Asks::NotIn(vec![value_of(value)?]));
    }
    if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return with(name, Asks::In(vec![value_of(value)?]));
    }
    if let Some((name, bound)) = text.split_once('>') {
        return with(name, Asks::Above(bound.trim().parse().ok()?));
    }
    if let Some((name, bound)) = text.split_once('<') {
        return with(name, Asks::Below(bound.trim().parse().ok()?));
    }
    let Some((name, list)) = text.split_once('(') else {
        return with(text, Asks::Exists);
    };
    let values = list.trim().strip_suffix(')')?.split(',').map(value_of);
    let values = values.collect::<Option<Vec<_>>>()?;
    let (name, operator) = name.trim().split_once(char::is_whitespace)?;
    match operator.trim() {
        "in" => with(name, Asks::In(values)),
        "notin" => with(name, Asks::NotIn(values)),
        _ => None,
    }
}

fn with(name: &str, asks: Asks) -> Option<Requirement> {
    let name = name.trim();
    let (source, key) = name.split_once(':').unwrap_or(("any", name));
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-_./".contains(&c);
    let is_key = !key.is_empty() && key.bytes().all(legal);
    is_key.then(|| Requirement {
        source: if source == "any" { "" } else { source }.to_owned(),
        key: key.to_owned(),
        asks,
    })
}

fn value_of(text: &str) -> Option<String> {
    let text = text.trim();
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    text.bytes().all(legal).then(|| text.to_owned())
}
