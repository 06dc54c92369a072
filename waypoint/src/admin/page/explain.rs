//! `/api/explain`: what would become of a request under the configuration in force, with the keys in force.
//! The same call as `cairn explain` makes, so that the page, the command and the data path agree.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use cairn_authz::jwt::KeySets;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::admin::state::AdminState;
use crate::explain::{Question, client};

/// Answers `from=ID&to=HOST:PORT&method=M&path=P&header=NAME: VALUE...`, as `cairn explain -o json`.
///
/// # Errors
/// When the question can not be understood; in words.
pub fn explain(state: &AdminState, query: &str) -> Result<Vec<u8>, String> {
    answer(state, query).map_err(|error| format!("{error:#}"))
}

fn answer(state: &AdminState, query: &str) -> anyhow::Result<Vec<u8>> {
    let mut asked = Asked::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        asked.add(&name, value.trim())?;
    }
    let snapshot = (state.snapshot)().context("nothing is in force yet")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let question = Question {
        from: client(&asked.from, asked.from_ip, &snapshot)?,
        to: &asked.to,
        method: &asked.method,
        path: if asked.path.is_empty() {
            "/"
        } else {
            &asked.path
        },
        headers: asked.headers,
        tcp: asked.tcp,
        server_name: asked.server_name.as_deref(),
        keys: KeySets::clone(&state.jwks.load()),
        now_s: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
    };
    let report = (state.explain)(question)?;
    Ok(serde_json::to_vec(&report)?)
}

#[derive(Default)]
struct Asked {
    from: String,
    from_ip: Option<IpAddr>,
    to: String,
    method: Method,
    path: String,
    headers: HeaderMap,
    tcp: bool,
    server_name: Option<String>,
}

impl Asked {
    fn add(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        if value.is_empty() {
            return Ok(());
        }
        match name {
            "from" => self.from = value.to_owned(),
            "from-ip" => self.from_ip = Some(value.parse().context("from-ip")?),
            "to" => self.to = value.to_owned(),
            "method" => self.method = value.parse().context("method")?,
            "path" => self.path = value.to_owned(),
            "tcp" => self.tcp = value == "true",
            "sni" => self.server_name = Some(value.to_owned()),
            "header" => {
                let (name, value) = value.split_once(':').context("a header is `Name: value`")?;
                let name: HeaderName = name.trim().parse().context("a header's name")?;
                let value: HeaderValue = value.trim().parse().context("a header's value")?;
                self.headers.append(name, value);
            }
            other => anyhow::bail!("there is no parameter {other:?}"),
        }
        Ok(())
    }
}
