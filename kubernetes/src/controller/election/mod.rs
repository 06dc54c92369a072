//! Leader election by a Lease: of several controllers one writes. Losing the lease is told at once, and who leads
//! gives it back when it stops.

mod lease;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::api::{Api, Failure, Place};
pub use lease::{Candidate, Lease, Step};

/// How long a lease lasts that is not renewed.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// Who could not renew for so long leads no more: well before others may take the lease.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks, and between two renewals.
pub const RETRY: Duration = Duration::from_secs(2);

/// Longest time for one request about the lease.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the lease is kept.
pub trait Store {
    /// The lease. `None`: there is none.
    fn read(&self) -> impl Future<Output = Result<Option<Lease>, Failure>> + Send;

    /// Writes it, if it still is as `over` was read (`None`: if there is none).
    fn write(
        &self,
        lease: &Lease,
        over: Option<&Lease>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A `coordination.k8s.io` Lease.
pub struct Remote {
    /// The API server.
    pub api: Api,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Remote {
    fn place(&self) -> Place {
        Place::new("coordination.k8s.io", "v1", "leases", Some(&self.namespace))
    }
}

impl Store for Remote {
    async fn read(&self) -> Result<Option<Lease>, Failure> {
        let object = self.api.get(&self.place(), &self.name).await?;
        Ok(object.as_ref().map(Lease::read))
    }

    async fn write(&self, lease: &Lease, over: Option<&Lease>) -> Result<(), Failure> {
        let now = jiff::Timestamp::now();
        let object = lease.object(&self.namespace, &self.name, over, now);
        let place = self.place();
        match over {
            None => self.api.create(&place, &object).await.map(drop),
            Some(_) => self
                .api
                .replace(&place, &self.name, &object)
                .await
                .map(drop),
        }
    }
}

/// Waits until it is ours.
pub async fn acquire<S: Store>(store: &S, candidate: &mut Candidate) {
    let mut told = None;
    loop {
        match attempt(store, candidate).await {
            Ok(Step::Hold) => return,
            Ok(Step::Wait) => {}
            Err(failure) => {
                if told.as_ref() != Some(&failure) {
                    tracing::warn!(error = %failure, "the lease can not be had");
                    told = Some(failure);
                }
            }
        }
        sleep(RETRY).await;
    }
}

/// Renews it until it is lost, and says why it is.
pub async fn keep<S: Store>(store: &S, candidate: &mut Candidate) -> String {
    let mut renewed = Instant::now();
    loop {
        sleep(RETRY).await;
        let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
        let began = Instant::now();
        match timeout(left, attempt(store, candidate)).await {
            Ok(Ok(Step::Hold)) => renewed = began,
            Ok(Ok(Step::Wait)) => return "another controller has the lease".to_owned(),
            Ok(Err(failure)) if renewed.elapsed() < RENEW_DEADLINE => {
                tracing::warn!(error = %failure, "the lease was not renewed");
            }
            Ok(Err(failure)) => return format!("the lease could not be renewed: {failure}"),
            Err(_) => return "the lease could not be renewed in time".to_owned(),
        }
    }
}

/// Gives it back, so that another one need not wait for its end.
pub async fn release<S: Store>(store: &S, candidate: &Candidate) {
    let released = async {
        let lease = store.read().await?;
        match lease.filter(|lease| lease.holder == candidate.name()) {
            Some(held) => store.write(&held.released(), Some(&held)).await,
            None => Ok(()),
        }
    };
    match timeout(REQUEST_TIMEOUT, released).await {
        Ok(Ok(())) => tracing::info!("the lease is given back"),
        Ok(Err(failure)) => tracing::warn!(error = %failure, "the lease is not given back"),
        Err(_) => tracing::warn!("the lease is not given back: no answer"),
    }
}

/// One look, and one write if it is ours to write.
async fn attempt<S: Store>(store: &S, candidate: &mut Candidate) -> Result<Step, Failure> {
    let no_answer = |_| Failure {
        code: 0,
        message: "no answer in time".to_owned(),
    };
    let there = timeout(REQUEST_TIMEOUT, store.read())
        .await
        .map_err(no_answer)??;
    let Some(lease) = candidate.bid(there.as_ref(), Instant::now()) else {
        return Ok(Step::Wait);
    };
    let written = timeout(REQUEST_TIMEOUT, store.write(&lease, there.as_ref()));
    match written.await.map_err(no_answer)? {
        Ok(()) => Ok(Step::Hold),
        // Whoever was first is seen at the next look.
        Err(failure) if failure.is_conflict() && !candidate.holds(there.as_ref()) => Ok(Step::Wait),
        Err(failure) => Err(failure),
    }
}
