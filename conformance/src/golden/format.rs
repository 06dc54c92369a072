//! What may be written in a `requests.yaml`. Reads nothing and runs nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::tokens;

/// One document: a state of the configuration, and what is asked in it. Further documents follow
/// on the same store, so that a case can break what was good before.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stage {
    /// What the reader should notice.
    #[serde(rename = "why")]
    pub _why: Option<String>,
    /// Starts with an empty store, as after a restart.
    #[serde(default)]
    pub fresh: bool,
    /// File of `golden/mesh/` that stands below the case; `none` for a case that brings its own.
    #[serde(default = "shop")]
    pub mesh: String,
    /// The case's file that is in force as `case.yaml`.
    #[serde(default = "case")]
    pub file: String,
    /// `--gateway`.
    pub gateway: Option<String>,
    /// Every finding worse than Info, as patterns; `any` to leave them alone. Default: none.
    #[serde(default)]
    pub diagnostics: Diagnostics,
    /// Patterns that must be found among the others, Info included.
    #[serde(default)]
    pub diagnostics_include: Vec<String>,
    /// The lints run, too, as `cairn check` runs them.
    #[serde(default)]
    pub lints: bool,
    /// Fields for every ask that does not have its own.
    #[serde(default)]
    pub default: Ask,
    /// What is asked.
    #[serde(default)]
    pub asks: Vec<Ask>,
}

fn shop() -> String {
    "shop".into()
}

fn case() -> String {
    "case.yaml".into()
}

/// `any`, or patterns: every word of a pattern must occur in the finding.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Diagnostics {
    /// `any`.
    Word(String),
    /// Patterns.
    Patterns(Vec<String>),
}

impl Default for Diagnostics {
    fn default() -> Self {
        Self::Patterns(Vec::new())
    }
}

/// One request or TCP stream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// What the reader should notice.
    pub why: Option<String>,
    /// `namespace/service-account`, or a whole SPIFFE ID.
    pub from: Option<String>,
    /// Address of the TCP peer; 10.0.9.9 by default.
    pub ip: Option<String>,
    /// `service.namespace:port`, or `address:port`; `web.shop:80` by default.
    pub to: Option<String>,
    /// `METHOD TARGET`, `tcp`, or `tls NAME`: TCP that carries TLS for this server name.
    pub send: Option<String>,
    /// Host header; `web.shop` by default.
    pub host: Option<String>,
    /// Other headers.
    pub headers: Option<BTreeMap<String, Values>>,
    /// What must come out.
    pub expect: Option<Expect>,
}

/// One value or several of a header.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Values {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Values {
    fn iter_mut(&mut self) -> impl Iterator<Item = &mut String> {
        match self {
            Self::One(value) => std::slice::from_mut(value).iter_mut(),
            Self::Several(values) => values.iter_mut(),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &String> {
        match self {
            Self::One(value) => std::slice::from_ref(value).iter(),
            Self::Several(values) => values.iter(),
        }
    }
}

/// A short form, or everything that must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Expect {
    /// The status of the answer.
    Status(u16),
    /// `allow`, `deny`, `forward`, `served` or `refused`.
    Word(String),
    /// Written out.
    Full(Box<Full>),
}

/// What must hold; a field left out is not looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Full {
    /// `allow` or `deny`.
    pub verdict: Option<String>,
    /// `forward`, a status, `served` or `refused`.
    pub answer: Option<Answer>,
    /// The policy that decided, `namespace/name#rule`, or `none`.
    pub by: Option<String>,
    /// Providers that are asked first, none by default; all else is what follows if they allow.
    #[serde(default)]
    pub asks: Vec<String>,
    /// AUDIT policies that match, `namespace/name#rule`.
    pub audit: Option<Vec<String>>,
    /// What policies that are tried say, sorted: `namespace/name#rule allow|deny|ask`, those left out
    /// that say nothing.
    pub dry_run: Option<Vec<String>>,
    /// What would be with them: `allow|deny namespace/name#rule`, or `none` for the policy.
    pub dry_run_verdict: Option<String>,
    /// Response code details.
    pub details: Option<String>,
    /// Part of the reason in words.
    pub reason: Option<String>,
    /// gRPC status of the answer.
    pub grpc: Option<u8>,
    /// The route that matched, `namespace/name#rule`, or `none`.
    pub route: Option<String>,
    /// The one cluster that all of it goes to, `service.namespace:port`, with `/subset` if it is one.
    pub backend: Option<String>,
    /// Per cent of the requests by cluster, the status of the answer for those that go nowhere; of TCP
    /// streams, `refused`.
    pub shares: Option<BTreeMap<String, f64>>,
    /// Addresses of the endpoints that may receive it.
    pub endpoints: Option<Vec<String>>,
    /// Location of the redirect.
    pub location: Option<String>,
    /// Path and query that the application gets.
    pub path: Option<String>,
    /// Headers that the application gets; null for one that must be absent.
    #[serde(default)]
    pub request_headers: BTreeMap<String, Option<String>>,
    /// Headers that the client gets, of an answer with `server: app` and `x-set: old`.
    #[serde(default)]
    pub response_headers: BTreeMap<String, Option<String>>,
    /// What is spoken on the port.
    pub protocol: Option<String>,
    /// Links of the whole way by their names, as `cairn explain` has them: `passes`, `denied` or
    /// `unknown`, perhaps with the policies that say so, `denied shop/deny,shop/more`.
    #[serde(default)]
    pub chain: BTreeMap<String, String>,
}

/// The answer of the waypoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// A status.
    Status(u16),
    /// `forward`, `served` or `refused`.
    Word(String),
}

impl Ask {
    /// This ask, with what it does not say taken from `default` and tokens put in place of their names.
    pub fn with_defaults(&self, default: &Ask) -> Ask {
        let mut ask = self.filled(default);
        ask.send = ask.send.map(|send| tokens::put_into(&send));
        for value in ask
            .headers
            .iter_mut()
            .flatten()
            .flat_map(|(_, v)| v.iter_mut())
        {
            *value = tokens::put_into(value);
        }
        ask
    }

    fn filled(&self, default: &Ask) -> Ask {
        Ask {
            why: self.why.clone(),
            from: self.from.clone().or_else(|| default.from.clone()),
            ip: self.ip.clone().or_else(|| default.ip.clone()),
            to: self.to.clone().or_else(|| default.to.clone()),
            send: self.send.clone().or_else(|| default.send.clone()),
            host: self.host.clone().or_else(|| default.host.clone()),
            headers: self.headers.clone().or_else(|| default.headers.clone()),
            expect: self.expect.clone().or_else(|| default.expect.clone()),
        }
    }

    /// For messages.
    pub fn shown(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let headers = match &self.headers {
            Some(headers) if !headers.is_empty() => format!(" {headers:?}"),
            _ => String::new(),
        };
        let shown = format!(
            "{} {} {} {}{headers}",
            part(&self.from),
            part(&self.ip),
            part(&self.to),
            part(&self.send)
        );
        shown.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What must hold, written out.
    pub fn expected(&self) -> Full {
        let answer = |answer| Full {
            answer: Some(answer),
            ..Full::default()
        };
        match self.expect.clone().expect("an ask without expect") {
            Expect::Status(status) => answer(Answer::Status(status)),
            Expect::Word(word) if word == "allow" || word == "deny" => Full {
                verdict: Some(word),
                ..Full::default()
            },
            Expect::Word(word) => answer(Answer::Word(word)),
            Expect::Full(full) => *full,
        }
    }
}
