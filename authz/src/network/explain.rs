//! Why network policies decided as they did, clause by clause. Cold path: allocates freely. Whether
//! something matches is asked of the code that decides, never worked out here.

use std::fmt;
use std::sync::Arc;

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{
    Direction, HttpRules, NetworkAction, NetworkPolicy, NetworkRule, Peers, Truth,
};
use serde::Serialize;

use super::calico::Asked;
use super::http::{Request, shown};
use super::verdict::{NetworkVerdict, NetworkWhy};
use super::{Check, Network, Subject, calico, cilium, words};
use crate::explain::ClauseOutcome;
use crate::facts::Facts;

/// The network policies of the workload that decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkExplanation {
    /// Whether they are those of the destination, for ingress, or of the client, for egress.
    pub direction: Direction,
    /// Whether they let it pass.
    pub allowed: bool,
    /// The policy that decided.
    pub policy: Option<Origin>,
    /// Its rule, from 0 in its list.
    pub rule: Option<usize>,
    /// The reason in one clause.
    pub reason: String,
    /// The workload whose policies they are, `namespace/name`, with the port that is called at ingress.
    pub workload: String,
    /// Who was seen at the other end.
    pub other: String,
    /// Every policy that selects the workload.
    pub policies: Vec<NetworkPolicyOutcome>,
}

/// How one policy came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkPolicyOutcome {
    /// The policy.
    pub policy: Origin,
    /// Evaluated, never enforced.
    pub dry_run: bool,
    /// Whether what nothing allows is denied on account of it.
    pub default_deny: bool,
    /// Why it can not be evaluated and so denies everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// Its rules.
    pub rules: Vec<NetworkRuleOutcome>,
}

/// How one rule came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkRuleOutcome {
    /// Where it stands: `spec.ingress[0].toPorts[0]`.
    pub path: String,
    /// What a match means.
    pub action: NetworkAction,
    /// Whether it matched.
    pub matched: bool,
    /// Why it can not be evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Its clauses. Of several HTTP rules one has to match.
    pub clauses: Vec<ClauseOutcome>,
}

impl fmt::Display for NetworkExplanation {
    /// Several lines: the outcome, then each policy, rule and clause.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.allowed { "allow" } else { "deny" };
        let of = match self.direction {
            Direction::Ingress => "network policies of",
            Direction::Egress => "network policies for egress of",
        };
        write!(f, "{of} {}: {outcome}: {}", self.workload, self.reason)?;
        for policy in &self.policies {
            let tried = if policy.dry_run { " (dry run)" } else { "" };
            let default = match policy.default_deny {
                true => "denies by default",
                false => "only adds",
            };
            write!(f, "\n{}{tried}: {default}", policy.policy)?;
            for rule in &policy.rules {
                let matched = if rule.matched {
                    "matches"
                } else {
                    "does not match"
                };
                write!(f, "\n  {}: {matched}", rule.path)?;
                if let Some(note) = &rule.note {
                    write!(f, " ({note})")?;
                }
                for clause in &rule.clauses {
                    let mark = if clause.matched { "yes" } else { "no " };
                    write!(f, "\n    {mark} {}: {}", clause.path, clause.words)?;
                }
            }
        }
        Ok(())
    }
}

impl Network {
    /// Explains what [`Network::decide`] says. `None`: no policy applies.
    pub(crate) fn explain(&self, facts: &Facts<'_>) -> Option<NetworkExplanation> {
        let (check, verdict) = self.settle(facts)?;
        let policies = check.subject.policies();
        let workload = &check.subject.workload;
        Some(NetworkExplanation {
            direction: check.subject.direction,
            allowed: verdict.allowed,
            policy: verdict.origin().cloned(),
            rule: verdict.rule().map(|rule| rule.index),
            reason: check.reason(&verdict, facts),
            workload: match check.subject.direction {
                Direction::Ingress => format!("{workload}:{}", check.port.number),
                Direction::Egress => workload.to_string(),
            },
            other: check.other.words(),
            policies: policies.map(|p| check.outcome(p, facts)).collect(),
        })
    }

    /// The reason for a verdict, in one clause.
    pub(crate) fn reason(&self, facts: &Facts<'_>) -> Option<String> {
        let (check, verdict) = self.settle(facts)?;
        Some(check.reason(&verdict, facts))
    }
}

impl Subject {
    fn policies(&self) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        let of_calico = self.calico.iter().flat_map(|tier| &tier.policies);
        self.cilium.policies.iter().chain(of_calico)
    }

    fn is_of_calico(&self, rule: &NetworkRule) -> bool {
        let mut policies = self.calico.iter().flat_map(|tier| &tier.policies);
        policies.any(|policy| policy.rules.iter().any(|own| std::ptr::eq(own, rule)))
    }
}

