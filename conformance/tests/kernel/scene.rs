//! What most tests of the kernel begin with: a laboratory with servers, one enrolled pod with a
//! stand-in for the waypoint, an application in it, and flagged services. Asserts nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use cairn_kernel_redirect::{Counters, FlaggedService, Redirect};
use serde_json::json;

use crate::lab::{Lab, Pod};
use crate::processes::{App, Ready, StandIn};

/// A flagged service, fail-closed.
pub fn flagged(to: &str, slot: u32) -> FlaggedService {
    let to: SocketAddr = to.parse().unwrap();
    FlaggedService {
        address: to.ip(),
        port: to.port(),
        fail_open: false,
        slot,
    }
}

/// As [`flagged`], fail-open.
pub fn opened(to: &str, slot: u32) -> FlaggedService {
    FlaggedService {
        fail_open: true,
        ..flagged(to, slot)
    }
}

/// A laboratory in use. Processes go before the laboratory does.
#[derive(Debug)]
pub struct Scene {
    /// An application in the pod.
    pub app: App,
    /// Who accepts what is steered; nobody else has its listener open.
    pub waypoint: StandIn,
    /// `server`, at every address that was asked for.
    _server: Option<Ready>,
    /// Attached.
    pub redirect: Redirect,
    /// Enrolled.
    pub pod: Pod,
    /// Where all this is.
    pub lab: Lab,
}

impl Scene {
    /// A scene with a server at `served` and these services flagged.
    pub fn new(served: &[(&str, u16)], services: &[FlaggedService]) -> Option<Self> {
        Self::with_pod(served, services, |_| {})
    }

    /// As [`new`](Self::new); `prepare` is called with the pod before it is enrolled.
    pub fn with_pod(
        served: &[(&str, u16)],
        services: &[FlaggedService],
        prepare: impl FnOnce(&Pod),
    ) -> Option<Self> {
        let mut lab = Lab::new()?;
        let addresses: BTreeSet<&str> = served.iter().map(|(address, _)| *address).collect();
        addresses.iter().for_each(|address| lab.address(address));
        let pod = lab.pod("a");
        prepare(&pod);
        let server = (!served.is_empty()).then(|| lab.server("server", served));
        let mut redirect = lab.attach();
        let waypoint = lab.enrol(&mut redirect, &pod);
        redirect.set_services(services).unwrap();
        Some(Self {
            app: pod.app(),
            waypoint,
            _server: server,
            redirect,
            pod,
            lab,
        })
    }

    /// Who answers a new connection of the application, or why none can be made.
    pub fn reached(&mut self, to: &str) -> Result<String, String> {
        reached(&mut self.app, to)
    }

    /// What the programs have counted.
    pub fn counters(&self) -> Counters {
        self.redirect.status().unwrap().counters
    }
}

/// Who answers a new connection of an application, or why none can be made.
pub fn reached(app: &mut App, to: &str) -> Result<String, String> {
    app.connect(to, json!({})).map(|reached| reached.server)
}
