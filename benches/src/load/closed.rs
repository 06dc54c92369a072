//! The closed loop of one lane: the next request goes out when the answer is in.

use std::rc::Rc;
use std::time::Instant;

use super::lane::{Lane, Template};
use super::tally::Tally;

/// Errors after which a lane gives up: its connection is gone, or every answer is wrong.
const ERRORS_MAX: u32 = 10;

/// Sends until the `LocalSet` ends.
pub async fn drive(mut lane: Lane, template: Rc<Template>, tally: Rc<Tally>) {
    let mut errors = 0;
    while errors < ERRORS_MAX {
        let sent = Instant::now();
        let outcome = lane.exchange(&template).await;
        errors += u32::from(outcome.is_err());
        tally.ended(sent, outcome);
    }
}