impl Check<'_> {
    fn reason(&self, verdict: &NetworkVerdict, facts: &Facts<'_>) -> String {
        let broken = || {
            let policy = verdict.policy.as_ref();
            let reason = policy.and_then(|p| p.broken.as_deref());
            let reason = reason.unwrap_or_default();
            format!("can not be evaluated and so denies everything: {reason}")
        };
        let by_rule = || match verdict.rule() {
            Some(rule) => {
                let clauses = self.nearest_clauses(rule, facts);
                let words: Vec<String> = clauses.into_iter().map(|c| c.words).collect();
                match &rule.broken {
                    Some(reason) => format!("{} can not be evaluated: {reason}", rule.path),
                    None if words.is_empty() => format!("{} is for everything", rule.path),
                    None => format!("{}: {}", rule.path, words.join(" and ")),
                }
            }
            None => broken(),
        };
        match &verdict.why {
            NetworkWhy::Allowed | NetworkWhy::Denied => by_rule(),
            NetworkWhy::NothingDenies => {
                "no network policy denies what none of them allows".to_owned()
            }
            NetworkWhy::NoRule => self.no_rule(facts),
            NetworkWhy::Authentication => {
                format!("AUTH_REQUIRED: the peer is not authenticated as {} asks", {
                    verdict
                        .rule()
                        .map(|r| r.path.to_string())
                        .unwrap_or_default()
                })
            }
            NetworkWhy::Broken => broken(),
            NetworkWhy::Unknown(reason) => format!("{reason}, so nothing may pass"),
        }
    }

    /// The rule that came closest and the first of its clauses that failed.
    fn no_rule(&self, facts: &Facts<'_>) -> String {
        let mut nearest: Option<((usize, usize), String)> = None;
        let tier = self.undecided_tier(facts);
        let of_tier = |policy: &&Arc<NetworkPolicy>| {
            tier.is_none_or(|tier| tier.policies.iter().any(|own| Arc::ptr_eq(own, policy)))
        };
        for policy in self.subject.policies().filter(of_tier) {
            for rule in &policy.rules {
                if rule.action != NetworkAction::Allow {
                    continue;
                }
                let clauses = self.nearest_clauses(rule, facts);
                let distance = match rule.broken {
                    Some(_) => (usize::MAX, usize::MAX),
                    None => distance(&clauses),
                };
                let failed = clauses.into_iter().find(|c| !c.matched);
                // One that matches is of the surface that allowed.
                if failed.is_none() && rule.broken.is_none() {
                    continue;
                }
                let first = match &rule.broken {
                    Some(reason) => format!("can not be evaluated: {reason}"),
                    None => failed.map(|c| c.words).unwrap_or_default(),
                };
                if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
                    let words = format!("{} {}: {first}", policy.origin, rule.path);
                    nearest = Some((distance, words));
                }
            }
        }
        let workload = &self.subject.workload;
        let tier = tier.map_or_else(String::new, |tier| format!(" in tier {}", tier.name()));
        let of = match self.subject.direction {
            Direction::Ingress => format!("no network policy of {workload}{tier} allows"),
            Direction::Egress => format!("no network policy for egress of {workload}{tier} allows"),
        };
        match nearest {
            Some((_, nearest)) => format!("{of} it, nearest allow is {nearest}"),
            None => format!("{of} anything"),
        }
    }

    /// The tier of Calico that denies by default, if it is not Cilium that does.
    fn undecided_tier(&self, facts: &Facts<'_>) -> Option<&calico::Tier> {
        let verdict = |why| NetworkVerdict::new(why, &self.subject.workload);
        let subject = self.subject;
        let of_cilium = subject
            .cilium
            .decide(facts, &self.other, self.port, verdict);
        let asked = Asked::new(facts, &self.other, self.port);
        let tiers = of_cilium.allowed.then_some(&subject.calico)?;
        calico::undecided(tiers, &asked)
    }

    fn outcome(&self, policy: &Arc<NetworkPolicy>, facts: &Facts<'_>) -> NetworkPolicyOutcome {
        let rules = policy.rules.iter();
        NetworkPolicyOutcome {
            policy: policy.origin.clone(),
            dry_run: policy.standing.is_trial(),
            default_deny: policy.default_deny,
            broken: policy.broken.as_deref().map(str::to_owned),
            rules: rules.map(|r| self.rule_outcome(r, facts)).collect(),
        }
    }

    fn rule_outcome(&self, rule: &NetworkRule, facts: &Facts<'_>) -> NetworkRuleOutcome {
        let asked = Asked::new(facts, &self.other, self.port);
        let mut request = facts.http.as_ref().map(Request::new);
        let is_calico =
            matches!(rule.http, HttpRules::Calico(_)) || self.subject.is_of_calico(rule);
        let matched = match rule.action {
            _ if is_calico => match (rule.action, calico::matches(rule, &asked)) {
                (_, Truth::Yes) => true,
                (NetworkAction::Deny | NetworkAction::Pass, truth) => truth == Truth::Unknown,
                _ => false,
            },
            NetworkAction::Deny => cilium::denies(rule, &self.other, self.port),
            _ => {
                cilium::is_for(rule, &self.other, self.port) == Truth::Yes
                    && cilium::matches_http(rule, request.as_mut())
            }
        };
        let mut clauses = self.clauses(rule);
        clauses.extend(http_clauses(rule, &asked, facts).into_iter().flatten());
        NetworkRuleOutcome {
            path: rule.path.to_string(),
            action: rule.action,
            matched,
            note: rule.broken.as_deref().map(|reason| match rule.action {
                NetworkAction::Deny => format!("can not be evaluated and so denies: {reason}"),
                _ => format!("can not be evaluated and so allows nothing: {reason}"),
            }),
            clauses,
        }
    }

    /// The clauses with, of several HTTP rules, the one that came closest.
    fn nearest_clauses(&self, rule: &NetworkRule, facts: &Facts<'_>) -> Vec<ClauseOutcome> {
        let mut clauses = self.clauses(rule);
        let asked = Asked::new(facts, &self.other, self.port);
        let http = http_clauses(rule, &asked, facts);
        let http = http.into_iter().min_by_key(|clauses| distance(clauses));
        clauses.extend(http.into_iter().flatten());
        clauses
    }

    /// Peers and ports.
    fn clauses(&self, rule: &NetworkRule) -> Vec<ClauseOutcome> {
        let mut clauses = Vec::new();
        if rule.peers != Peers::Anybody {
            let is = self.other.is_among(&rule.peers);
            let word = match is {
                Truth::Yes => "is",
                Truth::No => "is not",
                Truth::Unknown => "can not be told to be",
            };
            clauses.push(ClauseOutcome {
                path: match self.subject.direction {
                    Direction::Ingress => "from".to_owned(),
                    Direction::Egress => "to".to_owned(),
                },
                matched: match rule.action {
                    NetworkAction::Deny => is != Truth::No,
                    _ => is == Truth::Yes,
                },
                words: format!(
                    "{} {word} {}",
                    self.other.words(),
                    words::peers(&rule.peers)
                ),
            });
        }
        if let Some(ports) = &rule.ports {
            let matched = self.port.is_among(Some(ports));
            let word = if matched { "is" } else { "is not" };
            clauses.push(ClauseOutcome {
                path: "ports".to_owned(),
                matched,
                words: format!(
                    "port {} of the workload {word} one of the rule's",
                    self.port.number
                ),
            });
        }
        clauses
    }
}

