//! `/api/flows`: the flows since a place in the ring, by the filters of `cairn observe`. A page asks again
//! from where the last answer ended.

use serde::Serialize;

use crate::admin::state::AdminState;
use crate::hubble::ask::{Flag, List};
use crate::hubble::filter::Filters;
use crate::hubble::messages::Flow;
use crate::limits::{PAGE_FLOWS_MAX, PAGE_RECORDS_MAX};
use crate::telemetry::flow::Read;

/// Records that are shown to who says no place.
const BEGIN_WITH: u64 = 100;

#[derive(Default, Serialize)]
struct Flows {
    /// Where to go on.
    next: u64,
    /// Records that were overwritten since the place that was asked for.
    lost: u64,
    /// The waypoint keeps no records.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    off: bool,
    flows: Vec<Flow>,
}

/// Answers `after=PLACE&NAME=VALUE...`.
///
/// # Errors
/// When a filter means nothing; in words.
pub fn flows(state: &AdminState, query: &str) -> Result<Vec<u8>, String> {
    let (after, filters) = asked(query)?;
    let Some((ring, teller)) = &state.flows else {
        let off = Flows {
            off: true,
            ..Flows::default()
        };
        return serde_json::to_vec(&off).map_err(|error| error.to_string());
    };
    let (oldest, end) = (ring.oldest(), ring.next());
    // A place of before a restart is in the future.
    let after = after.filter(|after| *after <= end);
    let wanted = after.unwrap_or_else(|| end.saturating_sub(BEGIN_WITH));
    let mut at = wanted.max(oldest);
    let mut found = Flows {
        lost: at.saturating_sub(wanted).min(after.map_or(0, |_| u64::MAX)),
        ..Flows::default()
    };
    let end = end.min(at.saturating_add(PAGE_RECORDS_MAX));
    while at < end && found.flows.len() < PAGE_FLOWS_MAX {
        match ring.read(at) {
            Read::Record(kept) => {
                let flows = teller.flows(&kept).into_iter();
                found.flows.extend(flows.filter(|flow| filters.want(flow)));
            }
            Read::Overwritten => found.lost += 1,
            // Its writer is about to store it.
            Read::NotYet => break,
        }
        at += 1;
    }
    found.next = at;
    serde_json::to_vec(&found).map_err(|error| error.to_string())
}

fn asked(query: &str) -> Result<(Option<u64>, Filters), String> {
    let (mut after, mut list) = (None, List::default());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if value.is_empty() {
            continue;
        }
        if name == "after" {
            let place = value.parse().map_err(|_| "after is not a number")?;
            after = Some(place);
            continue;
        }
        let flag = Flag::named(&name).ok_or_else(|| format!("there is no filter {name:?}"))?;
        flag.add(&mut list, &value)
            .map_err(|why| format!("{name}: {why}"))?;
    }
    let filters = Filters::new(&list.filters(), &[]).map_err(|invalid| invalid.to_string())?;
    Ok((after, filters))
}
