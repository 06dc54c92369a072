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

/// What was found of a request's tokens.
#[derive(Debug, Default)]
pub(super) struct Logins {
    /// Who it is from. `None`: no token is asked for here.
    pub login: Option<Authenticated>,
    /// What would be found with what is only tried. `None`: nothing is.
    pub trial: Option<Authenticated>,
}

/// Verifies the token of a request and takes it out.
pub(super) fn authenticate(
    chain: &PortChain,
    jwks: &Jwks,
    request: &mut RequestHeader,
    method: &Method,
    target: &str,
) -> Logins {
    let logins = verify(chain, jwks, request, method, target);
    let Some(login) = &logins.login else {
        return logins;
    };
    match login {
        Ok(login) if login.token().is_some() => JWT_VALID.add(1),
        Ok(_) => {}
        Err(_) => JWT_REFUSED.add(1),
    }
    chain.take_token(login, &mut RequestHeaders(request));
    logins
}

/// Verifies the token of a request, which stays in it.
pub(super) fn verify(
    chain: &PortChain,
    jwks: &Jwks,
    request: &RequestHeader,
    method: &Method,
    target: &str,
) -> Logins {
    if chain.authenticator().is_empty() && chain.trial_authenticator().is_none() {
        return Logins::default();
    }
    let asked = Request {
        method,
        headers: &request.headers,
        query: target.split_once('?').map(|(_, query)| query),
    };
    let keys = jwks.load();
    let verify = |memory: &mut Memory| {
        let (now_s, before) = (now_s(), memory.signatures());
        let login = chain.authenticate(&asked, &keys, memory, now_s);
        let trial = chain.try_token(&asked, &keys, memory, now_s);
        let checked = memory.signatures().saturating_sub(before);
        if checked > 0 {
            JWT_SIGNATURES.add(i64::try_from(checked).unwrap_or(i64::MAX));
        }
        (login, trial)
    };
    let (login, trial) = MEMORY.with(|memory| match memory.try_borrow_mut() {
        Ok(mut memory) => verify(&mut memory),
        // Nothing here waits, so that it can not be borrowed twice; forgetting is safe all the same.
        Err(_) => verify(&mut Memory::new()),
    });
    let failures = [Some(&login), trial.as_ref()].into_iter().flatten();
    for failure in failures.filter_map(|login| login.as_ref().err()) {
        if let Some(source) = &failure.refresh {
            jwks.ask(source);
        }
    }
    Logins {
        login: Some(login),
        trial,
    }
}

/// A path and query for logs: without what may be a token.
pub(super) fn shown_path(chain: &PortChain, path: String) -> String {
    let mut params = chain.authenticator().params();
    let trial = chain.trial_authenticator();
    params.extend(trial.into_iter().flat_map(|trial| trial.params()));
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