/// How far clauses are from matching, less is nearer: how many fail; among equals, what fails late.
fn distance(clauses: &[ClauseOutcome]) -> (usize, usize) {
    let failed = clauses.iter().filter(|c| !c.matched).count();
    let first = clauses.iter().position(|c| !c.matched);
    (failed, usize::MAX - first.unwrap_or(usize::MAX))
}

/// The clauses of each HTTP rule.
fn http_clauses(
    rule: &NetworkRule,
    asked: &Asked<'_>,
    facts: &Facts<'_>,
) -> Vec<Vec<ClauseOutcome>> {
    let not_http = |words: &str| ClauseOutcome {
        path: "http".to_owned(),
        matched: false,
        words: words.to_owned(),
    };
    match (&rule.http, &facts.http) {
        (HttpRules::NotAsked, _) => Vec::new(),
        (_, None) => vec![vec![not_http("the rule is for HTTP, and this is TCP")]],
        (HttpRules::Cilium(rules), Some(http)) => {
            let request = Request::new(http);
            let of_rule = |(index, rule)| -> Vec<ClauseOutcome> {
                let clauses = request.clauses(rule).into_iter();
                let outcome = |(field, matched, words): (String, bool, String)| ClauseOutcome {
                    path: format!("rules.http[{index}].{field}"),
                    matched,
                    words,
                };
                clauses.map(outcome).collect()
            };
            if rules.is_empty() {
                return vec![vec![not_http("the list of HTTP rules is empty")]];
            }
            rules.iter().enumerate().map(of_rule).collect()
        }
        (HttpRules::Calico(http), Some(request)) => {
            let mut clauses = Vec::new();
            if !http.methods.is_empty() {
                let matched = calico::has_method(http, request);
                clauses.push(clause("methods", matched, "method", request.method));
            }
            if !http.paths.is_empty() {
                let matched = calico::has_path(http, asked) == Truth::Yes;
                clauses.push(clause("paths", matched, "path", request.path));
            }
            vec![clauses]
        }
    }
}

fn clause(field: &str, matched: bool, what: &str, value: &str) -> ClauseOutcome {
    let word = if matched { "is" } else { "is not" };
    ClauseOutcome {
        path: format!("http.{field}"),
        matched,
        words: format!("{what} {} {word} one of the rule's", shown(value)),
    }
}
