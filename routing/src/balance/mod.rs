//! Load-balancing algorithms, one file each. An enum, not a trait object: the set is closed.

mod least_request;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::endpoint::LiveEndpoint;

/// How an endpoint is picked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Algorithm {
    /// The less loaded of two random endpoints, Istio's default.
    #[default]
    LeastRequest,
}

impl Algorithm {
    pub(crate) fn pick<'a>(
        self,
        endpoints: &'a [Arc<LiveEndpoint>],
        random: u64,
        tried: &[SocketAddr],
    ) -> Option<&'a Arc<LiveEndpoint>> {
        match self {
            Self::LeastRequest => least_request::pick(endpoints, random, tried),
        }
    }
}
