//! A request for a host inside of a wildcard (`DYNAMIC_DNS`, specs/istio-waypoint.md 4.2): which host it
//! is, and where that is. Waits for the first lookup of a name alone.

use std::time::Duration;

use cairn_filters::outcome::Outcome;
use http::header::HOST;
use pingora_proxy::Session;

use super::context::Plan;
use super::http::Gate;
use super::judge::Judged;
use crate::names::answer::DNS;
use crate::runtime::Runtime;
use crate::telemetry::exchange::Exchange;

impl Gate {
    /// Puts the host that the request goes to, as it will be sent, into its plan. `Some`: the answer, for
    /// it goes nowhere.
    pub(super) async fn find_host(
        &self,
        session: &Session,
        exchange: &mut Exchange,
        runtime: &Runtime,
        plan: &mut Plan,
    ) -> Option<Judged> {
        let wildcard = runtime.wildcard(plan.cluster.key())?;
        let request = session.req_header();
        let host = request
            .headers
            .get(HOST)
            .and_then(|host| host.to_str().ok());
        // HTTP/2 has it in the URI alone.
        let authority = request.uri.authority().map(|authority| authority.as_str());
        let sent = authority.or(host).unwrap_or_default();
        let host = without_port(sent)
            .trim_end_matches('.')
            .to_ascii_lowercase();
        if !wildcard.admits(&host) {
            let service = &plan.cluster.key().service.name;
            exchange.reason = Some(format!("host '{host}' is not inside of {service}"));
            return Some(Judged::Answer(Outcome::NoRoute));
        }
        let settings = plan.cluster.settings();
        let mesh_ms = runtime.snapshot.mesh.connect_timeout_ms;
        let limit = Duration::from_millis(settings.connect_timeout_ms.unwrap_or(mesh_ms));
        match self.worker.names.requested(&host, limit).await {
            Ok(answer) if answer.addresses.is_empty() => {
                let why = answer
                    .reason
                    .as_deref()
                    .unwrap_or("the name has no address");
                exchange.reason = Some(format!("{DNS}{host}: {why}"));
                Some(Judged::Answer(Outcome::NoEndpoint))
            }
            Ok(answer) => {
                let host = host.into();
                plan.cluster = runtime.requested(&plan.cluster, &host, &answer);
                plan.host = Some(host);
                None
            }
            Err(why) => {
                exchange.reason = Some(format!("{DNS}{host}: {why}"));
                Some(Judged::Answer(Outcome::NoEndpoint))
            }
        }
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    }
}
