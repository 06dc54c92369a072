//! What policies judge a request or stream by, out of what is known of it. Decides nothing.

use std::net::IpAddr;

use cairn_authz::jwt::Login;
use cairn_authz::{Facts, HttpFacts};
use cairn_routing::{Found, FoundStream};
use http::header::HeaderName;

use super::{Authenticated, RequestView, StreamView};
use crate::normalise::Target;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The facts that policies judge a request by; after a decision, those that decided. `found` is the
/// route.
pub fn facts<'a>(
    view: &RequestView<'_, 'a>,
    target: &'a Target<'_>,
    found: Option<&'a Found>,
) -> Facts<'a> {
    let rule = match found {
        Some(Found::Rule(reference)) => reference.rule(),
        _ => None,
    };
    Facts {
        backends: rule.map_or(&[], |rule| &rule.backends),
        remote_ip: remote_ip(view),
        http: Some(HttpFacts {
            method: view.method.as_str(),
            host: view.authority,
            path: target.judged_path(),
            query: target.judged_query(),
            headers: view.headers,
            token: logged_in(view.login).and_then(Login::token),
        }),
        ..tcp_facts(&StreamView {
            peer: view.peer,
            attested_by: view.attested_by,
            source_ip: view.source_ip,
            destination: view.destination,
            found: None,
        })
    }
}

/// The same as they would be with the RequestAuthentications that are tried.
pub fn trial_facts<'a>(
    view: &RequestView<'_, 'a>,
    target: &'a Target<'_>,
    found: Option<&'a Found>,
) -> Facts<'a> {
    let mut facts = facts(view, target, found);
    if let (Some(http), Some(login)) = (&mut facts.http, view.trial) {
        http.token = logged_in(Some(login)).and_then(Login::token);
    }
    facts
}

/// Who a request is from, if its token is good.
pub(super) fn logged_in(login: Option<&Authenticated>) -> Option<&Login> {
    login?.as_ref().ok()
}

/// The facts that policies judge a TCP stream by.
pub fn tcp_facts<'r>(view: &StreamView<'r>) -> Facts<'r> {
    let rule = view.found.and_then(FoundStream::rule);
    Facts {
        peer: view.peer,
        attested_by: view.attested_by,
        source_ip: view.source_ip,
        remote_ip: view.source_ip,
        destination_ip: view.destination.ip(),
        destination_port: view.destination.port(),
        backends: rule.map_or(&[], |rule| &rule.backends),
        http: None,
    }
}

/// The right-most entry of x-forwarded-for, else the TCP peer (specs/istio-waypoint.md 4.8,
/// `source.remoteIpBlocks`).
fn remote_ip(view: &RequestView<'_, '_>) -> IpAddr {
    let last_value = view.headers.get_all(X_FORWARDED_FOR).iter().next_back();
    last_value
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.rsplit(',').next())
        .and_then(|entry| entry.trim().parse().ok())
        .unwrap_or(view.source_ip)
}
