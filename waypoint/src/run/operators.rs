//! What a waypoint has for those who run it: the operators' addresses, the flow API, exports. Serves no client.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::Notify;

use super::Settings;
use crate::admin::{self, AdminState};
use crate::explain;
use crate::hubble;
use crate::hubble::flows::Teller;
use crate::publish::InForce;
use crate::telemetry;
use crate::telemetry::otlp::{self, Exports, process};
use crate::upstream::Dialer;

/// Opens the addresses for operators: admin's, and the flow API's if there is to be one.
pub(super) fn serve_operators(
    settings: &Settings,
    in_force: &InForce,
    stop: &Arc<Notify>,
) -> anyhow::Result<(admin::Server, Option<hubble::Server>)> {
    let teller = settings.flows.start();
    let state = admin_state(settings, in_force, stop, Some(teller.clone()));
    let admin =
        admin::Server::start(settings.addresses, state).context("open the operators' addresses")?;
    Ok((admin, settings.flows.serve(teller)?))
}

/// Starts exporting spans, access log and metrics to whom the variables and the configuration name.
pub(super) fn export(
    settings: &Settings,
    in_force: &InForce,
    scraped: AdminState,
    dialer: Dialer,
) -> anyhow::Result<Option<Exports>> {
    let (pod, node) = (
        std::env::var("POD_NAME").ok(),
        std::env::var("NODE_NAME").ok(),
    );
    let ip = ["POD_IP", "INSTANCE_IP"].into_iter();
    let ip = ip.map(std::env::var).find_map(Result::ok);
    let snapshot = in_force.runtime.load().snapshot.clone();
    let served = snapshot
        .waypoint
        .as_ref()
        .map(|waypoint| &waypoint.origin.key);
    let gateway = settings.gateway.as_ref().or(served);
    let names = process::Names {
        gateway: gateway.map(|key| (&*key.namespace, &*key.name)),
        trust_domain: &snapshot.mesh.trust_domain,
        cluster: &telemetry::metrics::registry().cluster,
        pod: pod.as_deref(),
        node: node.as_deref(),
        ip: ip.as_deref(),
        domain: &snapshot.mesh.cluster_domain,
    };
    otlp::start(otlp::Parts {
        process: process::Process::new(&names, &settings.otel),
        environment: settings.otel.clone(),
        dialer,
        runtime: in_force.runtime.clone(),
        scrape: Box::new(move || admin::scrape(&scraped)),
    })
    .context("start exporting telemetry")
}

pub(super) fn admin_state(
    settings: &Settings,
    in_force: &InForce,
    stop: &Arc<Notify>,
    teller: Option<Arc<Teller>>,
) -> AdminState {
    let runtime = in_force.runtime.clone();
    let live = in_force.runtime.clone();
    let limited = in_force.runtime.clone();
    let explained = in_force.runtime.clone();
    let stop = stop.clone();
    AdminState {
        readiness: in_force.readiness.clone(),
        snapshot: Box::new(move || {
            let snapshot = runtime.load().snapshot.clone();
            (snapshot.version > 0).then_some(snapshot)
        }),
        last_reload: in_force.last_reload.clone(),
        acknowledged: in_force.acknowledged.clone(),
        jwks: in_force.jwks.clone(),
        live_cluster: Box::new(move |key| live.load().cluster(key).cloned()),
        limiters: Box::new(move || limited.load().limiters().iter().cloned().collect()),
        flows: telemetry::flow::ring().cloned().zip(teller),
        explain: Box::new(move |question| explain::judge_on(&explained.load(), question)),
        set_log_filter: Box::new(settings.set_log_filter),
        quit: Box::new(move || stop.notify_one()),
        registry: telemetry::metrics::registry().clone(),
        metrics_idle: settings.metrics_idle,
    }
}
