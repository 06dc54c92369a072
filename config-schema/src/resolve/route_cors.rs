//! CORS filters of HTTPRoute rules (specs/gateway-api.md 1.4, "CORS").

use std::sync::Arc;

use super::route_rules::Reading;
use crate::diagnostics::Code;
use crate::resources::gateway_api::HttpRouteRulesFiltersCors as Written;
use crate::snapshot::{Cors, HostPattern, Names, OriginPattern, default_port};

/// How long a browser may keep the answer to a preflight unless told, in seconds.
const MAX_AGE_DEFAULT_S: u32 = 5;

/// Methods that need no preflight, and are always allowed.
const SIMPLE_METHODS: [&str; 3] = ["GET", "HEAD", "POST"];

/// A CORS filter.
pub(super) fn read(written: &Written, at: &str, reading: &mut Reading<'_>) -> Cors {
    let mut allow_origins = Vec::new();
    for (index, origin) in written.allow_origins.iter().flatten().enumerate() {
        match origin_pattern(origin) {
            Some(pattern) => allow_origins.push(pattern),
            None => {
                let message = format!(
                    "'{origin}' is not an origin: '*', or scheme://host with an optional port, whose \
                     host may begin with '*'"
                );
                let at = format!("{at}.allowOrigins[{index}]");
                reading.fail(Code::BadValue, &at, message);
            }
        }
    }
    let mut names = |written: &Option<Vec<String>>, field: &str, always: &[&str]| {
        read_names(written, &format!("{at}.{field}"), always, reading)
    };
    Cors {
        allow_origins,
        forwards_unmatched: false,
        allow_credentials: written.allow_credentials.unwrap_or(false),
        allow_methods: names(&written.allow_methods, "allowMethods", &SIMPLE_METHODS),
        allow_headers: names(&written.allow_headers, "allowHeaders", &[]),
        expose_headers: names(&written.expose_headers, "exposeHeaders", &[]),
        max_age_s: match written.max_age.map(u32::try_from) {
            None => MAX_AGE_DEFAULT_S,
            Some(Ok(seconds)) if seconds > 0 => seconds,
            Some(_) => {
                let message = "maxAge is a number of seconds, 1 at least";
                reading.fail(Code::BadValue, &format!("{at}.maxAge"), message);
                MAX_AGE_DEFAULT_S
            }
        },
    }
}

fn read_names(
    written: &Option<Vec<String>>,
    at: &str,
    always: &[&str],
    reading: &mut Reading<'_>,
) -> Names {
    let written = written.as_deref().unwrap_or_default();
    let mut names: Vec<&str> = always.to_vec();
    for (index, name) in written.iter().enumerate() {
        if name == "*" {
            return Names::Any;
        }
        if http::Method::from_bytes(name.as_bytes()).is_err() {
            let message = format!("'{name}' is not the name of a method or header");
            reading.fail(Code::BadValue, &format!("{at}[{index}]"), message);
        } else if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    Names::Listed(names.join(", ").into())
}

fn origin_pattern(text: &str) -> Option<OriginPattern> {
    if text == "*" {
        return Some(OriginPattern::Any);
    }
    let (scheme, rest) = text.split_once("://")?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, "*")) => (host, None),
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (rest, default_port(&scheme.to_ascii_lowercase())),
    };
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    let (wild, name) = match host.strip_prefix('*') {
        Some(end) => (true, end),
        None => (false, host),
    };
    let scheme_is_legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.');
    if scheme.is_empty() || !scheme.bytes().all(scheme_is_legal) {
        return None;
    }
    if !name.bytes().all(legal) || name.is_empty() && !wild {
        return None;
    }
    let name: Arc<str> = name.to_ascii_lowercase().into();
    Some(OriginPattern::Of {
        scheme: scheme.to_ascii_lowercase().into(),
        host: match wild {
            true => HostPattern::EndsWith(name),
            false => HostPattern::Exact(name),
        },
        port,
    })
}
