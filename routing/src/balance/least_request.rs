//! Least request by power of two choices: of two random endpoints the one with fewer requests in
//! flight. Not the least of all, for then every worker would run to the same endpoint at once.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::endpoint::LiveEndpoint;

pub(super) fn pick<'a>(
    endpoints: &'a [Arc<LiveEndpoint>],
    random: u64,
    tried: &[SocketAddr],
) -> Option<&'a Arc<LiveEndpoint>> {
    if tried.is_empty() {
        let (a, b) = two(endpoints.len(), random)?;
        return less_loaded(endpoints.get(a)?, endpoints.get(b)?);
    }
    // A retry: rare, so the endpoints are counted and walked rather than kept in a second list.
    let untried = || {
        endpoints
            .iter()
            .filter(|e| !tried.contains(&e.endpoint.address))
    };
    let Some((a, b)) = two(untried().count(), random) else {
        return pick(endpoints, random, &[]);
    };
    less_loaded(untried().nth(a)?, untried().nth(b)?)
}

/// Two different indices below `count` (the same one twice if there is only one), from the two
/// halves of one random number. `None`: `count` is 0.
fn two(count: usize, random: u64) -> Option<(usize, usize)> {
    let (low, high) = (random as u32 as usize, (random >> 32) as usize);
    match count {
        0 => None,
        1 => Some((0, 0)),
        n => {
            let a = low % n;
            let b = high % (n - 1);
            Some((a, if b >= a { b + 1 } else { b }))
        }
    }
}

fn less_loaded<'a>(
    a: &'a Arc<LiveEndpoint>,
    b: &'a Arc<LiveEndpoint>,
) -> Option<&'a Arc<LiveEndpoint>> {
    Some(if b.active() < a.active() { b } else { a })
}
