//! What a destination's settings make of one request: the key it is balanced by, the endpoint it goes
//! to, the place it takes under the limits, and what its end says about the endpoint. Which endpoint
//! that is, and whether it is ejected, is decided in `cairn-routing`.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::snapshot::{Balancer, HashBy};
use cairn_filters::outcome::Outcome;
use cairn_routing::{
    AnswerKind, Choice, Cluster, EjectionEvent, Limited, LiveEndpoint, Permit, key_hash,
};
use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};

use super::context::RequestContext;
use crate::clock::now_ms;
use crate::outliers;
use crate::telemetry::exchange::Exchange;
use crate::telemetry::trace::recording::What;

/// What a request is balanced by.
#[derive(Default)]
pub struct HashKey {
    /// `None`: by nothing, or the request has no such key.
    pub hash: Option<u64>,
    /// A cookie that was made for the client, as the value of `set-cookie`.
    pub cookie: Option<HeaderValue>,
}

/// A request as far as keys are taken from it.
pub(super) struct Keyed<'r> {
    pub(super) headers: &'r HeaderMap,
    /// Without the question mark.
    pub(super) query: Option<&'r str>,
    pub(super) source_ip: IpAddr,
}

/// The key of a request towards a cluster (specs/policies.md 2.7, consistentHash).
pub(super) fn hash_key(cluster: &Cluster, request: &Keyed<'_>) -> HashKey {
    let settings = cluster.settings();
    let Balancer::Hash(hash) = &settings.balancing.balancer else {
        return HashKey::default();
    };
    let found = match &hash.by {
        HashBy::Header(name) => request.headers.get(name).map(|v| key_hash(v.as_bytes())),
        HashBy::SourceIp => Some(ip_hash(request.source_ip)),
        HashBy::Query(name) => request.query.and_then(|query| parameter(query, name)),
        HashBy::Cookie { name, path, ttl_s } => match (cookie(request.headers, name), ttl_s) {
            (Some(value), _) => Some(key_hash(value)),
            (None, None) => None,
            (None, Some(ttl_s)) => return made_cookie(name, path.as_deref(), *ttl_s),
        },
    };
    HashKey {
        hash: found,
        cookie: None,
    }
}

/// The key of a TCP stream: it has nothing but an address.
pub(super) fn address_key(cluster: &Cluster, source: IpAddr) -> Option<u64> {
    match &cluster.settings().balancing.balancer {
        Balancer::Hash(hash) if hash.by == HashBy::SourceIp => Some(ip_hash(source)),
        _ => None,
    }
}

fn ip_hash(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => key_hash(&v4.octets()),
        IpAddr::V6(v6) => key_hash(&v6.octets()),
    }
}

fn parameter(query: &str, name: &str) -> Option<u64> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('='));
    let value = pairs.find_map(|pair| pair.filter(|(key, _)| *key == name))?;
    Some(key_hash(value.1.as_bytes()))
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    cookies(headers, name).next()
}

/// The values of all cookies of a name.
pub(super) fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(COOKIE).into_iter();
    let cookies = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    cookies.filter_map(move |cookie| {
        let cookie = cookie.trim_ascii();
        cookie.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    })
}

/// A cookie whose value leads back to where this request goes.
fn made_cookie(name: &str, path: Option<&str>, ttl_s: u64) -> HashKey {
    let value = format!("{:016x}", fastrand::u64(..));
    let age = match ttl_s {
        0 => String::new(),
        seconds => format!("; Max-Age={seconds}"),
    };
    let path = path.map_or_else(String::new, |path| format!("; Path={path}"));
    let line = format!("{name}={value}{age}{path}; HttpOnly");
    HashKey {
        hash: Some(key_hash(value.as_bytes())),
        // Name and path were looked at when the configuration was read.
        cookie: HeaderValue::try_from(line).ok(),
    }
}

