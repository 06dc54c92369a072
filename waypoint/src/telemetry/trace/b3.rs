//! Zipkin's B3 headers, as one (`b3`) and as several (`x-b3-*`): read and written.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::context::{SpanContext, SpanId, TraceId, hex};

pub(super) const B3_NAME: &str = "b3";
pub(super) const B3: HeaderName = HeaderName::from_static(B3_NAME);
const TRACE_ID_NAME: &str = "x-b3-traceid";
pub(super) const TRACE_ID: HeaderName = HeaderName::from_static(TRACE_ID_NAME);
const SPAN_ID_NAME: &str = "x-b3-spanid";
pub(super) const SPAN_ID: HeaderName = HeaderName::from_static(SPAN_ID_NAME);
const SAMPLED_NAME: &str = "x-b3-sampled";
pub(super) const SAMPLED: HeaderName = HeaderName::from_static(SAMPLED_NAME);
pub(super) const PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
pub(super) const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// What a client says. Each part may be left out: a decision without ids is for the trace that begins
/// here, ids without a decision leave it to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub ids: Option<(TraceId, SpanId)>,
    pub sampled: Option<bool>,
}

/// `{trace}-{span}-{decision}-{parent}`, the last two optional, or a decision alone.
pub(super) fn parse(header: &[u8]) -> Option<Said> {
    if let Some(sampled) = decision(header) {
        return Some(Said {
            ids: None,
            sampled: Some(sampled),
        });
    }
    let mut fields = header.split(|b| *b == b'-');
    let ids = (trace_id(fields.next()?)?, span_id(fields.next()?)?);
    let sampled = match fields.next() {
        Some(field) => Some(decision(field)?),
        None => None,
    };
    if let Some(parent) = fields.next() {
        span_id(parent)?;
    }
    let over = fields.next().is_none();
    over.then_some(Said {
        ids: Some(ids),
        sampled,
    })
}

/// The same in headers of their own.
pub(super) fn parse_several(headers: &HeaderMap) -> Option<Said> {
    let text = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    let debug = text(&FLAGS).is_some_and(|flags| flags == b"1");
    let sampled = match text(&SAMPLED).and_then(decision) {
        _ if debug => Some(true),
        said => said,
    };
    let ids = match (text(&TRACE_ID), text(&SPAN_ID)) {
        (Some(trace), Some(span)) => trace_id(trace).zip(span_id(span)),
        _ => None,
    };
    (ids.is_some() || sampled.is_some()).then_some(Said { ids, sampled })
}

/// Early senders wrote words.
fn decision(field: &[u8]) -> Option<bool> {
    match field {
        b"1" | b"d" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

/// 32 digits, or the 16 of old senders.
fn trace_id(field: &[u8]) -> Option<TraceId> {
    let known = matches!(field.len(), 16 | 32);
    TraceId::new(hex(field).filter(|_| known)?)
}

fn span_id(field: &[u8]) -> Option<SpanId> {
    let number = hex(field).filter(|_| field.len() == 16)?;
    SpanId::new(u64::try_from(number).ok()?)
}

/// The one header for the next hop.
pub(super) fn format(context: &SpanContext) -> Option<HeaderValue> {
    let mut text = *b"00000000000000000000000000000000-0000000000000000-0";
    text[..32].copy_from_slice(&context.trace.digits());
    text[33..49].copy_from_slice(&context.span.digits());
    text[50] = b'0' + u8::from(context.sampled);
    HeaderValue::from_bytes(&text).ok()
}

/// The headers for the next hop, each by its name.
pub(super) fn format_several(context: &SpanContext) -> Option<[(&'static str, HeaderValue); 3]> {
    let sampled = HeaderValue::from_static(if context.sampled { "1" } else { "0" });
    let of = |digits: &[u8]| HeaderValue::from_bytes(digits).ok();
    Some([
        (TRACE_ID_NAME, of(&context.trace.digits())?),
        (SPAN_ID_NAME, of(&context.span.digits())?),
        (SAMPLED_NAME, sampled),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    fn ids() -> Option<(TraceId, SpanId)> {
        trace_id(TRACE.as_bytes()).zip(span_id(SPAN.as_bytes()))
    }

    #[test]
    fn each_part_may_be_left_out() {
        let said = |ids, sampled| Some(Said { ids, sampled });
        let of = |text: &str| parse(text.as_bytes());
        assert_eq!(
            of(&format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90")),
            said(ids(), Some(true))
        );
        assert_eq!(of(&format!("{TRACE}-{SPAN}-d")), said(ids(), Some(true)));
        assert_eq!(of(&format!("{TRACE}-{SPAN}")), said(ids(), None));
        assert_eq!(of("0"), said(None, Some(false)));
    }

    #[test]
    fn half_a_context_is_none() {
        for wrong in [
            "",
            "x",
            TRACE,
            &format!("{TRACE}-"),
            &format!("{TRACE}-{SPAN}-2"),
            &format!("{TRACE}-{SPAN}-1-x"),
            &format!("{TRACE}-{SPAN}-1-{SPAN}-"),
        ] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn an_old_trace_id_of_64_bits_is_told_on_with_128() {
        let said = parse(format!("64fe8b2a57d3eff7-{SPAN}-1").as_bytes()).unwrap();
        let (trace, span) = said.ids.unwrap();
        let context = SpanContext {
            trace,
            span,
            sampled: true,
            random: false,
        };
        let header = format(&context).unwrap();
        assert_eq!(header, format!("000000000000000064fe8b2a57d3eff7-{SPAN}-1"));
    }

    #[test]
    fn several_headers_say_the_same_and_debug_means_sampled() {
        let mut headers = HeaderMap::new();
        assert_eq!(parse_several(&headers), None);
        headers.insert(TRACE_ID, HeaderValue::from_static(TRACE));
        headers.insert(SPAN_ID, HeaderValue::from_static(SPAN));
        assert_eq!(
            parse_several(&headers),
            Some(Said {
                ids: ids(),
                sampled: None
            })
        );
        headers.insert(SAMPLED, HeaderValue::from_static("0"));
        assert_eq!(parse_several(&headers).unwrap().sampled, Some(false));
        headers.insert(FLAGS, HeaderValue::from_static("1"));
        assert_eq!(parse_several(&headers).unwrap().sampled, Some(true));
    }
}
