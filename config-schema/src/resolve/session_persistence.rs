//! `sessionPersistence` of routes and of XBackendTrafficPolicies (GEP-1619, specs/gateway-api.md 3). What is
//! wrong with it is told by whoever has the object.

use http::header::HeaderName;
use xxhash_rust::xxh64::xxh64;

use super::route_traffic::parse_duration;
use crate::diagnostics::Code;
use crate::limits::SESSION_NAME_BYTES_MAX;
use crate::resources::gateway_api::{
    HttpRouteRulesSessionPersistence as Written,
    HttpRouteRulesSessionPersistenceCookieConfigLifetimeType as LifetimeType,
    HttpRouteRulesSessionPersistenceType as TokenType,
};
use crate::snapshot::{SessionCarrier, SessionPersistence};

/// What is wrong, and with which field.
pub(super) struct Fault {
    pub code: Code,
    pub field: &'static str,
    pub message: String,
}

/// Headers that say how a message is framed or sent, or that carry other cookies: a token in their place
/// would break the response.
const TAKEN: [&str; 14] = [
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "grpc-message",
    "grpc-status",
    "host",
    "keep-alive",
    "location",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads it. `owner` names the rule or policy, for a session that has no name of its own: the same name in
/// every replica and at every start.
///
/// # Errors
/// The first thing that can not be honoured.
pub(super) fn read(written: &Written, owner: &str) -> Result<SessionPersistence, Fault> {
    let absolute_timeout_s = seconds(written.absolute_timeout.as_deref(), "absoluteTimeout")?;
    let carrier = match written.r#type {
        Some(TokenType::Header) => header(written, owner)?,
        Some(TokenType::Cookie) | None => cookie(written, absolute_timeout_s, owner)?,
    };
    Ok(SessionPersistence {
        carrier,
        absolute_timeout_s,
        idle_timeout_s: seconds(written.idle_timeout.as_deref(), "idleTimeout")?,
    })
}

fn cookie(
    written: &Written,
    absolute_timeout_s: Option<u64>,
    owner: &str,
) -> Result<SessionCarrier, Fault> {
    let config = written.cookie_config.as_ref();
    let lifetime = config.and_then(|config| config.lifetime_type.as_ref());
    let permanent = lifetime == Some(&LifetimeType::Permanent);
    if permanent && absolute_timeout_s.is_none() {
        return Err(Fault {
            code: Code::MissingField,
            field: "absoluteTimeout",
            message: "a cookie of lifetimeType Permanent needs an absoluteTimeout".to_owned(),
        });
    }
    let name = match name(written)? {
        Some(name) => name.to_owned(),
        None => format!("cairn-session-{:08x}", xxh64(owner.as_bytes(), 0) as u32),
    };
    Ok(SessionCarrier::Cookie {
        name: name.into(),
        permanent,
    })
}

fn header(written: &Written, owner: &str) -> Result<SessionCarrier, Fault> {
    if written.cookie_config.is_some() {
        return Err(Fault {
            code: Code::Conflict,
            field: "cookieConfig",
            message: "cookieConfig is for sessions of type Cookie".to_owned(),
        });
    }
    let Some(name) = name(written)? else {
        let name = format!("x-cairn-session-{:08x}", xxh64(owner.as_bytes(), 0) as u32);
        return HeaderName::try_from(name)
            .map(SessionCarrier::Header)
            .map_err(|_| bad_name(owner));
    };
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad_name(name))?;
    if TAKEN.contains(&header.as_str()) {
        let message = format!("the header {header} means something else than a session");
        return Err(Fault {
            message,
            ..bad_name(name)
        });
    }
    Ok(SessionCarrier::Header(header))
}

/// The name of the cookie or header.
fn name(written: &Written) -> Result<Option<&str>, Fault> {
    let Some(name) = written.session_name.as_deref() else {
        return Ok(None);
    };
    // RFC 9110 5.6.2: the names of headers and of cookies are tokens.
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let legal = (1..=SESSION_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_token);
    match legal {
        true => Ok(Some(name)),
        false => Err(bad_name(name)),
    }
}

fn bad_name(name: &str) -> Fault {
    Fault {
        code: Code::BadValue,
        field: "sessionName",
        message: format!(
            "'{name}' is no name of a cookie or header of up to {SESSION_NAME_BYTES_MAX} characters"
        ),
    }
}

/// A duration above zero, in whole seconds, rounded up.
fn seconds(text: Option<&str>, field: &'static str) -> Result<Option<u64>, Fault> {
    let Some(text) = text else { return Ok(None) };
    match parse_duration(text).filter(|ms| *ms > 0) {
        Some(ms) => Ok(Some(ms.div_ceil(1_000))),
        None => Err(Fault {
            code: Code::BadValue,
            field,
            message: format!("'{text}' is not a duration above zero such as 1h, 30s or 250ms"),
        }),
    }
}
