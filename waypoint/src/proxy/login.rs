//! Who an HTTP request is from: gives `cairn-filters`' chain the keys in force, the time, and this
//! worker's memory of tokens. Refuses nothing itself.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_authz::jwt::{Memory, Request, without_params};
use cairn_filters::chain::{Authenticated, PortChain};
use http::Method;
use pingora_http::RequestHeader;

use super::headers::RequestHeaders;
use crate::jwks::Jwks;
use crate::telemetry::counters::{JWT_REFUSED, JWT_SIGNATURES, JWT_VALID};

thread_local! {
    /// One for each worker: a worker is a thread.
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::new());
}

/// Verifies the token of a request and takes it out. `None`: no token is asked for here.
pub(super) fn authenticate(
    chain: &PortChain,
    jwks: &Jwks,
    request: &mut RequestHeader,
    method: &Method,
    target: &str,
) -> Option<Authenticated> {
    let login = verify(chain, jwks, request, method, target)?;
    match &login {
        Ok(login) if login.token().is_some() => JWT_VALID.add(1),
        Ok(_) => {}
        Err(_) => JWT_REFUSED.add(1),
    }
    chain.take_token(&login, &mut RequestHeaders(request));
    Some(login)
}

/// Verifies the token of a request, which stays in it. `None`: no token is asked for here.
pub(super) fn verify(
    chain: &PortChain,
    jwks: &Jwks,
    request: &RequestHeader,
    method: &Method,
    target: &str,
) -> Option<Authenticated> {
    if chain.authenticator().is_empty() {
        return None;
    }
    let asked = Request {
        method,
        headers: &request.headers,
        query: target.split_once('?').map(|(_, query)| query),
    };
    let keys = jwks.load();
    let login = MEMORY.with(|memory| match memory.try_borrow_mut() {
        Ok(mut memory) => {
            let before = memory.signatures();
            let login = chain.authenticate(&asked, &keys, &mut memory, now_s());
            let checked = memory.signatures().saturating_sub(before);
            if checked > 0 {
                JWT_SIGNATURES.add(i64::try_from(checked).unwrap_or(i64::MAX));
            }
            login
        }
        // Nothing here waits, so that it can not be borrowed twice; forgetting is safe all the same.
        Err(_) => chain.authenticate(&asked, &keys, &mut Memory::new(), now_s()),
    });
    if let Err(failure) = &login
        && let Some(source) = &failure.refresh
    {
        jwks.ask(source);
    }
    Some(login)
}

/// A path and query for logs: without what may be a token.
pub(super) fn shown_path(chain: &PortChain, path: String) -> String {
    let params = chain.authenticator().params();
    if params.is_empty() {
        return path;
    }
    without_params(path.into(), &params).into_owned()
}

/// Seconds since 1970. A clock that is before 1970 is wrong; every token is too old then.
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(i64::MAX, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
