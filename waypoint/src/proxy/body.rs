//! Reads the first part of a request's body before the request is decided, for an authorization service.
//! The engine sends it on: from its own buffer as long as that holds it, else [`replay`] puts it in front
//! of what comes after.

use bytes::{Bytes, BytesMut};
use cairn_filters::outcome::Outcome;
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora_proxy::Session;

use super::context::RequestContext;
use crate::external::{CheckedBody, Place};
use crate::limits::EXT_AUTHZ_BODY_TIMEOUT;

/// What the engine keeps of a body to be sent again, and the most that it reads at once of HTTP/1.1.
const ENGINE_BUFFER_BYTES: usize = 64 * 1024;

/// Reads until there are more than `max_bytes`, or no more; goes on after what was read before.
///
/// # Errors
/// The answer for a request whose body can not be read, and why.
pub(super) async fn read(
    session: &mut Session,
    before: Option<CheckedBody>,
    max_bytes: usize,
) -> Result<CheckedBody, (Outcome, &'static str)> {
    let whole = before.as_ref().is_some_and(|before| !before.partial);
    let enough = |before: &CheckedBody| whole || before.bytes.len() > max_bytes;
    let before = match before {
        Some(before) if enough(&before) => return Ok(before),
        before => before.map(|before| before.bytes),
    };
    let reading = read_up_to(session, before.unwrap_or_default(), max_bytes);
    let read = tokio::time::timeout(EXT_AUTHZ_BODY_TIMEOUT, reading);
    match read.await {
        Ok(read) => read,
        Err(_) => Err((Outcome::BodyTooSlow, "the body was too long in coming")),
    }
}

async fn read_up_to(
    session: &mut Session,
    before: Bytes,
    max_bytes: usize,
) -> Result<CheckedBody, (Outcome, &'static str)> {
    if session.is_body_empty() {
        return Ok(CheckedBody::default());
    }
    let broken = |_| (Outcome::ClientGone, "the body broke off");
    if session.req_header_mut().remove_header(&EXPECT).is_some() {
        session.write_continue_response().await.map_err(broken)?;
    }
    session.enable_retry_buffering();
    let mut bytes = BytesMut::from(before);
    while bytes.len() <= max_bytes && !ends_beyond_buffer(session, bytes.len()) {
        match session.read_request_body().await.map_err(broken)? {
            Some(piece) => bytes.extend_from_slice(&piece),
            None => break,
        }
        if session.is_body_done() {
            break;
        }
    }
    let partial = !session.is_body_done();
    if !partial && session.retry_buffer_truncated() {
        // The engine would send nothing of it on.
        return Err((
            Outcome::BodyTooLarge,
            "the body ends beyond what can be kept of it",
        ));
    }
    Ok(CheckedBody {
        bytes: bytes.freeze(),
        partial,
    })
}

/// Whether the next piece could be the last one of a body that is too large for the engine's buffer: the
/// engine then has nothing left to read, and so would never ask for what was read.
fn ends_beyond_buffer(session: &Session, read: usize) -> bool {
    let length = session.req_header().headers.get(CONTENT_LENGTH);
    let length = length.and_then(|l| l.to_str().ok()?.parse::<usize>().ok());
    let is_near = |length: usize| read > 0 && read + ENGINE_BUFFER_BYTES >= length;
    length.is_some_and(|length| length > ENGINE_BUFFER_BYTES && is_near(length))
}

/// What was read, until it is sent on.
pub struct KeptBody {
    bytes: Bytes,
    _place: Option<Place>,
}

/// What was read, if the engine's buffer could not hold it.
pub(super) fn kept(
    session: &Session,
    read: Option<CheckedBody>,
    place: Option<Place>,
) -> Option<KeptBody> {
    let read = read.filter(|_| session.retry_buffer_truncated());
    read.map(|read| KeptBody {
        bytes: read.bytes,
        _place: place,
    })
}

/// Puts what was read in front of what comes now.
pub(super) fn replay(body: &mut Option<Bytes>, ctx: &mut RequestContext) {
    let Some(KeptBody {
        bytes: read,
        _place,
    }) = ctx.body_read.take()
    else {
        return;
    };
    let now = body.take().unwrap_or_default();
    let mut whole = BytesMut::with_capacity(read.len() + now.len());
    whole.extend_from_slice(&read);
    whole.extend_from_slice(&now);
    *body = Some(whole.freeze());
}
