//! Failures that a route makes on purpose (specs/policies.md 2.6): which a request gets, and the answer to
//! one that is aborted. Waits for nothing.

use cairn_config_schema::snapshot::{AbortAnswer, Fault, SHARE_PARTS};
use cairn_routing::http_status_of_grpc;
use http::StatusCode;

use crate::outcome::{LocalReply, Outcome};

/// What is to go wrong with a request: the delay first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// It waits so long, in milliseconds.
    pub delay_ms: Option<u64>,
    /// It is answered, and not sent on.
    pub abort: Option<AbortAnswer>,
}

impl Faults {
    /// Draws for one request, for the delay and for the abort. `random` gives uniform numbers.
    pub fn draw(fault: &Fault, mut random: impl FnMut() -> u64) -> Self {
        let mut is_hit = |share: u32| random() % u64::from(SHARE_PARTS) < u64::from(share);
        Self {
            delay_ms: fault.delay.filter(|d| is_hit(d.share)).map(|d| d.delay_ms),
            abort: fault.abort.filter(|a| is_hit(a.share)).map(|a| a.answer),
        }
    }
}

/// The status that an aborted request gets; gRPC gets its own in [`reply`].
pub fn status(answer: AbortAnswer) -> StatusCode {
    match answer {
        AbortAnswer::Http(status) => status,
        AbortAnswer::Grpc(0) => StatusCode::OK,
        AbortAnswer::Grpc(status) => {
            let status = http_status_of_grpc(u32::from(status));
            let status = status.and_then(|status| StatusCode::from_u16(status).ok());
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// The answer to an aborted request.
pub fn reply(answer: AbortAnswer, grpc: bool) -> LocalReply {
    let reply = Outcome::FaultInjected.reply(grpc);
    if !grpc {
        return LocalReply {
            status: status(answer),
            ..reply
        };
    }
    LocalReply {
        grpc_status: Some(match answer {
            AbortAnswer::Grpc(status) => status,
            AbortAnswer::Http(status) => grpc_status_of(status),
        }),
        ..reply
    }
}

/// gRPC's official mapping of answers that are no gRPC.
fn grpc_status_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use cairn_config_schema::snapshot::{Abort, Delay};

    use super::*;

    #[test]
    fn delay_and_abort_are_drawn_apart_by_their_shares() {
        let fault = Fault {
            delay: Some(Delay {
                share: SHARE_PARTS / 4,
                delay_ms: 5,
            }),
            abort: Some(Abort {
                share: SHARE_PARTS / 10,
                answer: AbortAnswer::Http(StatusCode::BAD_GATEWAY),
            }),
        };
        let mut numbers = [0, 99_999].into_iter();
        let both = Faults::draw(&fault, || numbers.next().unwrap());
        assert_eq!(both.delay_ms, Some(5));
        assert!(both.abort.is_some());
        let mut numbers = [249_999, 100_000].into_iter();
        let one = Faults::draw(&fault, || numbers.next().unwrap());
        assert_eq!((one.delay_ms, one.abort), (Some(5), None));
        assert_eq!(Faults::draw(&fault, || 250_000), Faults::default());
    }

    #[test]
    fn each_protocol_gets_its_own_status() {
        let unavailable = AbortAnswer::Grpc(14);
        assert_eq!(reply(unavailable, true).grpc_status, Some(14));
        assert_eq!(reply(unavailable, false).status, 503);
        let teapot = AbortAnswer::Http(StatusCode::IM_A_TEAPOT);
        assert_eq!(reply(teapot, false).status, 418);
        assert_eq!(reply(teapot, true).grpc_status, Some(2));
        assert_eq!(reply(teapot, false).body, "fault filter abort");
    }
}
