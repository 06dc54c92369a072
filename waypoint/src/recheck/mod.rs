//! A change of policy reaches what is open (issue 4, item 7): TCP streams, upgraded connections and
//! tunnels are judged again under each new snapshot, and those that it denies are closed. Requests in
//! flight are not: they finish under the snapshot they began with.
//!
//! Each worker judges its own, in slices, between which it serves others.

mod judge;
mod open;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

pub use self::judge::{Kept, KeptStream, UpgradeRequest, tcp_denial};
pub use self::open::{Closing, Closure, Open, Registered};
use crate::limits::RECHECK_SLICE;
use crate::telemetry::{self, counters};
use crate::worker::Worker;

/// Judges what is open again whenever a new snapshot is in force.
pub async fn follow(worker: &Worker, mut version: watch::Receiver<u64>) {
    while version.changed().await.is_ok() {
        pass(worker).await;
    }
    // Nobody publishes any more: the process ends.
    std::future::pending().await
}

/// One pass. If another snapshot comes into force meanwhile, the next pass begins right after it.
async fn pass(worker: &Worker) {
    let runtime = worker.runtime.load_full();
    telemetry::otlp::of_snapshot(runtime.snapshot.version);
    telemetry::access_log::of_snapshot(runtime.snapshot.version);
    let began = Instant::now();
    let due: Arc<[u64]> = worker.open.judged_before(runtime.snapshot.version);
    for slice in due.chunks(RECHECK_SLICE) {
        worker.open.judge(slice, &runtime);
        counters::rechecked(slice.len());
        tokio::task::yield_now().await;
    }
    counters::recheck_took(began.elapsed());
}
