//! A stream that this waypoint takes, whichever way it came: tells its protocol and hands it to the
//! engine or to TCP.

use std::sync::Arc;

use super::admit::Asked;
use super::protocol::{self, Inner};
use crate::client_stream::ClientStream;
use crate::proxy::tcp;
use crate::runtime::Target;
use crate::telemetry::exchange::StreamOrigin;
use crate::worker::Worker;

/// A stream that was admitted.
pub struct Admitted {
    /// Where it comes from.
    pub origin: Arc<StreamOrigin>,
    /// What it asked for.
    pub asked: Asked,
    /// What that stands for.
    pub target: Arc<Target>,
}

impl Admitted {
    /// Serves a stream whose port is HTTP, or undeclared, until it ends.
    pub async fn serve(self, mut stream: ClientStream, worker: Arc<Worker>) {
        match protocol::detect(&mut stream, self.target.protocol).await {
            Ok(Some(Inner::Tcp)) => {
                // Found out only now, so a denial resets the stream without a byte (2.4).
                tcp::serve_accepted(stream, &self.origin, &self.asked, &worker).await;
            }
            Ok(Some(inner)) => {
                // A worker listens only once its engine runs.
                if let Some(engine) = worker.engine() {
                    engine.serve(stream, inner, self.origin, self.asked).await;
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "stream broke before its first bytes"),
        }
    }
}
