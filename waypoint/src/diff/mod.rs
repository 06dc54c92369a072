//! Which requests two configurations judge differently. Each is asked of the engine under both,
//! through [`crate::explain`]; nothing is decided here.

mod case;
mod matrix;
mod recorded;
mod terms;
mod untold;

use std::sync::Arc;

use cairn_authz::jwt::KeySets;
use cairn_config_schema::snapshot::Snapshot;
use serde::Serialize;

use crate::explain::{self, Answer, Question, Report, Route};
use crate::runtime::Runtime;

pub use case::Case;
pub use matrix::Matrix;
pub use recorded::{Line, Unread, read_line};
pub use untold::Untold;

/// One configuration, ready to be asked.
pub struct Side {
    runtime: Runtime,
}

/// What becomes of a request under one configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Judged {
    /// `allow`, `deny`, `ask` (the providers of CUSTOM policies decide), `unauthenticated` (its token is refused), `invalid` (it is malformed), `refused`
    /// (the waypoint does not serve it).
    pub verdict: &'static str,
    /// Providers that have to allow it, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<String>,
    /// The policy that decided, `Kind/namespace/name`. `None`: by default.
    pub policy: Option<String>,
    /// Its rule, from 0.
    pub rule: Option<usize>,
    /// In one clause.
    pub reason: String,
    /// The route and rule. `None`: none was looked for, or none matches.
    pub route: Option<String>,
    /// Status of an answer that Cairn gives by itself.
    pub status: Option<u16>,
    /// Where it may go, each with its share in per cent.
    pub backends: Vec<String>,
}

/// What two configurations make of one request.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Under the old one.
    pub old: Judged,
    /// Under the new one.
    pub new: Judged,
}

impl Compared {
    /// Whether the verdict is another, or of other providers.
    pub fn verdict_changes(&self) -> bool {
        self.old.verdict != self.new.verdict || self.old.asks != self.new.asks
    }

    /// Whether it is allowed under both, and goes elsewhere or is answered otherwise.
    pub fn goes_elsewhere(&self) -> bool {
        let at = |judged: &Judged| {
            let Judged {
                route,
                status,
                backends,
                ..
            } = judged.clone();
            (route, status, backends)
        };
        !self.verdict_changes() && self.old.may_pass() && at(&self.old) != at(&self.new)
    }
}

impl Side {
    /// Compiles a configuration.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            runtime: Runtime::compile(Arc::new(snapshot), None),
        }
    }

    /// What it was made of.
    pub fn snapshot(&self) -> &Snapshot {
        &self.runtime.snapshot
    }

    /// Judges a request.
    ///
    /// # Errors
    /// When its destination can not be understood.
    pub fn judge(&self, case: &Case) -> anyhow::Result<Judged> {
        let from = explain::client(&case.from, Some(case.ip), self.snapshot())?;
        let question = Question {
            from,
            to: &case.to,
            method: &case.method,
            path: &case.path,
            headers: case.header_map(),
            tcp: case.tcp,
            server_name: None,
            keys: KeySets::default(),
            now_s: 0,
        };
        Ok(Judged::of(&explain::judge_on(&self.runtime, question)?))
    }
}

/// Judges a request under both configurations.
///
/// # Errors
/// When its destination can not be understood.
pub fn compare(old: &Side, new: &Side, case: &Case) -> anyhow::Result<Compared> {
    Ok(Compared {
        old: old.judge(case)?,
        new: new.judge(case)?,
    })
}

impl Judged {
    fn of(report: &Report) -> Self {
        let verdict = match (&report.verdict, &report.refused, &report.answer) {
            (Some(explanation), _, _) if explanation.allowed && !report.asks.is_empty() => "ask",
            (Some(explanation), _, _) if explanation.allowed => "allow",
            (Some(_), _, _) => "deny",
            (None, Some(_), _) => "refused",
            (None, None, Some(answer)) if is_unauthenticated(answer) => "unauthenticated",
            (None, None, Some(answer)) if answer.status == 400 => "invalid",
            (None, None, _) => "refused",
        };
        let asked = report.asks.first().filter(|_| verdict == "ask");
        let asks = report.asks.iter().filter(|_| verdict == "ask");
        let asks: Vec<String> = asks.map(|asked| asked.provider.clone()).collect();
        let explanation = report.verdict.as_ref();
        let of_verdict = explanation.and_then(|e| e.policy.as_ref());
        let rule = explanation.and_then(|e| e.rule);
        let of_answer = report.answer.as_ref().and_then(|a| a.reason.clone());
        let of_refusal = report.refused.as_ref().map(|r| r.reason.clone());
        let reason = match asked {
            Some(_) => Some(format!("{} decides", asks.join(" and "))),
            None => explanation.map(|e| e.reason.clone()),
        };
        let route = match &report.route {
            Some(Route::Rule { route, rule, .. }) => Some(format!("{route} rule {rule}")),
            Some(Route::Default) => Some("default".to_owned()),
            Some(Route::None) | None => None,
        };
        let share = |b: &explain::Backend| match report.backends.len() {
            1 => b.name.clone(),
            _ => format!("{} {:.1} %", b.name, b.share_percent),
        };
        Self {
            verdict,
            asks,
            policy: asked
                .map(|a| &a.policy)
                .or(of_verdict)
                .map(ToString::to_string),
            rule: asked.map_or(rule, |asked| Some(asked.rule)),
            reason: reason.or(of_refusal).or(of_answer).unwrap_or_default(),
            route,
            status: report.answer.as_ref().map(|answer| answer.status),
            backends: report.backends.iter().map(share).collect(),
        }
    }

    /// Whether it is allowed, or would be if providers allow it.
    pub fn may_pass(&self) -> bool {
        matches!(self.verdict, "allow" | "ask")
    }

    /// Whether a request with this verdict may have been recorded so: what providers said is not known.
    pub fn may_be(&self, recorded: &str) -> bool {
        match self.verdict {
            "ask" => matches!(recorded, "allow" | "deny"),
            verdict => recorded == verdict,
        }
    }

    /// The policy and rule that decided, in words.
    pub fn by(&self) -> String {
        match (&self.policy, self.rule) {
            (Some(policy), Some(rule)) => format!("by {policy} rule {rule}"),
            (Some(policy), None) => format!("by {policy}"),
            (None, _) => "by default".to_owned(),
        }
    }
}

fn is_unauthenticated(answer: &Answer) -> bool {
    answer.details.starts_with("jwt_authn_access_denied")
}
