//! Every request on a TCP connection, TLS handshake and tunnel of its own.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use rustls::ClientConfig;

use super::Order;
use super::lane::{self, Template};
use super::tally::Tally;
use crate::tunnel::Tunnel;

/// Sends until the `LocalSet` ends or too much failed.
pub async fn drive(order: Order, tls: Arc<ClientConfig>, template: Rc<Template>, tally: Rc<Tally>) {
    let mut errors = 0;
    while errors < 10 {
        let begun = Instant::now();
        let outcome = exchange(&order, tls.clone(), &template).await;
        errors += u32::from(outcome.is_err());
        tally.ended(begun, outcome);
    }
}

async fn exchange(
    order: &Order,
    tls: Arc<ClientConfig>,
    template: &Template,
) -> anyhow::Result<()> {
    let tunnel = Tunnel::connect(order.to, tls).await?;
    let mut lane = lane::open(&tunnel, order).await?.pop().context("no lane")?;
    lane.exchange(template).await?;
    Ok(())
}
