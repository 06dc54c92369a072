//! What an operator says of flow records: how many are kept, who may read them, what they show.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use http::HeaderName;
use http::header::USER_AGENT;

use super::flows::Teller;
use super::{Redaction, Server};
use crate::limits::FLOW_RECORDS;
use crate::telemetry::flow;

/// Flow records and who may read them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Exchanges that are kept; 0: none.
    pub records: usize,
    /// Where Hubble's API is served; `None`: nowhere.
    pub address: Option<SocketAddr>,
    /// What is shown of them.
    pub redaction: Redaction,
}

impl Default for Settings {
    /// As many as by default, read by the admin page alone.
    fn default() -> Self {
        Self {
            records: FLOW_RECORDS,
            address: None,
            redaction: Redaction {
                queries: false,
                headers: vec![USER_AGENT, HeaderName::from_static("x-request-id")],
            },
        }
    }
}

impl Settings {
    /// Keeps records from now on; returns how they are told.
    pub fn start(&self) -> Arc<Teller> {
        flow::start(self.records);
        Arc::new(Teller::new(self.redaction.clone()))
    }

    /// Serves them, if that is asked for.
    ///
    /// # Errors
    /// When no records are kept, or the address can not be opened.
    pub fn serve(&self, teller: Arc<Teller>) -> anyhow::Result<Option<Server>> {
        let Some(address) = self.address else {
            return Ok(None);
        };
        let ring = flow::ring().context("--hubble-addr needs --flow-records above 0")?;
        let server = Server::start(address, ring.clone(), teller);
        server.map(Some).context("open the flow API")
    }
}
