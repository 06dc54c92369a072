//! One client's walk through the ring: from where it asked to begin, past what it does not want, to where
//! it asked to end. Never holds up a writer; what was overwritten meanwhile is counted and told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::filter::{Filters, Invalid};
use super::flows::Teller;
use super::mask::Mask;
use super::messages::{
    Flow, GetFlowsRequest, GetFlowsResponse, LostEvent, LostEventSource, Timestamp,
    get_flows_response::ResponseTypes,
};
use crate::limits::{HUBBLE_FOLLOW_INTERVAL, HUBBLE_LOST_INTERVAL, HUBBLE_READ_SLICE};
use crate::telemetry::counters::FLOWS_LOST;
use crate::telemetry::flow::{Kept, Read, Ring};

/// Where a client is.
#[derive(Debug)]
pub struct Reader {
    ring: Arc<Ring>,
    teller: Arc<Teller>,
    filters: Filters,
    mask: Option<Mask>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    follow: bool,
    /// The next record.
    at: u64,
    /// Flows of all records before it.
    flows_before: u64,
    /// Records from here on came after the client asked.
    end: u64,
    /// Flows of the first record that are not among those asked for.
    skip: usize,
    /// Flows still to send; `None`: all.
    left: Option<u64>,
    ready: VecDeque<Flow>,
    lost: Lost,
}

/// What was overwritten and not yet told.
#[derive(Debug, Default)]
struct Lost {
    flows: u64,
    first: Option<SystemTime>,
    last: Option<SystemTime>,
    told: Option<Instant>,
}

impl Reader {
    /// Finds the beginning.
    ///
    /// # Errors
    /// When the request contradicts itself or has a filter that means nothing.
    pub fn new(
        ring: Arc<Ring>,
        teller: Arc<Teller>,
        request: &GetFlowsRequest,
    ) -> Result<Self, Invalid> {
        if request.first && request.follow {
            return Err(Invalid("first and follow exclude each other".into()));
        }
        let end = ring.next();
        let mut reader = Self {
            filters: Filters::new(&request.whitelist, &request.blacklist)?,
            mask: Mask::new(request.field_mask.as_ref())?,
            since: request.since,
            until: request.until,
            follow: request.follow,
            at: ring.oldest(),
            flows_before: 0,
            end,
            skip: 0,
            left: None,
            ready: VecDeque::new(),
            lost: Lost::default(),
            ring,
            teller,
        };
        let limited = request.number > 0 && request.since.is_none();
        if limited && !request.follow {
            reader.left = Some(request.number);
        }
        if request.follow && request.number == 0 && request.since.is_none() {
            reader.at = end;
        } else if limited && !request.first {
            reader.rewind(request.number);
        }
        reader.flows_before = reader.flows_at(reader.at);
        Ok(reader)
    }

    /// Goes back from the end to the last `number` flows that are wanted.
    fn rewind(&mut self, number: u64) {
        let mut missing = number;
        for at in (self.ring.oldest()..self.end).rev() {
            let Read::Record(kept) = self.ring.read(at) else {
                continue;
            };
            self.at = at;
            for (index, flow) in self.teller.flows(&kept).iter().enumerate().rev() {
                if !self.wants(flow) {
                    continue;
                }
                missing -= 1;
                if missing == 0 {
                    self.skip = index;
                    return;
                }
            }
        }
    }

    fn flows_at(&self, number: u64) -> u64 {
        match self.ring.read(number) {
            Read::Record(kept) => kept.flows_before,
            Read::Overwritten | Read::NotYet => self.ring.flows_seen(),
        }
    }

    fn wants(&self, flow: &Flow) -> bool {
        let early = self.since.is_some_and(|since| flow.time < Some(since));
        let late = self.until.is_some_and(|until| flow.time > Some(until));
        !early && !late && self.filters.want(flow)
    }

    /// The next thing to send; `None` at the end.
    pub async fn next(&mut self) -> Option<GetFlowsResponse> {
        let mut looked_at = 0;
        loop {
            if self.left == Some(0) {
                return None;
            }
            if let Some(lost) = self.lost.due() {
                return Some(self.tell_lost(lost));
            }
            if let Some(flow) = self.ready.pop_front() {
                self.left = self.left.map(|left| left - 1);
                return Some(self.tell(flow));
            }
            if !self.follow && self.at >= self.end {
                return self.lost.rest().map(|lost| self.tell_lost(lost));
            }
            match self.ring.read(self.at) {
                Read::Record(kept) => self.take(&kept),
                Read::Overwritten => self.skip_overwritten(),
                Read::NotYet if self.follow => {
                    if let Some(lost) = self.lost.rest() {
                        return Some(self.tell_lost(lost));
                    }
                    self.ring.added(self.at).await;
                    // More will have come: one turn for all of it.
                    tokio::time::sleep(HUBBLE_FOLLOW_INTERVAL).await;
                    if self.is_over() {
                        return None;
                    }
                }
                // It will be there for the next client.
                Read::NotYet => self.at += 1,
            }
            looked_at += 1;
            if looked_at % HUBBLE_READ_SLICE == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether the time that a follower wanted to see the end of is over.
    fn is_over(&self) -> bool {
        let now = Timestamp::from(SystemTime::now());
        self.until.is_some_and(|until| now > until) && self.at >= self.ring.next()
    }

    fn take(&mut self, kept: &Kept) {
        self.at += 1;
        self.flows_before = kept.flows_before + kept.record.flows();
        let skip = std::mem::take(&mut self.skip);
        for flow in self.teller.flows(kept).into_iter().skip(skip) {
            if self.wants(&flow) {
                self.ready.push_back(flow);
            }
        }
    }

    fn skip_overwritten(&mut self) {
        let oldest = self.ring.oldest().max(self.at + 1);
        let before = self.flows_at(oldest);
        self.lost.add(before.saturating_sub(self.flows_before));
        (self.at, self.flows_before, self.skip) = (oldest, before, 0);
    }

    fn tell(&self, mut flow: Flow) -> GetFlowsResponse {
        let (node_name, time) = (flow.node_name.clone(), flow.time);
        if let Some(mask) = &self.mask {
            mask.apply(&mut flow);
        }
        GetFlowsResponse {
            response_types: Some(ResponseTypes::Flow(Box::new(flow))),
            node_name,
            time,
        }
    }

    fn tell_lost(&self, event: LostEvent) -> GetFlowsResponse {
        GetFlowsResponse {
            response_types: Some(ResponseTypes::LostEvents(event)),
            node_name: self.teller.node.clone(),
            time: Some(Timestamp::from(SystemTime::now())),
        }
    }
}

impl Lost {
    fn add(&mut self, flows: u64) {
        let now = SystemTime::now();
        FLOWS_LOST.add(i64::try_from(flows).unwrap_or(i64::MAX));
        self.flows += flows;
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// What is to be told now, as often as that is done.
    fn due(&mut self) -> Option<LostEvent> {
        let wait = self
            .told
            .is_some_and(|told| told.elapsed() < HUBBLE_LOST_INTERVAL);
        if wait { None } else { self.rest() }
    }

    /// All that was not told.
    fn rest(&mut self) -> Option<LostEvent> {
        if self.flows == 0 {
            return None;
        }
        self.told = Some(Instant::now());
        Some(LostEvent {
            source: LostEventSource::Ring as i32,
            num_events_lost: std::mem::take(&mut self.flows),
            first: self.first.take().map(Timestamp::from),
            last: self.last.take().map(Timestamp::from),
        })
    }
}

#[cfg(test)]
mod tests;
