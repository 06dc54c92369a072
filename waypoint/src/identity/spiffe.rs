//! Identity from the SPIFFE Workload API, as SPIRE's agent serves it on a socket. The agent renews; what it
//! sends is judged, and what was good stays while the socket is gone.

use std::collections::BTreeMap;

use cairn_config_schema::identity::Identity;
use futures::StreamExt;
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context, X509Svid};

use super::own::{Outcome, OwnIdentity};
use super::{Following, back_off};
use crate::tls::{Anchors, LocalIdentity, Material, MaterialError};

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
enum SpiffeError {
    #[error(
        "the SPIFFE Workload API {endpoint} can not be used: {error}; is the agent's socket mounted there?"
    )]
    Api {
        endpoint: String,
        error: WorkloadApiError,
    },
    #[error(
        "the SPIFFE Workload API {0} has no identity for this pod; it needs a registration entry (with SPIRE: spire-server entry create) whose selectors are the pod's"
    )]
    NoIdentity(String),
    #[error("the SPIFFE Workload API {0} ended its answer")]
    Ended(String),
    #[error("the SPIFFE Workload API gives {given}, and none of them is {wanted}")]
    Other { given: String, wanted: String },
    #[error("the SPIFFE Workload API gives what can not be used: {0}")]
    Material(#[from] MaterialError),
}

impl SpiffeError {
    fn of(endpoint: &str, error: WorkloadApiError) -> Self {
        let endpoint = endpoint.to_owned();
        match error {
            WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
                Self::NoIdentity(endpoint)
            }
            error => Self::Api { endpoint, error },
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Api {
                error: WorkloadApiError::Transport(_) | WorkloadApiError::Endpoint(_),
                ..
            }
            | Self::Ended(_) => Outcome::Connect,
            Self::NoIdentity(_) => Outcome::Refused,
            Self::Api { .. } | Self::Other { .. } | Self::Material(_) => Outcome::Answer,
        }
    }
}

/// Takes what the agent sends as long as the process lives.
pub(super) async fn follow(endpoint: &str, following: &Following, own: &OwnIdentity) {
    let mut failures = 0;
    loop {
        let error = listen(endpoint, following, own, &mut failures).await;
        failures += 1;
        let wait = back_off::after(failures, fastrand::f64());
        own.failed(error.outcome(), &error, wait);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = following.reload.notified() => {}
        }
    }
}

/// One stream of updates, to its end. Updates that must not be used leave what is in force.
async fn listen(
    endpoint: &str,
    following: &Following,
    own: &OwnIdentity,
    failures: &mut u32,
) -> SpiffeError {
    let client = match WorkloadApiClient::connect_to(endpoint).await {
        Ok(client) => client,
        Err(error) => return SpiffeError::of(endpoint, error),
    };
    let mut updates = match client.stream_x509_contexts().await {
        Ok(updates) => updates,
        Err(error) => return SpiffeError::of(endpoint, error),
    };
    while let Some(update) = updates.next().await {
        let context = match update {
            Ok(context) => context,
            Err(error) => return SpiffeError::of(endpoint, error),
        };
        let trust_domain = following.trust_domain().await;
        match judge(&context, following, &trust_domain) {
            Ok(identity) => {
                own.take(identity);
                *failures = 0;
            }
            // The agent sends again when it has something else, or when it is asked anew.
            Err(error) => return error,
        }
    }
    SpiffeError::Ended(endpoint.to_owned())
}

fn judge(
    context: &X509Context,
    following: &Following,
    trust_domain: &str,
) -> Result<LocalIdentity, SpiffeError> {
    let account = &following.expected.account;
    let wanted = |svid: &&std::sync::Arc<X509Svid>| is_wanted(svid, trust_domain, account.as_ref());
    // The first is the default one (SPIFFE Workload API, 5.2.1), and has to be of this mesh.
    let Some(svid) = context.svids().iter().find(wanted) else {
        let given = context.svids().iter().map(|s| s.spiffe_id().to_string());
        let given: Vec<_> = given.collect();
        let wanted = match account {
            Some((namespace, account)) => {
                format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}")
            }
            None => format!("of trust domain {trust_domain}"),
        };
        return Err(SpiffeError::Other {
            given: given.join(", "),
            wanted,
        });
    };
    let mut domains = BTreeMap::new();
    for (domain, bundle) in context.bundle_set().iter() {
        let roots = bundle.authorities().iter().map(|c| c.as_bytes().to_vec());
        let roots: Vec<_> = roots.collect();
        // A partner that has no authority yet vouches for nobody.
        if !roots.is_empty() {
            domains.insert(domain.to_string(), roots);
        }
    }
    let chain = svid.cert_chain().iter().map(|c| c.as_bytes().to_vec());
    let material = Material {
        chain: chain.collect(),
        key: svid.private_key().as_bytes().to_vec(),
        anchors: Anchors::ByDomain(domains),
    };
    let identity = LocalIdentity::new(material, 1)?;
    identity.check_chain()?;
    Ok(identity)
}

fn is_wanted(svid: &X509Svid, trust_domain: &str, account: Option<&(String, String)>) -> bool {
    let Ok(identity) = Identity::parse(&svid.spiffe_id().to_string()) else {
        return false;
    };
    identity.trust_domain() == trust_domain
        && account.is_none_or(|(namespace, account)| {
            identity.namespace() == Some(namespace) && identity.service_account() == Some(account)
        })
}
