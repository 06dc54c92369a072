//! The trace context in headers: what came in, and what the next hop is told. Decides nothing.

use cairn_filters::header_change::Headers;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::context::{SpanContext, SpanId, TraceId};
use super::{b3, w3c};

const TRACEPARENT_NAME: &str = "traceparent";
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static(TRACEPARENT_NAME);
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longer lists of vendors' words are told on, and left out of spans (W3C trace context 3.3.1.5).
const STATE_BYTES_MAX: usize = 512;

/// Ways to write a trace context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formats {
    /// `traceparent` and `tracestate`.
    pub w3c: bool,
    /// `b3`.
    pub b3: bool,
    /// `x-b3-*`.
    pub b3_several: bool,
}

impl Formats {
    /// All of them.
    pub const ALL: Self = Self {
        w3c: true,
        b3: true,
        b3_several: true,
    };

    fn and(self, other: Self) -> Self {
        Self {
            w3c: self.w3c || other.w3c,
            b3: self.b3 || other.b3,
            b3_several: self.b3_several || other.b3_several,
        }
    }
}

/// What is read, and what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// These are read, in the order of the fields; the first that has a trace counts.
    pub read: Formats,
    /// These are written, beside those that the request came with.
    pub write: Formats,
}

impl Default for Propagation {
    /// Whatever comes is read and answered in its own form, W3C's is always written.
    fn default() -> Self {
        Self {
            read: Formats::ALL,
            write: Formats {
                w3c: true,
                ..Formats::default()
            },
        }
    }
}

/// What a request came with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Incoming {
    pub ids: Option<(TraceId, SpanId)>,
    /// `None`: the sender has not decided.
    pub sampled: Option<bool>,
    pub random: bool,
    /// The forms it came in, whether or not they could be read.
    pub forms: Formats,
}

/// Reads the headers of a request.
pub(super) fn extract(headers: &HeaderMap, read: Formats) -> Incoming {
    let mut incoming = Incoming::default();
    let mut take = |said: b3::Said, random| {
        if incoming.ids.is_none() && (said.ids.is_some() || incoming.sampled.is_none()) {
            (incoming.ids, incoming.sampled) = (said.ids, said.sampled);
            incoming.random = random;
        }
    };
    let mut forms = Formats::default();
    if read.w3c {
        let mut lines = headers.get_all(&TRACEPARENT).iter();
        let line = lines.next();
        forms.w3c = line.is_some();
        // Twice is as good as not at all (W3C trace context 3.2.2: it is one header).
        let only = line.filter(|_| lines.next().is_none());
        if let Some(context) = only.and_then(|line| w3c::parse(line.as_bytes())) {
            let said = b3::Said {
                ids: Some((context.trace, context.span)),
                sampled: Some(context.sampled),
            };
            take(said, context.random);
        }
    }
    if read.b3
        && let Some(line) = headers.get(&b3::B3)
    {
        forms.b3 = true;
        if let Some(said) = b3::parse(line.as_bytes()) {
            take(said, false);
        }
    }
    if read.b3_several {
        let several = [&b3::TRACE_ID, &b3::SAMPLED, &b3::FLAGS];
        forms.b3_several = several.iter().any(|name| headers.contains_key(*name));
        if forms.b3_several
            && let Some(said) = b3::parse_several(headers)
        {
            take(said, false);
        }
    }
    Incoming { forms, ..incoming }
}

/// The trace id of a request, whatever form it came in.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<TraceId> {
    Some(extract(headers, Formats::ALL).ids?.0)
}

/// `tracestate`, for a span: of one line, and not too long.
pub(super) fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(&TRACESTATE).iter();
    let line = lines.next().filter(|line| line.len() <= STATE_BYTES_MAX)?;
    lines.next().is_none().then(|| line.clone())
}

/// How the next hop is to be told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outgoing {
    forms: Formats,
    /// What vendors said of another trace is not for this one.
    drop_state: bool,
}

impl Outgoing {
    pub(super) fn new(propagation: &Propagation, incoming: &Incoming) -> Self {
        Self {
            forms: propagation.write.and(incoming.forms),
            drop_state: incoming.ids.is_none(),
        }
    }

    /// Writes the context, in place of what is there.
    pub(super) fn inject(self, context: &SpanContext, headers: &mut impl Headers) {
        if self.drop_state && headers.get(&TRACESTATE).is_some() {
            headers.remove(&TRACESTATE);
        }
        if self.forms.w3c
            && let Some(value) = w3c::format(context)
        {
            headers.set_known(TRACEPARENT_NAME, value);
        }
        if self.forms.b3
            && let Some(value) = b3::format(context)
        {
            headers.set_known(b3::B3_NAME, value);
        }
        if self.forms.b3_several
            && let Some(several) = b3::format_several(context)
        {
            for (name, value) in several {
                headers.set_known(name, value);
            }
            // The parent's parent is not known, and what was said of another span is wrong.
            headers.remove(&b3::PARENT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const B3: &str = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0";

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter();
        lines
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn the_first_form_with_a_trace_counts_and_all_that_came_are_answered() {
        let incoming = extract(&headers(&[("traceparent", W3C), ("b3", B3)]), Formats::ALL);
        assert_eq!(
            incoming.ids.unwrap().0.to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(incoming.sampled, Some(true));
        assert!(incoming.forms.w3c && incoming.forms.b3 && !incoming.forms.b3_several);
    }

    #[test]
    fn an_invalid_traceparent_gives_way_to_b3() {
        let incoming = extract(
            &headers(&[("traceparent", "00-x"), ("b3", B3)]),
            Formats::ALL,
        );
        assert_eq!(incoming.ids.unwrap().1.to_string(), "e457b5a2e4d86bd1");
        assert_eq!(incoming.sampled, Some(false));
        assert!(incoming.forms.w3c, "it is to be overwritten");
    }

    #[test]
    fn two_traceparents_are_none() {
        let mut twice = headers(&[("traceparent", W3C)]);
        twice.append(TRACEPARENT, HeaderValue::from_static(W3C));
        assert_eq!(extract(&twice, Formats::ALL).ids, None);
    }

    #[test]
    fn a_decision_without_a_trace_holds_unless_another_form_has_a_trace() {
        let denied = headers(&[("b3", "0")]);
        let incoming = extract(&denied, Formats::ALL);
        assert_eq!((incoming.ids, incoming.sampled), (None, Some(false)));
        let both = headers(&[
            ("b3", "0"),
            ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
            ("x-b3-spanid", "e457b5a2e4d86bd1"),
            ("x-b3-sampled", "1"),
        ]);
        assert_eq!(extract(&both, Formats::ALL).sampled, Some(true));
    }

    #[test]
    fn what_is_not_to_be_read_is_not() {
        let only = Formats {
            b3: true,
            ..Formats::default()
        };
        let incoming = extract(&headers(&[("traceparent", W3C)]), only);
        assert_eq!(incoming, Incoming::default());
    }
}
