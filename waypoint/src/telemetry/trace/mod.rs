//! A request as part of a trace: its ids, whether it is sampled, what is noted of it. Sends nothing: spans
//! are made of what is noted, after the request, by `telemetry/otlp`.
//!
//! What it costs. Nothing is traced: the trace id of the client is looked for. Traced and not sampled: the
//! same, and the client's context goes on untouched; only where there was none, a new one is written. Of a
//! sampled one a box with its attempts and events is kept.

mod b3;
pub(super) mod compile;
pub mod context;
pub mod propagate;
pub mod recording;
pub mod sampler;
pub mod settings;
#[cfg(test)]
mod tests;
mod w3c;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use cairn_config_schema::snapshot::Endpoint;
use cairn_filters::header_change::Headers;
use http::HeaderMap;

use self::context::{SpanContext, SpanId, TraceId};
use self::propagate::{Incoming, Outgoing};
use self::recording::{Attempt, Recording, What};
use self::settings::{TagValue, Tracing};

static DEFAULT: OnceLock<Arc<Tracing>> = OnceLock::new();

/// Sets how requests are traced for which the configuration names no receiver; the first call counts.
pub fn set_default(tracing: Tracing) {
    let _ = DEFAULT.set(Arc::new(tracing));
}

/// See [`set_default`]. `None`: not at all.
pub fn default() -> Option<Arc<Tracing>> {
    DEFAULT.get().cloned()
}

static DISABLED: AtomicBool = AtomicBool::new(false);

/// Traces nothing, whatever the configuration names. To be called before it is compiled.
pub fn disable() {
    DISABLED.store(true, Ordering::Relaxed);
}

/// See [`disable`].
pub fn is_disabled() -> bool {
    DISABLED.load(Ordering::Relaxed)
}

/// The place of one request in its trace. The default has none.
#[derive(Debug, Default)]
pub struct Trace {
    id: Option<TraceId>,
    /// What the next hop is told, unless an attempt has a span of its own. `None`: its headers are right.
    context: Option<SpanContext>,
    outgoing: Outgoing,
    recording: Option<Box<Recording>>,
}

impl Trace {
    /// The trace of a request that nothing traces: what the client says of it.
    pub fn of_client(headers: &HeaderMap) -> Self {
        Self {
            id: propagate::trace_id(headers),
            ..Self::default()
        }
    }

    /// Decides whether a request is sampled.
    pub fn begin(
        headers: &HeaderMap,
        tracing: &Arc<Tracing>,
        mut random: impl FnMut() -> u64,
    ) -> Self {
        let incoming = propagate::extract(headers, tracing.propagation.read);
        let trace = match incoming.ids {
            Some((trace, _)) => trace,
            None => TraceId::random(&mut random),
        };
        let sampled = tracing.sampler.keeps(incoming.sampled, trace);
        let parent = incoming.ids.map(|(_, span)| span);
        let records = sampled && tracing.reports;
        let span = match parent {
            Some(parent) if !records => parent,
            _ => SpanId::random(random()),
        };
        let context = SpanContext {
            trace,
            span,
            sampled,
            random: incoming.random,
        };
        let goes_on = !records && is_said(&incoming, sampled);
        Self {
            id: Some(trace),
            context: (!goes_on).then_some(context),
            outgoing: Outgoing::new(&tracing.propagation, &incoming),
            recording: records.then(|| Box::new(recording(headers, tracing, parent))),
        }
    }

    /// Decides whether a TCP stream is sampled: nobody tells of its trace, so that it begins one, and one that is not
    /// sampled has none.
    pub fn of_stream(tracing: Option<&Arc<Tracing>>, random: impl FnMut() -> u64) -> Self {
        let begun = tracing.map(|tracing| Self::begin(&HeaderMap::new(), tracing, random));
        begun.filter(Self::is_recorded).unwrap_or_default()
    }

    /// The trace id: the client's, or the one that was made here.
    pub fn id(&self) -> Option<TraceId> {
        self.id
    }

    /// The span of the request itself; `None`: it has none.
    pub fn span(&self) -> Option<SpanId> {
        self.recording.as_ref().and(self.context).map(|c| c.span)
    }

    /// What was noted; `None` for a request that is not sampled.
    pub fn recording(&self) -> Option<&Recording> {
        self.recording.as_deref()
    }

    /// Whether spans are made of it.
    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// Tells the next hop, in a request that leaves.
    pub fn inject(&self, headers: &mut impl Headers) {
        if let Some(context) = &self.context {
            self.outgoing.inject(context, headers);
        }
    }

    /// Tells the endpoint of the attempt that runs.
    pub fn inject_attempt(&self, headers: &mut impl Headers) {
        let attempt = self.recording.as_ref().and_then(|r| r.attempts.last());
        if let (Some(attempt), Some(context)) = (attempt, self.context) {
            let span = attempt.span;
            self.outgoing
                .inject(&SpanContext { span, ..context }, headers);
        }
    }

    /// An attempt at an endpoint begins.
    pub fn begin_attempt(&mut self, endpoint: &Endpoint, random: impl FnOnce() -> u64) {
        if let Some(recording) = &mut self.recording {
            recording.begin_attempt(SpanId::random(random()), endpoint);
        }
    }

    /// Notes something of the attempt that runs.
    pub fn note_attempt(&mut self, note: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.recording.as_mut().and_then(|r| r.running()) {
            note(attempt);
        }
    }

    /// The attempt that runs is over; its last note.
    pub fn end_attempt(&mut self, note: impl FnOnce(&mut Attempt)) {
        self.note_attempt(|attempt| {
            note(attempt);
            attempt.ended = Some(Instant::now());
        });
    }

    /// What was decided before does not count any more: of the verdicts the last is told, when it came.
    pub fn decided_anew(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.decided_anew();
        }
    }

    /// Something happened.
    pub fn event(&mut self, what: impl FnOnce() -> What) {
        if let Some(recording) = &mut self.recording {
            recording.event(what());
        }
    }
}

/// Whether the headers say already what the next hop is to know.
fn is_said(incoming: &Incoming, sampled: bool) -> bool {
    incoming.ids.is_some() && incoming.sampled == Some(sampled)
}

fn recording(headers: &HeaderMap, tracing: &Arc<Tracing>, parent: Option<SpanId>) -> Recording {
    let tags = tracing.tags.iter().map(|tag| match &tag.value {
        TagValue::Literal(_) => None,
        TagValue::Header { name, .. } => headers.get(name).cloned(),
    });
    Recording {
        tracing: tracing.clone(),
        parent,
        state: parent.and_then(|_| propagate::state(headers)),
        tags: tags.collect(),
        // Most have one attempt, and one event: the verdict.
        attempts: Vec::with_capacity(1),
        events: Vec::with_capacity(1),
        events_dropped: 0,
    }
}