/// Picks the endpoint of the next attempt and takes its place under the limit on requests.
///
/// # Errors
/// When there is none, or no place; with a reason for the access log.
pub(super) fn choose(
    cluster: &Cluster,
    hash: Option<u64>,
    prefer: Option<u64>,
    tried: &[std::net::SocketAddr],
) -> Result<(Arc<LiveEndpoint>, Permit), (Outcome, String)> {
    if let Some(reason) = &cluster.settings().refused {
        return Err((Outcome::NotServed, reason.to_string()));
    }
    let Some(permit) = cluster.admit(Limited::Requests) else {
        let reason = format!("{} has as many requests as it may", cluster.key());
        return Err((Outcome::UpstreamOverflow, reason));
    };
    match pick(cluster, hash, prefer, tried) {
        Some(live) => Ok((live, permit)),
        None => Err((Outcome::NoEndpoint, no_endpoint(cluster))),
    }
}

/// Picks an endpoint.
pub(super) fn pick(
    cluster: &Cluster,
    hash: Option<u64>,
    prefer: Option<u64>,
    tried: &[std::net::SocketAddr],
) -> Option<Arc<LiveEndpoint>> {
    cluster.pick(&Choice {
        hash,
        prefer,
        ..Choice::new(fastrand::u64(..), tried, now_ms())
    })
}

/// Why there is none.
pub(super) fn no_endpoint(cluster: &Cluster) -> String {
    match cluster.endpoints().len() {
        0 if let Some(why) = cluster.absence() => {
            format!("{} has no endpoint: {why}", cluster.key())
        }
        0 => format!("{} has no endpoint", cluster.key()),
        n => format!("all {n} endpoints of {} are ejected", cluster.key()),
    }
}

/// Puts the end of the present attempt to the record of its endpoint.
pub(super) fn record(ctx: &mut RequestContext, answer: AnswerKind) {
    let (Some(plan), Some(active)) = (&ctx.plan, &ctx.active) else {
        return;
    };
    let exchange = ctx.exchange.as_mut();
    record_for(&plan.cluster, active.endpoint(), answer, exchange);
}

/// Puts an answer, or its absence, to the record of an endpoint, and what came of it to the span of who saw it.
pub(super) fn record_for(
    cluster: &Cluster,
    endpoint: &Arc<LiveEndpoint>,
    answer: AnswerKind,
    seen_by: Option<&mut Exchange>,
) {
    let Some(event) = cluster.record(endpoint, answer, now_ms()) else {
        return;
    };
    outliers::tell(cluster.key(), &event);
    if let (
        Some(exchange),
        EjectionEvent::Ejected {
            endpoint,
            cause,
            for_ms,
        },
    ) = (seen_by, event)
    {
        exchange.trace.event(|| What::Ejected {
            endpoint: endpoint.endpoint.address,
            cause: cause.as_str(),
            for_ms,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookies: &[&'static str]) -> HeaderMap {
        let lines = cookies
            .iter()
            .map(|c| (COOKIE, HeaderValue::from_static(c)));
        HeaderMap::from_iter(lines)
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_any_line() {
        let all = headers(&["a=1; who=me", "whose=2;b=3"]);
        assert_eq!(cookie(&all, "who"), Some(&b"me"[..]));
        assert_eq!(cookie(&all, "b"), Some(&b"3"[..]));
        assert_eq!(cookie(&all, "wh"), None);
    }

    #[test]
    fn a_cookie_that_is_made_leads_back_to_the_same_endpoint() {
        let made = made_cookie("who", Some("/shop"), 60);
        let line = made.cookie.unwrap().to_str().unwrap().to_owned();
        let (pair, rest) = line.split_once("; ").unwrap();
        assert_eq!(rest, "Max-Age=60; Path=/shop; HttpOnly");
        let value = pair.strip_prefix("who=").unwrap();
        assert_eq!(made.hash, Some(key_hash(value.as_bytes())));
        let session = made_cookie("who", None, 0).cookie.unwrap();
        assert!(!session.to_str().unwrap().contains("Max-Age"));
    }

    #[test]
    fn a_parameter_is_found_by_its_whole_name() {
        let of = |query| parameter(query, "user");
        assert_eq!(of("x=1&user=me"), Some(key_hash(b"me")));
        assert_eq!(of("users=me&user"), None);
    }

    #[test]
    fn a_mapped_address_is_the_one_it_stands_for() {
        let hash = |text: &str| ip_hash(text.parse().unwrap());
        assert_eq!(hash("::ffff:10.0.0.1"), hash("10.0.0.1"));
        assert_ne!(hash("10.0.0.2"), hash("10.0.0.1"));
    }
}
