//! `traceparent` of the W3C trace context: read and written. `tracestate` is told on as it is.

use http::HeaderValue;

use super::context::{SpanContext, SpanId, TraceId, hex};

/// `00-{trace}-{span}-{flags}`.
const LENGTH: usize = 55;
const SAMPLED: u128 = 1;
const RANDOM: u128 = 2;

/// What the header says. `None` for one that is not valid: the trace is begun anew then.
pub(super) fn parse(header: &[u8]) -> Option<SpanContext> {
    let (fixed, rest) = header.split_at_checked(LENGTH)?;
    let mut fields = fixed.split(|b| *b == b'-');
    let mut field = |length| fields.next().filter(|field| field.len() == length);
    let version = hex(field(2)?)?;
    let trace = TraceId::new(hex(field(32)?)?)?;
    let span = SpanId::new(u64::try_from(hex(field(16)?)?).ok()?)?;
    let flags = hex(field(2)?)?;
    // A later version may have more fields; the first one has none, and there is no version 255.
    let known = match version {
        0 => rest.is_empty(),
        255 => false,
        _ => matches!(rest.first(), None | Some(b'-')),
    };
    known.then_some(SpanContext {
        trace,
        span,
        sampled: flags & SAMPLED != 0,
        random: flags & RANDOM != 0,
    })
}

/// The header for the next hop.
pub(super) fn format(context: &SpanContext) -> Option<HeaderValue> {
    let flags = u8::from(context.sampled) | u8::from(context.random) << 1;
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    text[3..35].copy_from_slice(&context.trace.digits());
    text[36..52].copy_from_slice(&context.span.digits());
    text[54] = b'0' + flags;
    HeaderValue::from_bytes(&text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_header_is_read_and_written_as_it_was() {
        let context = parse(VALID.as_bytes()).unwrap();
        assert_eq!(
            context.trace.to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(context.span.to_string(), "00f067aa0ba902b7");
        assert!(context.sampled && !context.random);
        assert_eq!(format(&context).unwrap(), VALID);
    }

    #[test]
    fn a_later_version_may_have_more_fields_and_the_first_one_may_not() {
        let later = VALID.replacen("00", "cc", 1);
        assert!(parse(later.as_bytes()).is_some());
        assert!(parse(format!("{later}-what-follows").as_bytes()).is_some());
        assert!(parse(format!("{later}.what-follows").as_bytes()).is_none());
        assert!(parse(format!("{VALID}-what-follows").as_bytes()).is_none());
    }

    #[test]
    fn what_the_standard_forbids_is_not_read() {
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1+",
        ] {
            assert!(parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1_u128.., span in 1_u64.., sampled: bool, random: bool) {
            let (trace, span) = (TraceId::new(trace).unwrap(), SpanId::new(span).unwrap());
            let context = SpanContext { trace, span, sampled, random };
            let header = format(&context).unwrap();
            prop_assert_eq!(parse(header.as_bytes()), Some(context));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
        }
    }
}
