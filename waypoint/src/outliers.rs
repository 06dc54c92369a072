//! Outlier detection over time: lets ejected endpoints come back, and tells of every ejection. Who is
//! ejected for which answer is decided in `cairn-routing`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cairn_config_schema::snapshot::ClusterKey;
use cairn_routing::EjectionEvent;

use crate::clock::now_ms;
use crate::runtime::Runtime;

/// How often clusters are asked whether their interval has passed: ejections are late by that much.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Starts the thread that lets endpoints come back.
///
/// # Errors
/// When it can not be started.
pub fn start(runtime: Arc<ArcSwap<Runtime>>) -> std::io::Result<()> {
    let clock = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let thread = std::thread::Builder::new().name("outliers".to_owned());
    thread.spawn(move || clock.block_on(look(&runtime)))?;
    Ok(())
}

async fn look(runtime: &ArcSwap<Runtime>) {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        ticks.tick().await;
        let runtime = runtime.load();
        let requested = runtime.all_requested();
        for cluster in runtime.clusters().chain(&requested) {
            for event in cluster.sweep(now_ms()) {
                tell(cluster.key(), &event);
            }
        }
    }
}

/// Writes what became of an endpoint to the log.
pub fn tell(cluster: &ClusterKey, event: &EjectionEvent) {
    match event {
        EjectionEvent::Ejected {
            endpoint,
            cause,
            for_ms,
        } => tracing::warn!(
            destination = %cluster, endpoint = %endpoint.endpoint.address, cause = cause.as_str(),
            for_ms, times = endpoint.health().times_ejected(),
            "endpoint ejected: requests go to the others"
        ),
        EjectionEvent::Spared { endpoint, cause } => tracing::warn!(
            destination = %cluster, endpoint = %endpoint.endpoint.address, cause = cause.as_str(),
            "endpoint not ejected: maxEjectionPercent are out already"
        ),
        EjectionEvent::Returned { endpoint } => tracing::info!(
            destination = %cluster, endpoint = %endpoint.endpoint.address,
            "endpoint is back"
        ),
    }
}
